"""The headline: every method against the reference, with its floors in the same rows.

A row is one comparison of an update with the reference's (SFT's). The floors are rows too, so that no number
stands without them: the same method at another order of rows, at another initial A, at another learning
rate; random updates in the reference's own row space of A (column space of B, where that was drawn); random updates in
the whole space.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from analysis.weights.replicas import noise, runs
from report import formats
from report.matched import covered
from report.model_index import BASE, ModelIndex, other
from results import Results
from results.trainings import Untrained
from results.weights import ByChance, Pair

AS_PUBLISHED = "as published"
MATCHED_RATE = "learning rate"
SWEEP = "sweep"
_KINDS = ("reference", "method", "matched")  # in reading order
_FLOORS = {"order": "another order of rows", "init": "another initial {}", "learning_rate": "another learning rate"}


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
    accuracy: dict[str, float | None] = field(default_factory=dict)
    error: str = ""
    to_reference: bool = True
    noise: tuple[str, ...] = ()


def rows(results: Results, index: ModelIndex) -> list[Row]:
    """All rows in reading order: reference, methods, matched, floors, chance, base, failed trainings.

    What is compared with the reference at another rate than its own stands in a table of its own (``matched``).
    """
    listed = {row.name: row.matched or "" for row in results.headline or ()}
    if not listed:  # nothing was measured: accuracies alone
        listed = {model.name: "" for model in index.models.values() if model.role == "method" and not model.error}
    elsewhere = covered(results)
    listed = {name: how for name, how in listed.items() if how != SWEEP or name not in elsewhere}
    listed = {name: how for name, how in listed.items() if name in index.models}
    compared = [_row(results, index, name, _kind(index, name, matched), matched) for name, matched in listed.items()]
    reference = index.models.get(index.reference or "")
    if reference and not reference.error and reference.name not in listed:
        compared.append(_row(results, index, reference.name, "reference"))
    compared.sort(key=lambda row: _KINDS.index(row.kind))
    compared += [*_floor_rows(results, index, listed), *_chance_rows(results, index)]
    if BASE in index.models:
        compared.append(Row(BASE, index.label(BASE), "base", BASE, accuracy=_accuracy(results, BASE)))
    failed = [model for model in index.models.values() if model.error]
    return [*compared, *(Row(model.name, model.label, "failed", error=model.error) for model in failed)]


def _kind(index: ModelIndex, name: str, matched: str) -> str:
    if name == index.reference:
        return "reference"
    return "method" if matched in ("", AS_PUBLISHED) else "matched"


def _row(
    results: Results, index: ModelIndex, name: str, kind: str, matched: str = "", floor: Pair | None = None
) -> Row:
    """A training beside the reference, or the replica of a ``floor`` beside the run that it repeats."""
    geometry, model, reference = results.geometry, index.models[name], index.reference or ""
    norms = geometry.norms if geometry else {}
    pair = floor or (geometry and geometry.pair(name, reference))
    two = (floor.a, floor.b) if floor else (name, reference)
    marked = noise(map(vars, results.trainings))
    row = Row(
        name=name,
        label=model.label,
        kind=kind,
        method=model.method,
        matched=matched,
        learning_rate=model.learning_rate,
        norm=norms.get(name),
        norm_ratio=ratio(norms.get(name), norms.get(reference)),
        rate_steps_ratio=ratio(_exposure(results, name), _exposure(results, reference)),
        accuracy=_accuracy(results, name),
        noise=tuple(one for one in dict.fromkeys(two) if one in marked),
    )
    if row.noise:
        return row
    row = replace(row, weighted=_weighted(results, *two))
    if name == reference and row.norm:
        return replace(row, cosine=1.0, angle_min=0.0, angle_max=0.0, u1=1.0, v1=1.0)
    return _measured(row, pair) if pair else row


def _measured(row: Row, by: Pair | ByChance) -> Row:
    angles = by.angle_min_median_deg, by.angle_max_median_deg
    return replace(row, cosine=by.cosine, angle_min=angles[0], angle_max=angles[1], u1=by.u1, v1=by.v1)


def _accuracy(results: Results, name: str) -> dict[str, float | None]:
    return {task.task: results.accuracy(task.task, name) for task in results.tasks}


def _exposure(results: Results, name: str) -> float | None:
    """Learning rate × optimiser steps: what Adam with clipping makes of the norm before any loss speaks."""
    training = results.training(name)
    if training is None or isinstance(training, Untrained):
        return None
    return training.learning_rate * training.report_step


def ratio(value: float | None, to: float | None) -> float | None:
    """``value / to``, None where either is undefined or ``to`` is zero."""
    return None if value is None or not to else value / to


def _weighted(results: Results, a: str, b: str) -> float | None:
    """The activation-weighted cosine of two updates; 1 of one that does something to itself.

    None where it is over fewer modules than the plain one beside it: both stand in a table of their own.
    """
    activations = results.activations
    if activations is None or activations.left_out:
        return None
    if a == b:
        return 1.0 if any(effect.name == a and effect.norm for effect in activations.adapters) else None
    return activations.cosine(a, b)


def _floor_rows(results: Results, index: ModelIndex, shown: Collection[str]) -> list[Row]:
    """A row for each replica of a method that is not in ``shown``; the pairs' table has all pairs, and rounding's."""
    rows = []
    for kind, pair in results.geometry.floors.pairs if results.geometry else ():
        own = runs(map(vars, results.trainings), [pair.a])[0].method
        if kind == "itself" or own not in (pair.a, pair.b) or (pair.a in shown and pair.b in shown):
            continue
        beside = index.reference if other(pair, index.reference) else own
        replica = other(pair, beside)
        assert replica is not None, "a floor is between two runs"
        if replica not in index.models:  # of an index of few
            continue
        row = _row(results, index, replica, "floor", kind, pair)
        rows.append(replace(row, to_reference=beside == index.reference))
    return rows


def _chance_rows(results: Results, index: ModelIndex) -> list[Row]:
    if results.geometry is None:
        return []
    chance, weighed = results.geometry.chance, results.activations
    weighted = weighed.chance if weighed and not weighed.left_out else None
    shared = Row("shared_a", f"Chance, same {index.by_chance.initial}", "chance", weighted=weighted)
    return [_measured(shared, chance.shared_a), _measured(Row("ambient", "Chance, random", "chance"), chance.ambient)]


def match_label(index: ModelIndex, row: Row) -> str:
    """What a row holds equal to the reference, in words."""
    if row.kind == "floor":
        return f"floor: {_FLOORS[row.matched].format(index.by_chance.letter)}"
    told = {"reference": "reference", "chance": "floor", "base": "no update", "failed": "failed"}
    if row.kind in told:
        return told[row.kind]
    if row.matched == AS_PUBLISHED:
        held = row.learning_rate is not None and row.learning_rate == index.rate
        return f"{index.label(index.reference)}’s rate" if held else "own rate"
    if row.matched == MATCHED_RATE:
        return f"{index.label(index.reference)}’s rate"
    return row.matched or formats.MISSING


def reference_norm(results: Results, index: ModelIndex) -> float | None:
    """The norm of the reference's update."""
    return results.geometry.norms.get(index.reference or "") if results.geometry else None
