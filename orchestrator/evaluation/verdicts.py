"""Accuracies, tests between models and answers to show, from the verdicts of the evaluate steps."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.statistics.sampling import difference_interval, ladder, majority, pass_at, share_interval
from analysis.statistics.significance import holm, mcnemar_exact, sign_flip, smallest_difference
from execution.step import Step
from orchestrator.evaluation.answer import CANARY, VERDICTS
from orchestrator.evaluation.problems import read_problems
from report.text_pages import PROBLEMS as SHOWN_PROBLEMS
from report.text_pages import SAMPLES as SHOWN_SAMPLES
from report.text_pages import chosen

LEVEL = 0.05
NAMED = 20  # listed ids of problems that only one model solves
COUNTED = ("task", "id", "sample", "stratum", "extracted", "vote", "correct", "tokens", "finish")  # without texts
CONTROLS = ("base", "zero")  # checked by each canary before the step's adapter

Row = dict[str, Any]
Rows = list[list[Row]]  # problems x samples


@dataclass(frozen=True)
class Answered:
    """A model that has answered every problem: its evaluate steps, one per part, and their folders."""

    name: str
    steps: tuple[Step, ...]
    folders: tuple[Path, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.steps[0].config

    def samples(self, task: str) -> int:
        return self.config["sampling"][task]["samples"]


def answered(steps: Iterable[Step], folders: Mapping[str, Path]) -> tuple[list[Answered], list[dict[str, Any]]]:
    """Models with all parts of their evaluation, in the steps' order, and those with only some parts."""
    parts: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        if step.kind.name == "evaluate":
            parts[step.role].append(step)
    whole, incomplete = [], []
    for name, own in parts.items():
        if len(own) == own[0].config["parts"]:
            whole.append(Answered(name, tuple(own), tuple(folders[step.title] for step in own)))
        else:
            incomplete.append({"name": name, "parts": len(own), "of": own[0].config["parts"]})
    return whole, incomplete


def read(
    model: Answered, task: Mapping[str, Any], columns: Sequence[str] = COUNTED, ids: Collection[str] | None = None
) -> Rows:
    """A model's rows of one task (problems x samples), in the task's order; only of the problems ``ids`` if given.

    ``ValueError`` if a problem lacks a sample or has one twice.
    """
    import pyarrow.parquet

    wanted: list[Any] = [("task", "=", task["task"])]
    if ids is not None:
        wanted.append(("id", "in", list(ids)))
    by_id: dict[str, list[Row]] = defaultdict(list)
    for folder in model.folders:
        table = pyarrow.parquet.read_table(folder / VERDICTS, columns=list(columns), filters=wanted)
        for row in table.to_pylist():
            by_id[row["id"]].append(row)
    asked = [p["id"] for p in task["problems"] if ids is None or p["id"] in ids]
    rows = [sorted(by_id[problem], key=lambda row: row["sample"]) for problem in asked]
    whole = list(range(model.samples(task["task"])))
    if any([row["sample"] for row in of] != whole for of in rows) or len(by_id) != len(asked):
        raise ValueError(f"the verdicts of {model.name} on {task['task']} are not one per problem and sample")
    return rows


def evaluation(done: Mapping[str, Step], folders: Mapping[str, Path]) -> dict[str, Any]:
    """The ``evaluation`` part of the results: accuracies, comparisons of pairs of models, canaries.

    ``incomplete`` lists models with unfinished parts; they are left out.
    """
    models, incomplete = answered(done.values(), folders)
    missing = {"incomplete": incomplete} if incomplete else {}
    if not models:
        return missing
    tasks = [_task(models, task) for task in read_problems(folders["problems/evaluation"])]
    config = models[0].config
    engine = dict(config["engine"]) | {"shard": config["shard"], "parts": config["parts"]}
    return {"tasks": tasks, **_canaries(models), "engine": engine, **missing}


def _task(models: Sequence[Answered], task: Mapping[str, Any]) -> dict[str, Any]:
    accuracies, strata, right = [], [], {}
    sampling = models[0].config["sampling"][task["task"]]
    for model in models:
        rows = read(model, task)
        accuracies.append({"name": model.name, **_accuracy(rows)})
        strata += [{"name": model.name, **entry} for entry in _strata(rows)]
        right[model.name] = _right(rows)
    pairs = _compared(right, sampling["samples"])
    ids = [problem["id"] for problem in task["problems"]]
    return {
        "task": task["task"],
        "title": task["title"],
        "n": len(ids),
        "samples": sampling["samples"],
        "sampling": sampling,
        "models": accuracies,
        "pairs": pairs,
        "strata": strata,
        "smallest_difference": _smallest(len(ids), sampling["samples"], len(pairs)),
        **_solved(right, ids),
    }


def _right(rows: Rows) -> list[int]:
    """Number of right samples per problem."""
    return [sum(row["correct"] for row in of) for of in rows]


def _accuracy(rows: Rows) -> dict[str, Any]:
    """One model on one task; counts are of rows, n x samples in all."""
    n, samples, right = len(rows), len(rows[0]), _right(rows)
    flat = [row for of in rows for row in of]
    lengths = sorted(row["tokens"] for row in flat)
    low, high = share_interval(right, samples)
    votes = [majority([row["vote"] for row in of], [row["correct"] for row in of]) for of in rows]
    return {
        "n": n,
        "samples": samples,
        "correct": sum(right),
        "accuracy": sum(right) / (n * samples),
        "low": low,
        "high": high,
        "pass_at": {str(k): statistics.fmean(pass_at(k, c, samples) for c in right) for k in ladder(samples)},
        "maj": statistics.fmean(votes) if samples > 1 else None,
        "truncated": sum(row["finish"] == "length" for row in flat),
        "not_found": sum(row["extracted"] is None for row in flat),
        "mean_tokens": sum(lengths) / len(lengths),
        "median_tokens": statistics.median(lengths),
        "p95_tokens": lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
    }


def _strata(rows: Rows) -> list[dict[str, Any]]:
    by_stratum: dict[str, list[float]] = defaultdict(list)
    for of, right in zip(rows, _right(rows), strict=True):
        if of[0]["stratum"] is not None:
            by_stratum[of[0]["stratum"]].append(right / len(of))
    return [
        {"stratum": name, "n": len(shares), "accuracy": statistics.fmean(shares)}
        for name, shares in sorted(by_stratum.items())
    ]


def _compared(right: Mapping[str, Sequence[int]], samples: int) -> list[dict[str, Any]]:
    """Every pair of models on the same problems. ``difference`` is the second's accuracy minus the first's."""
    pairs = []
    for a, b in itertools.combinations(right, 2):
        steps = [second - first for first, second in zip(right[a], right[b], strict=True)]
        n, fell, rose = len(steps), sum(d < 0 for d in steps), sum(d > 0 for d in steps)
        pair: dict[str, Any] = {"a": a, "b": b}
        if samples == 1:
            pair |= {"test": "mcnemar", "only_a": fell, "only_b": rose, "p": mcnemar_exact(fell, rose)}
        else:
            pair |= {"test": "sign flip", "more_a": fell, "more_b": rose, "p": sign_flip(steps)}
        low, high = difference_interval(steps, samples)
        pair |= {"difference": sum(steps) / (n * samples), "low": low, "high": high}
        pairs.append(pair | {"agreement": 1 - sum(map(abs, steps)) / (n * samples)})
    for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = adjusted
    return pairs


def _smallest(n: int, samples: int, pairs: int) -> dict[str, float | None]:
    """The smallest significant difference on these problems, in one comparison and at Holm's first step.

    With several samples per problem, each problem that differs has to differ by one sample only.
    """
    least = {"single": smallest_difference(n, LEVEL), "holm": smallest_difference(n, LEVEL, max(1, pairs))}
    return {name: None if value is None else value / samples for name, value in least.items()}


def _solved(right: Mapping[str, Sequence[int]], ids: Sequence[str]) -> dict[str, Any]:
    """Problems solved, with at least one right sample, by all models, by none, or by one only."""
    by = [[name for name, counts in right.items() if counts[i]] for i in range(len(ids))]
    alone = {name: [id for id, solved in zip(ids, by, strict=True) if solved == [name]] for name in right}
    return {
        "solved_by_all": sum(len(solved) == len(right) for solved in by),
        "solved_by_none": sum(not solved for solved in by),
        "alone": [{"name": name, "count": len(of), "ids": of[:NAMED]} for name, of in alone.items() if len(right) > 1],
    }


def _canaries(models: Sequence[Answered]) -> dict[str, Any]:
    """Each model's canary, the worst of its parts; and the worst of the base and the zero adapter over all canaries."""
    own, controls = [], defaultdict(list)
    for model in models:
        mine = []
        for folder in model.folders:
            rows = {row["name"]: row for row in json.loads((folder / CANARY).read_text())}
            mine.append(rows.get("adapter", rows["base"]))
            for control in CONTROLS:
                controls[control].append(rows[control])
        own.append(_worst(mine) | {"name": model.name})
    return {"canary": own, "controls": [_worst(rows) | {"checks": len(rows)} for rows in controls.values()]}


def _worst(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    flags = {flag: all(row[flag] for row in rows) for flag in ("passed", "told_apart")}
    return dict(max(rows, key=lambda row: row["max_difference"])) | flags


def answers(done: Mapping[str, Step], folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Completions for ``report.text_pages``: some problems per task, those on which models differ first."""
    models, _ = answered(done.values(), folders)
    pages = []
    for task in read_problems(folders["problems/evaluation"]) if models else []:
        right = {model.name: _right(read(model, task, ("task", "id", "sample", "correct"))) for model in models}
        picked, differing = chosen(list(zip(*right.values(), strict=True)), SHOWN_PROBLEMS)
        problems = [task["problems"][i] for i in picked]
        ids = [problem["id"] for problem in problems]
        order = sorted(range(len(ids)), key=picked.__getitem__)  # rows come in the task's order
        shown: list[dict[str, Any]] = [
            {"id": p["id"], "problem": p["problem"], "answer": p["answer"], "models": []} for p in problems
        ]
        for model in models:
            columns = ("task", "id", "sample", "completion", "extracted", "correct", "tokens", "finish")
            for place, rows in zip(order, read(model, task, columns, set(ids)), strict=True):
                counts = {"right": right[model.name][picked[place]], "samples": len(rows)}
                shown[place]["models"].append({"name": model.name, **counts, "answers": rows[:SHOWN_SAMPLES]})
        page = {"task": task["task"], "title": task["title"], "n": len(task["problems"]), "differing": differing}
        pages.append(page | {"problems": shown})
    return pages
