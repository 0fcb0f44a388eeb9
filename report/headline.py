"""The headline: every method against the reference, with its floors in the same rows.

A row is one comparison of an update with the reference's (SFT's). The floors are rows too, so that no number
stands without them: the same method at another order of rows, at another initial A, at another learning
rate; random updates in the reference's own row space of A; random updates in the whole space.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from analysis.weights.replicas import noise, runs
from report import formats
from report.model_index import BASE, ModelIndex, other, pair

AS_PUBLISHED = "as published"
MATCHED_RATE = "learning rate"
SWEEP = "sweep"
_MEASURES = ("cosine", "angle_min_median_deg", "angle_max_median_deg", "u1", "v1")
_COMPARED = ("method", "sweep")  # roles of which each training has a row beside the reference


@dataclass(frozen=True)
class Row:
    """One comparison. ``kind``: reference, method, matched, floor, chance, base or failed; None is undefined.

    ``to_reference`` is False for a floor of another method, whose cosine is to that method's own run. ``noise`` names
    those of the two compared whose update was made of rounding: the comparison is undefined.
    """

    name: str
    label: str
    kind: str
    method: str = ""
    matched: str = ""
    learning_rate: float | None = None
    norm: float | None = None
    norm_ratio: float | None = None
    rate_steps_ratio: float | None = None
    cosine: float | None = None
    angle_min: float | None = None
    angle_max: float | None = None
    u1: float | None = None
    v1: float | None = None
    weighted: float | None = None
    accuracy: dict = field(default_factory=dict)
    error: str = ""
    to_reference: bool = True
    noise: tuple[str, ...] = ()


def tasks(results: dict) -> list[str]:
    """The tasks' names: those evaluated, then any that only the headline names."""
    names = [task.get("task") for task in (results.get("evaluation") or {}).get("tasks") or []]
    for row in results.get("headline") or []:
        names += list(row.get("accuracy") or {})
    return [name for name in dict.fromkeys(names) if name is not None]


def task_title(results: dict, task: str) -> str:
    """The task's title where the evaluation gives one, its key otherwise."""
    for row in (results.get("evaluation") or {}).get("tasks") or []:
        if row.get("task") == task:
            return row.get("title") or task
    return task


def verdict(results: dict, task: str, name: str) -> dict:
    """The evaluation's row of one model on one task, empty where it was not evaluated."""
    for row in (results.get("evaluation") or {}).get("tasks") or []:
        if row.get("task") == task:
            for model in row.get("models") or []:
                if model.get("name") == name:
                    return model
    return {}


def _accuracy(results: dict, name: str, given: dict | None) -> dict:
    found = {task: verdict(results, task, name).get("accuracy") for task in tasks(results)}
    return {**found, **{task: value for task, value in (given or {}).items() if value is not None}}


def _exposure(results: dict, name: str | None) -> float | None:
    """Learning rate × optimiser steps: what Adam with clipping makes of the norm before any loss speaks."""
    for row in results.get("trainings") or []:
        if row.get("name") == name and row.get("learning_rate") is not None and row.get("report_step"):
            return row["learning_rate"] * row["report_step"]
    return None


def ratio(value: float | None, to: float | None) -> float | None:
    """``value / to``, None where either is undefined or ``to`` is zero."""
    return None if value is None or not to else value / to


def _weighted(results: dict, a: str | None, b: str | None) -> float | None:
    """The activation-weighted cosine of two updates; 1 of one that does something to itself.

    None where it is over fewer modules than the plain one beside it: both stand in a table of their own.
    """
    found = results.get("activations") or {}
    if found.get("left_out"):
        return None
    if a == b:
        return 1.0 if any(row.get("name") == a and row.get("norm") for row in found.get("adapters") or []) else None
    for row in found.get("pairs") or []:
        if {row.get("a"), row.get("b")} == {a, b}:
            return row.get("cosine")
    return None


def _norms(results: dict) -> dict[str, float | None]:
    adapters = (results.get("geometry") or {}).get("adapters") or []
    return {row.get("name"): row.get("norm") for row in adapters}


def _row(results: dict, index: ModelIndex, name: str, given: dict, kind: str, matched: str) -> Row:
    """One row: what the headline gives, filled from the geometry, the trainings and the evaluation."""
    norms = _norms(results)
    measured = pair(results, name, index.reference) if index.reference else {}
    merged = {**measured, **{key: value for key, value in given.items() if value is not None}}
    model = index.models.get(name)
    two = (given.get("a"), given.get("b")) if given.get("b") else (name, index.reference)
    marked = noise(results.get("trainings") or [])
    rounding = tuple(one for one in dict.fromkeys(two) if one in marked) if name != BASE else ()
    if rounding:
        merged |= dict.fromkeys(_MEASURES)
    norm = merged["norm"] if "norm" in merged else norms.get(name)
    rate = merged.get("learning_rate")
    to_itself = bool(name == index.reference and norm and not rounding)
    return Row(
        name=name,
        label=index.label(name),
        kind=kind,
        method=model.method if model else "",
        matched=matched,
        learning_rate=rate if rate is not None else (model.learning_rate if model else None),
        norm=norm,
        norm_ratio=None if kind == "base" else ratio(norm, norms.get(index.reference or "")),
        rate_steps_ratio=ratio(_exposure(results, name), _exposure(results, index.reference)),
        cosine=1.0 if to_itself else merged.get("cosine"),
        angle_min=0.0 if to_itself else merged.get("angle_min_median_deg"),
        angle_max=0.0 if to_itself else merged.get("angle_max_median_deg"),
        u1=1.0 if to_itself else merged.get("u1"),
        v1=1.0 if to_itself else merged.get("v1"),
        weighted=None if rounding else _weighted(results, *two),
        noise=rounding,
        accuracy=_accuracy(results, name, given.get("accuracy")),
    )


def _kind(index: ModelIndex, name: str, matched: str) -> str:
    if name == BASE:
        return "base"
    if name == index.reference:
        return "reference"
    if index.role(name) in ("order", "init"):
        return "floor"
    return "method" if matched in ("", AS_PUBLISHED) else "matched"


def pairs_of_floors(results: dict) -> list[tuple[str, dict]]:
    """Every measured floor with its kind: another order, another initial A, another rate; last, what rounding gives."""
    found = (results.get("geometry") or {}).get("floors") or {}
    rows = [(kind, entry) for kind, of in found.items() for entry in (of if isinstance(of, list) else [of]) if entry]
    known = {"order": 0, "init": 1, "learning_rate": 2, "itself": 4}
    return sorted(rows, key=lambda row: known.get(row[0], 3))


def _floor_rows(results: dict, index: ModelIndex, shown: Collection[str]) -> list[Row]:
    """A row for each replica of a method that is not in ``shown``; the pairs' table has all pairs, and rounding's."""
    rows = []
    for floor, entry in pairs_of_floors(results):
        names = [entry.get("a"), entry.get("b")]
        own = {run.method for run in runs(results.get("trainings") or [], [name for name in names if name])}
        if floor == "itself" or own.isdisjoint(names) or (names[1] in shown and names[0] in shown):
            continue
        found = other(entry, index.reference)
        replica = found or next((name for name in names if name not in own), names[1]) or floor
        row = _row(results, index, replica, entry, "floor", floor)
        rows.append(replace(row, to_reference=found is not None))
    return rows


def _chance_rows(results: dict) -> list[Row]:
    chance = (results.get("geometry") or {}).get("chance") or {}
    weighed = results.get("activations") or {}
    labels = {"shared_a": "Chance, same initial A", "ambient": "Chance, random"}
    rows = []
    for key, words in labels.items():
        entry = chance.get(key) or {}
        if entry:
            rows.append(
                Row(
                    name=key,
                    label=words,
                    kind="chance",
                    cosine=entry.get("cosine"),
                    angle_min=entry.get("angle_min_median_deg"),
                    angle_max=entry.get("angle_max_median_deg"),
                    u1=entry.get("u1"),
                    v1=entry.get("v1"),
                    weighted=weighed.get("chance") if key == "shared_a" and not weighed.get("left_out") else None,
                )
            )
    return rows


def _given(results: dict, index: ModelIndex) -> list[dict]:
    """The headline's own rows, or one a model where the results hold none."""
    if results.get("headline"):
        return [row for row in results["headline"] if row.get("name")]
    return [{"name": name} for name, model in index.models.items() if model.role in ("base", "method")]


def rows(results: dict, index: ModelIndex) -> list[Row]:
    """All rows in reading order: reference, methods, matched, floors, chance, base, failed trainings."""
    made: dict[str, list[Row]] = {kind: [] for kind in ("reference", "method", "matched", "base", "failed")}
    given_rows = _given(results, index)
    floors = _floor_rows(results, index, {row["name"] for row in given_rows if index.role(row["name"]) in _COMPARED})
    for given in given_rows:
        name, matched = given["name"], given.get("matched") or ""
        kind = _kind(index, name, matched)
        model = index.models[name]
        if model.error:
            continue
        if kind == "floor":
            if name not in {row.name for row in floors}:
                floors.append(_row(results, index, name, given, kind, model.role))
            continue
        made[kind].append(_row(results, index, name, given, kind, matched))
    if index.reference and not made["reference"] and not index.models[index.reference].error:
        made["reference"].append(_row(results, index, index.reference, {}, "reference", ""))
    if not made["base"] and BASE in index.models:
        made["base"].append(_row(results, index, BASE, {}, "base", ""))
    for name, model in index.models.items():
        if model.error:
            made["failed"].append(Row(name, model.label, "failed", error=model.error))
    ordered = [*made["reference"], *made["method"], *made["matched"], *floors, *_chance_rows(results)]
    return [*ordered, *made["base"], *made["failed"]]


def match_label(index: ModelIndex, row: Row) -> str:
    """What a row holds equal to the reference, in words."""
    if row.kind == "reference":
        return "reference"
    if row.kind == "floor":
        known = {"order": "another order of rows", "init": "another initial A"}
        return f"floor: {known.get(row.matched, 'another ' + row.matched.replace('_', ' '))}"
    if row.kind in ("chance", "base", "failed"):
        return {"chance": "floor", "base": "no update", "failed": "failed"}[row.kind]
    if row.matched == AS_PUBLISHED:
        held = row.learning_rate is not None and row.learning_rate == index.rate
        return f"{index.label(index.reference)}’s rate" if held else "own rate"
    if not row.matched:
        return formats.MISSING
    if row.matched == SWEEP:
        return "sweep"
    return f"{index.label(index.reference)}’s {'rate' if row.matched == MATCHED_RATE else row.matched}"


def reference_norm(results: dict, index: ModelIndex) -> float | None:
    """The norm of the reference's update."""
    return _norms(results).get(index.reference or "")
