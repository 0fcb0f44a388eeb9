"""The evaluate step's questions: what ends an answer, and with what it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.engines import Completion, Sampling
from execution.context import Context
from orchestrator.evaluation.answer import _task

DRAWN = {"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 9, "seed": 0}


class Thinking:
    """Goes on with the thought that the prompt began, and never ends it."""

    def __init__(self) -> None:
        self.asked: list[Sampling] = []

    def generate(self, prompts: Sequence[Any], sampling: Sampling, adapter: None) -> list[list[Completion]]:
        self.asked.append(sampling)
        return [[Completion((3, 4), "So \\boxed{7} perhaps", "length")] for _ in prompts]


@pytest.mark.parametrize(("opening", "correct"), [("<think>\n", False), ("", True)])
def test_an_answer_is_read_with_what_the_prompt_began(tmp_path: Path, opening: str, correct: bool) -> None:
    engine: Any = Thinking()
    context = Context(
        config={"sampling": {"t": DRAWN}, "part": 0, "parts": 1, "shard": 5}, runtime={"tasks": {"t": "arithmetic"}},
        inputs={}, out=tmp_path, work=tmp_path, keep=lambda: None, progress=lambda line: None,
        parallel_map=lambda function, items: [], resources=lambda config, model: engine,
    )  # fmt: skip
    problem = {"id": "p", "problem": "?", "answer": "7", "stratum": None, "prompt": "?", "prompt_ids": [5]}
    task = {"task": "t", "title": "T", "problems": [problem], "stop": [4], "opening": opening}
    (row,) = _task(context, engine, task, None)
    assert row["correct"] is correct and row["completion"].startswith("So")
    assert [sampling.stop for sampling in engine.asked] == [(4,)]
