"""Which of loss, learning rate, order and initial A moves the update: shares of variance, and pairs that differ in
one factor alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from report import formats
from report.factors import WORDS, named, ordered
from report.model_index import ModelIndex
from report.plotting import CHANCE, FLOOR, PAGE, Canvas, Made, called, gathered
from report.section import Records, Section, from_results
from report.tables import Cell, Column, Table, number, records, text
from results import Results, dump
from results.attribution import Attribution, Effect, OneFactor, Subject, VarianceBy

ANSWER = "one-factor"  # the figure that stands on the first screen where the answer is which factor turns the updates
_MOST_POINTS = 400
SUBJECTS = {"update": "of the update", "direction": "of its direction", "effect": "of its effect on real inputs"}


def attribution_table(results: Results, index: ModelIndex) -> Table | None:
    """A row a factor or interaction: its share of the variation of direction, of update and of effect."""
    found = results.attribution
    if found is None:
        return None
    by = {variance.of: variance for variance in found.variance}
    first = by["direction"]
    terms = {of: {tuple(term.factors): term for term in variance.terms} for of, variance in by.items()}
    alone = {row.factor: row for row in found.one_factor}
    rows: list[tuple[str, ...]] = [tuple(term.factors) for term in ordered(first.terms)]
    rows += [(factor,) for factor in alone if (factor,) not in rows]  # compared in pairs alone

    def share(of: Subject, row: tuple[str, ...]) -> Cell:
        effect: Effect | None = terms[of].get(row) if row else by[of].residual
        if effect is None or effect.share is None:
            return number(formats.MISSING, "nothing is left to tell it by" if effect else "compared in pairs alone")
        return number(formats.percent(effect.share), detail=formats.interval(effect.low, effect.high))

    def p(row: tuple[str, ...]) -> Cell:
        term = terms["direction"].get(row)
        if term is None or term.p is None:
            return number(formats.MISSING, "not tested: nothing may be exchanged, or nothing is left to test it by")
        cannot = term.p_floor is not None and term.p_floor >= 0.05
        detail = f"not below {formats.p_value(term.p_floor)}" if cannot else ""
        return number(formats.p_value(term.p_holm), detail=detail)

    def one(row: tuple[str, ...]) -> OneFactor | None:
        return alone.get(row[0]) if len(row) == 1 else None

    def cosine(row: tuple[str, ...]) -> Cell:
        pair = one(row)
        if pair is None or pair.cosine is None:
            return number(formats.MISSING, "no two trainings differ in this alone")
        ends = sorted({formats.cosine(pair.cosine_min), formats.cosine(pair.cosine_max)})
        shown = f"{formats.cosine(pair.cosine_min)} to {formats.cosine(pair.cosine_max)}" if len(ends) > 1 else ""
        return number(formats.cosine(pair.cosine), detail=shown)

    columns = [
        (Column("What differs", kind="text"), lambda row: text(named(index, row) or "all else")),
        *((Column("Share", SUBJECTS[of]), lambda row, of=of: share(of, row)) for of in ("direction", "update", "effect")
          if of in by),
        (Column("By chance", "labels shuffled"), lambda row: number(formats.percent(term.chance if (
            term := terms["direction"].get(row)) else None), "not a factor of the analysis")),
        (Column("p", "direction, Holm"), p),
        (Column("Cosine", "where only this differs"), cosine),
        (Column("Pairs", "of trainings"), lambda row: number(formats.count(pair.pairs if (pair := one(row)) else None),
                                                             "no two trainings differ in this alone")),
    ]  # fmt: skip
    return records(
        "attribution", "What moves the update", [*rows, ()], columns, _caption(found, first),
        kind=lambda row: "" if row else "chance",
    )  # fmt: skip


def _caption(found: Attribution, first: VarianceBy) -> str:
    balanced = (
        "Every combination was trained equally often, so the shares add up to 100%."
        if first.balanced
        else "Not every combination was trained: a share is what a factor explains beyond all others "
        f"(type II), {_overlap(first)}."
    )
    apart = len(found.trainings) - first.deltas
    others = f" {apart} trainings from the other random factor are in the pairs alone." if apart else ""
    layered = any(term.low is not None for term in first.terms)
    interval = " Small: its 95% interval by jackknife over layers, not over seeds."
    return (
        f"Analysis of variance of the weight updates of {first.deltas} trainings, from their inner products. "
        f"Direction: each at norm 1.{interval if layered else ''} {balanced}{others} By chance: the mean share if all "
        "labels were shuffled among the trainings, more with more levels. p: relabelled within what may be exchanged; "
        "interactions approximately. Cosine: mean and range over all pairs of trainings that are equal in every other "
        "factor."
    )


def _overlap(variance: VarianceBy) -> str:
    if variance.overlap is None or variance.overlap < 0:
        return "and together they explain less than the sum"
    return f"and {formats.percent(variance.overlap)} could be several factors’"


def one_factor(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Cosines of all pairs of trainings that differ in one factor alone, a strip a factor."""
    found = results.attribution
    if found is None or results.geometry is None:
        return None
    strips = _strips(results, found)
    if not strips:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 0.95 + 0.38 * len(strips))
    colours = {training.method: index.models[training.method].colour for training in results.trainings
               if training.method in index.models}  # fmt: skip
    for row, pairs in enumerate(strips.values()):
        every = [cosine for cosine, _ in pairs]
        thin = len(every) > _MOST_POINTS
        points = [(value, "") for value in np.quantile(every, np.linspace(0, 1, _MOST_POINTS))] if thin else pairs
        places = row + _spread([cosine for cosine, _ in points])
        for method in ("", *colours):
            shown = [i for i, (_, of) in enumerate(points) if (of if of in colours else "") == method]
            label = called(index, method) if method else "two other methods"
            axes.plot(
                [points[i][0] for i in shown], places[shown], linestyle="none", marker="o", markersize=4, alpha=0.65,
                color=colours.get(method, "#9a9a9a"), label=label if shown else "_",
            )  # fmt: skip
        axes.plot([float(np.mean(every))], [row], linestyle="none", marker="|", markersize=18, color="#000000")
    chance = results.geometry.chance.shared_a.cosine
    if chance is not None:
        axes.axvspan(-2 * chance, 2 * chance, color=CHANCE, alpha=0.25, linewidth=0)
    axes.axvline(0, color=FLOOR, linewidth=0.6)
    axes.axvline(1, color=FLOOR, linewidth=0.6)
    thinned = any(len(values) > _MOST_POINTS for values in strips.values())
    axes.set_yticks(range(len(strips)), [f"{named(index, [factor])} ({len(of)})" for factor, of in strips.items()])
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.set_xlim(min(-0.05, *(min(pairs)[0] - 0.03 for pairs in strips.values())), 1.03)
    axes.set_xlabel("cosine of two updates that differ in this alone")
    gathered(figure, [called(index, method) for method in colours], columns=8)
    reference = index.label(index.reference)
    return (
        figure,
        "What turns the update",
        "One point is one pair of trainings that are equal in all but this; the bar is their mean, the number beside "
        f"the name how many there are. Coloured: two trainings of one method, or of one and {reference}. At 1 only the "
        "size differs. Brown band: twice the root mean square of random updates’ cosine. Another "
        f"{index.by_chance.initial} puts the same change into other entries: see its share of the effect below."
        + (f" Of more than {_MOST_POINTS} pairs the points are quantiles." if thinned else ""),
    )


def _strips(results: Results, found: Attribution) -> dict[str, list[tuple[float, str]]]:
    """By factor, the cosine of every pair that differs in it alone, and the method that it is drawn as: the one of
    both, or the other one beside the reference; empty for two others."""
    levels = {row.name: row.levels for row in found.trainings}
    methods = {training.name: training.method for training in results.trainings}
    strips: dict[str, list[tuple[float, str]]] = {factor: [] for factor in (*WORDS, *next(iter(levels.values())))}
    geometry, reference = results.geometry, methods.get(results.reference or "", "")
    assert geometry is not None
    for factor, points in strips.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, held in levels.items():
            rest = tuple(repr(level) for other, level in held.items() if other != factor)
            alike.setdefault(rest, []).append(name)
        for names in alike.values() if any(factor in held for held in levels.values()) else ():
            for a, b in combinations(names, 2):
                cosine = geometry.cosine(a, b) if levels[a][factor] != levels[b][factor] else None
                if cosine is not None:
                    points.append((cosine, _of({methods[a], methods[b]}, reference)))
    return {factor: points for factor, points in strips.items() if points}


def _of(both: set[str], reference: str) -> str:
    """The method that a pair of trainings of ``both`` is drawn as."""
    if len(both) == 1:
        return next(iter(both))
    return next(iter(both - {reference})) if reference in both else ""


def _spread(values: Sequence[float]) -> np.ndarray:
    """Offsets that keep points of one strip from hiding each other: alternating, in the order of their values."""
    if len(values) < 2:
        return np.zeros(len(values))
    places = np.argsort(np.argsort(values))
    return 0.22 * ((places % 5) - 2) / 2


def _rows(results: Results) -> Records:
    found = results.attribution
    if found is None:
        return []
    return [
        {"of": variance.of, "factors": SEPARATOR.join(term.factors), **_plain(term)}
        for variance in found.variance
        for term in variance.terms
    ] + [{"of": variance.of, "factors": "", **_plain(variance.residual)} for variance in found.variance]


SEPARATOR = ":"


def _plain(effect: Effect) -> dict:
    return {key: value for key, value in dump(effect).items() if key != "factors"}


SECTION = Section(
    key="attribution",
    title="Is it the loss, the learning rate or the seed?",
    step="geometry",
    tables=from_results(attribution_table),
    figures={ANSWER: one_factor},
    csv={
        "attribution": _rows,
        "one_factor": lambda results: (
            [dump(row) for row in results.attribution.one_factor] if results.attribution else []
        ),
    },
)
