"""Rollouts: completions of problems, sampled from a served model or read from a file, verified and frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evals.answers import Grader
from evals.engines import Completion, Sampling
from evals.tasks import TASKS, Problem
from orchestrator.context import Context
from orchestrator.device import device
from orchestrator.fingerprint import key
from orchestrator.prompting import Prompter
from orchestrator.rollout_file import read_rollouts
from orchestrator.steps.base import model_folder
from orchestrator.store import write_json
from orchestrator.table import fit, freeze, statistics_of, write_table

STATISTICS = "statistics.json"


def run(context: Context) -> None:
    """Writes ``rollouts.parquet`` (one row a completion) and ``statistics.json``. See ``orchestrator/table.py``."""
    prompter = Prompter(model_folder(context.inputs["base"]), context.config["prompt"])
    if context.config["source"] == "file":
        rows, checks = _from_file(context, prompter)
    else:
        rows, checks = _sampled(context, prompter)
    kept, dropped = fit(rows, context.config["prompt"])
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
        raise ValueError(f"no rollout is left ({reasons}): raise the limits of prompt, or give other rollouts")
    table = freeze(kept, context.config["table"])
    write_table(table, context.out)
    stats = statistics_of(table) | checks | {"dropped": dict(dropped), "source": context.config["source"]}
    write_json(context.out / STATISTICS, stats)


def _from_file(context: Context, prompter: Prompter) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The file's rows, with its own rewards or the grader's, and how far the two agree."""
    config = context.config
    read = read_rollouts(Path(context.where["path"]), config["draw"], config["table"]["seed"])
    given = read[0].reward is not None
    checks: dict[str, Any] = {}
    context.say(f"grading {len(read)} rollouts")
    with Grader() as grader:
        verdicts = [float(v.correct) for v in grader.grade([(row.completion, row.answer) for row in read])]
    if given:
        agreed = sum(v == ((row.reward or 0) > 0) for v, row in zip(verdicts, read, strict=True))
        checks["grader_agreement"] = {"rows": len(read), "agreed": agreed}
    rewards = [r.reward if given and config["rewards"] == "given" else v for v, r in zip(verdicts, read, strict=True)]
    context.say(f"tokenizing {len(read)} rollouts")
    rows = [
        {
            "problem_id": row.problem_id,
            "problem": row.problem,
            "answer": row.answer,
            "completion": row.completion,
            "teacher": row.teacher,
            "reward": reward,
            "prompt_ids": prompter.prompt_ids(row.problem, config["instruction"]),
            "completion_ids": prompter.completion_ids(row.completion),
            "ended": True,
        }
        for row, reward in zip(read, rewards, strict=True)
    ]
    return rows, checks


def _sampled(context: Context, prompter: Prompter) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """K completions a problem from the served model, asked with its own instruction; trained on with the task's."""
    config = context.config
    spec = config["problems"]
    task = TASKS[spec["task"]]
    problems = load_problems(spec, context.where["sources"][0])
    asked = config["instruction"] or spec["instruction"] or task.instruction
    model = model_folder(context.inputs["model"])
    engine_settings = config["engine"] | engine_placement(context)
    teacher_prompter = Prompter(model, config["prompt"])
    completions = _shards(context, teacher_prompter, engine_settings, model, problems, asked)
    texts = [(c.text, p.answer) for p, cs in zip(problems, completions, strict=True) for c in cs]
    context.say(f"grading {len(texts)} rollouts")
    with Grader() as grader:
        verdicts = iter(grader.grade(texts))
    rows = []
    student = spec["instruction"] or task.instruction
    teacher = json.loads((context.inputs["model"] / "base.json").read_text())["name"]
    for problem, found in zip(problems, completions, strict=True):
        prompt_ids = prompter.prompt_ids(problem.problem, student)
        for completion in found:
            rows.append(
                {
                    "problem_id": problem.id,
                    "problem": problem.problem,
                    "answer": problem.answer,
                    "completion": completion.text,
                    "teacher": teacher,
                    "reward": float(next(verdicts).correct),
                    "prompt_ids": prompt_ids,
                    "completion_ids": prompter.completion_ids(completion.text, completion.finish == "stop"),
                    "ended": completion.finish == "stop",
                }
            )
    return rows, {"asked": asked}


def _shards(
    context: Context,
    prompter: Prompter,
    engine_settings: dict[str, Any],
    model: Path,
    problems: list[Problem],
    asked: str,
) -> list[list[Completion]]:
    """Completions shard by shard; a finished shard is read back, so a killed step goes on where it stood."""
    config, size = context.config, context.config["shard"]
    found: list[list[Completion]] = []
    for first in range(0, len(problems), size):
        shard = problems[first : first + size]
        path = context.work / f"shard-{first}-{key([p.id for p in shard])}.json"
        if not path.exists():
            context.say(f"{first}/{len(problems)} problems sampled")
            sampling = Sampling(
                n=config["samples"],
                temperature=config["temperature"],
                top_p=config["top_p"],
                max_tokens=config["max_tokens"],
                seed=config["seed"] + first,
            )
            prompts = [prompter.prompt_ids(p.problem, asked) for p in shard]
            answers = context.engine(engine_settings, model).generate(prompts, sampling, None)
            write_json(path, [[[list(c.token_ids), c.text, c.finish] for c in row] for row in answers])
            context.keep()
        saved = json.loads(path.read_text())
        found += [[Completion(tuple(ids), text, finish) for ids, text, finish in row] for row in saved]
    return found


def load_problems(spec: dict[str, Any], source: str | None) -> list[Problem]:
    """The problems that a study names, through their task's own loader."""
    return TASKS[spec["task"]].load(
        source, split=spec["split"], draw=spec["draw"], seed=spec["seed"], **spec["settings"]
    )


def engine_placement(context: Context) -> dict[str, Any]:
    """What an engine needs to know of this machine; never part of an identity."""
    return {"device": device(), **context.where["engine"]}
