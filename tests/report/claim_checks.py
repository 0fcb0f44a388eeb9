"""Whether a printed sentence is true: each kind of claim held to all pairs of runs, by code that makes no sentence.

What a run is comes from the drawing, not from the results; cosines and tests are read off the results' own rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import combinations, product

import numpy as np

from report.findings import Claim
from report.findings.claim import ends
from report.formats import percent, times
from report.model_index import label
from results.evaluation import Task
from tests.report.drawn_study import RATE, Drawn

HALF, P = 0.5, 0.05
BANNED = (
    r"\bnone of 1 ", r"closes 0%", r"closes 100%", r"leaves \d", r"from (\S+%) to \1", r"\bNone\b", r"\bnan\b",
    r"each from one run", r"\{", r"≤ <", r"\(\)",
)  # fmt: skip


class Numbers:
    """The results' numbers, looked up."""

    def __init__(self, given: Drawn) -> None:
        self.given = given
        geometry = given.typed.geometry
        assert geometry is not None
        self.exact = {frozenset((row.a, row.b)): row.cosine for row in geometry.pairs if row.cosine is not None}
        self.cosines = {pair: round(cosine, 3) for pair, cosine in self.exact.items()}
        self.norms = {row.name: row.norm for row in geometry.adapters}
        self.zero = {name for name, norm in self.norms.items() if norm == 0}
        self.noise = given.noise - self.zero
        dead = self.zero | self.noise
        # what has no direction is no run, and where it is its method's own no other run of its kind stands for it
        lost = {given.keys[name].family for name in dead if given.keys[name].method == name}
        left = {name: given.keys[name] for name in self.norms if name not in dead}
        self.keys = {name: key for name, key in left.items() if key.family not in lost}
        self.all = given.keys
        self.tasks = (given.typed.evaluation and given.typed.evaluation.tasks) or []

    def unequal(self, name: str) -> bool:
        """Whether it was run at another learning rate than SFT, as far as known."""
        rates = self.all[name].rate, self.all["sft"].rate
        return None not in rates and rates[0] != rates[1]

    def sft(self) -> list[str]:
        """The runs that others are compared with: none where SFT's own update has no direction."""
        return self.family("sft")

    def family(self, name: str) -> list[str]:
        return [other for other in self.keys if self.keys[other].family == self.all[name].family]

    def cross(self, a: Collection[str], b: Collection[str]) -> list[float]:
        return [self.cosines[p] for x, y in product(a, b) if x != y and (p := frozenset((x, y))) in self.cosines]

    def within(self, names: Collection[str]) -> list[float]:
        return [self.cosines[p] for pair in combinations(names, 2) if (p := frozenset(pair)) in self.cosines]

    def differing(self, what: str) -> list[float]:
        """Of every two runs of one method that differ in this alone."""
        parts = {"rate", "init", "order"}
        return [
            self.cosines[pair]
            for a, b in combinations(self.keys, 2)
            if self.keys[a].method == self.keys[b].method
            and {part for part in parts if getattr(self.keys[a], part) != getattr(self.keys[b], part)} == {what}
            and (pair := frozenset((a, b))) in self.cosines
        ]

    def floor(self, a: Collection[str], b: Collection[str]) -> list[float]:
        own, other = self.within(a), self.within(b)
        if self.all["sft"].init is None:
            return []
        return own + other if own and other else self.differing("order")

    def test(self, task: Task, a: str, b: str) -> tuple[float, float] | None:
        """How far b's accuracy lies above a's, and p."""
        for row in task.pairs:
            if {row.a, row.b} == {a, b}:
                return (row.difference if row.a == a else -row.difference), row.p_holm
        return None

    def tests(self, task: Task, a: Collection[str], b: Collection[str]) -> list[tuple[float, float]]:
        return [found for x, y in product(a, b) if x != y and (found := self.test(task, x, y)) is not None]


def shown(test: tuple[float, float]) -> bool:
    return test[1] < P and test[0] != 0


def leaders(numbers: Numbers, claim: Claim) -> dict[str, list[str]]:
    """The families that a claim is about, by the name they go by; all their runs must be among the subjects."""
    found: dict[str, list[str]] = {}
    for name in claim.subjects:
        family = numbers.family(name)
        own = numbers.all[name].method
        found[own if own in family else family[0]] = family
        assert set(family) <= set(claim.subjects), "a family is said of as a whole"
    return found


def said(n: Numbers, name: str) -> str:
    """What a family goes by: its method's label at the method's own rate."""
    key = n.all[name]
    return label(key.method if key.rate == n.all[key.method].rate else name)


def printed(n: Numbers, words: str, name: str) -> tuple[float, float]:
    """The range that stands behind a model's label."""
    return printed_as(words, said(n, name))


def printed_as(words: str, label: str) -> tuple[float, float]:
    shown = re.escape(label)
    match = re.search(rf"(?:^|\W){shown} \(?([−\d.]+)(?: to ([−\d.]+))?[,:); .]", words)
    assert match, f"{shown} has no number in: {words}"
    low, high = (float(text.rstrip(".").replace("−", "-")) for text in (match[1], match[2] or match[1]))
    return low, high


def holds(cosines: list[float], low: float, high: float) -> bool:
    return (min(cosines), max(cosines)) == (low, high)


def check_apart(n: Numbers, claim: Claim) -> None:
    sft = n.sft()
    for name, family in leaders(n, claim).items():
        below = said_floor(n, claim, family)
        if n.unequal(name):
            below = below + n.differing("rate")
        for cosine, floor in product(n.cross(family, sft), below):
            assert cosine < floor, f"{name}: {cosine} is not below {floor}"
    if "explains" in claim.words:  # the first sentence
        counts = re.findall(r"(\d+) of (\d+) (?:methods|variants)", claim.words)
        told = [sum(int(count[i]) for count in counts) for i in (0, 1)]
        assert (len(leaders(n, claim)), len(subjects(n))) == (tuple(told) if counts else (1, 1))
        equal = [name for name in leaders(n, claim) if not n.unequal(name)] or n.differing("rate")
        assert claim.words.startswith("Not one update with another step size") == bool(equal)
    else:
        listed(n, claim)


def said_floor(n: Numbers, claim: Claim, family: list[str]) -> list[float]:
    """What a sentence calls a method's cosines lower than: its own and SFT's floor, or all those that were told."""
    if "below what that gives SFT and themselves" in claim.words:
        assert n.within(family) and n.within(n.sft()), "only what was repeated has a floor of its own"
        return n.within(family) + n.within(n.sft())
    return n.differing("order") if "below that" in claim.words else n.floor(family, n.sft())


def listed(n: Numbers, claim: Claim) -> None:
    for name, family in leaders(n, claim).items():
        assert holds(n.cross(family, n.sft()), *printed(n, claim.words, name)), claim.words


def check_rate(n: Numbers, claim: Claim) -> None:
    listed(n, claim)
    for name, family in leaders(n, claim).items():
        cosines = n.cross(family, n.sft())
        assert n.unequal(name) and max(cosines) < min(said_floor(n, claim, family))
        assert max(cosines) >= min(n.differing("rate"))


def check_level(n: Numbers, claim: Claim) -> None:
    listed(n, claim)
    sft = n.sft()
    for family in leaders(n, claim).values():
        highest = max(n.cross(family, sft))
        assert highest >= min(n.floor(family, sft))
        for own in (n.within(family), n.within(sft)):
            assert not own or min(own) >= HALF or highest < min(own), "who does not reproduce itself is not placed"


def check_unrepeated(n: Numbers, claim: Claim) -> None:
    listed(n, claim)
    sft = n.sft()
    for family in leaders(n, claim).values():
        (own,) = [own for own in (n.within(family), n.within(sft)) if own]
        assert min(n.differing("order")) <= max(n.cross(family, sft)) < min(own)


def check_unsteady(n: Numbers, claim: Claim) -> None:
    ((name, family),) = leaders(n, claim).items()
    own, sft = n.within(family), n.sft()
    assert min(own) < HALF
    other = [o for o in claim.numbers if o != name] if n.all[name].method == "sft" else [name]
    cosines = [value for o in other for value in n.cross(n.family(o), sft)]
    for o in other:
        assert max(n.cross(n.family(o), sft)) >= min(own)
    match = re.search(r"cosine ([−\d.]+)(?: to ([−\d.]+))? to each other, ([−\d.]+)(?: to ([−\d.]+))? to ", claim.words)
    assert match
    low, high, low_to, high_to = (None if t is None else float(t.replace("−", "-")) for t in match.groups())
    assert (min(own), max(own)) == (low, low if high is None else high)
    assert (min(cosines), max(cosines)) == (low_to, low_to if high_to is None else high_to)


def check_none_apart(n: Numbers, claim: Claim) -> None:
    assert set(leaders(n, claim)) == subjects(n)


def check_open(n: Numbers, claim: Claim) -> None:
    assert not n.differing("order") or (n.all["sft"].init is None and "no run repeats" not in claim.words)
    every = [v for family in leaders(n, claim).values() for v in n.cross(family, n.sft())]
    values = [float(v.replace("−", "-")) for v in re.findall(r"(−?\d\.\d{3})", claim.words)]
    assert {min(every), max(every)} == set(values)


def check_floor_order(n: Numbers, claim: Claim) -> None:
    found = leaders(n, claim)
    assert sum(len(n.within(family)) for family in found.values()) == len(n.differing("order"))
    assert ("once" in claim.words) == (len(n.differing("order")) == 1)
    if "once" in claim.words:
        ((_, family),) = found.items()
        assert f"{min(n.within(family)):.3f}".replace("-", "−").removeprefix("−0.000") in claim.words
        return
    methods = {n.all[name].method for name in found}
    if len(methods) > 4:  # all in one range
        every = n.differing("order")
        match = re.search(r"([−\d.]+) to ([−\d.]+) \((\d+) pairs of runs of (\d+) methods\)", claim.words)
        assert match and (int(match[3]), int(match[4])) == (len(every), len(methods))
        assert [float(text.replace("−", "-")) for text in (match[1], match[2])] == [min(every), max(every)]
        return
    for method in methods:
        values = [v for name, family in found.items() if n.all[name].method == method for v in n.within(family)]
        assert holds(values, *printed_as(claim.words, label(method)))
        pairs = f"({len(values)} pair{'s' if len(values) > 1 else ''} of runs)"
        assert re.search(rf"{re.escape(label(method))} [^()]*{re.escape(pairs)}", claim.words)


def check_floor(what: str) -> Callable[[Numbers, Claim], None]:
    def check(n: Numbers, claim: Claim) -> None:
        values, (low, high) = n.differing(what), next(iter(claim.numbers.values()))
        assert (min(values), max(values)) == (round(low, 3), round(high, 3))
        assert ("one pair of runs" if len(values) == 1 else f"{len(values)} pairs of runs") in claim.words

    return check


def subjects(n: Numbers) -> set[str]:
    """The methods that can be compared: each at SFT's rate where it was run so, else at its own, else at any."""
    found, sft = set(), n.all["sft"]
    for method in {key.method for key in n.all.values()} - {"sft"}:
        others = [key.rate for key in n.keys.values() if key.method == method]
        for rate in (sft.rate, n.all[method].rate, *others):
            family = [name for name, key in n.keys.items() if key.family == (method, rate, sft.init)]
            if n.cross(family, n.sft()):
                found.add(method if method in family else family[0])
                break
    return found


def check_function(side: str) -> Callable[[Numbers, Claim], None]:
    def check(n: Numbers, claim: Claim) -> None:
        (task,), sft = n.tasks, n.sft()
        family = [name for name in claim.subjects if name not in sft]
        tests = n.tests(task, sft, family)
        within = [abs(t[0]) for f in (sft, family) for a, b in combinations(f, 2) for t in n.tests(task, [a], [b])]
        sizes = [abs(test[0]) for test in tests if shown(test)]
        whole = all(map(shown, tests)) and min(sizes) > max(within, default=0)
        if side == "some":
            match = re.search(r"in (\d+) of (\d+) pairs of runs", claim.words)
            assert match and (int(match[1]), int(match[2])) == (len(sizes), len(tests))
            assert not whole or len({test[0] > 0 for test in tests}) == 2
        else:
            assert whole and all((test[0] > 0) == (side == "above") for test in tests)
        match = re.search(r"(\d+\.\d)(?: to (\d+\.\d))? points", claim.words)
        assert match and float(match[1]) == round(100 * min(sizes), 1)
        assert float(match[2] or match[1]) == round(100 * max(sizes), 1)

    return check


def _both(n: Numbers, claim: Claim) -> tuple[list[float], list[float], list[float]]:
    """A method's cosines at its own rate and at SFT's, and the floor of the latter."""
    method = n.all[claim.subjects[0]].method
    own, matched = ([x for x, k in n.keys.items() if k.family == (method, r, 42)] for r in (n.all[method].rate, RATE))
    sft = n.sft()
    assert {*own, *matched} == set(claim.subjects)
    for family in (own, matched):  # on which side of its floor each of the two stands is decided
        highest, alone = max(n.cross(family, sft)), [own for own in (n.within(family), n.within(sft)) if own]
        unsteady = any(min(own) < HALF and highest >= min(own) for own in alone)
        unrepeated = len(alone) == 1 and highest < min(alone[0])
        assert highest < min(n.floor(family, sft)) or not (unsteady or unrepeated), "a distance of what is undecided"
    return n.cross(own, sft), n.cross(matched, sft), n.floor(matched, sft)


def check_reached(which: int) -> Callable[[Numbers, Claim], None]:
    def check(n: Numbers, claim: Claim) -> None:
        *found, floor = _both(n, claim)
        assert min(found[which]) >= min(floor)

    return check


def check_no_nearer(n: Numbers, claim: Claim) -> None:
    own, matched, _ = _both(n, claim)
    assert all(after <= before for before, after in product(own, matched))


def _swing(n: Numbers) -> float:
    found, sft = [], n.sft()
    for name, key in n.keys.items():
        if key.method != "sft" and key.init == 42:
            pairs = [frozenset((a, b)) for a, b in product(n.family(name), sft)]
            values = [n.exact[pair] for pair in pairs if pair in n.exact]
            found.append(max(values) - min(values) if values else 0.0)
    return max(found)


def check_closes(n: Numbers, claim: Claim) -> None:
    own, matched, floor = _both(n, claim)
    assert min(matched) - max(own) > _swing(n) - 1e-3, "no more than a new order alone does"
    assert max(matched) < min(floor)
    match = re.search(r"closes (?:at most )?(\d+(?:\.\d)?)%(?: to (\d+(?:\.\d)?)%)? of", claim.words)
    assert match
    shares = [(after - before) / (end - before) for before, after, end in product(own, matched, floor)]
    high = float(match[2] or match[1])
    assert abs(high - 100 * max(shares)) < 1.5 and (
        "at most" in claim.words or abs(float(match[1]) - 100 * min(shares)) < 1.5
    )


def check_within_chance(n: Numbers, claim: Claim) -> None:
    own, matched, _ = _both(n, claim)
    assert min(matched) - max(own) <= _swing(n) + 1e-3


def check_beside_base(side: str) -> Callable[[Numbers, Claim], None]:
    def check(n: Numbers, claim: Claim) -> None:
        (task,) = n.tasks
        others = [row.name for row in task.models if row.name != "base"]
        tests = {name: n.test(task, "base", name) for name in others}
        sides = {x: "open" if not shown(t) else "above" if t[0] > 0 else "below" for x, t in tests.items() if t}
        assert set(claim.subjects) == {name for name, found in sides.items() if found == side}
        for name in claim.subjects:
            assert label(name) in claim.words or f"{len(others)} trained models" in claim.words

    return check


def check_end(n: Numbers, claim: Claim) -> None:
    (task,) = n.tasks
    assert {row.accuracy for row in task.models} in ({0.0}, {1.0})
    assert f"all {len(task.models)} models stand at" in claim.words


def check_cut(n: Numbers, claim: Claim) -> None:
    (task,) = n.tasks
    shares = {row.name: row.truncated / row.n for row in task.models}
    assert {name for name, share in shares.items() if share >= 0.1} == set(claim.subjects)
    assert ("every answer" in claim.words) == (set(shares.values()) == {1.0})


def check_change(way: str) -> Callable[[Numbers, Claim], None]:
    def check(n: Numbers, claim: Claim) -> None:
        (task,), method = n.tasks, n.all[claim.subjects[0]].method
        own, matched = (
            [x for x, k in n.keys.items() if k.family == (method, r, 42)] for r in (n.all[method].rate, RATE)
        )
        tests = n.tests(task, own, matched)
        if way == "open":
            assert not any(map(shown, tests))
        else:
            assert tests and all(shown(test) and (test[0] > 0) == (way == "rises") for test in tests)

    return check


def check_norms(n: Numbers, claim: Claim) -> None:
    for name, (low, high) in claim.numbers.items():
        ratios = [n.norms[a] / n.norms[b] for a, b in product(n.family(name), n.sft()) if n.norms[b]]
        assert (min(ratios), max(ratios)) == (low, high)
    if len(claim.numbers) > 4:  # the two ends alone are named
        size = {name: sum(n.norms[a] / n.norms[b] for a, b in product(n.family(name), n.sft())) / n.all[name].rate
                / len(n.family(name)) for name in claim.numbers}  # fmt: skip
        least, most = min(size, key=size.__getitem__), max(size, key=size.__getitem__)
        low, high = re.escape(label(least)), re.escape(label(most))
        assert re.search(rf"as a share of that, lowest {low} [^,]*, highest {high} ", claim.words)


def check_zero(n: Numbers, claim: Claim) -> None:
    assert set(claim.subjects) == n.zero - {"sft"}


def check_noise(n: Numbers, claim: Claim) -> None:
    assert set(claim.subjects) == n.noise - {"sft"}


def check_elsewhere(n: Numbers, claim: Claim) -> None:
    for name in claim.subjects:
        assert n.all[name].init != n.all["sft"].init
    known = None not in {n.all[name].init for name in (*claim.subjects, "sft")}
    assert ("another initial A than SFT" in claim.words) == known


def check_nothing(n: Numbers, claim: Claim) -> None:
    assert not subjects(n)
    assert ("SFT’s update is zero" in claim.words) == ("sft" in n.zero)
    assert ("SFT’s update is noise" in claim.words) == ("sft" in n.noise)


def explained(n: Numbers, factor: str) -> float:
    """The share of the directions' squared distances to their mean that this factor explains beyond all terms without
    it, by least squares on dummy columns."""
    geometry = n.given.typed.geometry
    assert geometry is not None
    rows = [i for i, row in enumerate(geometry.adapters) if row.name not in n.zero | n.noise]
    names = [geometry.adapters[i].name for i in rows]
    gram = np.array(geometry.gram)[np.ix_(rows, rows)]
    values, vectors = np.linalg.eigh(gram / np.sqrt(np.outer(gram.diagonal(), gram.diagonal())))
    points = vectors * np.sqrt(np.maximum(values, 0))
    keys = [n.all[name] for name in names]
    levels = {what: [getattr(key, what) for key in keys] for what in FACTORS.values()}
    levels = {what: column for what, column in levels.items() if len(set(column)) > 1}
    mains = [{what} for what in levels]
    ranks = [np.linalg.matrix_rank(_columns(len(names), levels, [*mains, *more])) for more in ([], *_pairs(levels))]
    told = [pair for (pair,), rank in zip(_pairs(levels), ranks[1:], strict=True) if rank > ranks[0]]
    without = [term for term in [*mains, *told] if factor not in term]
    return (_left(points, levels, without) - _left(points, levels, [*without, {factor}])) / _left(points, levels, [])


def _pairs(levels: Mapping[str, list]) -> list[list[set[str]]]:
    return [[{a, b}] for a, b in combinations(levels, 2)]


def _columns(count: int, levels: Mapping[str, list], terms: list[set[str]]) -> np.ndarray:
    columns = [np.ones(count)]
    for term in terms:
        cells = list(zip(*(levels[what] for what in sorted(term)), strict=True))
        columns += [np.array([cell == one for cell in cells], dtype=float) for one in dict.fromkeys(cells)]
    return np.column_stack(columns)


def _left(points: np.ndarray, levels: Mapping[str, list], terms: list[set[str]]) -> float:
    """Squared distances that the mean and these terms leave."""
    design = _columns(len(points), levels, terms)
    return float(((points - design @ np.linalg.lstsq(design, points, rcond=None)[0]) ** 2).sum())


FACTORS = {"method": "method", "learning_rate": "rate", "init_seed": "init", "order_seed": "order"}


def check_turning(shown: bool | None) -> Callable[[Numbers, Claim], None]:
    """``shown``: whether the test tells it; None where it cannot tell anything."""

    def check(n: Numbers, claim: Claim) -> None:
        found = n.given.typed.attribution
        assert found is not None
        (terms,) = (
            {t.factors[0]: t for t in v.terms if len(t.factors) == 1} for v in found.variance if v.of == "direction"
        )
        tests = sum(t.p is not None for v in found.variance if v.of == "direction" for t in v.terms)
        for factor in claim.subjects:
            term, share = terms[factor], explained(n, FACTORS[factor])
            assert abs(claim.numbers[factor][0] - share) < 1e-8, factor
            assert percent(share) in claim.words
            could = term.p is not None and term.p_floor is not None and term.p_floor * tests < P
            significant = term.p_holm is not None and term.p_holm < P
            assert (shown is True) == significant, factor
            assert (shown is None) == (not significant and not could), factor

    return check


def check_by_effect(n: Numbers, claim: Claim) -> None:
    found = n.given.typed.attribution
    assert found is not None
    ((share,),) = ({t.share for t in v.terms if t.factors == ["init_seed"]} for v in found.variance if v.of == "effect")
    assert claim.numbers == {"init_seed": (share, share)} and share is not None and percent(share) in claim.words


def check_rest(n: Numbers, claim: Claim) -> None:
    found = n.given.typed.attribution
    assert found is not None
    (variance,) = (v for v in found.variance if v.of == "direction")
    mains = sum(t.share or 0 for t in variance.terms if len(t.factors) == 1)
    left = 1 - mains - (variance.residual.share or 0)  # all of it is told: in pairs of factors, or in several
    told = claim.numbers["two factors"][0] + claim.numbers["several"][0]
    assert (variance.overlap or 0) < 0 or abs(told - left) < 1e-8, claim.words
    assert all(percent(value) in claim.words for value, _ in claim.numbers.values() if value)


def check_rates(n: Numbers, claim: Claim) -> None:
    """The cosines and norms of a method at its own and at SFT's rate."""
    for name in claim.numbers:
        family = n.family(name)
        assert set(family) <= set(claim.subjects)
        assert tuple(round(value, 3) for value in claim.numbers[name]) == ends(n.cross(family, n.sft()))
        ratios = [n.norms[a] / n.norms[b] for a, b in product(family, n.sft()) if n.norms[b]]
        low, high = (times(value) for value in ends(ratios))
        assert (low if low == high else f"{low} to {high}") + " SFT’s norm" in claim.words, claim.words


CHECKS: dict[str, Callable[[Numbers, Claim], None]] = {
    "apart": check_apart, "rate": check_rate, "level": check_level, "unrepeated": check_unrepeated,
    "unsteady": check_unsteady, "none apart": check_none_apart, "open": check_open, "zero": check_zero,
    "noise": check_noise, "nothing": check_nothing, "elsewhere": check_elsewhere, "floor order": check_floor_order,
    "floor init": check_floor("init"), "floor learning_rate": check_floor("rate"),
    "above in function": check_function("above"),
    "below in function": check_function("below"), "some in function": check_function("some"),
    "reached before": check_reached(0), "reached": check_reached(1), "no nearer": check_no_nearer,
    "closes": check_closes, "within chance": check_within_chance, "above the base": check_beside_base("above"),
    "below the base": check_beside_base("below"), "open the base": check_beside_base("open"),
    "level at an end": check_end, "cut": check_cut, "accuracy rises": check_change("rises"),
    "turns": check_turning(True), "not shown to turn": check_turning(False), "turning untested": check_turning(None),
    "init by effect": check_by_effect, "turning rest": check_rest, "rates": check_rates,
    "accuracy falls": check_change("falls"), "accuracy open": check_change("open"), "norms": check_norms,
}  # fmt: skip
TURNING = ("turns", "not shown to turn", "turning untested")
FREE = {"reached by some", "chance", "base alone"}


def check(given: Drawn, claims: Collection[Claim]) -> None:
    """AssertionError where a claim is not so, or one is missing that should stand."""
    n = Numbers(given)
    for claim in claims:
        assert not any(re.search(pattern, claim.words) for pattern in BANNED), claim.words
        if claim.kind not in FREE:
            CHECKS[claim.kind](n, claim)
    check_complete(n, claims)


def check_complete(n: Numbers, claims: Collection[Claim]) -> None:
    """Every method stands in one sentence on its direction; each that is level and acts otherwise is said to."""
    kinds = ("rate", "level", "unrepeated", "unsteady", "apart", "open")
    placed: dict[str, set[str]] = {}
    for claim in claims:
        if claim.kind in kinds and not claim.words.startswith(("Not one", "Unlike")):
            names = (
                {x for x in claim.numbers if n.all[x].method != "sft"}
                if claim.kind == "unsteady"
                else set(leaders(n, claim))
            )
            for name in names:
                placed.setdefault(name, set()).add(claim.kind)
    assert set(placed) == subjects(n)
    assert ("zero" in {claim.kind for claim in claims}) == bool(n.zero - {"sft"})
    assert ("noise" in {claim.kind for claim in claims}) == bool(n.noise - {"sft"})
    assert all(len(kinds) == 1 for kinds in placed.values()), placed
    for name in (name for name, kinds in placed.items() if kinds == {"level"}):
        family = n.family(name)
        if any(shown(test) for task in n.tasks for test in n.tests(task, n.sft(), family)):
            said = [
                claim for claim in claims if claim.kind.endswith("in function") and set(family) <= set(claim.subjects)
            ]
            assert said, f"{name} acts otherwise, and nothing is said of it"
    turning = [name for claim in claims if claim.kind in TURNING for name in claim.subjects]
    assert len(turning) == len(set(turning)), "each factor stands in one sentence"
    for task in n.tasks:
        kinds = {claim.kind for claim in claims if claim.point == "accuracy sums"}
        if any(row.truncated >= 0.1 * row.n for row in task.models):
            assert "cut" in kinds, task
        base = [row.name for row in task.models]
        tests = [n.test(task, "base", name) for name in base if "base" in base and name != "base"]
        if "level at an end" not in kinds and any(test and shown(test) for test in tests):
            assert kinds & {"above the base", "below the base"}
