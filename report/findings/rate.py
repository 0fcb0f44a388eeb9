"""Whether the learning rate is the cause: methods at their own and at the reference's rate, and sizes beside steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from report import formats
from report.findings.claim import Claim, below, between, cosines, ends
from report.findings.direction import COMMON, DECIDED, MANY, place
from report.findings.evidence import Evidence, Family
from report.findings.function import changed
from report.headline import Row


def points(ev: Evidence, rows: Sequence[Row]) -> list[Claim]:
    """For each method run at its own and at the reference's rate: how far the rate carries cosine and accuracy."""
    claims = []
    expected = {row.name: row.rate_steps_ratio for row in rows}
    for method in ev.methods:
        own, matched = ev.own(method), ev.matched(method)
        if own and matched and own != matched and ev.cross(own, ev.reference) and ev.cross(matched, ev.reference):
            point = f"rate {method}"
            claims += [_both(ev, own, matched, expected.get(own.name), point), *_distance(ev, own, matched, point)]
            claims += changed(ev, own, matched, point)
    return claims


def _both(ev: Evidence, own: Family, matched: Family, expected: float | None, point: str) -> Claim:
    reference = ev.label(ev.reference)
    here, there = ev.cross(own, ev.reference), ev.cross(matched, ev.reference)
    sizes = [between([formats.times(value) for value in ends(of)]) if (of := norm_ratios(ev, family)) else ""
             for family in (own, matched)]  # fmt: skip
    norms_ = [f" and {size} {reference}’s norm" if size else "" for size in sizes]
    norms_[0] += f" ({formats.times(expected)} by learning rate × steps)" if sizes[0] and expected else ""
    words = (
        f"{ev.label(own)} at its own rate {formats.rate(own.learning_rate)} has cosine {cosines(here)} to {reference}"
        f"{norms_[0]}; at {reference}’s rate {formats.rate(matched.learning_rate)}, {cosines(there)}{norms_[1]}."
    )
    return Claim("rates", point, words, (*own.names, *matched.names), {f.name: ends(ev.cross(f, ev.reference))
                 for f in (own, matched)})  # fmt: skip


def _distance(ev: Evidence, own: Family, matched: Family, point: str) -> Iterator[Claim]:
    """How much of the way to the floor matching the rate goes, where it goes further than a new order does alone.

    Nothing where it is undecided on which side of the floor one of the two stands.
    """
    if not all((one := place(ev, family)) and one.kind in DECIDED for family in (own, matched)):
        return
    here, there = ev.cross(own, ev.reference), ev.cross(matched, ev.reference)
    floor, swing = ev.floor(matched, ev.reference), ev.swing()
    if not floor or swing is None or min(floor) < COMMON:  # nothing can be near what does not reproduce itself
        return
    lowest, shown = min(floor), cosines(floor)
    subjects = (*own.names, *matched.names)
    if not below(min(here), lowest):
        yield Claim(
            "reached before", point, f"Its own rate already reaches what a new order gives ({shown}).", subjects
        )
    elif not below(min(there), lowest):
        yield Claim("reached", point, f"Matched, it reaches what a new order gives ({shown}).", subjects)
    elif not below(max(here), lowest) or not below(max(there), lowest):
        words = f"Some pairs of runs reach what a new order gives ({shown}), others do not."
        yield Claim("reached by some", point, words, subjects)
    elif not below(min(here), max(there)):
        yield Claim("no nearer", point, f"Matching the rate brings it no nearer to what a new order gives ({shown}).",
                    subjects)  # fmt: skip
    elif min(there) - max(here) <= swing or not below(max(here) + swing, min(there)):
        words = (
            f"The change is no more than a new order of rows alone makes (up to {formats.fixed(swing)}): "
            "nothing is said of a distance closed."
        )
        yield Claim("within chance", point, words, subjects, {"swing": (swing, swing)})
    else:
        closed = ends([(after - before) / (end - before) for before, after, end in product(here, there, floor)])
        share = between([formats.percent(value, 0) for value in closed])
        share = share if closed[0] >= 0.005 else f"at most {formats.percent(closed[1], 0 if closed[1] >= 0.005 else 1)}"
        words = f"Matching the rate closes {share} of the distance to what a new order gives ({shown})."
        yield Claim("closes", point, words, subjects, {"closed": closed})


def norm_ratios(ev: Evidence, family: Family) -> list[float]:
    """The norm of every run of a family over that of every run of the reference."""
    return [ev.norms[a] / ev.norms[b] for a, b in product(family.names, ev.reference.names) if ev.norms.get(b)]


def norms(ev: Evidence, rows: Sequence[Row]) -> list[Claim]:
    """Sizes beside what learning rate × steps alone predicts, of what was not run at the reference's."""
    parts: dict[str, float] = {}  # with the norm over what is expected of it
    subjects: list[str] = []
    numbers: dict[str, tuple[float, float]] = {}
    held = {name: family for family in ev.families for name in family.names}
    for row in rows:
        family = held.get(row.name)
        if row.kind not in ("method", "matched") or family is None or row.rate_steps_ratio is None:
            continue
        if row.kind == "method" and round(row.rate_steps_ratio, 6) == 1:
            continue
        ratios = norm_ratios(ev, family)
        if ratios:
            shown = between([formats.times(value) for value in ends(ratios)])
            part = f"{row.label} {shown} ({formats.times(row.rate_steps_ratio)} expected)"
            parts[part] = sum(ratios) / len(ratios) / row.rate_steps_ratio
            subjects += family.names
            numbers[row.name] = ends(ratios)
    reference = ev.label(ev.reference)
    listed = "; ".join(parts)
    if len(parts) > MANY:
        least, most = (end(parts, key=parts.__getitem__) for end in (min, max))
        listed = f"of {len(parts)} trainings, as a share of that, lowest {least}, highest {most}"
    words = f"Norm against {reference}’s, beside what learning rate × steps alone predicts: {listed}."
    return [Claim("norms", "norms", words, tuple(subjects), numbers)] if parts else []
