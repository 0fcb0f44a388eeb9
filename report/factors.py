"""What the factors of the trainings are called, and the order in which a reader meets them."""

from __future__ import annotations

from collections.abc import Sequence

from report.model_index import ModelIndex
from results.attribution import Term

INIT = "init_seed"
WORDS = {
    "method": "loss", "learning_rate": "learning rate", "order_seed": "order of rows", INIT: "",
    "start": "random factor (A or B)", "training.examples": "choice of rows",
}  # fmt: skip


def named(index: ModelIndex, factors: Sequence[str]) -> str:
    """A factor, or the interaction of two, as it is called; the one that is drawn by the factor that was, A or B."""
    words = WORDS | {INIT: f"draw of {index.by_chance.initial}"}
    return " × ".join(words.get(factor, factor.rpartition(".")[2].replace("_", " ")) for factor in factors)


def place(factor: str) -> int:
    """A sort key: the known factors first."""
    return [*WORDS].index(factor) if factor in WORDS else len(WORDS)


def ordered(terms: Sequence[Term]) -> list[Term]:
    """Factors before interactions, each in reading order."""
    return sorted(terms, key=lambda term: (len(term.factors), [place(factor) for factor in term.factors]))
