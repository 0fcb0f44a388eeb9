"""The two pages beside the report that show text: what every model answered, and the rollouts that they learnt from.

Their text was written by models or stands in data. It is cut where it is long, shown as ``report.escape`` says, and
escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from report import formats
from report.escape import shown as as_shown
from report.model_index import ModelIndex
from report.tables import Table
from results import Results

ANSWERS, ROLLOUTS = "answers.html", "rollouts.html"
TITLES = {ANSWERS: "Answers side by side", ROLLOUTS: "The rollouts themselves"}
PROBLEMS = 100  # of a task
MODELS = 100  # of a study: its methods and the first of its other trainings
SAMPLES = 2  # of a problem and model
ROLLOUT_PROBLEMS = 20
LONGEST = 4000  # characters of a text


@dataclass(frozen=True)
class Text:
    """A text as it is shown, and in words how much of it is not."""

    text: str
    cut: str = ""


def legible(text: str | None, longest: int = LONGEST) -> Text:
    """The first ``longest`` characters of a text, with signs for those that do not show."""
    text = text or ""
    cut = ""
    if len(text) > longest:
        cut = f"Cut here: {formats.count(longest)} of {formats.count(len(text))} characters are shown."
    return Text(as_shown(text[:longest]), cut)


def chosen(right: Sequence[Sequence[int]], most: int = PROBLEMS) -> tuple[list[int], int]:
    """Which problems are shown, and on how many the models differ.

    ``right``: problems x models, right samples. Those on which models differ come first, each kind in its order.
    """
    differing = [i for i, counts in enumerate(right) if len(set(counts)) > 1]
    agreeing = [i for i, counts in enumerate(right) if len(set(counts)) <= 1]
    return [*differing, *agreeing][:most], len(differing)


def make(
    shown: dict,
    results: Results,
    index: ModelIndex,
    tables: Mapping[str, list[Table]],
    environment: Environment,
    style: str,
) -> dict[str, str]:
    """File name -> page, of what ``shown`` holds; ``tables`` are those of the report that a page repeats, by its name.

    ``shown["answers"]``: a task each, with task, title, n, of_models (models that there are), differing (problems on
    which those that are shown differ) and ``problems``
    (id, problem, answer, and of each of ``models`` its name, right, samples and ``answers``: completion, extracted,
    correct, tokens, finish). ``shown["rollouts"]``: of (problems in the table), seed and ``problems`` (id, problem,
    answer, split, ``rows``: teacher, reward, completion, tokens).
    """
    of = (results.study.title or results.study.name) if results.study else "Study"
    common = {"of": of, "style": Markup(style), "language": "en"}
    made = {}
    if shown.get("answers"):
        tasks = [_task(task, index) for task in shown["answers"]]
        made[ANSWERS] = environment.get_template(ANSWERS).render(title=TITLES[ANSWERS], tasks=tasks, **common)
    if shown.get("rollouts"):
        made[ROLLOUTS] = environment.get_template(ROLLOUTS).render(
            title=TITLES[ROLLOUTS],
            tables=tables.get(ROLLOUTS, []),
            told=_drawn(shown["rollouts"]),
            problems=[_rollouts(problem) for problem in shown["rollouts"]["problems"]],
            **common,
        )
    return made


def _task(task: dict, index: ModelIndex) -> dict:
    problems = task["problems"]
    summary = (
        f"{formats.count(task['n'])} problems; models differ on {formats.count(task['differing'])} of them, and those "
        "come first."
    )
    left = task["n"] - len(problems)
    if left:
        summary += (
            f" Shown: {formats.count(len(problems))}; left out: {formats.count(left)}. "
            "“python -m orchestrator export --to FOLDER” writes every completion of every problem."
        )
    if task.get("of_models", 0) > MODELS:
        summary += f" Of {formats.count(task['of_models'])} models the first {MODELS} are shown and counted here."
    return {
        "title": task["title"],
        "told": summary,
        "problems": [_problem(problem, index) for problem in problems],
    }


def _problem(problem: dict, index: ModelIndex) -> dict:
    named = {row["name"]: row for row in problem["models"]}
    rows = [named[name] for name in index.order(named)]
    solved = sum(row["right"] > 0 for row in rows)
    return {
        "id": legible(problem["id"], 200).text,
        "told": f"right: {solved} of {len(rows)} models",
        "problem": legible(problem["problem"]),
        "answer": legible(problem["answer"], 200),
        "models": [_model(row, index) for row in rows],
    }


def _model(row: dict, index: ModelIndex) -> dict:
    right, samples = row["right"], row["samples"]
    share = ""
    if samples > 1:
        share = f"{right} of {samples} samples right"
        if samples > len(row["answers"]):
            share += f"; the first {len(row['answers'])} are shown"
    return {
        "label": index.label(row["name"]),
        "share": share,
        "answers": [
            {
                "right": answer["correct"],
                "extracted": None if answer["extracted"] is None else legible(answer["extracted"], 200),
                "tokens": formats.count(answer["tokens"]),
                "truncated": answer["finish"] == "length",
                "text": legible(answer["completion"]),
            }
            for answer in row["answers"]
        ],
    }


def _drawn(rollouts: dict) -> str:
    count, of = len(rollouts["problems"]), rollouts["of"]
    if count == of:
        return f"All {formats.count(of)} problems, with all their rollouts."
    return f"{count} of {formats.count(of)} problems, drawn at seed {rollouts['seed']}, with all their rollouts."


def _rollouts(problem: dict) -> dict:
    rows = problem["rows"]
    return {
        "id": legible(problem["id"], 200).text,
        "told": f"{'held out' if problem['split'] == 'heldout' else 'for training'}; right: "
        f"{sum(row['reward'] > 0 for row in rows)} of {len(rows)}",
        "problem": legible(problem["problem"]),
        "answer": legible(problem["answer"], 200),
        "rows": [
            {
                "teacher": legible(row["teacher"], 200).text,
                "right": row["reward"] > 0,
                "reward": formats.significant(row["reward"]),
                "tokens": formats.count(row["tokens"]),
                "text": legible(row["completion"]),
            }
            for row in rows
        ],
    }
