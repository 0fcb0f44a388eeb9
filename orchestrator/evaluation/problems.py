"""The problems step: draws the evaluation's problems once for all models; problems in the rollouts are refused or
excluded."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from evals.tasks import TASKS, Problem
from execution.context import Context
from execution.store import write_json
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.dataset import normal, read_table
from orchestrator.steps.base import model_folder

FILE = "problems.json"


def draw(context: Context) -> None:
    """Write ``problems.json``: the tasks with problems and prompts, contamination counts, golds compared as text.

    A task's ``stop`` is the template's end-of-turn token; its ``opening`` is the start of the answer that is part of
    the prompt (``<think>``) and is prepended for grading.

    ``ValueError`` if a problem is also in the rollouts and ``contamination`` is "refuse", if a task has no problem
    left or too few solved ones for its shots, or if a prompt leaves no room for an answer.
    """
    prompter = Prompter(model_folder(context.inputs["base"]), context.config["prompt"])
    asked = {normal(row["problem"]) for row in read_table(context.inputs["rollouts"])}
    tasks, as_text, left_out, checked, excluded = [], [], list[dict[str, str]](), 0, 0
    for i, spec in enumerate(context.config["tasks"]):
        found = loaded(spec, context.runtime["sources"][i])
        if found.left_out:
            context.progress(f"{spec['name']}: {found.told()}")
            left_out += found.left_out
        problems = found.problems
        clean = [p for p in problems if normal(p.problem) not in asked]
        met = len(problems) - len(clean)
        if met and context.config["contamination"] == "refuse":
            raise ValueError(
                f"{met} of {len(problems)} {spec['name']} problems are in the rollouts too: draw others, or set "
                "evaluation.contamination=exclude"
            )
        if not clean:
            raise ValueError(f"{spec['name']}: no problem is left to evaluate on")
        shots = _shots(spec, context.runtime["shots"][i], {normal(p.problem) for p in problems})
        tasks.append(_task(spec, clean, shots, prompter))
        as_text += [{"task": spec["name"], "id": p.id, "answer": p.answer} for p in clean if p.as_text]
        longest = max(len(p["prompt_ids"]) for p in tasks[-1]["problems"])
        if longest >= context.runtime["max_model_len"]:
            raise ValueError(
                f"{spec['name']}: a prompt has {longest} tokens, which leaves no room within engine.max_model_len "
                f"{context.runtime['max_model_len']}: raise it, or take fewer shots or other problems"
            )
        checked += len(problems)
        excluded += met
    contamination = {"policy": context.config["contamination"], "checked": checked, "excluded": excluded}
    if as_text:
        named = ", ".join(f"{gold['id']} ({gold['answer'][:40]})" for gold in as_text[:3])
        context.progress(f"{len(as_text)} gold answers cannot be read as formulas and are compared as text: {named}")
    left = {"left_out": left_out} if left_out else {}
    write_json(context.out / FILE, {"tasks": tasks, "contamination": contamination, "as_text": as_text} | left)


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
    """A draw of (problem, solution) of the task, none of them among the ``evaluated`` normalised texts."""
    shots = spec["shots"]
    if shots is None:
        return []
    known = load_problems(spec | {"split": shots["split"], "draw": None}, source)
    solved = [(p.problem, p.solution) for p in known if p.solution and normal(p.problem) not in evaluated]
    if len(solved) < shots["count"]:
        raise ValueError(
            f"{spec['name']}: {shots['count']} shots needed, but only {len(solved)} solved problems are not evaluated: "
            "name others in shots.source or shots.split"
        )
    return random.Random(f"shots {shots['seed']}").sample(solved, shots["count"])


class Loaded(NamedTuple):
    """Problems with a gold answer that can be checked, and those that are left out for theirs (task, id, answer)."""

    problems: list[Problem]
    left_out: list[dict[str, str]]

    def told(self) -> str:
        """The problems that are left out as a line: how many, and the first by name; empty if there are none."""
        named = ", ".join(f"{gold['id']} ({gold['answer'][:40]!r})" for gold in self.left_out[:3])
        return f"{len(self.left_out)} problems left out, nothing can check their gold answers: {named}" if named else ""


def loaded(spec: dict[str, Any], source: str | None) -> Loaded:
    """The problems of a study's setting, by their task's loader."""
    problems = TASKS[spec["task"]].load(
        source, split=spec["split"], draw=spec["draw"], seed=spec["seed"], **spec["settings"]
    )
    left = [{"task": spec["task"], "id": p.id, "answer": p.answer} for p in problems if p.unreadable]
    return Loaded([p for p in problems if not p.unreadable], left)


def load_problems(spec: dict[str, Any], source: str | None) -> list[Problem]:
    """The problems of a study's setting that have a gold answer to check."""
    return loaded(spec, source).problems


def read_problems(folder: Path) -> list[dict[str, Any]]:
    """The tasks of a finished problems step."""
    return json.loads((folder / FILE).read_text())["tasks"]
