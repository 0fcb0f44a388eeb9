"""Whether methods differ in direction: cosines between all their runs, beside what a new order of rows gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.weights.replicas import INIT, RATE
from report import formats
from report.findings.claim import Claim, below, cosines, ends
from report.findings.evidence import Evidence, Family
from report.findings.function import differs

LEAD = "lead"
ORDERS = "floor order"
# The expected cosine of two runs is the share of their squared norm that both have in common: below one half most of an
# update is its order's and not its method's.
COMMON = 0.5
MANY = 4  # methods: of more a sentence gives the number, and a table has them one by one
_NO_DIRECTION = "a cosine between them tells nothing of direction"
DECIDED = ("apart", "rate", "level")  # kinds of those of which it is known on which side of the floor they stand


@dataclass(frozen=True)
class Placed:
    """A method beside the reference. ``kind``: apart, rate, level, unrepeated, unsteady, open (see ``_kind``)."""

    family: Family
    cosines: Sequence[float]
    kind: str
    blamed: tuple[Family, ...] = ()


def _unequal(ev: Evidence, family: Family) -> bool:
    """Whether it is known to have been run at another learning rate than the reference."""
    rates = family.learning_rate, ev.reference.learning_rate
    return None not in rates and rates[0] != rates[1]


def place(ev: Evidence, family: Family) -> Placed | None:
    """Where a family stands; None where no cosine to the reference is defined.

    *apart*: each of its runs has a lower cosine to each of the reference's than a new order gives either, or gives any
    method where one of the two was not repeated. *rate*: apart, but no more than another learning rate takes a method
    from itself. *unrepeated*: apart by what a new order gives one of the two alone. *unsteady*: one of the two agrees
    with itself so little that nothing can be told. *level*: not told apart. *open*: no method was repeated.
    """
    values, floor = ev.cross(family, ev.reference), ev.floor(family, ev.reference)
    if not values:
        return None
    if not floor:
        return Placed(family, values, "open")
    highest = max(values)
    if below(highest, min(floor)):
        rates = ev.rates() if _unequal(ev, family) else []
        return Placed(family, values, "rate" if rates and not below(highest, min(rates)) else "apart")
    both = [(one, ev.within(one)) for one in (family, ev.reference)]
    unsteady = [one for one, own in both if own and min(own) < COMMON and not below(highest, min(own))]
    if unsteady:
        return Placed(family, values, "unsteady", tuple(unsteady))
    alone = [own for _, own in both if own]
    if len(alone) == 1 and below(highest, min(alone[0])):
        return Placed(family, values, "unrepeated")
    return Placed(family, values, "level")


def compared(ev: Evidence) -> list[Family]:
    """One family a method: at the reference's learning rate where there is such a run, else at its own or another."""
    families = []
    for method in ev.methods:
        own, every = ev.own(method), ev.of(method)
        known = [family for family in (ev.matched(method), own, *every) if family and ev.comparable(family)]
        families.append(next((family for family in known if ev.cross(family, ev.reference)), own or every[0]))
    return families


def lead(ev: Evidence) -> list[Claim]:
    """The answer, and what it rests on; one claim a sentence."""
    reference = ev.label(ev.reference)
    subjects = compared(ev)
    placed = [one for family in subjects if ev.comparable(family) and (one := place(ev, family))]
    others, zero = list(_elsewhere(ev, subjects, reference)), _zero(ev)
    if not placed:
        return [*(others or [_nothing(ev, reference)]), *zero]
    if placed[0].kind == "open":
        return [_undecided(ev, placed, reference), *others, *zero]
    sentences = [_head(ev, placed, reference), floor_claim(ev, LEAD)]
    sentences += [claim for kind in _SENTENCES for claim in _sentences(ev, placed, kind, reference)]
    sentences += _unsteady(ev, placed, reference)
    sentences += differs(ev, [one.family for one in placed if one.kind == "level"], LEAD)
    return [*sentences, *others, *zero]


def _nothing(ev: Evidence, reference: str) -> Claim:
    """Why no update is compared with the reference's."""
    if not ev.families and not ev.noise and not ev.zero:
        words = "No two updates could be compared: the trainings or their geometry are missing."
    elif ev.index.reference in ev.zero:
        words = f"{reference}’s update is zero, so nothing can be compared with it."
    elif ev.index.reference in ev.noise:
        words = f"{reference}’s update is noise, so nothing can be compared with it."
    elif not ev.reference.names:
        words = f"Nothing is compared: the update of {reference} was not measured."
    elif not ev.methods:
        words = f"Nothing is compared: no other method than {reference} has an update with a direction."
    else:
        words = f"Nothing is compared: no cosine to {reference} is defined."
    return Claim("nothing", LEAD, words)


def _zero(ev: Evidence) -> list[Claim]:
    """What has no direction beside the reference, of which ``_nothing`` speaks."""
    claims = []
    for kind, what, names in (("zero", "Zero", ev.zero), ("noise", "Made of rounding", ev.noise)):
        of = [name for name in names if name != ev.index.reference]
        if of:
            labels = formats.listing([ev.index.label(name) for name in ev.index.order(of)])
            words = f"{what}, and without a direction: the update{'s' if len(of) > 1 else ''} of {labels}."
            claims.append(Claim(kind, LEAD, words, tuple(of)))
    return claims


def _subjects(placed: Sequence[Placed]) -> dict:
    """What every claim on placed methods carries: all their runs, and each family's cosines by the name it goes by."""
    names = tuple(name for one in placed for name in one.family.names)
    return {"subjects": names, "numbers": {one.family.name: ends(one.cosines) for one in placed}}


def _undecided(ev: Evidence, placed: Sequence[Placed], reference: str) -> Claim:
    values = [value for one in placed for value in one.cosines]
    run = "the cosine to {} is {}" if len(values) == 1 else "cosines to {} run from {}"
    why = (
        f"it is not known from which {ev.index.drawn.initial} they began"
        if ev.orders()
        else "no run repeats a method with another order of rows"
    )
    words = (
        f"Undecided: {run.format(reference, cosines(values))}, but {why}. "
        f"Without that floor {'it cannot' if len(values) == 1 else 'none of them can'} be called low."
    )
    return Claim("open", LEAD, words, **_subjects(placed))


def _head(ev: Evidence, placed: Sequence[Placed], reference: str) -> Claim:
    apart = [one for one in placed if one.kind == "apart"]
    varied = {row.name for row in ev.results.trainings if row.varied}
    variants = [one for one in placed if varied & {*one.family.names}]
    own = len(placed) - len(variants)
    methods = f"{own} methods and {len(variants)} variants" if variants else f"{own} methods"
    verb, one = ("differs" if len(apart) == 1 else "differ"), ev.label(placed[0].family)
    more = f"in direction from {reference} by more than a new order of rows explains"
    if not apart:
        none = f"none of {methods} is" if len(placed) > 1 else f"{one} is not"
        words = f"Open whether there is more than one direction: {none} shown to differ {more}."
        return Claim("none apart", LEAD, words, **_subjects(placed))
    # Another rate was excluded only where it was tried: in placing, or by running the method at the reference's.
    equal = [one for one in apart if not _unequal(ev, one.family) or ev.rates()]
    of = [f"{sum(one not in variants for one in apart)} of {own} methods"]
    of += [f"{sum(one in variants for one in apart)} of {len(variants)} variants"] if variants else []
    count = f"{' and '.join(of) if len(placed) > 1 else one} {verb} {more}"
    if equal:
        return Claim("apart", LEAD, f"Not one update with another step size: {count}.", **_subjects(apart))
    words = f"Unlike, but at unlike learning rates: {count}, and none of them was run at {reference}’s rate."
    return Claim("apart", LEAD, words, **_subjects(apart))


_SENTENCES = {
    "apart": "In every pair of runs below {floor}: {names}.",
    "rate": "{names}: below {floor}, but another learning rate alone takes a method as far from itself ({rates}).",
    "level": "Not told apart from {reference} by direction: {names}.",
    "unrepeated": "Undecided for want of another order of {whose}: {names}.",
}


def _sentences(ev: Evidence, placed: Sequence[Placed], kind: str, reference: str) -> Iterator[Claim]:
    """One sentence for those held to all the floors there are, one for those held to their own and the reference's."""
    chosen = [one for one in placed if one.kind == kind]
    own = [one for one in chosen if "{floor}" in _SENTENCES[kind] and _repeated(ev, one)]
    for held in ([one for one in chosen if one not in own], own):
        if held:
            yield _sentence(ev, held, kind, reference)


def _repeated(ev: Evidence, one: Placed) -> bool:
    """Whether it is held to its own floor and the reference's alone."""
    return bool(ev.within(ev.reference) and ev.within(one.family))


def _sentence(ev: Evidence, chosen: Sequence[Placed], kind: str, reference: str) -> Claim:
    words = _SENTENCES[kind].format(
        names=formats.listing([_named(ev, one, reference) for one in chosen]),
        reference=reference,
        whose="their own" if ev.within(ev.reference) else reference,
        rates=cosines(ev.rates()) if kind == "rate" else "",
        floor=f"what that gives {reference} and themselves" if _repeated(ev, chosen[0]) else "that",
    )
    return Claim(kind, LEAD, words, **_subjects(chosen))


def _named(ev: Evidence, one: Placed, reference: str) -> str:
    at, own = "", one.family == ev.own(one.family.method)
    if _unequal(ev, one.family):
        at = f", at {'its own' if own else 'another'} learning rate, unmatched"
    elif not own and one.family == ev.matched(one.family.method):
        at = f", at {reference}’s learning rate"
    return f"{ev.label(one.family)} ({cosines(one.cosines)}{at})"


def _unsteady(ev: Evidence, placed: Sequence[Placed], reference: str) -> Iterator[Claim]:
    chosen = [one for one in placed if one.kind == "unsteady"]
    for family in dict.fromkeys(family for one in chosen for family in one.blamed):
        of = [one for one in chosen if family in one.blamed]
        own = ev.within(family)
        whom = reference if family != ev.reference else formats.listing([ev.label(one.family) for one in of])
        whose = "its direction" if family != ev.reference else "their directions"
        words = (
            f"{ev.label(family)} does not reproduce itself: its runs in different orders have cosine {cosines(own)} "
            f"to each other, {cosines([v for one in of for v in one.cosines])} to {whom}: nothing is said of {whose}."
        )
        numbers = {family.name: ends(own)} | {one.family.name: ends(one.cosines) for one in of if family != one.family}
        yield Claim("unsteady", LEAD, words, family.names, numbers)


def _elsewhere(ev: Evidence, subjects: Sequence[Family], reference: str) -> Iterator[Claim]:
    others = [family for family in subjects if not ev.comparable(family) and ev.cross(family, ev.reference)]
    factor = ev.reference.start.upper()
    for start in "ab":
        begun = [family for family in others if family.start == start]
        if not begun:
            continue
        whom = (
            formats.listing([ev.label(family) for family in begun]) if len(begun) <= MANY else f"{len(begun)} methods"
        )
        if start != ev.reference.start:
            words = (
                f"Between a random {factor} ({reference}) and a random {start.upper()} ({whom}) a cosine tells nothing "
                "of direction."
            )
        elif None not in [ev.reference.init, *(family.init for family in begun)]:
            words = f"{whom} began from another initial {factor} than {reference}: {_NO_DIRECTION}."
        else:
            words = f"{whom} began from an initial {factor} not known to be {reference}’s: {_NO_DIRECTION}."
        yield Claim("elsewhere", LEAD, words, tuple(name for family in begun for name in family.names))


def floor_claim(ev: Evidence, point: str) -> Claim:
    """What a new order of rows gives each method that was repeated so, over all its learning rates."""
    repeated = [(family, own) for family in ev.families if (own := ev.within(family))]
    if len(ev.orders()) == 1:
        family, own = repeated[0]
        words = f"A new order of rows was tried once: two runs of {ev.label(family)}, cosine {cosines(own)}."
    else:
        by: dict[str, list[float]] = {}
        for family, own in repeated:
            by.setdefault(family.method, []).extend(own)
        if len(by) > MANY:
            every = ev.orders()
            words = (
                f"A new order of rows gives a method a cosine to itself of {cosines(every)} ({len(every)} pairs of "
                f"runs of {len(by)} methods)."
            )
        else:
            parts = [f"{ev.index.label(method)} {cosines(own)}{_pairs(own)}" for method, own in by.items()]
            words = f"A new order of rows gives, as cosine of a method to itself: {formats.listing(parts)}."
    names = tuple(name for family, _ in repeated for name in family.names)
    return Claim(ORDERS, point, words, names, {family.name: ends(own) for family, own in repeated})


def _pairs(values: Sequence[float]) -> str:
    return f" ({len(values)} pair{'s' if len(values) != 1 else ''} of runs)"


def floors(ev: Evidence, said: Sequence[Claim]) -> list[Claim]:
    """What another initial A, another learning rate and chance give; a new order too where it is not yet ``said``."""
    told = any(claim.kind == ORDERS for claim in said)
    claims = [] if told or not ev.orders() else [floor_claim(ev, "floors")]
    for kind, words in ((INIT, f"Another {ev.index.by_chance.initial}"), (RATE, "Another learning rate")):
        pairs = ev.repeated[kind]
        if pairs:
            values = list(pairs.values())
            names = tuple(sorted({name for pair in pairs for name in pair}))
            methods = {family.method: None for family in ev.families if set(family.names) & set(names)}
            called = [ev.index.label(method) for method in methods]
            of = formats.listing(called) if len(called) <= MANY else f"{len(called)} methods"
            many = "one pair of runs" if len(values) == 1 else f"{len(values)} pairs of runs"
            itself = "itself" if len(called) == 1 else "themselves"
            text = f"{words} alone gives {of} a cosine to {itself} of {cosines(values)} ({many})."
            claims.append(Claim(f"floor {kind}", "floors", text, names, {kind: ends(values)}))
    chance = ev.results.geometry.chance.shared_a.cosine if ev.results.geometry else None
    if chance is not None:
        same = ev.index.by_chance.initial
        text = f"Random updates from the same {same} have cosines of ±{formats.significant(chance, 2)}."
        claims.append(Claim("chance", "floors", text, (), {"shared_a": (chance, chance)}))
    return claims
