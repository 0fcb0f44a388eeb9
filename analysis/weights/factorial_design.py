"""The linear model of a factorial: for each term an orthonormal basis of what it explains beyond the other terms.

Letters: M cells (one delta each), a term is the set of its factors: ("method",) is a main effect, ("method", "rate") an
interaction.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.weights.gram import TOLERANCE

Kept = Sequence[int] | np.ndarray | None
BETWEEN = ":"  # joins the factors of an interaction in its name


@dataclass(frozen=True)
class Term:
    """One effect. The three bases (M x rank, orthonormal, orthogonal to each other) span together the whole model.

    below: the mean and the terms that do not contain this one. own: what this term adds to them; its number of columns
    is the degrees of freedom. above: what the terms that contain this one add (an interaction above its main effects).
    """

    factors: tuple[str, ...]
    groups: np.ndarray  # of each cell, the number of its combination of levels of these factors
    below: np.ndarray
    own: np.ndarray
    above: np.ndarray
    full_df: int  # degrees of freedom if every combination of levels were there and no other term overlapped

    @property
    def name(self) -> str:
        return BETWEEN.join(self.factors)


@dataclass(frozen=True)
class Design:
    """codes: of each factor with two levels or more, the number of each cell's level. dropped: the other factors."""

    cells: int
    codes: dict[str, np.ndarray]
    dropped: list[str]
    terms: list[Term]
    basis: np.ndarray  # of the whole model, with the mean

    @property
    def residual_df(self) -> int:
        return self.cells - self.basis.shape[1]

    @property
    def balanced(self) -> bool:
        """Whether every combination of levels is there, all equally often."""
        counts = np.bincount(groups(list(self.codes.values()), self.cells))
        full = math.prod(int(codes.max()) + 1 for codes in self.codes.values())
        return self.cells > 0 and len(counts) == full and len(set(counts.tolist())) == 1

    def strata(self, factors: Sequence[str]) -> np.ndarray:
        """Of each cell, the number of its combination of levels of all factors but ``factors``."""
        return groups([codes for name, codes in self.codes.items() if name not in factors], self.cells)

    def symmetries(self, factor: str) -> int:
        """The relabellings of a factor's levels that leave the number of cells at every combination as it is."""
        codes, others = self.codes[factor], self.strata([factor])
        counts = np.zeros((int(codes.max()) + 1, int(others.max()) + 1), dtype=int)
        np.add.at(counts, (codes, others), 1)
        _, alike = np.unique(counts, axis=0, return_counts=True)
        return math.prod(math.factorial(int(number)) for number in alike)


def build(
    factors: Mapping[str, Sequence[Hashable]], deltas: int, terms: Sequence[str] | None = None, kept: Kept = None
) -> Design:
    """The design of so many deltas with the given levels, one per delta and factor; only of the deltas ``kept``, if any
    are named.

    ``terms``: names of main effects ("method") and interactions ("method:rate"); None: all main effects and all two-way
    interactions that add degrees of freedom to the main effects. Factors of one level and terms with them are dropped.
    ValueError if a factor has another number of levels than deltas, if a term has an unknown factor or one twice, or if
    it lacks a term that it contains (without it, its sum of squares would include that of the other).
    """
    used = range(deltas) if kept is None else kept
    cells, codes, dropped = len(used), {}, []
    for name, levels in factors.items():
        if len(levels) != deltas:
            raise ValueError(f"factor {name!r} has {len(levels)} levels for {deltas} deltas")
        if BETWEEN in name:
            raise ValueError(f"the name of a factor has no {BETWEEN!r}, this is {name!r}")
        number = {level: code for code, level in enumerate(dict.fromkeys(levels[k] for k in used))}
        if len(number) > 1:
            codes[name] = np.array([number[levels[k]] for k in used], dtype=int)
        else:
            dropped.append(name)
    if terms is None:
        wanted = _default(codes, cells)
    else:
        wanted = [own for own in _parsed(terms, list(factors)) if not set(own) & set(dropped)]
    grouped = {own: groups([codes[name] for name in own], cells) for own in wanted}
    return Design(cells, codes, dropped, [_term(own, grouped, codes) for own in wanted], _model(grouped, cells))


def groups(codes: Sequence[np.ndarray], cells: int) -> np.ndarray:
    """The number, from 0, of each cell's combination of levels; all 0 for no factor."""
    if not codes:
        return np.zeros(cells, dtype=int)
    return np.unique(np.stack(codes), axis=1, return_inverse=True)[1].reshape(-1)


def indicators(numbers: np.ndarray) -> np.ndarray:
    """M group numbers -> M x groups, 1 where the cell is in the group."""
    return (numbers[:, None] == np.arange(numbers.max(initial=-1) + 1)).astype(np.float64)


def _default(codes: Mapping[str, np.ndarray], cells: int) -> list[tuple[str, ...]]:
    mains: list[tuple[str, ...]] = [(name,) for name in codes]
    additive = _model({own: codes[own[0]] for own in mains}, cells)
    pairs = combinations(codes, 2)
    return mains + [p for p in pairs if _beyond(additive, [groups([codes[name] for name in p], cells)]).shape[1]]


def _parsed(terms: Sequence[str], factors: Sequence[str]) -> list[tuple[str, ...]]:
    wanted = [tuple(name.split(BETWEEN)) for name in dict.fromkeys(terms)]
    known = {frozenset(own) for own in wanted}
    for own in wanted:
        name = BETWEEN.join(own)
        if not set(own) <= set(factors) or len(set(own)) < len(own):
            raise ValueError(f"term {name!r} is not made of different factors of {', '.join(factors)}")
        for part in (part for size in range(1, len(own)) for part in combinations(own, size)):
            if frozenset(part) not in known:
                raise ValueError(f"term {name!r} needs the term {BETWEEN.join(part)!r}, which it contains")
    if len(known) < len(wanted):
        raise ValueError(f"a term stands twice in {', '.join(terms)}")
    return wanted


def _term(own: tuple[str, ...], grouped: Mapping[tuple[str, ...], np.ndarray], codes: Mapping[str, np.ndarray]) -> Term:
    numbers = grouped[own]
    above = [other for name, other in grouped.items() if set(name) > set(own)]
    below = _model({name: other for name, other in grouped.items() if not set(name) >= set(own)}, len(numbers))
    basis = _beyond(below, [numbers])
    full = math.prod(int(codes[name].max()) for name in own)
    return Term(own, numbers, below, basis, _beyond(np.hstack([below, basis]), above), full)


def _model(grouped: Mapping[tuple[str, ...], np.ndarray], cells: int) -> np.ndarray:
    """Orthonormal basis of the mean and the given terms."""
    return _beyond(np.zeros((cells, 0)), [np.zeros(cells, dtype=int), *grouped.values()])


def _beyond(basis: np.ndarray, terms: Sequence[np.ndarray]) -> np.ndarray:
    """Orthonormal basis of what the indicators of ``terms`` span beyond ``basis``.

    Singular values up to TOLERANCE of a constant column's norm are rounding.
    """
    if not terms or not len(basis):
        return np.zeros((len(basis), 0))
    columns = np.hstack([indicators(numbers) for numbers in terms])
    for _ in range(2):  # once leaves rounding along the basis, twice does not
        columns = columns - basis @ (basis.T @ columns)
    vectors, values, _ = np.linalg.svd(columns, full_matrices=False)
    return vectors[:, values > TOLERANCE * math.sqrt(len(basis))]
