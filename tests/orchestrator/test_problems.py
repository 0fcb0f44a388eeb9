"""The evaluation's problems: prompts, and what stands in the rollouts refused or left out and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution.context import Context
from execution.store import write_json
from orchestrator.evaluation.problems import FILE, draw, normal, read_problems
from orchestrator.rollouts.dataset import write_table

SPEC = {
    "task": "gsm8k", "name": "gsm8k", "split": "test", "draw": None, "seed": 0, "instruction": "{problem}",
    "settings": {}, "shots": None,
}  # fmt: skip


@pytest.fixture
def perform(tmp_path: Path, tiny_model: Path, write_rows: Callable[..., Path]) -> Callable[..., Path]:
    """A function that runs the step on ``asked`` problems with rollouts on ``trained`` ones; returns its folder."""

    def perform(asked: list[str], trained: list[str], policy: str, shown: list[str] | None = None, **spec: Any) -> Path:
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
        shots = tmp_path / "shots.jsonl"
        write_rows(shots, [{"question": q, "answer": f"{q} 9\n#### {i}"} for i, q in enumerate(shown or ["9"])])
        draw(
            Context(
                config={"tasks": [SPEC | spec], "contamination": policy, "prompt": {}},
                runtime={"sources": [str(source)], "shots": [str(shots)], "max_model_len": 25},
                inputs={"base": base, "rollouts": rollouts},
                out=out,
                work=tmp_path,
                keep=lambda: None,
                progress=lambda line: None,
                parallel_map=lambda function, items: pytest.fail("nothing is shared out"),
                resources=lambda config, model: pytest.fail("no engine is needed"),
            )
        )
        return out

    return perform


def test_problems_are_written_with_their_prompts(perform: Callable[..., Path]) -> None:
    out = perform(["3 + 4", "5"], ["6"], "refuse")
    (task,) = read_problems(out)
    assert (task["task"], task["title"]) == ("gsm8k", "GSM8K")
    assert task["problems"] == [
        {"id": "gsm8k-test-0", "problem": "3 + 4", "answer": "0", "stratum": None, "prompt": "3 + 4 = ",
         "prompt_ids": [11, 4, 12, 3]},
        {"id": "gsm8k-test-1", "problem": "5", "answer": "1", "stratum": None, "prompt": "5 = ",
         "prompt_ids": [13, 3]},
    ]  # fmt: skip
    found = json.loads((out / FILE).read_text())["contamination"]
    assert found == {"policy": "refuse", "checked": 2, "excluded": 0}


def test_a_problem_of_the_rollouts_is_refused(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"^2 of 3 gsm8k problems are in the rollouts too: .*contamination=exclude$"):
        perform(["3 + 4", "5", "A B"], ["3  +4\n", "a b"], "refuse")


def test_a_problem_of_the_rollouts_is_left_out_and_counted(perform: Callable[..., Path]) -> None:
    out = perform(["3 + 4", "5", "A B"], ["3  +4\n", "a b"], "exclude")
    assert [p["id"] for p in read_problems(out)[0]["problems"]] == ["gsm8k-test-1"]
    found = json.loads((out / FILE).read_text())["contamination"]
    assert found == {"policy": "exclude", "checked": 3, "excluded": 2}


def test_an_evaluation_without_a_problem_is_refused(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="no problem is left to evaluate on"):
        perform(["5"], ["5"], "exclude")


SHOTS = {"count": 2, "split": "train", "seed": 0}


def test_shots_are_earlier_turns_and_never_a_problem_that_is_evaluated(perform: Callable[..., Path]) -> None:
    out = perform(["3 + 4", "5"], ["6"], "refuse", shown=["10", " 5", "11", "3 + 4"], name="shown", shots=SHOTS)
    (task,) = read_problems(out)
    assert (task["task"], task["title"]) == ("shown", "GSM8K (shown)")
    for problem in task["problems"]:
        *shown, asked = problem["prompt"].split(" <eos>")
        assert asked.strip() == f"{problem['problem']} ="
        assert {turn.split(" = ")[0].strip() for turn in shown} == {"10", "11"}
        assert all("\\boxed{" in turn for turn in shown), "a solution ends in the form that is asked for"


def test_a_prompt_that_fills_the_engine_is_named_before_anything_is_trained(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"^gsm8k: a prompt has 25 tokens, .* engine.max_model_len 25: raise it"):
        perform(["3 + 4 " * 8], ["6"], "refuse", instruction="{problem}")


def test_too_few_solved_problems_for_the_shots_are_named(perform: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"^gsm8k: 2 shots needed, but only 1 solved problems are not evalu"):
        perform(["3 + 4", "5"], ["6"], "refuse", shown=["10", " 5"], shots=SHOTS)


def test_case_and_spacing_do_not_make_another_problem() -> None:
    assert normal(" Tom  has\n3 ") == normal("tom HAS 3") == "tomhas3"
    assert normal("Tom has 3") != normal("Tom has 4")
