"""Accuracies, tests between models and answers to show, from the verdicts of the evaluate steps."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.statistics.sampling import difference_interval, ladder, majority, pass_at, share_interval
from analysis.statistics.significance import holm, mcnemar_exact, sign_flip, smallest_difference
from execution.errors import UserError
from execution.step import Step
from orchestrator.evaluation.problems import read_problems
from orchestrator.results.read import fitting, read_part
from orchestrator.steps.evaluate import CANARY, VERDICTS
from orchestrator.steps.train import BASE
from report.text_pages import MODELS as SHOWN_MODELS
from report.text_pages import PROBLEMS as SHOWN_PROBLEMS
from report.text_pages import SAMPLES as SHOWN_SAMPLES
from report.text_pages import chosen
from results.evaluation import (
    CanaryRow,
    ComparedPair,
    Control,
    Engine,
    Evaluation,
    Incomplete,
    McNemarPair,
    Sampling,
    Score,
    SignFlipPair,
    SmallestDifference,
    SolvedAlone,
    Stratum,
    Task,
)
from results.part import present

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

    @property
    def scaled(self) -> bool:
        """Whether it is a scaled copy of a training, which no table of pairs holds."""
        adapter = self.steps[0].inputs.get("adapter")
        return adapter is not None and adapter.kind.name == "scale"

    def samples(self, task: str) -> int:
        return self.config["sampling"][task]["samples"]


def answered(steps: Iterable[Step], folders: Mapping[str, Path]) -> tuple[list[Answered], list[Incomplete]]:
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
            incomplete.append(Incomplete(name=name, parts=len(own), of=own[0].config["parts"]))
    return whole, incomplete


def read(
    model: Answered, task: Mapping[str, Any], columns: Sequence[str] = COUNTED, ids: Collection[str] | None = None
) -> Rows:
    """A model's rows of one task (problems x samples), in the task's order; only of the problems ``ids`` if given.

    ``UserError`` if a problem lacks a sample or has one twice.
    """
    import pyarrow.parquet

    wanted: list[Any] = [("task", "=", task["task"])]
    if ids is not None:
        wanted.append(("id", "in", list(ids)))
    by_id: dict[str, list[Row]] = defaultdict(list)
    for folder in model.folders:
        with fitting(folder / VERDICTS):
            table = pyarrow.parquet.read_table(folder / VERDICTS, columns=list(columns), filters=wanted)
        for row in table.to_pylist():
            by_id[row["id"]].append(row)
    asked = [p["id"] for p in task["problems"] if ids is None or p["id"] in ids]
    rows = [sorted(by_id[problem], key=lambda row: row["sample"]) for problem in asked]
    whole = list(range(model.samples(task["task"])))
    if any([row["sample"] for row in of] != whole for of in rows) or len(by_id) != len(asked):
        steps = ", ".join(step.folder for step in model.steps)
        raise UserError(
            f"the verdicts of {model.name} on {task['task']} are not one per problem and sample: remove {steps} from "
            "the store, and run makes them again"
        )
    return rows


Ends = Collection[tuple[str, str]]  # pairs of models


def evaluation(
    done: Mapping[str, Step], folders: Mapping[str, Path], compared: Ends | None = None
) -> Evaluation | None:
    """The ``evaluation`` part of the results: accuracies, comparisons of pairs of models, canaries.

    ``compared`` are the pairs of trainings that are compared beside every training and the base; None: every pair.

    ``incomplete`` lists models with unfinished parts; they are left out. None if nothing was evaluated.
    """
    whole, incomplete = answered(done.values(), folders)
    models, scaled = ([m for m in whole if m.scaled == kind] for kind in (False, True))
    parts = present(incomplete=incomplete or None)
    if models:
        config = models[0].config
        canary, controls = _canaries(whole)
        parts |= {
            "tasks": [_task(models, scaled, task, compared) for task in read_problems(folders["problems/evaluation"])],
            "canary": canary,
            "controls": controls,
            "engine": Engine(**config["engine"], shard=config["shard"], parts=config["parts"]),
        }
    return Evaluation(**parts) if parts else None


def shares(done: Mapping[str, Step], folders: Mapping[str, Path]) -> dict[str, dict[str, np.ndarray]]:
    """The share of right samples of each problem, by task and by model that has answered every problem."""
    models, _ = answered(done.values(), folders)
    tasks = read_problems(folders["problems/evaluation"]) if models else []
    columns = ("task", "id", "sample", "correct")
    return {
        task["task"]: {m.name: np.array([sum(r["correct"] for r in of) / len(of) for of in read(m, task, columns)])
                       for m in models}
        for task in tasks
    }  # fmt: skip


def _task(
    models: Sequence[Answered], scaled: Sequence[Answered], task: Mapping[str, Any], compared: Ends | None
) -> Task:
    scores, strata, right = [], [], {}
    sampling = Sampling(**models[0].config["sampling"][task["task"]])
    for model in models:
        rows = read(model, task)
        scores.append(_score(model.name, rows))
        strata += _strata(model.name, rows)
        right[model.name] = _right(rows)
    pairs = _compared(right, sampling.samples, compared)
    ids = [problem["id"] for problem in task["problems"]]
    solved = [[name for name, counts in right.items() if counts[i]] for i in range(len(ids))]
    return Task(
        task=task["task"],
        title=task["title"],
        n=len(ids),
        samples=sampling.samples,
        sampling=sampling,
        models=scores,
        pairs=pairs,
        strata=strata,
        smallest_difference=_smallest(len(ids), sampling.samples, len(pairs)),
        solved_by_all=sum(len(names) == len(right) for names in solved),
        solved_by_none=sum(not names for names in solved),
        alone=_alone(list(right), ids, solved),
        **present(scaled=[_score(model.name, read(model, task)) for model in scaled] or None),
    )


def _right(rows: Rows) -> list[int]:
    """Number of right samples per problem."""
    return [sum(row["correct"] for row in of) for of in rows]


def _score(name: str, rows: Rows) -> Score:
    """One model on one task; counts are of rows, n x samples in all."""
    n, samples, right = len(rows), len(rows[0]), _right(rows)
    flat = [row for of in rows for row in of]
    lengths = sorted(row["tokens"] for row in flat)
    low, high = share_interval(right, samples)
    return Score(
        name=name,
        n=n,
        samples=samples,
        correct=sum(right),
        accuracy=sum(right) / (n * samples),
        low=low,
        high=high,
        pass_at={str(k): statistics.fmean(pass_at(k, c, samples) for c in right) for k in ladder(samples)},
        maj=statistics.fmean(_votes(rows)) if samples > 1 else None,
        truncated=sum(row["finish"] == "length" for row in flat),
        not_found=sum(row["extracted"] is None for row in flat),
        mean_tokens=sum(lengths) / len(lengths),
        median_tokens=statistics.median(lengths),
        p95_tokens=lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))],
    )


def _votes(rows: Rows) -> list[float]:
    return [majority([row["vote"] for row in of], [row["correct"] for row in of]) for of in rows]


def _strata(model: str, rows: Rows) -> list[Stratum]:
    by_stratum: dict[str, list[float]] = defaultdict(list)
    for of, right in zip(rows, _right(rows), strict=True):
        if of[0]["stratum"] is not None:
            by_stratum[of[0]["stratum"]].append(right / len(of))
    return [
        Stratum(name=model, stratum=name, n=len(shares), accuracy=statistics.fmean(shares))
        for name, shares in sorted(by_stratum.items())
    ]


def _compared(right: Mapping[str, Sequence[int]], samples: int, compared: Ends | None) -> list[ComparedPair]:
    """Pairs of models on the same problems. ``difference`` is the second's accuracy less the first's."""
    ends = list(itertools.combinations(right, 2)) if compared is None else _beside_base(right, compared)
    steps = {(a, b): [second - first for first, second in zip(right[a], right[b], strict=True)] for a, b in ends}
    counts = [(sum(d < 0 for d in of), sum(d > 0 for d in of)) for of in steps.values()]
    if samples == 1:
        p = [mcnemar_exact(fell, rose) for fell, rose in counts]
    else:
        p = [sign_flip(of) for of in steps.values()]
    pairs: list[ComparedPair] = []
    for ((a, b), of), (fell, rose), own, adjusted in zip(steps.items(), counts, p, holm(p), strict=True):
        n = len(of) * samples
        low, high = difference_interval(of, samples)
        fields: dict[str, Any] = {"a": a, "b": b, "p": own, "difference": sum(of) / n, "low": low, "high": high}
        fields |= {"agreement": 1 - sum(map(abs, of)) / n, "p_holm": adjusted}
        if samples == 1:
            pairs.append(McNemarPair(test="mcnemar", only_a=fell, only_b=rose, **fields))
        else:
            pairs.append(SignFlipPair(test="sign flip", more_a=fell, more_b=rose, **fields))
    return pairs


def _beside_base(names: Mapping[str, Any], compared: Ends) -> list[tuple[str, str]]:
    """These pairs, and every model beside the base, as far as they have answered."""
    return [
        (a, b) for a, b in (*((BASE, name) for name in names if name != BASE), *compared) if a in names and b in names
    ]


def _smallest(n: int, samples: int, pairs: int) -> SmallestDifference:
    """The smallest significant difference on these problems, in one comparison and at Holm's first step.

    With several samples per problem, each problem that differs has to differ by one sample only.
    """
    single, first = (smallest_difference(n, LEVEL, tests) for tests in (1, max(1, pairs)))
    return SmallestDifference(
        single=None if single is None else single / samples, holm=None if first is None else first / samples
    )


def _alone(names: Sequence[str], ids: Sequence[str], solved: Sequence[list[str]]) -> list[SolvedAlone]:
    """Problems that only one model solves, with at least one right sample; empty for a single model."""
    alone = {name: [id for id, by in zip(ids, solved, strict=True) if by == [name]] for name in names}
    return [SolvedAlone(name=n, count=len(of), ids=of[:NAMED]) for n, of in alone.items() if len(names) > 1]


def _canaries(models: Sequence[Answered]) -> tuple[list[CanaryRow], list[Control]]:
    """Each model's canary, the worst of its parts; and the worst of the base and the zero adapter over all canaries."""
    own, controls = [], defaultdict(list)
    for model in models:
        mine = []
        for folder in model.folders:
            rows = {row.name: row for row in read_part(list[CanaryRow], folder / CANARY)}
            mine.append(rows.get("adapter", rows["base"]))
            for control in CONTROLS:
                controls[control].append(rows[control])
        own.append(CanaryRow(**_worst(mine) | {"name": model.name}))
    return own, [Control(**_worst(rows), checks=len(rows)) for rows in controls.values()]


def _worst(rows: Sequence[CanaryRow]) -> dict[str, Any]:
    flags = {"passed": all(row.passed for row in rows), "told_apart": all(row.told_apart for row in rows)}
    worst = max(rows, key=lambda row: row.max_difference)
    return dict(worst) | flags


def answers(done: Mapping[str, Step], folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Completions for ``report.text_pages``: some problems per task, those on which models differ first."""
    every = [model for model in answered(done.values(), folders)[0] if not model.scaled]
    models, pages = every[:SHOWN_MODELS], []
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
        page["of_models"] = len(every)
        pages.append(page | {"problems": shown})
    return pages
