"""Golds in the forms of DeepScaleR and MATH: loaded, right answers in another writing accepted, wrong ones refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.answers import Grader
from evals.tasks import TASKS
from orchestrator.evaluation.problems import loaded
from tests.evals.gold_forms import BROKEN, FORMS, MANY, made


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as opened:
        yield opened


def deepscaler(folder: Path, golds: list[Any]) -> Path:
    """A stand-in with the dataset's columns."""
    rows = [{"problem": f"Problem {i}?", "answer": gold, "solution": ""} for i, gold in enumerate(golds)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_form_is_loaded_and_more_than_its_text_is_compared(tmp_path: Path) -> None:
    golds = [gold for form in FORMS for gold, _, _ in made(form)]
    assert len(golds) == MANY * len(FORMS) and len(set(golds)) > 0.99 * len(golds)
    problems = TASKS["deepscaler"].load(str(deepscaler(tmp_path, golds)))
    assert [p.answer for p in problems] == golds
    assert [p.answer for p in problems if p.as_text or p.unreadable] == []


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_in_another_writing_is_accepted_and_a_wrong_one_refused(grader: Grader, form: str) -> None:
    cases = list(made(form))
    assert len({gold for gold, _, _ in cases}) == MANY
    for place, wanted in ((1, True), (2, False)):
        answered = [(f"So it is \\boxed{{{case[place]}}}.", case[0]) for case in cases]
        verdicts = [verdict.correct for verdict in grader.grade(answered)]
        assert [pair for pair, right in zip(answered, verdicts, strict=True) if right != wanted] == []


def test_golds_that_nothing_can_check_are_left_out_counted_and_named(tmp_path: Path) -> None:
    golds = ["\\frac{1}{2}", *BROKEN, None, "(3,4)"]
    source = str(deepscaler(tmp_path, golds))
    with pytest.raises(ValueError, match=r"train.jsonl:2: field 'answer' must be a non-empty text"):
        TASKS["deepscaler"].load(source)
    spec = {"task": "deepscaler", "split": "train", "draw": None, "seed": 0, "settings": {"unreadable": "leave_out"}}
    problems, left_out = found = loaded(spec, source)
    assert [(p.id, p.answer) for p in problems] == [
        ("deepscaler-0", "\\frac{1}{2}"), (f"deepscaler-{len(BROKEN) + 2}", "(3,4)"),
    ]  # fmt: skip
    assert [gold["answer"] for gold in left_out] == [*(gold.strip() for gold in BROKEN), ""]
    assert left_out[2] == {"task": "deepscaler", "id": "deepscaler-3", "answer": "???"}
    assert found.told().startswith(f"{len(BROKEN) + 1} problems left out, nothing can check their gold answers: deep")
    assert "deepscaler-3 ('???')" in found.told() and found.told().count("(") == 3
    clean = loaded(spec, str(deepscaler(tmp_path, golds[:1])))
    assert clean.left_out == [] and clean.told() == ""
    with pytest.raises(ValueError, match=r"settings\.unreadable is refuse or leave_out, not 'drop'"):
        loaded(spec | {"settings": {"unreadable": "drop"}}, source)
