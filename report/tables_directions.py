"""Tables beyond the cosine: what an update does to real inputs, where the base's weights point, spans of updates."""

from __future__ import annotations

from collections.abc import Callable

from report import formats
from report.model_index import ModelIndex, other, pair
from report.tables import Cell, Column, Table, number, records, text

_ZERO = "undefined, as for a zero update"


def _label(index: ModelIndex) -> Callable[[dict], Cell]:
    return lambda row: text(index.label(row.get("name")))


def _kind(index: ModelIndex, row: dict) -> str:
    if row.get("chance"):
        return "chance"
    return "floor" if index.role(row.get("name") or "") in ("order", "init", "rate") else ""


def _size(key: str, digits: int) -> Callable[[dict], Cell]:
    return lambda row: number(
        formats.significant(row.get(key), digits), "chance has no size of its own" if row.get("chance") else _ZERO
    )


def _left_out(found: dict, subject: str) -> str:
    """The set of modules, where it is not that of the geometry."""
    rows = found.get("left_out") or []
    kept = formats.count(found["modules"]) if isinstance(found.get("modules"), int) else "the other"
    return f" {subject} {kept} modules; left out: {formats.left_out(rows)}." if rows else ""


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
            return number(shown, _ZERO)

        return cell

    return records(
        "weighted",
        f"By what the updates do: activation-weighted cosine to {reference}",
        rows,
        [
            (
                Column("Model", kind="text"),
                lambda row: text("Chance, same initial A") if row.get("chance") else _label(index)(row),
            ),
            (Column("Cosine", "of the entries"), cosine("plain")),
            (Column("Cosine", "activation-weighted"), cosine("weighted")),
            (Column("Change of outputs", "root mean square"), _size("norm", 3)),
        ],
        "tr(ΔW S ΔW′ᵀ), S the second moment of a module’s inputs on the base, over "
        f"{formats.count(found.get('tokens'))} completion tokens of {formats.count(found.get('rows'))} rollouts. "
        "Unlike the plain cosine it can see likeness across initial A’s. Inputs have few strong directions, so chance "
        f"is higher here, too.{_left_out(found, 'Both cosines are over')}",
        kind=lambda row: _kind(index, row),
    )


def spectra_table(results: dict, index: ModelIndex) -> Table | None:
    """Where each update lies in the base weights' own singular directions."""
    found = results.get("spectra") or {}
    top, threshold = f"top {found['k']}" if found.get("k") else "top", found.get("threshold")
    by_name = {row.get("name"): row for row in found.get("adapters") or []}
    rows: list[dict] = [by_name[name] for name in index.order(by_name)]
    if rows and found.get("chance"):
        rows.append({"chance": True, **found["chance"]})

    def share(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.significant(row.get(key), 2), _ZERO)

    def counted(row: dict) -> Cell:
        if row.get("intruders") is None:
            return number(formats.MISSING, "not defined for chance" if row.get("chance") else _ZERO)
        open_ = row.get("undecided") or 0
        return number(formats.count(row["intruders"]), detail=f"{open_} undecided" if open_ else "")

    return records(
        "spectra",
        "Updates beside the base’s weights",
        rows,
        [
            (
                Column("Model", kind="text"),
                lambda row: text("Chance") if row.get("chance") else _label(index)(row),
            ),
            (Column("In both", f"{top}, share of ‖ΔW‖²"), share("both")),
            (Column("Output side", top), share("left")),
            (Column("Input side", top), share("right")),
            (Column("Size", "‖ΔW‖ / ‖W‖"), _size("relative_norm", 2)),
            (Column("Intruders", "all modules"), counted),
        ],
        f"Share of the update’s squared norm within the {top} left, right, or both singular directions of the "
        f"base’s weight, over all modules. Intruders: among the {top} left singular vectors of W + ΔW, those whose "
        f"cosine to every one of W’s is below {formats.significant(threshold, 2)}.{_left_out(found, 'All are over')}",
        kind=lambda row: _kind(index, row),
        folded=True,
    )


def span_table(results: dict, index: ModelIndex) -> Table | None:
    """The nearest multiple of the reference, and the span of the other methods."""
    found = results.get("directions") or {}
    by_name = {row.get("name"): row for row in found.get("adapters") or []}
    rows = [by_name[name] for name in index.order(by_name)]
    reference = index.label(index.reference)
    spread = _spread(found.get("variance") or {})
    return records(
        "spans",
        "Multiples and mixtures",
        rows if len(rows) > 1 else [],
        [
            (Column("Model", kind="text"), _label(index)),
            (
                Column("Nearest multiple", f"of {reference}"),
                lambda row: number(formats.significant(row.get("scale"), 3), _ZERO),
            ),
            (
                Column("Left over", f"of {reference}"),
                lambda row: number(formats.cosine(row.get("left_over")), _ZERO),
            ),
            (
                Column("Left over", "of all other methods"),
                lambda row: number(formats.cosine(row.get("span_left_over")), _ZERO, f"of {row.get('span_of') or 0}"),
            ),
        ],
        f"By least squares on the Gram of all updates: the multiple of {reference}’s update that is nearest, and the "
        "share of the norm that it misses (the orthogonal fraction); then the share that every mixture of the other "
        f"methods’ updates misses. A random update would miss nearly all.{spread}",
        kind=lambda row: _kind(index, row),
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
