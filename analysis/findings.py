"""A few sentences that say what the numbers hold, and no more.

Plain logic over the headline's rows. Every statement about a direction stands beside the order-seed floor:
the cosine of one method with itself when only the order of its rows changes. Each cell is one training, so
the sentences say where a number lies and never that it is significant; only the paired tests do that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis import formats, headline
from analysis.headline import MATCHED_RATE, Row
from analysis.roster import BASE, Roster
from analysis.tables_behaviour import SIGN_FLIP

# One draw of a floor carries no finer distinction than this: within it a cosine counts as at the floor.
FLOOR_MARGIN = 0.02
# Below this share of mixed groups the methods see nearly the same rows, and likeness is by construction.
FEW_MIXED = 0.1
LEVEL = 0.05
# Two products of rate and steps that differ by less are equal but for rounding.
_UNEQUAL = 1e-6


@dataclass
class Findings:
    """``lead``: the answer in one sentence; ``points``: what it rests on; ``warnings``: its limits."""

    lead: str = ""
    points: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _floor(rows: list[Row], name: str) -> Row | None:
    floors = [row for row in rows if row.kind == "floor" and row.matched == name and row.to_reference]
    found = [row for row in floors if row.cosine is not None]
    return found[0] if found else None


def _compared(rows: list[Row]) -> list[Row]:
    """One row a method: at the reference's learning rate where there is such a run, else at its own."""
    matched = {row.method: row for row in rows if row.matched == MATCHED_RATE and row.cosine is not None}
    own = [row for row in rows if row.kind == "method"]
    chosen = [matched.get(row.method, row) for row in own]
    return [row for row in chosen if row.cosine is not None]


def _named(row: Row, reference: str) -> str:
    at = ""
    if row.matched == MATCHED_RATE:
        at = f", at {reference}’s learning rate"
    elif row.rate_steps_ratio is not None and abs(row.rate_steps_ratio - 1) > _UNEQUAL:
        at = ", at its own learning rate, unmatched"
    return f"{row.label} ({formats.fixed(row.cosine)}{at})"


def _lead(rows: list[Row], reference: str) -> str:
    compared = _compared(rows)
    floor = _floor(rows, "order")
    if not compared:
        return "No two updates could be compared: the trainings or their geometry are missing."
    span = (
        f"cosines to {reference} run from {formats.fixed(min(row.cosine or 0.0 for row in compared))} "
        f"to {formats.fixed(max(row.cosine or 0.0 for row in compared))}"
    )
    if floor is None or floor.cosine is None:
        return (
            f"Undecided: {span}, but no run repeats {reference} with another order of rows. "
            "Without that floor none of them can be called low."
        )
    limit = floor.cosine - FLOOR_MARGIN
    below = [row for row in compared if (row.cosine or 0.0) < limit]
    level = [row for row in compared if (row.cosine or 0.0) >= limit]
    beside = f"{reference} with its rows in another order has cosine {formats.fixed(floor.cosine)} to itself"
    if not below:
        return (
            f"One direction, as far as the cosine tells: {span}, and {beside}. "
            "What remains between the methods is the size of the step."
        )
    names = formats.listing([_named(row, reference) for row in below])
    text = (
        f"Not one update with another step size: {len(below)} of {len(compared)} methods differ in "
        f"direction from {reference} by more than a new order of rows explains. {beside}; clearly below "
        f"it: {names}."
    )
    if level:
        same = formats.listing([_named(row, reference) for row in level])
        verb = "is" if len(level) == 1 else "are"
        text += f" {same} {verb} within {FLOOR_MARGIN:g} of that floor or above it: not told apart by direction."
    return text


def _rate_point(rows: list[Row], reference: str, titles: dict[str, str]) -> list[str]:
    """For each method run at its own and at the reference's rate: how far the rate carries the cosine."""
    floor = _floor(rows, "order")
    points = []
    for row in rows:
        own = [other for other in rows if other.kind == "method" and other.method == row.method]
        if row.matched != MATCHED_RATE or not own or row.cosine is None or own[0].cosine is None:
            continue
        first = own[0]
        text = (
            f"{first.label} at its own rate {formats.rate(first.learning_rate)} has cosine "
            f"{formats.fixed(first.cosine)} to {reference}; at {reference}’s rate "
            f"{formats.rate(row.learning_rate)}, {formats.fixed(row.cosine)}."
        )
        if floor and floor.cosine is not None and first.cosine is not None:
            text += f" {_gap(first.cosine, row.cosine, floor.cosine)}"
        points.append(text + _cost(row, first, titles))
    return points


def _gap(own: float, matched: float, floor: float) -> str:
    if own >= floor - FLOOR_MARGIN:
        return f"Its own rate already reaches the floor ({formats.fixed(floor)})."
    if matched >= floor - FLOOR_MARGIN:
        return f"Matched, it reaches the floor ({formats.fixed(floor)})."
    closed = (matched - own) / (floor - own)
    if closed <= 0:
        return f"Matching the rate brings it no nearer to the floor ({formats.fixed(floor)})."
    return (
        f"Matching the rate closes {formats.percent(closed, 0)} of the distance to the floor "
        f"({formats.fixed(floor)}) and leaves {formats.percent(1 - closed, 0)}."
    )


def _cost(matched: Row, own: Row, titles: dict[str, str]) -> str:
    parts = []
    for task, value in matched.accuracy.items():
        before = own.accuracy.get(task)
        if value is not None and before is not None:
            parts.append(f"{formats.percent(before)} to {formats.percent(value)} ({titles.get(task, task)})")
    return f" Its accuracy goes from {formats.listing(parts)} between the two rates." if parts else ""


def _floor_point(rows: list[Row], reference: str) -> list[str]:
    parts = []
    for key, words in (("order", "another order of rows"), ("init", "another initial A")):
        row = _floor(rows, key)
        if row:
            parts.append(f"{words} gives {formats.fixed(row.cosine)}")
    if not parts:
        return []
    return [f"Floors for a cosine to {reference}, each from one run: {formats.listing(parts)}.{_chance(rows)}"]


def _chance(rows: list[Row]) -> str:
    found = [row for row in rows if row.name == "shared_a" and row.cosine is not None]
    if not found:
        return ""
    return f" Random updates from the same initial A give ±{formats.significant(found[0].cosine, 2)}."


def _norm_point(rows: list[Row], reference: str) -> list[str]:
    parts = []
    for row in rows:
        if row.kind in ("method", "matched") and row.norm_ratio is not None and row.rate_steps_ratio is not None:
            unequal = abs(row.rate_steps_ratio - 1) > _UNEQUAL
            if unequal or row.kind == "matched":
                parts.append(
                    f"{row.label} {formats.times(row.norm_ratio)} ({formats.times(row.rate_steps_ratio)} expected)"
                )
    if not parts:
        return []
    return [f"Norm against {reference}’s, beside what learning rate × steps alone predicts: {'; '.join(parts)}."]


def _accuracy_point(results: dict, roster: Roster) -> list[str]:
    points = []
    for task in (results.get("evaluation") or {}).get("tasks") or []:
        name = task.get("title") or task.get("task") or "the task"
        base = headline.verdict(results, task.get("task"), BASE).get("accuracy")
        scored = [row for row in task.get("models") or [] if row.get("accuracy") is not None]
        if base is None or not scored:
            continue
        changed: dict[str, list[str]] = {"above": [], "below": []}
        tested = 0
        for row in task.get("pairs") or []:
            if BASE not in (row.get("a"), row.get("b")) or row.get("p_holm") is None:
                continue
            model = row["b"] if row["a"] == BASE else row["a"]
            tested += roster.role(model) == "method"
            accuracy = headline.verdict(results, task.get("task"), model).get("accuracy")
            if row["p_holm"] < LEVEL and accuracy is not None and roster.role(model) == "method":
                changed["above" if accuracy > base else "below"].append(roster.label(model))
        text = f"{name} (n = {formats.count(task.get('n'))}): the base stands at {formats.percent(base)}"
        parts = [f"{formats.listing(names)} {side} it" for side, names in changed.items() if names]
        several = any(row.get("test") == SIGN_FLIP for row in task.get("pairs") or [])
        test = f"({'sign-flip test' if several else 'McNemar'}, Holm-adjusted p < {LEVEL})"
        if parts:
            text += f"; {' and '.join(parts)} {test}."
        elif tested:
            text += f"; none of {tested} methods is shown to differ from it {test}."
        else:
            text += "."
        points.append(text)
    return points


def _learning_point(results: dict) -> list[str]:
    rollouts = results.get("rollouts") or {}
    groups = rollouts.get("groups") or {}
    total = sum(groups.get(key) or 0 for key in ("mixed", "all_right", "all_wrong"))
    if rollouts.get("share_right") is None or not total:
        return []
    mixed = (groups.get("mixed") or 0) / total
    text = (
        f"What there was to learn: {formats.percent(rollouts['share_right'])} of the rollouts are right and "
        f"{formats.percent(mixed)} of the groups hold both right and wrong."
    )
    if mixed < FEW_MIXED:
        text += " With so few mixed groups the methods see nearly the same rows: likeness is by construction."
    return [text]


def _warnings(results: dict, roster: Roster) -> list[str]:
    found = []
    canary = (results.get("evaluation") or {}).get("canary") or []
    failed = [roster.label(row.get("name")) for row in canary if row.get("passed") is False]
    if failed:
        found.append(
            f"The canary failed for {formats.listing(failed)}: the engine did not serve these weights, "
            "and their accuracy must not be used."
        )
    for row in (results.get("evaluation") or {}).get("controls") or []:
        if row.get("passed") is False:
            what = "the base" if row.get("name") == BASE else "an adapter of zeros"
            found.append(f"The canary failed for {what}: no accuracy here can be relied on.")
    for row in (results.get("evaluation") or {}).get("incomplete") or []:
        found.append(
            f"Left out of the accuracies: {roster.label(row.get('name'))}, of whose evaluation {row.get('parts')} of "
            f"{row.get('of')} parts are finished."
        )
    blind = [
        roster.label(row.get("name"))
        for row in canary
        if row.get("told_apart") is False and row.get("name") != BASE and row.get("passed") is not False
    ]
    if blind:
        found.append(
            f"The canary cannot tell {formats.listing(blind)} from the base: the update moves the "
            "log-probabilities less than the tolerance."
        )
    broken = [model.label for model in roster.models.values() if model.error]
    if broken:
        found.append(f"Training failed: {formats.listing(broken)}. The reasons stand in the tables.")
    steps = [str(row["step"]) for row in results.get("failures") or [] if row.get("step")]
    known = [model.name for model in roster.models.values() if model.error]
    others = [step for step in steps if not any(name in step for name in known)]
    if others:
        found.append(f"Did not finish: {formats.listing(others)}. See “What failed, and why”.")
    return found


def findings(results: dict, roster: Roster, rows: list[Row]) -> Findings:
    """The opening sentences of a report, from ``results`` and its headline ``rows``."""
    if roster.reference is None:
        return Findings("No model to compare with: these results hold no update.", [], _warnings(results, roster))
    reference = roster.label(roster.reference)
    if headline.reference_norm(results, roster) == 0:
        lead = f"{reference}’s update is zero, so nothing can be compared with it."
        points = [*_accuracy_point(results, roster), *_learning_point(results)]
        return Findings(lead, points, _warnings(results, roster))
    points = [
        *_rate_point(rows, reference, {task: headline.task_title(results, task) for task in headline.tasks(results)}),
        *_floor_point(rows, reference),
        *_norm_point(rows, reference),
        *_accuracy_point(results, roster),
        *_learning_point(results),
    ]
    return Findings(_lead(rows, reference), points, _warnings(results, roster))
