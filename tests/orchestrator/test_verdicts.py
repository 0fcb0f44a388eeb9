"""Verdicts of several samples and parts, against sums by hand; what is incomplete is never half-counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from analysis.statistics.significance import mcnemar_exact, sign_flip
from execution.step import Step
from execution.store import write_json
from orchestrator.evaluation.verdicts import answers, evaluation, shares
from orchestrator.steps import STEP_KINDS
from orchestrator.steps.evaluate import CANARY, VERDICTS, part_name
from report.text_pages import PROBLEMS
from results.evaluation import Evaluation

GOLD = "7"
# Of each problem what the model answers, a word a sample; "-" where no answer is found.
SAMPLED = {
    "base": ["7 7 7 7", "7 8 8 9", "8 8 9 9", "- - 7 8"],
    "sft": ["7 7 7 7", "7 7 8 8", "7 9 9 9", "- - - -"],
}
ENGINE = {
    "kind": "transformers", "adapters": "lora", "precision": "float32", "max_model_len": 64, "batch_size": 8,
    "threads": 1, "seed": 0, "attention": "sdpa",
}  # fmt: skip
SAMPLING = {"top_p": 1.0, "max_tokens": 32, "seed": 0}

Made = tuple[dict[str, Step], dict[str, Path]]


def write(root: Path, said: Mapping[str, Sequence[str]], parts: int = 1, *, lose: Sequence[str] = ()) -> Made:
    """Steps and folders as a run leaves them, without the rows "problem/sample" in ``lose``."""
    samples = len(next(iter(said.values()))[0].split())
    problems = [
        {"id": f"q{i}", "problem": f"{i}?", "answer": GOLD, "stratum": None}
        for i in range(len(next(iter(said.values()))))
    ]
    steps = [Step(STEP_KINDS["problems"], "evaluation", {})]
    steps += [
        Step(STEP_KINDS["evaluate"],
            part_name(model, part, parts),
            {
                "part": part, "parts": parts, "shard": 5, "engine": ENGINE,
                "sampling": {"toy": SAMPLING | {"samples": samples, "temperature": 0.7 if samples > 1 else 0.0}},
            },
            role=model,
        )
        for model in said
        for part in range(parts)
    ]  # fmt: skip
    folders = {step.title: root / step.title for step in steps}
    for step in steps:
        folders[step.title].mkdir(parents=True)
        if step.kind.name == "problems":
            tasks = [{"task": "toy", "title": "Toy", "problems": problems}]
            write_json(folders[step.title] / "problems.json", {"tasks": tasks})
            continue
        rows = [
            {
                "task": "toy", "id": problems[i]["id"], "sample": k, "stratum": None, "answer": GOLD,
                "completion": f"{step.role} {i} {k}", "extracted": None if word == "-" else word,
                "vote": None if word == "-" else word, "correct": word == GOLD, "tokens": 10 * i + k,
                "finish": "length" if k == 3 else "stop",
            }
            for i in reversed(range(len(problems))[step.config["part"] :: parts])  # in whatever order they were written
            for k, word in reversed(list(enumerate(said[step.role][i].split())))
            if f"{i}/{k}" not in lose
        ]  # fmt: skip
        table = pyarrow.table({name: [row[name] for row in rows] for name in rows[0]})
        pyarrow.parquet.write_table(table, folders[step.title] / VERDICTS)
        check = {"name": "base", "max_difference": 0.0, "tolerance": 5e-4, "passed": True, "effect": 0.0}
        check |= {"told_apart": False}
        write_json(folders[step.title] / CANARY, [check, check | {"name": "zero"}, check | {"name": "adapter"}])
    return {step.title: step for step in steps}, folders


def told(done: Mapping[str, Step], folders: Mapping[str, Path]) -> dict[str, Any]:
    """The evaluation as ``results.json`` holds it."""
    found = evaluation(done, folders)
    assert found is not None
    return found.model_dump(mode="json", exclude_unset=True)


@pytest.mark.parametrize("parts", [1, 2])
def test_several_samples_by_hand(tmp_path: Path, parts: int) -> None:
    """base has 4, 1, 0, 1 right of 4; sft 4, 2, 1, 0."""
    (task,) = told(*write(tmp_path, SAMPLED, parts))["tasks"]
    base, sft = task["models"]
    assert (base["n"], base["samples"], base["correct"], base["accuracy"]) == (4, 4, 6, 6 / 16)
    assert base["pass_at"]["1"] == pytest.approx(6 / 16)
    assert base["pass_at"]["2"] == pytest.approx((1 + 3 / 6 + 0 + 3 / 6) / 4)  # C(3, 2) of C(4, 2) pairs miss the one
    assert base["pass_at"]["4"] == 3 / 4
    # Majorities: 7; 8; 8 and 9 tie and are wrong; 7 and 8 tie: a half.
    assert base["maj"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert sft["maj"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert (base["truncated"], base["not_found"], sft["not_found"]) == (4, 2, 4)
    lengths = sorted(10 * i + k for i in range(4) for k in range(4))
    assert (base["mean_tokens"], base["median_tokens"], base["p95_tokens"]) == (sum(lengths) / 16, 16.5, 33)
    assert 0 <= base["low"] < base["accuracy"] < base["high"] <= 1
    (pair,) = task["pairs"]
    assert (pair["a"], pair["b"], pair["test"]) == ("base", "sft", "sign flip")
    assert (pair["more_a"], pair["more_b"], pair["difference"]) == (1, 2, 1 / 16)
    assert pair["p"] == pair["p_holm"] == sign_flip([0, 1, 1, -1]) == 1.0
    assert pair["agreement"] == 1 - 3 / 16
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert (task["solved_by_all"], task["solved_by_none"]) == (2, 0)
    assert task["alone"] == [
        {"name": "base", "count": 1, "ids": ["q3"]}, {"name": "sft", "count": 1, "ids": ["q2"]},
    ]  # fmt: skip


def test_one_sample_is_mcnemars_test_and_both_ways_agree(tmp_path: Path) -> None:
    said = {"base": ["7"] * 9 + ["8"] * 11, "sft": ["8"] + ["7"] * 16 + ["-"] * 3, "rft": ["7"] * 20}
    (task,) = told(*write(tmp_path, said))["tasks"]
    first = task["pairs"][0]
    assert (first["test"], first["only_a"], first["only_b"]) == ("mcnemar", 1, 8)
    assert first["p"] == mcnemar_exact(1, 8) == pytest.approx(sign_flip([-1] + [1] * 8))
    assert (first["difference"], first["agreement"]) == (7 / 20, pytest.approx(11 / 20))
    assert task["models"][0]["pass_at"] == {"1": 9 / 20} and task["models"][0]["maj"] is None
    assert task["smallest_difference"] == {"single": 6 / 20, "holm": 7 / 20}, "2 / 2^7 <= .05 / 3 < 2 / 2^6"
    assert [row["count"] for row in task["alone"]] == [0, 0, 3]


@pytest.mark.parametrize("samples", [1, 4])
def test_verdicts_are_of_the_published_types(tmp_path: Path, samples: int) -> None:
    said = {model: [" ".join(of.split()[:samples]) for of in rows] for model, rows in SAMPLED.items()}
    found = told(*write(tmp_path, said))
    assert found["tasks"][0]["pairs"][0]["test"] == ("mcnemar" if samples == 1 else "sign flip")
    assert Evaluation.model_validate(found).model_dump(exclude_unset=True) == found


def test_with_more_samples_smaller_differences_could_show(tmp_path: Path) -> None:
    said = {"base": ["7 8"] * 12, "sft": ["7 7"] * 12}
    (task,) = told(*write(tmp_path, said))["tasks"]
    assert task["smallest_difference"]["single"] == 6 / 12 / 2
    assert task["pairs"][0]["p"] == 2 / 2**12


def test_the_same_verdicts_give_the_same_bytes(tmp_path: Path) -> None:
    texts = [json.dumps(told(*write(tmp_path / name, SAMPLED, parts))) for name, parts in (("a", 1), ("b", 1))]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("lose", ["2/1", "3/0"])
def test_a_missing_sample_is_refused(tmp_path: Path, lose: str) -> None:
    with pytest.raises(ValueError, match="the verdicts of base on toy are not one per problem and sample"):
        told(*write(tmp_path, SAMPLED, lose=[lose]))


def test_some_parts_of_a_model_count_for_nothing(tmp_path: Path) -> None:
    done, folders = write(tmp_path, SAMPLED, 2)
    del done["evaluate/sft-part2of2"]
    found = told(done, folders)
    assert [row["name"] for row in found["tasks"][0]["models"]] == ["base"] and found["tasks"][0]["pairs"] == []
    assert found["incomplete"] == [{"name": "sft", "parts": 1, "of": 2}]
    assert found["tasks"][0]["alone"] == [], "one model alone is alone with everything"
    assert [row["name"] for row in found["canary"]] == ["base"]
    del done["evaluate/base-part1of2"]
    assert told(done, folders) == {"incomplete": [{"name": n, "parts": 1, "of": 2} for n in ("base", "sft")]}
    assert answers(done, folders) == []
    assert evaluation({}, {}) is None, "nothing was evaluated"


def test_a_scaled_copy_is_scored_and_compared_to_none(tmp_path: Path) -> None:
    """Its answers change no pair, no count and no page of the others; it has its canary as every model has."""
    said = {"base": ["7", "8", "8", "-"], "sft": ["7", "7", "8", "8"], "sft-norm": ["8", "8", "7", "7"]}
    done, folders = write(tmp_path, said)
    scale = Step(STEP_KINDS["scale"], "sft-norm", {})
    done["evaluate/sft-norm"] = replace(done["evaluate/sft-norm"], inputs={"adapter": scale})
    found, plain = told(done, folders), told(*write(tmp_path / "plain", {n: said[n] for n in ("base", "sft")}))
    (task,), (other,) = found["tasks"], plain["tasks"]
    (score,) = task.pop("scaled")
    assert task == other and "scaled" not in other
    assert (score["name"], score["correct"], score["not_found"], score["accuracy"]) == ("sft-norm", 2, 0, 0.5)
    assert [row["name"] for row in found["canary"]] == list(said) and found["controls"][0]["checks"] == 3
    assert [m["name"] for m in answers(done, folders)[0]["problems"][0]["models"]] == ["base", "sft"]
    assert list(shares(done, folders)["toy"]) == list(said), "which the matched rows read"


def test_answers_are_those_on_which_models_differ_first(tmp_path: Path) -> None:
    """130 problems of which every third divides the models: all 44, then the first others."""
    said = {"base": ["7 7 7"] * 130, "sft": ["8 7 8" if i % 3 == 0 else "7 7 7" for i in range(130)]}
    (task,) = answers(*write(tmp_path, said, 3))
    assert (task["n"], task["differing"], len(task["problems"])) == (130, 44, PROBLEMS)
    expected = [*range(0, 130, 3), *(i for i in range(130) if i % 3)][:PROBLEMS]
    assert [p["id"] for p in task["problems"]] == [f"q{i}" for i in expected]
    for i, problem in zip(expected, task["problems"], strict=True):
        base, sft = problem["models"]
        assert (base["name"], base["right"], base["samples"]) == ("base", 3, 3)
        assert (sft["name"], sft["right"]) == ("sft", 1 if i % 3 == 0 else 3)
        assert [a["completion"] for a in sft["answers"]] == [f"sft {i} 0", f"sft {i} 1"]
