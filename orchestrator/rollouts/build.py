"""Rollouts: completions of problems, from a file, a dataset, a served model or an API, verified and frozen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evals.answers import Grader
from evals.engines import Completion, Sampling
from evals.grader import TaskGrader
from evals.tasks import TASKS, Problem
from execution import durable
from execution.context import Context
from execution.fingerprint import key
from execution.store import write_json
from orchestrator.evaluation.problems import load_problems
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.api_sampling import JOURNAL, Asking
from orchestrator.rollouts.dataset import distinct, fit, freeze, group_means, joined, statistics_of, write_table
from orchestrator.rollouts.file import Row, read_rollouts
from orchestrator.rollouts.hub import read_dataset
from orchestrator.rollouts.openai_client import Question, Teacher
from orchestrator.rollouts.row_tokens import positions, tokenized, with_answers
from orchestrator.steps.base import NOTE, model_folder
from orchestrator.steps.rollouts import STATISTICS
from orchestrator.steps.serving import engine_placement


class Found(NamedTuple):
    """Rows before the limits (see ``fit``), what else the statistics tell, and what was dropped already, by reason."""

    rows: list[dict[str, Any]]
    told: dict[str, Any]
    dropped: Counter[str]


def build(context: Context) -> None:
    """Writes ``rollouts.parquet`` (one row a completion) and ``statistics.json``: see ``dataset.py``."""
    config = context.config
    base = model_folder(context.inputs["base"])
    prompter = Prompter(base, config["prompt"])
    source = {"file": _from_file, "hub": _from_hub, "vllm": _sampled, "openai": _asked}[config["source"]]
    found, told, dropped = source(context, prompter)
    with _grader(config) as grader:
        rows, again = joined(found, grader.canonical)
    rows, tokens = tokenized(prompter, rows, context.progress)
    told |= {"tokens": tokens} | ({"joined": again} if again else {})
    means = group_means(rows)  # of all that was found: what the limits leave out was tried, too
    kept, limited = fit(rows, config["prompt"], positions(base, rows))
    lost = Counter[str]()
    if config["table"]["cut"] == "drop":
        kept, lost = with_answers(prompter, kept, _grader(config))
    dropped += limited + lost
    if config["table"]["duplicates"] == "drop":
        before, kept = len(kept), distinct(kept)
        dropped += Counter({"duplicate": before - len(kept)})
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
        raise ValueError(f"no rollout is left ({reasons}): raise the limits of prompt, or give other rollouts")
    table = freeze(kept, config["table"], means)
    write_table(table, context.out)
    stats = statistics_of(table) | told | {"dropped": dict(dropped), "source": config["source"]}
    write_json(context.out / STATISTICS, stats)


def _from_file(context: Context, prompter: Prompter) -> Found:
    config = context.config
    rows = read_rollouts(Path(context.where["path"]), config["draw"], config["table"]["seed"])
    return Found(*_given(context, prompter, rows), Counter())


def _from_hub(context: Context, prompter: Prompter) -> Found:
    config, where = context.config, context.where
    context.progress(f"reading {where['path']}")
    rows, dropped = read_dataset(where["path"], where["revision"], config, config["draw"], config["table"]["seed"])
    return Found(*_given(context, prompter, rows), dropped)


def _given(context: Context, prompter: Prompter, read: list[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with their own rewards or the grader's, and how far the two agree."""
    config = context.config
    given = read[0].reward is not None
    told: dict[str, Any] = {}
    context.progress(f"grading {len(read)} rollouts")
    with _grader(config) as grader:
        verdicts = [float(v.correct) for v in grader.grade([(row.completion, row.answer) for row in read])]
    if given:
        agreed = sum(v == ((row.reward or 0) > 0) for v, row in zip(verdicts, read, strict=True))
        told["grader_agreement"] = {"rows": len(read), "agreed": agreed}
    rewards = [r.reward if given and config["rewards"] == "given" else v for v, r in zip(verdicts, read, strict=True)]
    rows = [
        {
            "problem_id": row.problem_id,
            "problem": row.problem,
            "answer": row.answer,
            "completion": row.completion,
            "teacher": row.teacher,
            "reward": reward,
            "graded": verdict > 0,
            "opening": "",
            "ended": True,
            "instruction": config["instruction"],
        }
        for row, reward, verdict in zip(read, rewards, verdicts, strict=True)
    ]
    return rows, told


def _sampled(context: Context, prompter: Prompter) -> Found:
    """K completions a problem from the model that the study's engine serves."""
    config = context.config
    problems = load_problems(config["problems"], context.where["sources"][0])
    model = model_folder(context.inputs["model"])
    engine_settings = config["engine"] | engine_placement(context)
    own = {} if context.inputs["model"] == context.inputs["base"] else {"template": None}  # the study's is the base's
    teacher_prompter = Prompter(model, config["prompt"] | own)
    completions = _shards(context, teacher_prompter, engine_settings, model, problems, _instruction(config))
    teacher = json.loads((context.inputs["model"] / NOTE).read_text())["name"]
    of = [(p, c) for p, found in zip(problems, completions, strict=True) for c in found]
    alike = teacher_prompter.writes_as(prompter)
    texts = [(p, c.text if alike else begun(teacher_prompter, c.text), c.finish == "stop") for p, c in of]
    rows = _verified(context, texts, teacher, teacher_prompter.opening if alike else "")
    if alike:  # the tokens that were drawn, which the text does not tell
        rows = [row | {"completion_ids": list(c.token_ids)} for row, (_, c) in zip(rows, of, strict=True)]
    return Found(rows, {"asked": _instruction(config)}, Counter())


def begun(teacher: Prompter, text: str) -> str:
    """A completion with the thought that its teacher's prompt began, which another base's prompt does not begin."""
    return teacher.opening + text if text.strip() else text


def _asked(context: Context, prompter: Prompter) -> Found:
    """K completions a problem from a teacher behind an API. Those that ended otherwise than by themselves or at the
    limit (filtered, a call of a tool) are dropped, by reason."""
    config = context.config
    problems = load_problems(config["problems"], context.where["sources"][0])
    questions = [
        Question(p.id, k, _instruction(config).replace("{problem}", p.problem))
        for p in problems
        for k in range(config["samples"])
    ]
    asking = Asking(Teacher(config, context.where), questions, context.work / JOURNAL, context.keep, context.progress)
    answers, api, dropped = asking.run()
    texts, apart = [], 0
    for problem in problems:
        for k in range(config["samples"]):
            answer = answers.get((problem.id, k))
            if answer is None:
                continue
            if answer.finish not in ("stop", "length"):
                dropped[f"ended by {answer.finish}"] += 1
                continue
            apart += bool(answer.reasoning)
            kept = answer.reasoning and config["reasoning"] == "keep"
            text = f"<think>\n{answer.reasoning.strip()}\n</think>\n\n{answer.text}" if kept else answer.text
            texts.append((problem, text, answer.finish == "stop"))
    told = {"asked": _instruction(config), "api": api | {"with_reasoning": apart}}
    return Found(_verified(context, texts, config["model"]), told, dropped)


def _instruction(config: Any) -> str:
    """What the teacher is asked, which may differ from what the students are."""
    return config["instruction"] or _students(config["problems"])


def _students(spec: dict[str, Any]) -> str:
    return spec["instruction"] or TASKS[spec["task"]].instruction


def _grader(config: Any) -> TaskGrader:
    """The grader of the task that was asked; that of mathematics for completions that exist already."""
    return TASKS[config["problems"]["task"]].grader() if "problems" in config else Grader()


def _verified(
    context: Context, found: Sequence[tuple[Problem, str, bool]], teacher: str, opening: str = ""
) -> list[dict[str, Any]]:
    """Rows of (problem, completion, whether it ended by itself), graded; with the prompt's own ``opening``."""
    context.progress(f"grading {len(found)} rollouts")
    with _grader(context.config) as grader:
        verdicts = grader.grade([(opening + text, problem.answer) for problem, text, _ in found])
    student = _students(context.config["problems"])
    return [
        {
            "problem_id": problem.id,
            "problem": problem.problem,
            "answer": problem.answer,
            "completion": text,
            "teacher": teacher,
            "reward": float(verdict.correct),
            "graded": verdict.correct,
            "opening": opening,
            "ended": ended,
            "instruction": student,
        }
        for (problem, text, ended), verdict in zip(found, verdicts, strict=True)
    ]


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
        kept = durable.recall(path)
        if kept is None:
            context.progress(f"{first}/{len(problems)} problems sampled")
            sampling = Sampling(
                n=config["samples"],
                temperature=config["temperature"],
                top_p=config["top_p"],
                max_tokens=config["max_tokens"],
                seed=config["seed"] + first,
                stop=(prompter.turn.end_id,),
            )
            prompts = [prompter.prompt_ids(p.problem, asked) for p in shard]
            answers = context.resources(engine_settings, model).generate(prompts, sampling, None)
            kept = durable.keep(
                path, {"answers": [[[list(c.token_ids), c.text, c.finish] for c in row] for row in answers]}
            )
            context.keep()
        found += [[Completion(tuple(ids), text, finish) for ids, text, finish in row] for row in kept["answers"]]
    return found
