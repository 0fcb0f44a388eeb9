"""Shards of an engine's answers: damaged ones are asked for again, said, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.engines import open_engine
from evals.tasks import Problem
from execution.context import Context
from execution.durable import Lost
from orchestrator.evaluation import answer as evaluate
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts import sampling as rollouts

PROMPT = {"system": None, "template": None, "thinking": None}
PROBLEMS = [{"id": f"p{i}", "answer": str(i), "stratum": None, "prompt_ids": [9 + i, 3]} for i in range(5)]
DRAWN = {"samples": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 4, "seed": 7}


class Counted:
    """The real engine; how often it was asked."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.asked = engine, 0

    def generate(self, prompts: Any, sampling: Any, adapter: Any) -> Any:
        self.asked += 1
        return self.engine.generate(prompts, sampling, adapter)


@pytest.fixture(scope="module")
def served(tiny_model: Path) -> Iterator[Counted]:
    engine = open_engine("transformers", tiny_model, precision="float32", max_model_len=64)
    yield Counted(engine)
    engine.close()


def context(work: Path, served: Counted, **config: Any) -> Context:
    def share(function: Any, items: Any) -> Any:
        raise AssertionError("nothing is shared out")

    work.mkdir(exist_ok=True)
    where = {"tasks": {"t": "arithmetic"}}
    return Context(config, where, {}, work, work, lambda: None, lambda line: None, share, lambda *_: served)  # type: ignore[arg-type,return-value]


def flip(path: Path) -> None:
    """One bit of the last answer's letters or digits."""
    data = bytearray(path.read_bytes())
    at = max(i for i in range(len(data) // 2) if chr(data[i]).isalnum())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_shard_of_an_evaluation_is_answered_again(tmp_path: Path, served: Counted) -> None:
    told = context(tmp_path / "work", served, sampling={"t": DRAWN}, part=0, parts=1, shard=2)
    task = {"task": "t", "problems": PROBLEMS}
    whole = evaluate._task(told, served, task, None)  # type: ignore[arg-type]
    assert len(whole) == 10
    kept = {path.name: path.read_bytes() for path in told.work.iterdir()}
    flip(told.work / "t-0.json")
    (told.work / "t-2.json").write_text("")
    before = served.asked
    with pytest.warns(Lost, match=r"work/t-[02]\.json cannot be read \(.+\): it is made again$") as lost:
        assert evaluate._task(told, served, task, None) == whole  # type: ignore[arg-type]
    assert len([w for w in lost if w.category is Lost]) == 2 == served.asked - before
    assert {path.name: path.read_bytes() for path in told.work.iterdir()} == kept


def test_a_damaged_shard_of_rollouts_is_sampled_again(tmp_path: Path, served: Counted, tiny_model: Path) -> None:
    told = context(tmp_path / "work", served, shard=2, instruction="{problem}", **DRAWN)
    problems = [Problem(str(p["id"]), f"{i} + 1", "1", None) for i, p in enumerate(PROBLEMS)]  # type: ignore[arg-type]

    def sample(told: Context) -> Any:
        found = rollouts.sampled(told, Prompter(tiny_model, PROMPT), {}, tiny_model, problems)
        assert list(found) == list(range(5))
        return list(found.values())

    whole = sample(told)
    assert [len(row) for row in whole] == [2] * 5
    shards = sorted(told.work.iterdir())
    for damage in (flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-3])):
        damage(shards[1])
        before = served.asked
        if damage is Path.unlink:
            assert sample(told) == whole
        else:
            with pytest.warns(Lost, match=rf"{shards[1].name} cannot be read"):
                assert sample(told) == whole
        assert served.asked == before + 1
    assert sample(replace(told, resources=lambda *_: pytest.fail("all is kept"))) == whole
