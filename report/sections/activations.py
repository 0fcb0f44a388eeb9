"""What the updates do to real inputs: cosines weighed by the activations that the modules get."""

from __future__ import annotations

from dataclasses import dataclass

from report import formats
from report.model_index import ModelIndex, other
from report.plotting import CHANCE, FLOOR, PAGE, Canvas, Made, bring_out, called, gathered, look, same_start
from report.section import Section, csv_of, from_results
from report.tables import ZERO_UPDATE, Cell, Column, Table, left_out, named, number, records, size, tint
from results import Results
from results.function import Activations, AlikePair


@dataclass(frozen=True)
class _Cosines:
    """What chance gives: both cosines over the same modules."""

    plain: float | None
    weighted: float | None


@dataclass(frozen=True)
class _Beside(_Cosines):
    """An update beside the reference's."""

    name: str
    norm: float


def _beside(results: Results, activations: Activations, index: ModelIndex) -> list[_Beside]:
    """Every update beside the reference's, in the index's order."""
    norms = {row.name: row.norm for row in activations.adapters}
    pairs = {name: pair for pair in activations.pairs if (name := other(pair, index.reference))}
    return [_Beside(_plain(results, pairs[n]), pairs[n].cosine, n, norms[n]) for n in index.order(pairs)]


def _plain(results: Results, pair: AlikePair) -> float | None:
    """The plain cosine over the modules that are weighed: the geometry's where these are all of them."""
    if "plain" in pair.model_fields_set:
        return pair.plain
    whole = results.geometry and results.geometry.pair(pair.a, pair.b)
    return whole.cosine if whole else None


def _chance(results: Results, activations: Activations) -> _Cosines:
    if "plain_chance" in activations.model_fields_set:
        return _Cosines(activations.plain_chance, activations.chance)
    return _Cosines(results.geometry.chance.shared_a.cosine if results.geometry else None, activations.chance)


def weighted_table(results: Results, index: ModelIndex) -> Table | None:
    """Activation-weighted cosine to the reference beside the plain one."""
    activations = results.activations
    if activations is None:
        return None
    rows: list[_Cosines] = [*_beside(results, activations, index)]
    if activations.chance is not None and rows:
        rows.append(_chance(results, activations))

    def cosine(row: _Cosines, value: float | None) -> Cell:
        by_chance = not isinstance(row, _Beside) and value
        return number(f"±{formats.significant(value, 2)}" if by_chance else formats.cosine(value), ZERO_UPDATE)

    return records(
        "weighted",
        f"By what the updates do: activation-weighted cosine to {index.label(index.reference)}",
        rows,
        [
            named(index, chance=f"Chance, same {index.by_chance.initial}"),
            (Column("Cosine", "of the entries"), lambda row: cosine(row, row.plain)),
            (Column("Cosine", "activation-weighted"), lambda row: cosine(row, row.weighted)),
            (Column("Change of outputs", "root mean square"), size("norm", 3)),
        ],
        "tr(ΔW S ΔW′ᵀ), S the second moment of a module’s inputs on the base, over "
        f"{formats.count(activations.tokens)} completion tokens of {formats.count(activations.rows)} rollouts. "
        f"Unlike the plain cosine it can see likeness across {index.drawn.initial}’s. Inputs have few strong "
        f"directions, so chance is higher here, too.{left_out(activations, 'Both cosines are over')}",
        kind=lambda row: tint(index, row, rate=True),
    )


def functions(results: Results, index: ModelIndex, canvas: Canvas) -> Made:
    """Activation-weighted against plain cosine to the reference."""
    activations = results.activations
    rows = _beside(results, activations, index) if activations else []
    points = [(r.name, r.plain, r.weighted) for r in rows if r.plain is not None and r.weighted is not None]
    if activations is None or not points:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 3.4)
    if activations.chance is not None:
        axes.axhline(activations.chance, color=CHANCE, linestyle="--", linewidth=1, label=same_start(index))
    low = min(0.0, *(min(x, y) for _, x, y in points)) - 0.04
    axes.plot([low, 1], [low, 1], color=FLOOR, linewidth=0.8, linestyle=":", label="equal")
    for name, x, y in points:
        style = {**look(index.models[name]), "linestyle": "none"}
        axes.plot([x], [y], **style, markersize=7, label=called(index, name))
    axes.set_xlim(low, 1.04)
    axes.set_ylim(low, 1.04)
    axes.set_xlabel(f"cosine of the entries to {called(index, index.reference)}")
    axes.set_ylabel("activation-weighted cosine")
    bring_out(axes, index)
    gathered(figure, ["equal", same_start(index)], beside=True)
    return (
        figure,
        "Alike in entries, alike in effect?",
        (
            "Cosine weighed by the inputs that the modules really get, against the plain one. Above the diagonal two "
            "updates are more alike in what they do than in their entries, as another "
            f"{index.drawn.initial} of one method is. A wide open marker has another one on it."
        ),
    )


SECTION = Section(
    key="activations",
    title="What the updates do to real inputs",
    step="activations",
    tables=from_results(weighted_table),
    figures={"functions": functions},
    csv=csv_of(
        lambda results: results.activations,
        {
            "activation_norms": lambda activations: activations.adapters,
            "activation_pairs": lambda activations: activations.pairs,
            "activation_layers": lambda activations: activations.layers,
            "activation_projections": lambda activations: activations.projections,
        },
    ),
)
