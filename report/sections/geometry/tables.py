"""Tables of the updates' geometry: sizes and ranks, every pair, multiples and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from report import (
    formats,  # typed soon
    typed_soon,  # typed soon
)
from report import typed_soon as headline  # typed soon
from report.model_index import ModelIndex  # typed soon
from report.tables import ZERO_UPDATE, Cell, Column, Table, number, records, text  # typed soon
from report.typed_soon import dimensions, named, pair, tint  # typed soon  # typed soon


def adapters_table(results: dict, index: ModelIndex) -> Table | None:
    """Norm and effective rank of each update."""
    rows = typed_soon.in_order(index, (results.get("geometry") or {}).get("adapters") or [])  # typed soon
    started = any(row.get("a_moved_rel") is not None for row in rows)
    moved = " A small ‖A−A₀‖ means that the update’s input side is where its start put it." if started else ""
    return records(
        "adapters",
        "Size and shape of each update",
        rows,
        [
            named(index),
            (Column("Norm", "‖ΔW‖, global"), lambda row: number(formats.significant(row.get("norm")))),
            (
                Column("Effective rank", "mean over modules"),
                lambda row: number(formats.significant(row.get("effective_rank")), ZERO_UPDATE),
            ),
            (
                Column("Stable rank", "mean over modules"),
                lambda row: number(formats.significant(row.get("stable_rank")), ZERO_UPDATE),
            ),
            (
                Column("A moved", "‖A−A₀‖ / ‖A₀‖"),
                lambda row: number(formats.significant(row.get("a_moved_rel")), "A₀ not known"),
            ),
            (
                Column("In A₀’s rows", "share of ‖ΔW‖²"),
                lambda row: number(formats.cosine(row.get("start_share")), "A₀ not known"),
            ),
            (Column("Modules"), lambda row: number(formats.count(row.get("modules")))),
        ],
        "Norm: Frobenius, over all modules. Effective rank: exp of the entropy of σ/Σσ, mean over "
        f"modules; it is at most the adapter’s rank. Stable rank: ‖ΔW‖² / σ₁².{moved}",
        kind=lambda row: tint(index, row),
    )


def _pair_rows(results: dict, index: ModelIndex) -> Iterator[dict]:
    geometry = results.get("geometry") or {}
    chance = geometry.get("chance") or {}
    for key, words in (("shared_a", "chance, same initial A"), ("ambient", "chance, random updates")):
        if isinstance(chance.get(key), dict):
            yield {**chance[key], "a": words, "b": None, "floor": "chance"}
    for key, entry in headline.pairs_of_floors(results):
        what = {"learning_rate": "learning rate", "itself": "in other factors"}.get(key, key)
        yield {**entry, "floor": "floor", "what": what}
    names = list(index.models)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            found = pair(results, a, b)
            if found:
                yield found


def _pair_name(index: ModelIndex, row: dict) -> Cell:
    if row.get("b") is None:
        words = str(row.get("a"))
        return text(words[:1].upper() + words[1:])
    words = f"{index.label(row.get('a'))} · {index.label(row.get('b'))}"
    return text(f"{words} ({row['what']})" if row.get("what") else words)


def pairs_table(results: dict, index: ModelIndex) -> Table | None:
    """Every pair of updates with all its measures, the floors first."""

    def angle(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.degrees(row.get(key)), ZERO_UPDATE)

    def overlap(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.cosine(row.get(key)), ZERO_UPDATE)

    return records(
        "pairs",
        "Every pair of updates",
        list(_pair_rows(results, index)),
        [
            (Column("Pair", kind="text"), lambda row: _pair_name(index, row)),
            (Column("k"), lambda row: number(dimensions({}, [row]) or formats.MISSING)),
            (Column("Cosine"), overlap("cosine")),
            (Column("Smallest angle", "output side"), angle("angle_min_median_deg")),
            (Column("Largest angle", "output side"), angle("angle_max_median_deg")),
            (Column("Smallest angle", "input side"), angle("right_angle_min_median_deg")),
            (Column("Largest angle", "input side"), angle("right_angle_max_median_deg")),
            (Column("|u₁·u₁′|"), overlap("u1")),
            (Column("|v₁·v₁′|"), overlap("v1")),
            (Column("Overlap", "output side"), overlap("overlap")),
            (Column("Overlap", "input side"), overlap("right_overlap")),
            (Column("Orthogonal fraction"), overlap("orthogonal_fraction")),
            (Column("Gap at k", "median"), lambda row: number(formats.significant(row.get("gap_median"), 2))),
        ],
        f"Angles in degrees, medians over modules, between the top-k singular subspaces; {_dimension_words(results)}"
        "overlaps are means over modules. Overlap: mean of cos² of all k angles, 1 for the same subspace. "
        "Gap: (σₖ − σₖ₊₁) / σₖ; without a gap the subspace, and its angles, are "
        "arbitrary. A largest angle near 90° says nothing: chance gives it too. The orthogonal fraction "
        "is √(1 − cosine²) here, the cosine in other words and no second finding. Another initial A takes "
        "the cosine towards 0 whatever was learned.",
        kind=lambda row: row.get("floor") or "",
        folded=True,
    )


def _dimension_words(results: dict) -> str:
    """The k of each pair where it is not one and the same for all."""
    pairs = (results.get("geometry") or {}).get("pairs") or []
    k = dimensions(results, pairs)
    if " to " in k:
        return f"k, the smaller rank at a module or the set limit, is {k}, as each row says; "
    return f"k = {k}; " if k else ""


def span_table(results: dict, index: ModelIndex) -> Table | None:
    """The nearest multiple of the reference, and the span of the other methods."""
    found = results.get("directions") or {}
    rows = typed_soon.in_order(index, found.get("adapters") or [])  # typed soon
    reference = index.label(index.reference)
    spread = _spread(found.get("variance") or {})
    return records(
        "spans",
        "Multiples and mixtures",
        rows if len(rows) > 1 else [],
        [
            named(index),
            (
                Column("Nearest multiple", f"of {reference}"),
                lambda row: number(formats.significant(row.get("scale"), 3), ZERO_UPDATE),
            ),
            (
                Column("Left over", f"of {reference}"),
                lambda row: number(formats.cosine(row.get("left_over")), ZERO_UPDATE),
            ),
            (
                Column("Left over", "of all other methods"),
                lambda row: number(
                    formats.cosine(row.get("span_left_over")), ZERO_UPDATE, f"of {row.get('span_of') or 0}"
                ),
            ),
        ],
        f"By least squares on the Gram of all updates: the multiple of {reference}’s update that is nearest, and the "
        "share of the norm that it misses (the orthogonal fraction); then the share that every mixture of the other "
        f"methods’ updates misses. A random update would miss nearly all.{spread}",
        kind=lambda row: tint(index, row, rate=True),
        folded=True,
    )


def _spread(told: dict) -> str:
    """How much of the spread of directions lies between methods, where some were run in another order."""
    if told.get("between_share") is None or not told.get("repeated"):
        return ""
    p = f", p {formats.p_value(told['p'])}" if told.get("p") is not None else ""
    return (
        f" Of {told['methods']} methods at one initial A, each at its own learning rate, {told['repeated']} ran in "
        f"several orders of rows: {formats.percent(told['between_share'])} of the spread of directions lies between "
        f"methods; with runs relabelled by chance it would be {formats.percent(told['between_chance'])}{p}."
    )
