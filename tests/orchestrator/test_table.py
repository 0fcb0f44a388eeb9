"""The frozen table: limits, the held-out share, the cut to whole groups, and its statistics by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.data.batch import Rollout
from orchestrator.rollouts.dataset import (
    chosen,
    distinct,
    fit,
    freeze,
    group_means,
    heldout_rollouts,
    joined,
    read_table,
    statistics_of,
    training_rollouts,
    write_table,
)

PROMPT = {"max_prompt_tokens": 3, "max_answer_tokens": 4, "overlong": "drop"}
SPEC = {"heldout": 0.25, "rows": None, "seed": 0}


def row(problem: str, completion: str = "text", reward: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "problem_id": problem, "problem": f"{problem}?", "answer": "1", "completion": completion, "teacher": "t",
        "reward": reward, "prompt_ids": [5, 6], "completion_ids": [7, 8, 1], "ended": True, **more,
    }  # fmt: skip


CASES = [
    row("fits"),
    row("fits just", prompt_ids=[1, 2, 3], completion_ids=[4, 5, 6, 1]),
    row("empty", completion=" \n"),
    row("long prompt", prompt_ids=[1, 2, 3, 4]),
    row("long answer", completion_ids=[4, 5, 6, 7, 1]),
    row("cut off", completion_ids=[4, 5], ended=False),
]


def test_rows_outside_the_limits_are_dropped_and_counted() -> None:
    kept, counts = fit(CASES, PROMPT)
    assert [r["problem_id"] for r in kept] == ["fits", "fits just"]
    assert counts == {"empty": 1, "prompt too long": 1, "answer too long": 2}


def test_long_answers_are_cut_where_the_study_says_so() -> None:
    kept, counts = fit(CASES, PROMPT | {"overlong": "truncate"})
    assert {r["problem_id"]: r["completion_ids"] for r in kept} == {
        "fits": [7, 8, 1], "fits just": [4, 5, 6, 1], "long answer": [4, 5, 6, 7], "cut off": [4, 5],
    }  # fmt: skip
    assert counts == {"empty": 1, "prompt too long": 1, "answer cut": 2}
    assert len(CASES[4]["completion_ids"]) == 5  # what was given stays as it was


def test_a_row_keeps_within_the_bases_positions() -> None:
    row_of = row("p", prompt_ids=[1, 2], completion_ids=[3, 4, 5, 1])
    assert fit([row_of], PROMPT, 6)[1] == {} and fit([row_of], PROMPT, None)[1] == {}
    assert fit([row_of], PROMPT, 5) == ([], {"longer than the base's 5 positions": 1})
    (cut,), counts = fit([row_of], PROMPT | {"overlong": "truncate"}, 5)
    assert cut["completion_ids"] == [3, 4, 5] and cut["cut"] and counts == {"answer cut": 1}
    assert fit([row_of], PROMPT | {"overlong": "truncate"}, 2) == ([], {"longer than the base's 2 positions": 1})


def test_a_problems_equal_completions_beyond_the_first() -> None:
    rows = [row("a", "x"), row("b", "x"), row("a", " x\n", 0.0), row("a", "X"), row("b", "y"), row("b", "x")]
    assert distinct(rows) == [rows[0], rows[1], rows[3], rows[4]]


def test_problems_that_are_the_same_but_for_case_and_space_are_one() -> None:
    asked = [
        ("a", "What is 1 + 1?"),
        ("b", "what is  1 + 1 ?\n"),
        ("c", "?"),
        ("a", "What is 1 + 1?"),
        ("a", "WHAT IS 1+1?"),
    ]
    rows = [row(name) | {"problem": text} for name, text in asked]
    found, count = joined(rows)
    assert [r["problem_id"] for r in found] == ["a", "a", "c", "a", "a"] and count == 2
    assert {r["problem"] for r in found} == {"What is 1 + 1?", "?"}
    for seed in range(9):
        table = freeze(found, SPEC | {"heldout": 0.5, "seed": seed})
        splits = {(r["group"], r["split"]) for r in table}
        assert len(splits) == 2, "a problem is in one split alone"
    assert joined(found) == (found, 0)


def test_problems_that_space_alone_tells_apart_are_two_in_one_split() -> None:
    golds = {"What is 2 3/4 + 1?": "15/4", "What is 23/4 + 1?": "27/4", "What is 23/4  + 1?": "6.75"}
    rows = [row(name) | {"problem": p, "answer": a} for name, (p, a) in zip("abc", golds.items(), strict=True)]
    found, count = joined([*rows, row("d") | {"problem": "Another?", "answer": "1"}])
    assert [r["problem_id"] for r in found] == ["a", "b", "b", "d"] and count == 1
    assert [r["problem"] for r in found[:2]] == list(golds)[:2]
    for seed in range(9):
        table = freeze(found, SPEC | {"heldout": 0.5, "seed": seed})
        assert len({r["split"] for r in table if r["problem_id"] in "ab"}) == 1


def test_a_groups_mean_is_that_of_all_its_rollouts() -> None:
    rows = [row("a", reward=r, completion_ids=[4] * n) for r, n in ((1.0, 4), (0.0, 5), (0.0, 6), (0.0, 7))]
    means = group_means(rows)
    kept, _ = fit(rows, PROMPT)
    (only,) = freeze(kept, SPEC, means)
    assert means == {"a": 0.25} and only["group_mean"] == 0.25
    assert freeze(kept, SPEC)[0]["group_mean"] == 1.0


def groups(sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of several problems, not in blocks: first all first rollouts, then all second ones."""
    return [row(p, f"{p}-{k}") for k in range(max(sizes.values())) for p in sizes if k < sizes[p]]


def test_a_share_of_the_problems_is_held_out_whole() -> None:
    rows = groups({f"p{i}": 3 for i in range(20)})
    table = freeze(rows, SPEC)
    splits = {p: {r["split"] for r in table if r["problem_id"] == p} for p in (f"p{i}" for i in range(20))}
    assert all(len(found) == 1 for found in splits.values())
    assert sum(found == {"heldout"} for found in splits.values()) == 5
    assert freeze(rows, SPEC) == table
    held = {
        frozenset(r["problem_id"] for r in freeze(rows, SPEC | {"seed": s}) if r["split"] == "heldout")
        for s in range(5)
    }
    assert len(held) > 1


def test_rows_are_numbered_in_order_and_groups_by_first_appearance() -> None:
    rows = groups({"b": 2, "a": 1, "c": 2})
    table = freeze(rows, SPEC | {"heldout": 0.0})
    assert [r["row"] for r in table] == [0, 1, 2, 3, 4]
    assert [r["completion"] for r in table] == ["b-0", "a-0", "c-0", "b-1", "c-1"]
    assert [r["group"] for r in table] == [0, 1, 2, 0, 2]
    assert "ended" not in table[0]


def test_the_row_limit_takes_whole_groups_of_the_training_rows() -> None:
    sizes = {f"p{i}": 4 for i in range(20)}
    table = freeze(groups(sizes), SPEC | {"rows": 30})
    train = Counter(r["problem_id"] for r in table if r["split"] == "train")
    assert set(train.values()) == {4} and sum(train.values()) == 28  # 30 is 7 groups of 4
    assert sum(r["split"] == "heldout" for r in table) == 20  # which the limit leaves alone
    whole = freeze(groups(sizes), SPEC)
    assert {r["problem_id"] for r in table if r["split"] == "heldout"} == {
        r["problem_id"] for r in whole if r["split"] == "heldout"
    }


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    rows = groups({f"p{i}": 4 for i in range(8)})
    assert freeze(rows, SPEC | {"rows": 24}) == freeze(rows, SPEC)


def test_statistics_by_hand() -> None:
    planned = [("right", [1, 1]), ("wrong", [0, 0]), ("mixed", [1, 0]), ("mixed too", [0, 1])]
    rows = [
        row(p, completion=f"text {k}", reward=float(r), teacher=f"teacher {k}", completion_ids=[1] * (1 + 2 * i + k))
        for i, (p, rewards) in enumerate(planned)
        for k, r in enumerate(rewards)
    ]
    rows.append(row("right", completion=" text 0\n", teacher="teacher 0", completion_ids=[1] * 9))
    rows.append(row("wrong", completion="text 0", reward=0.0, teacher="teacher 0", completion_ids=[1] * 10))
    table = [r | {"split": "heldout" if r["problem_id"] == "mixed" else "train"} for r in rows]
    stats = statistics_of(table)
    assert (stats["rows"], stats["problems"], stats["train_rows"], stats["heldout_rows"]) == (10, 4, 8, 2)
    assert stats["share_right"] == pytest.approx(5 / 10)
    assert stats["groups"] == {"mixed": 2, "all_right": 1, "all_wrong": 1}
    assert stats["duplicates"] == 1  # the right text that stands twice; wrong ones do not count
    assert stats["length"]["median"] == 5.5 and stats["length"]["max"] == 10
    # right: 1 and 2 of "right", 5 of "mixed", 8 of "mixed too", and the 9; wrong: 3, 4, 6, 7 and the 10
    assert stats["length"]["right"] == {"median": 5, "p95": 9, "max": 9}
    assert stats["length"]["wrong"] == {"median": 6, "p95": 10, "max": 10}
    assert stats["right_counts"] == [1, 2, 0, 1]  # none right of "wrong", one of both mixed, three of "right"
    assert stats["teachers"] == [
        {"name": "teacher 0", "rows": 6, "share_right": pytest.approx(3 / 6)},
        {"name": "teacher 1", "rows": 4, "share_right": pytest.approx(2 / 4)},
    ]


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 100, 257])
def test_the_95th_percentile_lies_between_its_neighbours(n: int) -> None:
    lengths = np.random.default_rng(n).integers(1, 1000, n)
    stats = statistics_of([row("p", completion_ids=[0] * int(k)) | {"split": "train"} for k in lengths])
    low, high = (np.percentile(lengths, 95, method=m) for m in ("lower", "higher"))
    assert low <= stats["length"]["p95"] <= high


def test_the_table_comes_back_from_its_file(tmp_path: Path) -> None:
    table = freeze([r | {"reward": float(i % 2)} for i, r in enumerate(groups({f"p{i}": 2 for i in range(4)}))], SPEC)
    write_table(table, tmp_path)
    assert read_table(tmp_path) == table
    held = read_table(tmp_path, "heldout")
    assert held == [r for r in table if r["split"] == "heldout"] and len(held) == 2
    rollouts = training_rollouts(tmp_path)
    assert rollouts == [
        Rollout((5, 6), (7, 8, 1), r["reward"], r["group"], "t") for r in table if r["split"] == "train"
    ]
    assert {r.reward for r in rollouts} == {0.0, 1.0}
    means = [r["group_mean"] for r in table if r["split"] == "train"]
    assert [r.group_mean for r in rollouts] == means and len(set(means)) > 1
    assert [r.group for r in heldout_rollouts(tmp_path)] == [r["group"] for r in held]


def test_a_real_reward_is_right_above_0() -> None:
    rewards = [("a", 0.5), ("a", -0.2), ("b", 2.0), ("c", 0.0)]
    stats = statistics_of([row(p, reward=r, completion=str(r)) | {"split": "train"} for p, r in rewards])
    assert stats["share_right"] == 0.5 and stats["duplicates"] == 0 and stats["right_counts"] == [1, 2]
    assert stats["groups"] == {"mixed": 1, "all_right": 1, "all_wrong": 1}


def graded(problem: str, *rewards: float) -> list[dict[str, Any]]:
    return [row(problem, f"{problem} {i}", reward) for i, reward in enumerate(rewards)]


def test_which_rows_a_table_is_of_by_hand() -> None:
    rows = [*graded("mixed", 0, 0, 1, 1), *graded("right", 1, 1, 1), *graded("wrong", 0), *graded("late", 0, 0, 0, 1)]

    def names(**spec: Any) -> list[str]:
        return [r["completion"] for r in chosen(rows, SPEC | spec)]

    assert names() == names(groups="all", each=None) == [r["completion"] for r in rows]
    assert names(groups="mixed") == [r["completion"] for r in rows if r["problem_id"] in ("mixed", "late")]
    # a right one first, then a wrong one, in their own order
    assert names(each=1) == ["mixed 2", "right 0", "wrong 0", "late 3"]
    assert names(each=2) == ["mixed 0", "mixed 2", "right 0", "right 1", "wrong 0", "late 0", "late 3"]
    assert names(each=3) == ["mixed 0", "mixed 2", "mixed 3", "right 0", "right 1", "right 2", "wrong 0", "late 0",
                             "late 1", "late 3"]  # fmt: skip
    assert names(groups="mixed", each=2) == ["mixed 0", "mixed 2", "late 0", "late 3"]
    assert chosen(graded("right", 1, 1), SPEC | {"groups": "mixed"}) == []


def test_a_groups_mean_is_over_all_of_its_rollouts_whichever_rows_are_kept() -> None:
    rows = graded("late", 0, 0, 0, 1)
    frozen = freeze(rows, SPEC | {"heldout": 0, "each": 2}, group_means(rows))
    assert [(r["completion"], r["group_mean"]) for r in frozen] == [("late 0", 0.25), ("late 3", 0.25)]


def test_a_choice_of_rows_that_is_not_made_enters_no_key(make_study: Any) -> None:
    assert not {"groups", "each"} & make_study().rollouts.table.model_dump().keys()
    other = make_study("rollouts.table.groups=mixed", "rollouts.table.each=2").rollouts.table.model_dump()
    assert (other["groups"], other["each"]) == ("mixed", 2)
