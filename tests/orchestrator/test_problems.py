"""The evaluation's problems: prompts, and what stands in the rollouts refused or left out and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.context import Context
from orchestrator.steps.problems import FILE, normal, read_problems, run
from orchestrator.store import write_json
from orchestrator.table import write_table

SPEC = {"task": "gsm8k", "split": "test", "draw": None, "seed": 0, "instruction": "{problem}", "settings": {}}


@pytest.fixture
def perform(tmp_path: Path, tiny_model: Path, write_rows: Callable[..., Path]) -> Callable[..., Path]:
    """A function that runs the step on ``asked`` problems with rollouts on ``trained`` ones; returns its folder."""

    def perform(asked: list[str], trained: list[str], policy: str) -> Path:
        base, rollouts, out = tmp_path / "base", tmp_path / "rollouts", tmp_path / "out"
        for folder in (base, rollouts, out):
            folder.mkdir(exist_ok=True)
        write_json(base / "base.json", {"folder": str(tiny_model)})
        row: dict[str, Any] = {
            "row": 0, "problem_id": "p", "group": 0, "answer": "1", "completion": "1", "teacher": "t", "reward": 1.0,
            "split": "train", "prompt_ids": [3], "completion_ids": [1],
        }  # fmt: skip
        write_table([row | {"problem": p} for p in trained], rollouts)
        source = write_rows(tmp_path / "q.jsonl", [{"question": q, "answer": f"#### {i}"} for i, q in enumerate(asked)])
        run(
            Context(
                config={"tasks": [SPEC], "contamination": policy, "prompt": {}},
                where={"sources": [str(source)]},
                inputs={"base": base, "rollouts": rollouts},
                out=out,
                work=tmp_path,
                keep=lambda: None,
                say=lambda line: None,
                share=lambda function, items: pytest.fail("nothing is shared out"),
                engine=lambda config, model: pytest.fail("no engine is needed"),
            )
        )
        return out

    return perform


def test_problems_are_written_with_their_prompts(perform: Callable[..., Path]) -> None:
    out = perform(["3 + 4", "5"], ["6"], "refuse")
    (task,) = read_problems(out)
    assert (task["task"], task["title"]) == ("gsm8k", "GSM8K")
    assert task["problems"] == [
        {"id": "gsm8k-test-0", "problem": "3 + 4", "answer": "0", "stratum": None, "prompt_ids": [11, 4, 12, 3]},
        {"id": "gsm8k-test-1", "problem": "5", "answer": "1", "stratum": None, "prompt_ids": [13, 3]},
    ]
    found = json.loads((out / FILE).read_text())["contamination"]
    assert found == {"policy": "refuse", "checked": 2, "excluded": 0}


def test_a_problem_of_the_rollouts_is_refused(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"^2 of 3 gsm8k problems stand in the rollouts too: .*contamination=exclude$"):
        perform(["3 + 4", "5", "A B"], ["3  +4\n", "a b"], "refuse")


def test_a_problem_of_the_rollouts_is_left_out_and_counted(perform: Callable[..., Path]) -> None:
    out = perform(["3 + 4", "5", "A B"], ["3  +4\n", "a b"], "exclude")
    assert [p["id"] for p in read_problems(out)[0]["problems"]] == ["gsm8k-test-1"]
    found = json.loads((out / FILE).read_text())["contamination"]
    assert found == {"policy": "exclude", "checked": 3, "excluded": 2}


def test_an_evaluation_without_a_problem_is_refused(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="no problem is left to evaluate on"):
        perform(["5"], ["5"], "exclude")


def test_case_and_spacing_do_not_make_another_problem() -> None:
    assert normal(" Tom  has\n3 ") == normal("tom HAS 3") == "tomhas3"
    assert normal("Tom has 3") != normal("Tom has 4")
