"""Tables of the updates' geometry: sizes and ranks, every pair, multiples and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from report import formats
from report.model_index import ModelIndex, dimensions
from report.tables import ZERO_UPDATE, Cell, Column, Table, named, number, records, text, tint
from results import Results
from results.weights import ByChance, Geometry, Pair, Variance

T = TypeVar("T")


def adapters_table(results: Results, index: ModelIndex) -> Table | None:
    """Norm and effective rank of each update."""
    rows = index.in_order(results.geometry.adapters if results.geometry else [])
    started = any(row.a_moved_rel is not None for row in rows)
    drawn = index.drawn
    unknown = f"{drawn.first} not known"
    moved = f" A small {drawn.way} means that the update’s {drawn.side} side is where its start put it."
    return records(
        "adapters",
        "Size and shape of each update",
        rows,
        [
            named(index),
            (Column("Norm", "‖ΔW‖, global"), lambda row: number(formats.significant(row.norm))),
            (
                Column("Effective rank", "mean over modules"),
                lambda row: number(formats.significant(row.effective_rank), ZERO_UPDATE),
            ),
            (
                Column("Stable rank", "mean over modules"),
                lambda row: number(formats.significant(row.stable_rank), ZERO_UPDATE),
            ),
            (
                Column(f"{drawn.letter} moved", drawn.moved),
                lambda row: number(formats.significant(row.a_moved_rel), unknown),
            ),
            (
                Column(f"In {drawn.span}", "share of ‖ΔW‖²"),
                lambda row: number(formats.cosine(row.start_share), unknown),
            ),
            (Column("Modules"), lambda row: number(formats.count(row.modules))),
        ],
        "Norm: Frobenius, over all modules. Effective rank: exp of the entropy of σ/Σσ, mean over "
        f"modules; it is at most the adapter’s rank. Stable rank: ‖ΔW‖² / σ₁².{moved if started else ''}",
        kind=lambda row: tint(index, row),
    )


@dataclass(frozen=True)
class _Row:
    """A pair or what chance gives, as it is called; ``kind``: its tint."""

    label: str
    found: Pair | ByChance
    kind: str = ""

    def of_pair(self, value: Callable[[Pair], T]) -> T | None:
        """What a pair has and chance has not."""
        return value(self.found) if isinstance(self.found, Pair) else None


def _rows(geometry: Geometry, index: ModelIndex, beside: str | None) -> Iterator[_Row]:
    """The floors, then every pair in the index's order; those ``beside`` a model where it is not None."""
    yield _Row(f"Chance, same {index.by_chance.initial}", geometry.chance.shared_a, "chance")
    yield _Row("Chance, random updates", geometry.chance.ambient, "chance")
    floors = geometry.floors.pairs
    for kind, pair in floors if beside is None else [row for row in floors if beside in (row[1].a, row[1].b)]:
        what = {"learning_rate": "learning rate", "itself": "in other factors"}.get(kind, kind)
        yield _Row(f"{index.label(pair.a)} · {index.label(pair.b)} ({what})", pair, "floor")
    names = [name for name in index.models if name != beside]
    for a, b in combinations(index.models, 2) if beside is None else ((beside, name) for name in names):
        if measured := geometry.pair(a, b):
            yield _Row(f"{index.label(measured.a)} · {index.label(measured.b)}", measured)


def pairs_table(results: Results, index: ModelIndex) -> Table | None:
    """Every pair of updates with all its measures, the floors first."""
    if results.geometry is None:
        return None

    def angle(value: float | None) -> Cell:
        return number(formats.degrees(value), ZERO_UPDATE)

    def overlap(value: float | None) -> Cell:
        return number(formats.cosine(value), ZERO_UPDATE)

    kept = results.kept_pairs
    return records(
        "pairs",
        f"Every update beside {index.label(kept.beside)}" if kept else "Every pair of updates",
        _rows(results.geometry, index, kept.beside if kept else None),
        [
            (Column("Pair", kind="text"), lambda row: text(row.label)),
            (Column("k"), lambda row: number(row.of_pair(lambda p: formats.span((p.k, p.k_max))) or formats.MISSING)),
            (Column("Cosine"), lambda row: overlap(row.found.cosine)),
            (Column("Smallest angle", "output side"), lambda row: angle(row.found.angle_min_median_deg)),
            (Column("Largest angle", "output side"), lambda row: angle(row.found.angle_max_median_deg)),
            (Column("Smallest angle", "input side"), lambda row: angle(row.found.right_angle_min_median_deg)),
            (Column("Largest angle", "input side"), lambda row: angle(row.found.right_angle_max_median_deg)),
            (Column("|u₁·u₁′|"), lambda row: overlap(row.found.u1)),
            (Column("|v₁·v₁′|"), lambda row: overlap(row.found.v1)),
            (Column("Overlap", "output side"), lambda row: overlap(row.found.overlap)),
            (Column("Overlap", "input side"), lambda row: overlap(row.found.right_overlap)),
            (Column("Orthogonal fraction"), lambda row: overlap(row.of_pair(lambda pair: pair.orthogonal_fraction))),
            (
                Column("Gap at k", "median"),
                lambda row: number(formats.significant(row.of_pair(lambda pair: pair.gap_median), 2)),
            ),
        ],
        f"Angles in degrees, medians over modules, between the top-k singular subspaces; "
        f"{_dimension_words(results, results.geometry)}overlaps are means over modules. Overlap: mean of cos² of all k "
        "angles, 1 for the same subspace. Gap: (σₖ − σₖ₊₁) / σₖ; without a gap the subspace, and its angles, are "
        "arbitrary. A largest angle near 90° says nothing: chance gives it too. The orthogonal fraction "
        f"is √(1 − cosine²) here, the cosine in other words and no second finding. Another {index.by_chance.initial} "
        f"takes the cosine towards 0 whatever was learned.{_left_out(results, index)}",
        kind=lambda row: row.kind,
        folded=True,
    )


def _left_out(results: Results, index: ModelIndex) -> str:
    """Which pairs the results do not list, said once."""
    kept = results.kept_pairs
    if kept is None:
        return ""
    reference = index.label(kept.beside)
    told = (
        f" Of {formats.count(kept.trainings)} trainings, pairs by layer and module are listed, here and in the CSV "
        f"files, with {reference} alone (features: and with the base)"
    )
    if kept.overall is None:
        return f"{told}; pairs.csv has every pair over all modules."
    return (
        f"{told}; over all modules, and in tests of accuracy, also each with the first that differs from it in one "
        "factor alone. Every cosine is in results.json, in the Gram."
    )


def _dimension_words(results: Results, geometry: Geometry) -> str:
    """The k of each pair where it is not one and the same for all."""
    k = dimensions(results, geometry.pairs)
    if " to " in k:
        return f"k, the smaller rank at a module or the set limit, is {k}, as each row says; "
    return f"k = {k}; "


def span_table(results: Results, index: ModelIndex) -> Table | None:
    """The nearest multiple of the reference, and the span of the other methods."""
    directions = results.directions
    if directions is None or len(directions.adapters) < 2:
        return None
    reference = index.label(index.reference)
    return records(
        "spans",
        "Multiples and mixtures",
        index.in_order(directions.adapters),
        [
            named(index),
            (
                Column("Nearest multiple", f"of {reference}"),
                lambda row: number(formats.significant(row.scale, 3), ZERO_UPDATE),
            ),
            (
                Column("Left over", f"of {reference}"),
                lambda row: number(formats.cosine(row.left_over), ZERO_UPDATE),
            ),
            (
                Column("Left over", "of all other methods"),
                lambda row: number(formats.cosine(row.span_left_over), ZERO_UPDATE, f"of {row.span_of}"),
            ),
        ],
        f"By least squares on the Gram of all updates: the multiple of {reference}’s update that is nearest, and the "
        "share of the norm that it misses (the orthogonal fraction); then the share that every mixture of the other "
        f"methods’ updates misses. A random update would miss nearly all.{_spread(directions.variance, index)}",
        kind=lambda row: tint(index, row, rate=True),
        folded=True,
    )


def _spread(variance: Variance | None, index: ModelIndex) -> str:
    """How much of the spread of directions lies between methods, where some were run in another order."""
    if variance is None or variance.between_share is None:
        return ""
    p = f", p {formats.p_value(variance.p)}" if variance.p is not None else ""
    return (
        f" Of {variance.methods} methods at one {index.drawn.initial}, each at its own learning rate, "
        f"{variance.repeated} ran in several orders of rows: {formats.percent(variance.between_share)} of the spread "
        "of directions lies between methods; with runs relabelled by chance it would be "
        f"{formats.percent(variance.between_chance)}{p}."
    )
