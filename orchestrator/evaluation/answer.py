"""The evaluate step: the canary, then every task's problems (or a part of them) answered by one model and graded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals import canary
from evals.engines import Engine, Sampling
from evals.grader import TaskGrader
from evals.tasks import TASKS
from execution import durable
from execution.context import Context
from execution.store import write_json
from execution.workspace import own
from orchestrator.evaluation.problems import read_problems
from orchestrator.runtime.serving import engine_placement
from orchestrator.steps.base import model_folder
from orchestrator.steps.evaluate import CANARY, VERDICTS

TEXTS = ("task", "id", "stratum", "answer", "completion", "extracted", "vote", "finish")
COLUMNS = (
    "task", "id", "sample", "stratum", "answer", "completion", "extracted", "vote", "correct", "tokens", "finish",
)  # fmt: skip


def answer(context: Context) -> None:
    """Write ``verdicts.parquet`` (one row per problem and sample, with its completion) and ``canary.json``.

    ``RuntimeError`` if the canary fails: the engine does not answer with the requested model.
    """
    config = context.config
    model = model_folder(context.inputs["base"])
    adapter = context.inputs["adapter"] / "adapter" if "adapter" in context.inputs else None
    engine = context.resources(config["engine"] | engine_placement(context), model)
    tasks = read_problems(context.inputs["problems"])
    _check(context, engine, model, adapter, tasks[0]["problems"])
    rows = [row for task in tasks for row in _task(context, engine, task, adapter)]
    write(rows, context.out)


def _check(
    context: Context, engine: Engine, model: Path, adapter: Path | None, problems: Sequence[dict[str, Any]]
) -> None:
    """Run the canary on the base, an adapter of zeros and this step's adapter."""
    context.progress("canary: comparing log-probabilities with Transformers and PEFT")
    settings = context.config["canary"]
    with own("orchestrator-canary-") as scratch:
        zero = canary.zero_adapter(scratch, model, context.config["targets"])
        models: dict[str, Path | None] = {"base": None, "zero": zero}
        checks = canary.check(
            engine,
            model,
            models if adapter is None else models | {"adapter": adapter},
            [p["prompt_ids"] for p in problems[: settings["prompts"]]],
            k=settings["top"],
            tolerance=settings["tolerance"] or canary.TOLERANCE[context.config["engine"]["precision"]],
        )
    write_json(context.out / CANARY, checks)
    for row in checks:
        if not row["passed"]:
            raise RuntimeError(
                f"canary: the engine's log-probabilities of {_called(row['name'])} are off by "
                f"{row['max_difference']:.3g} (tolerance {row['tolerance']:g}): it does not answer with that model"
            )


def _called(name: str) -> str:
    return {"base": "the base", "zero": "an adapter of zeros", "adapter": "the adapter"}[name]


def _task(context: Context, engine: Engine, task: dict[str, Any], adapter: Path | None) -> list[dict[str, Any]]:
    """Verdicts of a task of the study, by that task's grader."""
    return answered(context, engine, task, adapter, TASKS[context.runtime["tasks"][task["task"]]].grader())


def answered(
    context: Context, engine: Engine, task: dict[str, Any], adapter: Path | None, grader: TaskGrader
) -> list[dict[str, Any]]:
    """Verdicts of one task, in shards fixed by the plan; finished shards are read back after a kill."""
    config, rows = context.config, []
    drawn = config["sampling"][task["task"]]
    sampling = Sampling(
        n=drawn["samples"],
        temperature=drawn["temperature"],
        top_p=drawn["top_p"],
        max_tokens=drawn["max_tokens"],
        seed=drawn["seed"],
        stop=tuple(task.get("stop", ())),
    )
    opening = task.get("opening", "")
    mine = task["problems"][config["part"] :: config["parts"]]
    with grader:
        for first in range(0, len(mine), config["shard"]):
            problems = mine[first : first + config["shard"]]
            path = context.work / f"{task['task']}-{first}.json"
            kept = durable.recall(path)
            if kept is None:
                context.progress(f"{task['task']}: {first}/{len(mine)} answered")
                answers = engine.generate([p["prompt_ids"] for p in problems], sampling, adapter)
                kept = durable.keep(
                    path, {"answers": [[[a.text, len(a.token_ids), a.finish] for a in samples] for samples in answers]}
                )
                context.keep()
            saved = kept["answers"]
            assert len(saved) == len(problems) and all(len(samples) == sampling.n for samples in saved)
            answered = [(p, i, a) for p, samples in zip(problems, saved, strict=True) for i, a in enumerate(samples)]
            verdicts = grader.grade([(opening + text, p["answer"]) for p, _, (text, _, _) in answered])
            for (problem, sample, (text, tokens, finish)), verdict in zip(answered, verdicts, strict=True):
                rows.append(
                    {
                        "task": task["task"],
                        "id": problem["id"],
                        "sample": sample,
                        "stratum": problem["stratum"],
                        "answer": problem["answer"],
                        "completion": text,
                        "extracted": verdict.extracted,
                        "vote": grader.canonical(verdict.extracted),
                        "correct": verdict.correct,
                        "tokens": tokens,
                        "finish": finish,
                    }
                )
    return rows


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write verdicts to ``verdicts.parquet`` in ``out``."""
    import pyarrow
    import pyarrow.parquet

    kinds = dict.fromkeys(COLUMNS, pyarrow.int64()) | dict.fromkeys(TEXTS, pyarrow.string())
    schema = pyarrow.schema(kinds | {"correct": pyarrow.bool_()})  # explicit, for a part without problems
    table = pyarrow.table({name: [row[name] for row in rows] for name in COLUMNS}, schema=schema)
    pyarrow.parquet.write_table(table, out / VERDICTS, compression="zstd")
