"""One model's verdicts: the canary first, then every task's problems, greedily, through the study's engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evals import canary
from evals.answers import Grader
from evals.engines import Sampling
from orchestrator.context import Context
from orchestrator.steps.base import model_folder
from orchestrator.steps.problems import read_problems
from orchestrator.steps.rollouts import engine_placement
from orchestrator.store import write_json

VERDICTS, CANARY = "verdicts.parquet", "canary.json"
COLUMNS = ("task", "id", "stratum", "answer", "completion", "extracted", "correct", "tokens", "finish")


def run(context: Context) -> None:
    """Writes ``verdicts.parquet`` (a row a problem, with its completion) and ``canary.json``.

    ``RuntimeError`` where the engine's log-probabilities are not those of this model: no verdict is then kept.
    """
    config = context.config
    model = model_folder(context.inputs["base"])
    adapter = context.inputs["adapter"] / "adapter" if "adapter" in context.inputs else None
    engine = context.engine(config["engine"] | engine_placement(context), model)
    tasks = read_problems(context.inputs["problems"])
    context.say("canary: comparing log-probabilities with Transformers and PEFT")
    prompts = [p["prompt_ids"] for p in tasks[0]["problems"][: config["canary"]["prompts"]]]
    found = canary.check(
        engine,
        model,
        {"model": adapter},
        prompts,
        k=config["canary"]["top"],
        tolerance=config["canary"]["tolerance"] or canary.TOLERANCE[config["engine"]["precision"]],
    )[0]
    write_json(context.out / CANARY, found)
    if not found["passed"]:
        raise RuntimeError(
            f"canary: the engine's log-probabilities are off by {found['max_difference']:.3g} "
            f"(tolerance {found['tolerance']:g}): it does not answer with this model"
        )
    rows = [row for task in tasks for row in _task(context, engine, task, adapter)]
    _write(rows, context.out)


def _task(context: Context, engine: Any, task: dict[str, Any], adapter: Path | None) -> list[dict[str, Any]]:
    """Verdicts of one task, in shards fixed by the plan; a finished shard is read back after a kill."""
    size, rows = context.config["shard"], []
    for first in range(0, len(task["problems"]), size):
        problems = task["problems"][first : first + size]
        path = context.work / f"{task['task']}-{first}.json"
        if not path.exists():
            context.say(f"{task['task']}: {first}/{len(task['problems'])} answered")
            sampling = Sampling(n=1, temperature=0.0, top_p=1.0, max_tokens=context.config["max_tokens"], seed=0)
            answers = engine.generate([p["prompt_ids"] for p in problems], sampling, adapter)
            write_json(path, [[a[0].text, len(a[0].token_ids), a[0].finish] for a in answers])
            context.keep()
        saved = json.loads(path.read_text())
        with Grader() as grader:
            verdicts = grader.grade([(s[0], p["answer"]) for s, p in zip(saved, problems, strict=True)])
        for problem, (text, tokens, finish), verdict in zip(problems, saved, verdicts, strict=True):
            rows.append(
                {
                    "task": task["task"],
                    "id": problem["id"],
                    "stratum": problem["stratum"],
                    "answer": problem["answer"],
                    "completion": text,
                    "extracted": verdict.extracted,
                    "correct": verdict.correct,
                    "tokens": tokens,
                    "finish": finish,
                }
            )
    return rows


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({name: [row[name] for row in rows] for name in COLUMNS})
    pyarrow.parquet.write_table(table, out / VERDICTS)


def read_verdicts(folder: Path) -> list[dict[str, Any]]:
    """The rows of a finished evaluate step."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / VERDICTS).to_pylist()
