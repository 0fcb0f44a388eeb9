"""Tables of the updates themselves: the headline, norms, angles, barriers and likeness of features."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from report import formats, headline
from report.headline import Row
from report.model_index import BASE, ModelIndex, dimensions, other, pair
from report.tables import Cell, Column, Line, Table, failed, filled, number, records, text

_NO_UPDATE = "the base carries no update"
_ZERO = "undefined, as for a zero update"
_ZERO_REFERENCE = "the reference’s update is zero: nothing can be compared with it"
_TINTED = ("reference", "floor", "chance", "base")


def _why(index: ModelIndex, row: Row, reference_norm: float | None) -> str:
    if row.kind == "base":
        return _NO_UPDATE
    if row.kind == "chance":
        return "chance has no training of its own"
    if row.norm == 0:
        return _ZERO
    if row.noise:
        whose = formats.listing([index.label(name) for name in row.noise])
        return f"undefined: made of rounding, and without a direction, is the update of {whose}"
    return _ZERO_REFERENCE if reference_norm == 0 else "not measured"


def _accuracy_cell(results: dict, task: str, row: Row) -> Cell:
    value = row.accuracy.get(task)
    found = headline.verdict(results, task, row.name)
    detail = formats.interval(found.get("low"), found.get("high"))
    return number(formats.percent(value), "not evaluated", detail)


def _cosine_cell(row: Row, value: float | None, why: str) -> Cell:
    if row.kind == "chance" and value is not None:
        return number(f"±{formats.significant(value, 2)}")
    return number(formats.cosine(value), why, "" if row.to_reference else "to its own method")


def headline_table(results: dict, index: ModelIndex, rows: list[Row]) -> Table | None:
    """Every method against the reference, floors in the same rows; None where there is nothing to compare."""
    if not rows:
        return None
    reference = index.label(index.reference)
    names = headline.tasks(results)
    weighed = any(row.weighted is not None for row in rows)
    matched = any(row.matched for row in rows)
    to_reference = f"to {reference}"
    columns = (
        Column("Model", kind="text"),
        *((Column("Compared at", kind="text"),) if matched else ()),
        Column("Learning rate"),
        Column("Cosine", to_reference),
        *((Column("Weighted cosine", "by activations"),) if weighed else ()),
        Column("Smallest angle", "median"),
        Column("|u₁·u₁′|", "output side"),
        Column("|v₁·v₁′|", "input side"),
        Column("Norm", "‖ΔW‖"),
        Column("Norm ratio", to_reference),
        Column("Rate × steps", to_reference),
        *(Column(headline.task_title(results, name), "right, 95% interval") for name in names),
    )
    lines = []
    for row in rows:
        if row.kind == "failed":
            lines.append(failed(row.label, row.error, len(columns)))
            continue
        why = _why(index, row, headline.reference_norm(results, index))
        cells = (
            text(row.label),
            *((text(headline.match_label(index, row)),) if matched else ()),
            number(formats.rate(row.learning_rate), why),
            _cosine_cell(row, row.cosine, why),
            *((_cosine_cell(row, row.weighted, why),) if weighed else ()),
            number(formats.degrees(row.angle_min), why),
            number(formats.cosine(row.u1), why),
            number(formats.cosine(row.v1), why),
            number(formats.significant(row.norm), why, "noise" if row.name in row.noise else ""),
            number(formats.times(row.norm_ratio), why),
            number(formats.times(row.rate_steps_ratio), why),
            *(_accuracy_cell(results, name, row) for name in names),
        )
        lines.append(Line(cells, row.kind if row.kind in _TINTED else ""))
    table = Table(
        "headline", f"Every method against {reference}", columns, tuple(lines), _headline_caption(results, index)
    )
    return filled(table)


def _headline_caption(results: dict, index: ModelIndex) -> str:
    pairs = (results.get("geometry") or {}).get("pairs") or []
    k = dimensions(results, (row for row in pairs if other(row, index.reference) is not None))
    top = f"the top {k} left singular vectors" if k else "the top left singular vectors"
    trained = " Rate × steps is a yardstick: the norm ratio if every step of Adam went the same way."
    known = any(row.get("report_step") for row in results.get("trainings") or [])
    counts = [
        f"{task.get('title') or task.get('task') or 'one task'} n = {formats.count(task.get('n'))}"
        for task in (results.get("evaluation") or {}).get("tasks") or []
    ]
    asked = f" Accuracy: {'; '.join(counts)}; 95% intervals." if counts else ""
    return (
        f"Cosine and norm over all adapted modules stacked. Smallest angle: between {top} of two updates, "
        "median over modules. |u₁·u₁′| and |v₁·v₁′|: overlap of the first singular directions, mean over "
        f"modules.{trained if known else ''} "
        "Shaded rows are floors, measured or drawn for these adapters; a chance cosine has mean 0, and "
        f"its root mean square is shown.{asked} One training a row: the table cannot tell a method from "
        "the luck of its one run beyond what the floors show. The input side is shared through the "
        "initial A, so a high |v₁·v₁′| must be read against its chance row."
    )


def adapters_table(results: dict, index: ModelIndex) -> Table | None:
    """Norm and effective rank of each update."""
    rows = {row.get("name"): row for row in (results.get("geometry") or {}).get("adapters") or []}
    started = any(row.get("a_moved_rel") is not None for row in rows.values())
    moved = " A small ‖A−A₀‖ means that the update’s input side is where its start put it." if started else ""
    return records(
        "adapters",
        "Size and shape of each update",
        [rows[name] for name in index.order(rows)],
        [
            (Column("Model", kind="text"), lambda row: text(index.label(row.get("name")))),
            (Column("Norm", "‖ΔW‖, global"), lambda row: number(formats.significant(row.get("norm")))),
            (
                Column("Effective rank", "mean over modules"),
                lambda row: number(formats.significant(row.get("effective_rank")), _ZERO),
            ),
            (
                Column("Stable rank", "mean over modules"),
                lambda row: number(formats.significant(row.get("stable_rank")), _ZERO),
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
        kind=lambda row: "floor" if index.role(row.get("name") or "") in ("order", "init") else "",
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
        return lambda row: number(formats.degrees(row.get(key)), _ZERO)

    def overlap(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.cosine(row.get(key)), _ZERO)

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


def barriers_table(results: dict, index: ModelIndex) -> Table | None:
    """Per path: the loss at both ends and the barrier between them."""
    connectivity = results.get("connectivity") or {}

    def at(row: dict, weight: float) -> Cell:
        losses = dict(zip(row.get("weights") or [], row.get("loss") or [], strict=False))
        return number(formats.significant(losses.get(weight)), "path not measured")

    def highest(row: dict) -> Cell:
        losses = [value for value in row.get("loss") or [] if value is not None]
        return number(formats.significant(max(losses)) if losses else formats.MISSING, "path not measured")

    return records(
        "barriers",
        "Barriers between updates",
        connectivity.get("paths") or [],
        [
            (
                Column("Path", kind="text"),
                lambda row: text(f"{index.label(row.get('a'))} → {index.label(row.get('b'))}"),
            ),
            (Column("Loss at the first"), lambda row: at(row, 1)),
            (Column("Loss at the second"), lambda row: at(row, 0)),
            (Column("Highest on path"), highest),
            (
                Column("Barrier"),
                lambda row: number(formats.significant(row.get("barrier")), "path not measured"),
            ),
        ],
        f"Loss: {connectivity.get('loss') or 'not recorded'}, over "
        f"{formats.count(connectivity.get('rows'))} held-out rows. The barrier is the largest excess over "
        "the straight line between the two ends, so a path that only climbs from one end to the other has "
        "none. No barrier does not make two updates the same: small updates from one base seldom have "
        "one.",
    )


def _towards(rows: list[dict], index: ModelIndex) -> Iterator[tuple[str, str, dict]]:
    """Rows of pairs with the reference or the base in them: (that one, the other one, row)."""
    for target in (index.reference, BASE):
        for row in rows:
            found = other(row, target)
            # the pair of the two targets belongs to the first of them alone
            if target is not None and found is not None and not (target == BASE and found == index.reference):
                yield target, found, row


def _cka_cell(row: dict) -> Cell:
    low, high = row.get("low"), row.get("high")
    known = low is not None and high is not None
    detail = f"{formats.cosine(low)} to {formats.cosine(high)}" if known else ""
    return number(formats.cosine(row.get("cka")), "undefined", detail)


def hidden_table(results: dict, index: ModelIndex) -> Table | None:
    """CKA of the deepest layer's hidden states, against the reference and against the base."""
    rows = [row for row in (results.get("similarity") or {}).get("hidden") or [] if row.get("layer") is not None]
    last = max((row["layer"] for row in rows), default=None)
    deepest = [row for row in rows if row["layer"] == last]
    return records(
        "cka",
        f"Likeness of hidden states after layer {last}",
        [{**row, "a": a, "b": b} for a, b, row in _towards(deepest, index)],
        [
            (Column("Pair", kind="text"), lambda row: _pair_name(index, row)),
            (Column("CKA", "95% interval"), _cka_cell),
            (Column("Shuffled control"), lambda row: number(formats.cosine(row.get("shuffled")))),
        ],
        "The last layer of the figure above, counted from 0 and after the final norm, in numbers. Intervals by "
        "delete-a-group jackknife over prompts; a bootstrap would count its repeats as agreement.",
        kind=lambda row: "base" if BASE in (row["a"], row["b"]) else "",
        folded=True,
    )


def projections_table(results: dict, index: ModelIndex) -> Table | None:
    """CKA of the adapted projections' outputs, mean over layers, one column a kind of projection."""
    rows = (results.get("similarity") or {}).get("modules") or []
    kinds = sorted({_kind(row) for row in rows}, key=_projection_order)
    grouped: dict[tuple[str, str], dict[str, list[float]]] = {}
    for a, b, row in _towards(rows, index):
        if row.get("cka") is not None:
            grouped.setdefault((a, b), {}).setdefault(_kind(row), []).append(row["cka"])

    def cell(kind: str) -> Callable[[dict], Cell]:
        def make(row: dict) -> Cell:
            values = row["values"].get(kind) or []
            low = formats.cosine(min(values)) if len(values) > 1 else ""
            return number(formats.cosine(sum(values) / len(values) if values else None), detail=low and f"min {low}")

        return make

    return records(
        "projections",
        "Likeness at the adapted projections",
        [{"a": a, "b": b, "values": values} for (a, b), values in grouped.items()],
        [
            (
                Column("Pair", kind="text"),
                lambda row: text(f"{index.label(row['a'])} · {index.label(row['b'])}"),
            ),
            *((Column(kind, "mean over layers"), cell(kind)) for kind in kinds),
        ],
        "Linear CKA of each adapted projection’s outputs; below the mean, the layer where it is lowest. "
        "Likeness of features on these prompts, not of behaviour on others.",
        folded=True,
    )


def _kind(row: dict) -> str:
    """What a module projects, with its stack of layers where a model has several."""
    return " ".join(str(row[key]) for key in ("stack", "projection") if row.get(key))


def _projection_order(kind: str) -> tuple[str, int, str]:
    known = ("q_proj", "k_proj", "v_proj", "o_proj")
    stack, _, name = kind.rpartition(" ")
    return (stack, known.index(name) if name in known else len(known), name)
