from __future__ import annotations

import pytest

from methods.data.batch import Rollout
from methods.data.view import equal_pairs, order, permutation, view


def rows(*marks: str) -> list[Rollout]:
    """One problem a word, one rollout a letter: r right, w wrong; no two of a problem are equal."""
    return [
        Rollout([3], [4 + i, 1], float(mark == "r"), group)
        for group, word in enumerate(marks)
        for i, mark in enumerate(word)
    ]


def test_views() -> None:
    """Rows 0-3 wrwr, 4-5 rr, 6-7 ww, 8-10 rww."""
    rollouts = rows("wrwr", "rr", "ww", "rww")
    assert view("sft", rollouts) == [(i,) for i in range(11)]
    assert view("rft", rollouts) == [(1,), (3,), (4,), (5,), (8,)]
    assert view("dpo", rollouts) == [(1, 0), (8, 9)]
    assert view("dpo", rollouts, "all") == [(1, 0), (1, 2), (3, 0), (3, 2), (8, 9), (8, 10)]


@pytest.mark.parametrize(
    ("method", "rollouts", "line"),
    [
        ("rft", rows("ww"), "rft: no rollout has reward 1"),
        ("dpo", rows("rr", "ww"), "dpo: no problem has both a right and a wrong rollout"),
        ("sft", [], "sft: there are no rollouts"),
        ("rft", [Rollout([3], [4], 0.5, 0)], "row 0: reward 0.5 is neither 0 nor 1, which rft needs"),
        ("sft", [Rollout([3], [], 1.0, 0)], "row 0: prompt and completion need at least one token each"),
        ("sft", [Rollout([], [4], 1.0, 0)], "row 0: prompt and completion need at least one token each"),
    ],
)
def test_empty_or_bad(method: str, rollouts: list[Rollout], line: str) -> None:
    with pytest.raises(ValueError) as caught:
        view(method, rollouts)
    assert str(caught.value) == line


def test_unknown_pair_rule() -> None:
    with pytest.raises(ValueError, match="unknown pair rule 'best'; known rules: one, all, best_worst, same_teacher"):
        view("dpo", rows("rw"), "best")


def test_pairs_within_a_teacher() -> None:
    """Teachers a and b: of the first problem only b has both, of the second both have."""
    marks = [(0, "a", 1), (0, "b", 0), (0, "b", 1), (1, "b", 0), (1, "a", 0), (1, "b", 1), (1, "a", 1), (1, "a", 0)]
    rollouts = [Rollout([3], [4 + i], float(r), group, teacher) for i, (group, teacher, r) in enumerate(marks)]
    assert view("dpo", rollouts, "same_teacher") == [(2, 1), (5, 3), (6, 4)]
    assert view("dpo", rollouts, "one") == [(0, 1), (5, 3)]
    with pytest.raises(ValueError, match="no teacher has both a right and a wrong rollout of one problem"):
        view("dpo", rollouts[:2], "same_teacher")


def test_the_best_with_the_worst() -> None:
    """Real rewards; the first of equals each; a problem whose rewards are all alike has no pair."""
    rewards = [(1, 0.5), (0, 0.25), (0, -2.0), (1, 3.0), (0, 0.25), (1, 3.0), (0, -2.0), (2, 0.5), (2, 0.5)]
    rollouts = [Rollout([3], [4 + i], reward, group) for i, (group, reward) in enumerate(rewards)]
    assert view("dpo", rollouts, "best_worst") == [(1, 2), (3, 0)]
    for rule in ("one", "all", "same_teacher"):
        with pytest.raises(ValueError, match=r"row 0: reward 0\.5 is neither 0 nor 1, which dpo needs"):
            view("dpo", rollouts, rule)
    with pytest.raises(ValueError, match=r"row 0: reward 0\.5 is neither 0 nor 1, which rft needs"):
        view("rft", rollouts, "best_worst")
    with pytest.raises(ValueError, match="dpo: no problem has rollouts of unlike reward"):
        view("dpo", rollouts[-2:], "best_worst")


def test_with_rewards_of_0_and_1_the_best_and_the_worst_are_the_first_right_and_the_first_wrong() -> None:
    rollouts = rows("wrwr", "rr", "ww", "rww", "wwr")
    assert view("dpo", rollouts, "best_worst") == view("dpo", rollouts, "one")


@pytest.mark.parametrize("rule", ["one", "all", "best_worst", "same_teacher"])
def test_a_draw_of_pairs_is_a_part_of_them_in_their_order(rule: str) -> None:
    rollouts = rows(*["wrwr", "rww"] * 10)
    whole = view("dpo", rollouts, rule)
    some = view("dpo", rollouts, rule, pairs=7)
    assert len(some) == 7 and [pair for pair in whole if pair in some] == some


def test_one_global_order_filtered() -> None:
    """SFT's stream of a pass is the permutation; RFT and DPO are its rows in the same order."""
    rollouts = rows("wrwr", "rr", "ww", "rww", "rw")
    n = len(rollouts)
    whole = permutation(n, 0, 7)
    assert [u[0] for u in order(n, view("sft", rollouts), n, 7)] == whole
    right = view("rft", rollouts)
    assert [u[0] for u in order(n, right, len(right), 7)] == [r for r in whole if (r,) in right]
    pairs = view("dpo", rollouts, "all")
    stream = order(n, pairs, len(pairs), 7)
    assert [u[0] for u in stream] == [r for r in whole for u in pairs if u[0] == r]
    assert sorted(stream) == sorted(pairs)


def test_passes_follow_without_a_gap() -> None:
    units = view("sft", rows("rwr"))
    stream = order(3, units, 8, 1)
    assert stream[:3] == [(r,) for r in permutation(3, 0, 1)]
    assert stream[3:6] == [(r,) for r in permutation(3, 1, 1)]
    assert stream[6:] == [(r,) for r in permutation(3, 2, 1)][:2]


def test_seed_and_pass_change_the_order() -> None:
    assert permutation(50, 0, 1) == permutation(50, 0, 1)
    assert permutation(50, 0, 1) != permutation(50, 1, 1)
    assert permutation(50, 0, 1) != permutation(50, 0, 2)
    assert sorted(permutation(50, 3, 9)) == list(range(50))


def test_rewards_other_than_0_and_1_where_the_objective_is_defined_for_them() -> None:
    rollouts = [Rollout([3], [4], reward, 0) for reward in (0.5, -1.0, 2.0)]
    for method in ("sft", "dft", "rift", "offline_grpo"):
        assert len(view(method, rollouts)) == 3
    for method, settings in (("rft", {}), ("dpo", {}), ("rift", {"form": "source"})):
        with pytest.raises(ValueError, match=f"row 0: reward 0.5 is neither 0 nor 1, which {method} needs"):
            view(method, rollouts, settings=settings)


def test_rft_drops_duplicates_where_it_is_asked_to() -> None:
    """Rows 0, 2 and 3 are right and equal; row 3 is of another problem; row 1 is wrong, row 4 another text."""
    texts = [([7, 1], 1.0, 0), ([7, 1], 0.0, 0), ([7, 1], 1.0, 0), ([7, 1], 1.0, 1), ([8, 1], 1.0, 0)]
    rollouts = [Rollout([3], ids, reward, group) for ids, reward, group in texts]
    assert view("rft", rollouts) == [(0,), (2,), (3,), (4,)]
    assert view("rft", rollouts, settings={"duplicates": "drop"}) == [(0,), (3,), (4,)]


@pytest.mark.parametrize("rule", ["one", "all", "best_worst", "same_teacher"])
def test_pairs_that_are_equal_in_tokens_are_left_out_and_counted(rule: str) -> None:
    """Of problem 0 the first right and the first wrong rollout were cut to the same tokens; problem 1 has a pair."""
    texts = [([7, 8], 1.0, 0), ((7, 8), 0.0, 0), ([7, 9], 1.0, 1), ([7, 8], 0.0, 1), ([5, 8], 0.0, 1)]
    rollouts = [Rollout([3], ids, reward, group) for ids, reward, group in texts]
    assert view("dpo", rollouts, rule) == [(2, 3), (2, 4)][: 2 if rule == "all" else 1]
    assert equal_pairs("dpo", rollouts, rule) == 1 and equal_pairs("sft", rollouts, rule) == 0
    with pytest.raises(ValueError) as caught:
        view("dpo", rollouts[:2], rule)
    line = "dpo: in all 1 pairs right and wrong are the same tokens: raise prompt.max_answer_tokens"
    assert str(caught.value) == line


def test_a_pair_of_two_prompts_is_no_equal_one() -> None:
    """Where tokens go over from the prompt into the completion, or two prompts ask one thing, there is a gradient."""
    for prompts in (([3, 4], [5]), ([3], [4, 5])), (([3], [5]), ([4], [5])):
        rollouts = [Rollout(*ids, reward, 0) for ids, reward in zip(prompts, (1.0, 0.0), strict=True)]
        assert view("dpo", rollouts) == [(0, 1)] and equal_pairs("dpo", rollouts, "one") == 0


def test_on_paired_examples_a_method_sees_the_rows_of_dpos_pairs_alone() -> None:
    """Rows 0-3 wrwr, 4-5 rr, 6-7 ww, 8-10 rww: DPO's pairs by rule one are 1, 0 and 8, 9."""
    rollouts = rows("wrwr", "rr", "ww", "rww")
    for method in ("sft", "dft", "rft"):
        assert view(method, rollouts, examples="paired") == [(1,), (8,)]
    for method in ("rift", "offline_grpo"):
        assert view(method, rollouts, examples="paired") == [(0,), (1,), (8,), (9,)]
    assert view("dpo", rollouts, examples="paired") == view("dpo", rollouts) == [(1, 0), (8, 9)]


@pytest.mark.parametrize("rule", ["one", "all", "best_worst", "same_teacher"])
def test_paired_examples_follow_the_rule_and_the_draw_of_pairs(rule: str) -> None:
    rollouts = rows(*["wrwr", "rww", "rr"] * 8)
    pairs = view("dpo", rollouts, rule, pairs=7)
    assert view("sft", rollouts, rule, 7, examples="paired") == sorted({(chosen,) for chosen, _ in pairs})
    assert view("rift", rollouts, rule, 7, examples="paired") == sorted({(row,) for pair in pairs for row in pair})
    stream, of_pairs = (
        order(len(rollouts), view(m, rollouts, rule, 7, examples="paired"), 7, 3) for m in ("sft", "dpo")
    )
    if rule != "all":  # each chosen row is in one pair: SFT sees it when DPO does
        assert [row for (row,) in stream] == [chosen for chosen, _ in of_pairs]


def test_real_rewards_give_paired_examples_to_a_blind_method_by_their_pair() -> None:
    rollouts = [Rollout([3], [4 + i], reward, 0) for i, reward in enumerate((0.25, -2.0, 0.5))]
    assert view("sft", rollouts, "best_worst", examples="paired") == [(2,)]
    assert view("rift", rollouts, "best_worst", examples="paired") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("method", "marks", "line"),
    [
        ("sft", ("rr", "ww"), "sft: no problem has both a right and a wrong rollout"),
        ("rft", ("rr",), "rft: no problem has both a right and a wrong rollout"),
    ],
)
def test_without_a_pair_there_is_nothing_to_see(method: str, marks: tuple[str, ...], line: str) -> None:
    with pytest.raises(ValueError) as caught:
        view(method, rows(*marks), examples="paired")
    assert str(caught.value) == line
