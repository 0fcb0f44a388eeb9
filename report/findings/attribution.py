"""Which factors of the trainings turn their updates: by the analysis of variance of directions and its tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from report import formats
from report.factors import INIT, named, ordered
from report.findings.claim import Claim
from report.findings.trials import LEVEL
from report.model_index import ModelIndex
from results import Results
from results.attribution import OneFactor, Term, VarianceBy

POINT, TURNS = "attribution", "turns"


def points(results: Results, index: ModelIndex) -> list[Claim]:
    """What turns the updates, what is not shown to, and what these trainings cannot tell; one claim each."""
    found = results.attribution
    variance = next((v for v in found.variance if v.of == "direction"), None) if found else None
    if variance is None:
        return []
    mains = [term for term in ordered(variance.terms) if len(term.factors) == 1 and term.share is not None]
    tests = sum(term.p is not None for term in variance.terms)
    shown = [term for term in mains if term.p_holm is not None and term.p_holm < LEVEL]
    # Where even the smallest p that its relabellings give is too large among so many tests, none could have shown it.
    untold = [t for t in mains if t not in shown and (t.p is None or t.p_floor is None or t.p_floor * tests >= LEVEL)]
    open_ = [term for term in mains if term not in shown and term not in untold]
    head = f"Of the variation between the directions of {variance.deltas} updates, "
    alone = {row.factor: row for row in results.attribution.one_factor} if results.attribution else {}
    claims = list(_claims(index, head, shown, open_, untold, tests, alone))
    return [
        *claims[: len(shown) > 0],
        *_rest(variance, shown),
        *claims[len(shown) > 0 :],
        *_by_effect(results, index, shown),
    ]


def _claims(
    index: ModelIndex,
    head: str,
    shown: Sequence[Term],
    open_: Sequence[Term],
    untold: Sequence[Term],
    tests: int,
    pairs: Mapping[str, OneFactor],
) -> Iterator[Claim]:
    if shown:
        yield _claim(TURNS, head + _shown(index, shown), shown)
    if open_:
        words = formats.listing([f"{named(index, t.factors)} ({formats.percent(t.share)}, {_p(t)})" for t in open_])
        yield _claim("not shown to turn", f"Not shown to turn the updates: {words}.", open_)
    if untold:
        words = formats.listing(
            [
                f"{named(index, t.factors)} ({formats.percent(t.share)}{_at_best(t, tests)}{_alone(t, pairs)})"
                for t in untold
            ]
        )
        yield _claim("turning untested", f"Not testable with so few trainings: {words}.", untold)


def _shown(index: ModelIndex, shown: Sequence[Term]) -> str:
    """Each factor's share with its interval, then what the intervals and the p are."""
    layered = any(term.low is not None for term in shown)
    one = len({formats.p_value(term.p_holm) for term in shown}) == 1
    parts = []
    for number, term in enumerate(shown):
        sure = [formats.interval(term.low, term.high)] * (term.low is not None) + [_p(term)] * (not one)
        goes = "goes with" if number == 0 else "with"
        inside = f" ({', '.join(sure)})" if sure else ""
        parts.append(f"{formats.percent(term.share)} {goes} the {named(index, term.factors)}{inside}")
    each = " each" if len(shown) > 1 else ""
    notes = ["95% intervals over layers, not over trainings"] * layered + [f"{_p(shown[0])}{each}"] * one
    least = [t for t in shown if t.p is not None and t.p_floor is not None and t.p <= t.p_floor]
    if least:
        whose = "" if len(least) == len(shown) else f"the p of {_names(index, least)} is "
        notes.append(f"{whose}the smallest that shuffled labels can give")
    return f"{formats.listing(parts)}{': ' if notes else ''}{'; '.join(notes)}."


def _alone(term: Term, pairs: Mapping[str, OneFactor]) -> str:
    """The cosine of trainings that differ in this factor alone, and that of their effects."""
    row = pairs.get(term.factors[0])
    if row is None or row.cosine is None:
        return ""
    effect = f", {formats.cosine(row.weighted)} by effect" if row.weighted is not None else ""
    of = f"{formats.count(row.pairs)} pair{'s' if row.pairs > 1 else ''}"
    return f"; alone: cosine {formats.cosine(row.cosine)}{effect}, {of}"


def _names(index: ModelIndex, terms: Sequence[Term]) -> str:
    return formats.listing([named(index, term.factors) for term in terms])


def _rest(variance: VarianceBy, shown: Sequence[Term]) -> Iterator[Claim]:
    """What of the variation goes with no factor alone."""
    pairs = sum(term.share or 0.0 for term in variance.terms if len(term.factors) > 1)
    both = max(0.0, variance.overlap or 0.0)
    if shown and (pairs or both):
        parts = [f"{formats.percent(pairs)} goes with two factors together"] if pairs else []
        parts += [f"{formats.percent(both)} could be several factors’"] if both else []
        numbers = {"two factors": (pairs, pairs), "several": (both, both)}
        yield Claim("turning rest", POINT, f"A further {' and '.join(parts)}.", (), numbers)


def _by_effect(results: Results, index: ModelIndex, shown: Sequence[Term]) -> Iterator[Claim]:
    """Beside what another initial A turns: entries lie in its random subspace, and what differs there may act alike."""
    effect = next((v for v in results.attribution.variance if v.of == "effect"), None) if results.attribution else None
    term = next((t for t in effect.terms if t.factors == [INIT]), None) if effect else None
    if term is None or term.share is None or all(t.factors != [INIT] for t in shown):
        return
    name = named(index, [INIT])
    layers = f" (95% interval over layers {formats.interval(term.low, term.high)}%)" if term.low is not None else ""
    words = (
        f"Of the variation between their effects on real inputs, {formats.percent(term.share)} goes with the {name}"
        f"{layers}: another {name} puts the same change into other entries, so across it compare effects."
    )
    yield _claim("init by effect", words, [term])


def _claim(kind: str, words: str, terms: Sequence[Term]) -> Claim:
    numbers = {t.factors[0]: (t.share, t.share) for t in terms if t.share is not None}
    return Claim(kind, POINT, words, tuple(numbers), numbers)


def _p(term: Term) -> str:
    return f"Holm p {formats.p_value(term.p_holm)}"


def _at_best(term: Term, tests: int) -> str:
    """The smallest Holm-adjusted p that relabelling these trainings could have given."""
    if term.p_floor is None or term.p is None:
        return ""
    return f", Holm p {formats.p_value(min(1.0, term.p_floor * tests))} at best"
