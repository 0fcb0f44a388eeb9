"""The validate step: one model's answers to the problems that are held out of the rollouts."""

from __future__ import annotations

from typing import Any

from execution.context import Context
from execution.store import write_json
from orchestrator.evaluation.answer import answered, write
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.dataset import read_table
from orchestrator.rollouts.sources import SOURCES
from orchestrator.runtime.serving import engine_placement
from orchestrator.steps.base import model_folder
from orchestrator.steps.trials.validate import SPLIT, VALIDATION


def validate(context: Context) -> None:
    """Write ``verdicts.parquet`` as evaluate does, and ``validation.json``: ``problems``, and how many are ``right``.

    The prompts are those of the trainings. ``ValueError`` if no problem is held out.
    """
    rollouts, model = context.runtime["rollouts"], model_folder(context.inputs["base"])
    prompter = Prompter(model, rollouts["prompt"])
    problems: dict[str, dict[str, Any]] = {}
    for row in read_table(context.inputs["rollouts"], SPLIT):
        problem = {"id": row["problem_id"], "answer": row["answer"], "prompt_ids": row["prompt_ids"], "stratum": None}
        problems.setdefault(row["problem_id"], problem)
    if not problems:
        raise ValueError("no problem is held out of the rollouts to judge a rate on: raise rollouts.table.heldout")
    engine = context.resources(context.config["engine"] | engine_placement(context), model)
    ends = {"stop": [prompter.turn.end_id], "opening": prompter.opening}
    task: dict[str, Any] = {"task": SPLIT, "problems": list(problems.values()), **ends}
    grader = SOURCES[rollouts["source"]].grader(rollouts)
    rows = answered(context, engine, task, context.inputs["adapter"] / "adapter", grader)
    write(rows, context.out)
    counts = {"problems": len(rows), "right": sum(row["correct"] for row in rows)}
    write_json(context.out / VALIDATION, counts)
