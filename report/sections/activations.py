"""What the updates do to real inputs: cosines weighed by the activations that the modules get."""

from __future__ import annotations

from collections.abc import Callable

from report import formats
from report.model_index import ModelIndex  # typed soon
from report.plotting import CHANCE, FLOOR, PAGE, Canvas, Made, bring_out, called, gathered, look
from report.section import Section, from_results, rows_at
from report.tables import ZERO_UPDATE, Cell, Column, Table, number, records  # typed soon
from report.typed_soon import left_out, named, other, pair, size, tint  # typed soon  # typed soon


def weighted_table(results: dict, index: ModelIndex) -> Table | None:
    """Activation-weighted cosine to the reference beside the plain one."""
    found = results.get("activations") or {}
    norms = {row.get("name"): row.get("norm") for row in found.get("adapters") or []}
    rows = []
    for row in found.get("pairs") or []:
        name = other(row, index.reference)
        if name is not None:
            plain = row["plain"] if "plain" in row else pair(results, name, index.reference or "").get("cosine")
            rows.append({"name": name, "weighted": row.get("cosine"), "plain": plain, "norm": norms.get(name)})
    rows.sort(key=lambda row: index.order(index.models).index(row["name"]) if row["name"] in index.models else 0)
    if found.get("chance") is not None and rows:
        plain = (((results.get("geometry") or {}).get("chance") or {}).get("shared_a") or {}).get("cosine")
        plain = found.get("plain_chance", plain)
        rows.append({"chance": True, "weighted": found["chance"], "plain": plain})
    reference = index.label(index.reference)

    def cosine(key: str) -> Callable[[dict], Cell]:
        def cell(row: dict) -> Cell:
            value = row.get(key)
            shown = f"±{formats.significant(value, 2)}" if row.get("chance") and value else formats.cosine(value)
            return number(shown, ZERO_UPDATE)

        return cell

    return records(
        "weighted",
        f"By what the updates do: activation-weighted cosine to {reference}",
        rows,
        [
            named(index, chance="Chance, same initial A"),
            (Column("Cosine", "of the entries"), cosine("plain")),
            (Column("Cosine", "activation-weighted"), cosine("weighted")),
            (Column("Change of outputs", "root mean square"), size("norm", 3)),
        ],
        "tr(ΔW S ΔW′ᵀ), S the second moment of a module’s inputs on the base, over "
        f"{formats.count(found.get('tokens'))} completion tokens of {formats.count(found.get('rows'))} rollouts. "
        "Unlike the plain cosine it can see likeness across initial A’s. Inputs have few strong directions, so chance "
        f"is higher here, too.{left_out(found, 'Both cosines are over')}",
        kind=lambda row: tint(index, row, rate=True),
    )


def functions(results: dict, index: ModelIndex, canvas: Canvas) -> Made:
    """Activation-weighted against plain cosine to the reference."""
    found = results.get("activations") or {}
    points = []
    for row in found.get("pairs") or []:
        name = other(row, index.reference)
        plain = row["plain"] if "plain" in row else pair(results, name or "", index.reference or "").get("cosine")
        if name is not None and plain is not None and row.get("cosine") is not None:
            points.append((name, plain, row["cosine"]))
    if not points:
        return None
    figure, ((axes,),) = canvas.grid(PAGE, 3.4)
    chance = found.get("chance")
    if chance is not None:
        axes.axhline(chance, color=CHANCE, linestyle="--", linewidth=1, label="chance, same initial A")
    low = min(0.0, *(min(x, y) for _, x, y in points)) - 0.04
    axes.plot([low, 1], [low, 1], color=FLOOR, linewidth=0.8, linestyle=":", label="equal")
    for name, x, y in sorted(points, key=lambda point: list(index.models).index(point[0])):
        model = index.models[name]
        axes.plot([x], [y], **{**look(model), "linestyle": "none"}, markersize=7, label=called(index, name))
    axes.set_xlim(low, 1.04)
    axes.set_ylim(low, 1.04)
    axes.set_xlabel(f"cosine of the entries to {called(index, index.reference)}")
    axes.set_ylabel("activation-weighted cosine")
    bring_out(axes, index)
    gathered(figure, ["equal", "chance, same initial A"], beside=True)
    return (
        figure,
        "Alike in entries, alike in effect?",
        (
            "Cosine weighed by the inputs that the modules really get, against the plain one. Above the diagonal two "
            "updates are more alike in what they do than in their entries, as another initial A of one method is. A "
            "wide open marker has another one on it."
        ),
    )


SECTION = Section(
    key="activations",
    title="What the updates do to real inputs",
    step="activations",
    tables=from_results(weighted_table),
    figures={"functions": functions},
    csv={
        "activation_norms": rows_at("activations", "adapters"),
        "activation_pairs": rows_at("activations", "pairs"),
        "activation_layers": rows_at("activations", "layers"),
        "activation_projections": rows_at("activations", "projections"),
    },
)
