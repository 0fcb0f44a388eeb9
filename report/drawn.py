"""Which factor the adapters drew at random, as the page calls it: A, B where a study says ``start: b``, or both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawn:
    """``letter``: the factor that was drawn; ``zero``: the other one. As formulas, ``first``: its first value; ``way``
    and ``moved``: how far it went from there, whole and relative; ``span``: what spans one side of an update while it
    is there. ``space``: which space of a matrix that is; ``side``: which side; ``overlap``: of the first singular
    vectors on that side."""

    letter: str
    zero: str
    first: str
    way: str
    moved: str
    span: str
    space: str
    side: str
    overlap: str

    @property
    def initial(self) -> str:
        return f"initial {self.letter}"


A = Drawn("A", "B", "A₀", "‖A−A₀‖", "‖A−A₀‖ / ‖A₀‖", "A₀’s rows", "row", "input", "|v₁·v₁′|")
B = Drawn("B", "A", "B₀", "‖B−B₀‖", "‖B−B₀‖ / ‖B₀‖", "B₀’s columns", "column", "output", "|u₁·u₁′|")
BOTH = Drawn(*(f"{a} or {b}" for a, b in zip(vars(A).values(), vars(B).values(), strict=True)))


def drawn(starts: Iterable[str]) -> Drawn:
    """What to call the factor drawn by adapters with these starts, a or b."""
    return {frozenset("b"): B, frozenset("ab"): BOTH}.get(frozenset(starts), A)
