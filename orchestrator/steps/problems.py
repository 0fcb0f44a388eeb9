"""The evaluation's problems, drawn once for all models, with what stands in the rollouts refused or left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evals.tasks import TASKS
from orchestrator.context import Context
from orchestrator.prompting import Prompter
from orchestrator.steps.base import model_folder
from orchestrator.steps.rollouts import load_problems
from orchestrator.store import write_json
from orchestrator.table import normal, read_table

FILE = "problems.json"


def run(context: Context) -> None:
    """Writes ``problems.json``: the tasks with their problems and prompt ids, and the contamination counts.

    ``ValueError`` where a problem also stands in the rollouts and ``contamination`` is "refuse", or where a task
    has no problem left.
    """
    prompter = Prompter(model_folder(context.inputs["base"]), context.config["prompt"])
    asked = {normal(row["problem"]) for row in read_table(context.inputs["rollouts"])}
    tasks, checked, excluded = [], 0, 0
    for spec, source in zip(context.config["tasks"], context.where["sources"], strict=True):
        task = TASKS[spec["task"]]
        problems = load_problems(spec, source)
        clean = [p for p in problems if normal(p.problem) not in asked]
        met = len(problems) - len(clean)
        if met and context.config["contamination"] == "refuse":
            raise ValueError(
                f"{met} of {len(problems)} {task.name} problems stand in the rollouts too: draw others, or set "
                "evaluation.contamination=exclude"
            )
        if not clean:
            raise ValueError(f"{task.name}: no problem is left to evaluate on")
        instruction = spec["instruction"] or task.instruction
        tasks.append(
            {
                "task": task.name,
                "title": task.title,
                "problems": [
                    {
                        "id": p.id,
                        "problem": p.problem,
                        "answer": p.answer,
                        "stratum": p.stratum,
                        "prompt_ids": prompter.prompt_ids(p.problem, instruction),
                    }
                    for p in clean
                ],
            }
        )
        checked += len(problems)
        excluded += met
    contamination = {"policy": context.config["contamination"], "checked": checked, "excluded": excluded}
    write_json(context.out / FILE, {"tasks": tasks, "contamination": contamination})


def read_problems(folder: Path) -> list[dict[str, Any]]:
    """The tasks of a finished problems step."""
    return json.loads((folder / FILE).read_text())["tasks"]
