"""The headline: what is compared to the reference, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from results.part import Part

PREFERRED = "sft"  # the method that others are compared to, where there is one of this name
ITSELF = "of the reference itself"
Matched = Literal["as published", "learning rate", "sweep"]


def reference_among(names: Sequence[str]) -> str:
    """Which of the models the others are compared to: SFT where it is one of them, else the first."""
    return PREFERRED if PREFERRED in names else names[0]


class Listed(Part):
    """A model that is compared to the reference. In a comparison this is all: its numbers are read off the geometry."""

    name: str = Field(description="The training or adapter; the reference itself has a row too.")
    compared_to: str = Field(description="The reference.")
    matched: Matched | None = Field(
        description="as published: at its own learning rate. learning rate: a sweep's point at the reference's rate. "
        "sweep: at another. Null for an adapter in a comparison that this tool did not train."
    )


class HeadlineRow(Listed):
    """A training of a study beside the reference."""

    learning_rate: float = Field(description="Peak learning rate.")
    norm: float = Field(description="Norm of its update.")
    cosine: float | None = Field(description=f"As in geometry.pairs; null there, and {ITSELF}.")
    angle_min_median_deg: float | None = Field(description=f"As in geometry.pairs, degrees; null there, and {ITSELF}.")
    u1: float | None = Field(description=f"As in geometry.pairs; null there, and {ITSELF}.")
    v1: float | None = Field(description=f"As in geometry.pairs; null there, and {ITSELF}.")
    accuracy: dict[str, float] = Field(description="Share right, 0 to 1, by task; empty where it was not evaluated.")
