"""What sentences on directions are held to: every run of every method, and every cosine between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from analysis.weights.replicas import INIT, ORDER, RATE, Key, Run, families, noise, repeats, runs
from report.model_index import ModelIndex
from results import Results
from results.weights import Geometry


@dataclass(frozen=True)
class Family:
    """Runs of one method at one learning rate and one initial A (start b: B), which differ in the order of their rows
    alone."""

    method: str
    learning_rate: float | None
    init: int | None
    start: str
    runs: tuple[Run, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(run.name for run in self.runs)

    @property
    def name(self) -> str:
        """The run that stands for all: the method's own where it is among them."""
        return self.names[0] if self.names and self.method not in self.names else self.method

    @property
    def key(self) -> Key:
        return self.method, self.learning_rate, self.init, self.start


@dataclass(frozen=True)
class Cosines:
    """Defined cosines by pair of names, looked up: a large study has hundreds of thousands of pairs."""

    geometry: Geometry | None

    def __contains__(self, pair: frozenset[str]) -> bool:
        return self.geometry is not None and len(pair) == 2 and self.geometry.cosine(*pair) is not None

    def __getitem__(self, pair: frozenset[str]) -> float:
        cosine = self.geometry.cosine(*pair) if self.geometry else None
        if cosine is None:
            raise KeyError(pair)
        return cosine


@dataclass(frozen=True)
class Evidence:
    """``families``: all that were measured. ``reference``: the one the others are compared to, perhaps without runs."""

    results: Results
    index: ModelIndex
    families: tuple[Family, ...]
    reference: Family

    @cached_property
    def known(self) -> Cosines:
        """The defined cosines, by pair."""
        return Cosines(self.results.geometry)

    @cached_property
    def norms(self) -> dict[str, float]:
        """The norms that were measured, by name."""
        return self.results.geometry.norms if self.results.geometry else {}

    @cached_property
    def repeated(self) -> dict[str, dict[frozenset, float]]:
        """Pairs of runs of one method that differ in one thing alone, by what it is, with their cosines."""
        pairs_by_kind = repeats([run for family in self.families for run in family.runs])
        pairs = {kind: map(frozenset, of) for kind, of in pairs_by_kind.items()}
        return {kind: {pair: self.known[pair] for pair in of if pair in self.known} for kind, of in pairs.items()}

    @cached_property
    def zero(self) -> tuple[str, ...]:
        """Updates that are zero."""
        return tuple(name for name, norm in self.norms.items() if norm == 0)

    @cached_property
    def noise(self) -> tuple[str, ...]:
        """Trainings whose update, not zero, was made of rounding alone."""
        marked = noise(map(vars, self.results.trainings))
        return tuple(name for name, norm in self.norms.items() if norm != 0 and name in marked)

    def cross(self, a: Family, b: Family) -> list[float]:
        """The cosine of every run of ``a`` to every run of ``b``."""
        pairs = (frozenset((x, y)) for x in a.names for y in b.names if x != y)
        return [self.known[pair] for pair in pairs if pair in self.known]

    def within(self, family: Family) -> list[float]:
        """The cosine of every two runs of one family: what a new order of rows gives it."""
        pairs = map(frozenset, combinations(family.names, 2))
        return [self.known[pair] for pair in pairs if pair in self.known]

    def comparable(self, family: Family) -> bool:
        """Whether it began from the reference's initial A: another one takes a cosine to 0 whatever was learned."""
        return family.key[2:] == self.reference.key[2:]

    def orders(self) -> list[float]:
        """What a new order gives, of every method that was repeated so."""
        return [value for family in self.families for value in self.within(family)]

    def rates(self) -> list[float]:
        """What another learning rate alone gives, of every method that was run at several."""
        return list(self.repeated[RATE].values())

    def floor(self, a: Family, b: Family) -> list[float]:
        """What a new order gives these two; what it gives any method where one of them was not repeated.

        Nothing where it is not known from which initial A the reference began: another one would explain any cosine.
        """
        if self.reference.init is None:
            return []
        own, other = self.within(a), self.within(b)
        return own + other if own and other else self.orders()

    def swing(self) -> float | None:
        """The most that a new order alone moved a cosine to the reference, of all methods; None without one."""
        others = [f for f in self.families if self.comparable(f) and f.method != self.reference.method]
        crossed = [self.cross(family, self.reference) for family in others]
        return max((max(values) - min(values) for values in crossed if len(values) > 1), default=None)

    def own(self, method: str) -> Family | None:
        """A method at its own learning rate, of the reference's initial A where it was run so.

        Where its own training is not among the results, one that repeats it in another order of rows tells the rate.
        """
        trainings = list(map(vars, self.results.trainings))
        named = [row["name"] for row in trainings if row["name"] == method]
        repeating = [row["name"] for row in trainings if row["of"] == method and row["role"] in (ORDER, INIT)]
        own = runs(trainings, [*named, *repeating, method])[0]
        key = method, *own.family[1:]
        return self._family((*key[:2], *self.reference.key[2:])) or self._family(key)

    def of(self, method: str) -> list[Family]:
        """Every family of a method."""
        return [family for family in self.families if family.method == method]

    def matched(self, method: str) -> Family | None:
        """A method at the reference's learning rate."""
        rate = self.reference.learning_rate
        return None if rate is None else self._family((method, rate, *self.reference.key[2:]))

    def _family(self, key: Key) -> Family | None:
        return next((family for family in self.families if family.key == key), None)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Every method but the reference's, in the index's order."""
        names = dict.fromkeys(family.method for family in self.families if family.method != self.reference.method)
        places = {name: place for place, name in enumerate(self.index.models)}
        return tuple(sorted(names, key=lambda name: places.get(name, len(places))))

    def label(self, family: Family) -> str:
        """What a family goes by: its method at its own rate, its one run elsewhere."""
        return self.index.label(family.method if self.own(family.method) == family else family.name)


def evidence(results: Results, index: ModelIndex) -> Evidence:
    """The evidence in ``results``; ``index.reference`` must not be None.

    An update of noise (its training's row says so) or of zero is no run: it has no direction. Where it is a method's
    own or the reference, its repetitions in other orders are none either: they cannot stand for it.
    """
    assert index.reference is not None
    trainings = [vars(training) for training in results.trainings]
    norms = results.geometry.norms if results.geometry else {}
    dead = noise(trainings) | {name for name, norm in norms.items() if norm == 0}
    lost = {r.family for r in runs(trainings, [*norms]) if r.name in dead and r.name in (r.method, index.reference)}
    measured = families(runs(trainings, [name for name in norms if name not in dead]))
    kept = tuple(Family(*key, tuple(of)) for key, of in measured.items() if key not in lost)
    key = runs(trainings, [index.reference])[0].family
    return Evidence(results, index, kept, next((family for family in kept if family.key == key), Family(*key)))
