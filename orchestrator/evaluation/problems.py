"""The evaluation's problems, drawn once for all models, with what stands in the rollouts refused or left out."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from evals.tasks import TASKS, Problem
from execution.context import Context
from execution.store import write_json
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.dataset import normal, read_table
from orchestrator.steps.base import model_folder

FILE = "problems.json"


def draw(context: Context) -> None:
    """Writes ``problems.json``: the tasks with their problems and prompts, the contamination counts, the golds that are
    compared as text.

    A task's ``stop`` is the token with which the template ends a turn, its ``opening`` what a prompt begins the answer
    with itself (``<think>``): the answer is read with it.

    ``ValueError`` where a problem also stands in the rollouts and ``contamination`` is "refuse", where a task has no
    problem left, too few solved ones for its shots, or a prompt that leaves an engine no room to answer.
    """
    prompter = Prompter(model_folder(context.inputs["base"]), context.config["prompt"])
    asked = {normal(row["problem"]) for row in read_table(context.inputs["rollouts"])}
    tasks, as_text, checked, excluded = [], [], 0, 0
    for i, spec in enumerate(context.config["tasks"]):
        problems = load_problems(spec, context.where["sources"][i])
        clean = [p for p in problems if normal(p.problem) not in asked]
        met = len(problems) - len(clean)
        if met and context.config["contamination"] == "refuse":
            raise ValueError(
                f"{met} of {len(problems)} {spec['name']} problems stand in the rollouts too: draw others, or set "
                "evaluation.contamination=exclude"
            )
        if not clean:
            raise ValueError(f"{spec['name']}: no problem is left to evaluate on")
        shots = _shots(spec, context.where["shots"][i], {normal(p.problem) for p in problems})
        tasks.append(_task(spec, clean, shots, prompter))
        as_text += [{"task": spec["name"], "id": p.id, "answer": p.answer} for p in clean if p.as_text]
        longest = max(len(p["prompt_ids"]) for p in tasks[-1]["problems"])
        if longest >= context.where["max_model_len"]:
            raise ValueError(
                f"{spec['name']}: a prompt has {longest} tokens, which leaves no room within engine.max_model_len "
                f"{context.where['max_model_len']}: raise it, or take fewer shots or other problems"
            )
        checked += len(problems)
        excluded += met
    contamination = {"policy": context.config["contamination"], "checked": checked, "excluded": excluded}
    if as_text:
        named = ", ".join(f"{gold['id']} ({gold['answer'][:40]})" for gold in as_text[:3])
        context.progress(f"{len(as_text)} gold answers no algebra can read, compared as text: {named}")
    write_json(context.out / FILE, {"tasks": tasks, "contamination": contamination, "as_text": as_text})


def _task(
    spec: dict[str, Any], problems: list[Problem], shots: list[tuple[str, str]], prompter: Prompter
) -> dict[str, Any]:
    task = TASKS[spec["task"]]
    entries = []
    for p in problems:
        text, ids = prompter.rendered(p.problem, spec["instruction"] or task.instruction, shots)
        entry = {"id": p.id, "problem": p.problem, "answer": p.answer, "stratum": p.stratum}
        entries.append(entry | {"prompt": text, "prompt_ids": ids})
    title = task.title if spec["name"] == spec["task"] else f"{task.title} ({spec['name']})"
    ends = {"stop": [prompter.turn.end_id], "opening": prompter.opening}
    return {"task": spec["name"], "title": title, "problems": entries, **ends}


def _shots(spec: dict[str, Any], source: str | None, evaluated: Collection[str]) -> list[tuple[str, str]]:
    """Solved problems of the task, (problem, solution), none of them among the ``evaluated`` ones (normal texts)."""
    shots = spec["shots"]
    if shots is None:
        return []
    known = load_problems(spec | {"split": shots["split"], "draw": None}, source)
    solved = [(p.problem, p.solution) for p in known if p.solution and normal(p.problem) not in evaluated]
    if len(solved) < shots["count"]:
        raise ValueError(
            f"{spec['name']}: {shots['count']} shots asked for, {len(solved)} solved problems are there that are not "
            "evaluated: name others in shots.source or shots.split"
        )
    return random.Random(f"shots {shots['seed']}").sample(solved, shots["count"])


def load_problems(spec: dict[str, Any], source: str | None) -> list[Problem]:
    """The problems that a study names, through their task's own loader."""
    return TASKS[spec["task"]].load(
        source, split=spec["split"], draw=spec["draw"], seed=spec["seed"], **spec["settings"]
    )


def read_problems(folder: Path) -> list[dict[str, Any]]:
    """The tasks of a finished problems step."""
    return json.loads((folder / FILE).read_text())["tasks"]
