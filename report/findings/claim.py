"""One printed sentence with what it was made from, so that a test, or a reader of JSON, can hold it to the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from report import formats

DIGITS = 3  # of a printed cosine; two that print alike are never called different


@dataclass(frozen=True)
class Claim:
    """``words``: the sentence; ``point``: the paragraph it stands in; ``kind``: the rule that made it.

    ``subjects`` are names of models, and ``numbers`` the lowest and the highest of the values that the sentence gives
    of each subject, or of what else it names.
    """

    kind: str
    point: str
    words: str
    subjects: tuple[str, ...] = ()
    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest."""
    return min(values), max(values)


def cosines(values: Sequence[float]) -> str:
    """One cosine, or from which to which they run."""
    return between([formats.fixed(value, DIGITS) for value in ends(values)])


def between(shown: Sequence[str]) -> str:
    """``a to b``, or ``a`` where both ends read alike."""
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


def below(value: float, other: float) -> bool:
    """Whether a cosine is lower than another as both are printed."""
    return round(value, DIGITS) < round(other, DIGITS)
