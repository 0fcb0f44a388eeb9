"""Which factor of the trainings moves their updates, by how much, and how surely."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from results.part import Part

Subject = Literal["update", "direction", "effect"]
Level = bool | int | float | str | list[str]


class Levels(Part):
    """One training's level of each factor."""

    name: str = Field(description="The training.")
    levels: dict[str, Level] = Field(
        description="By factor: method, learning_rate, init_seed, order_seed, start, and each setting that is varied."
    )


class Effect(Part):
    """A source of variation: a factor, an interaction of two, or what is left."""

    df: int = Field(description="Degrees of freedom.")
    share: float | None = Field(description="Sum of squares over the total, 0 to 1; null where df is 0.")
    low: float | None = Field(
        description="Lower end of the share's 95 % interval by jackknife over layers; null with one layer or without "
        "layers. It holds what layers differ in, not what other seeds would give."
    )
    high: float | None = Field(description="Upper end; null where low is.")
    component: float | None = Field(
        description="Estimated variance component over the sum of all, which does not grow with the number of levels; "
        "negative by chance where it is small; null where nothing is left to estimate it by."
    )


class Term(Effect):
    """A factor or an interaction, tested."""

    factors: list[str] = Field(description="One factor, or two for their interaction.")
    chance: float | None = Field(description="Mean share over all relabellings, df / (M - 1); null where df is 0.")
    f: float | None = Field(description="Pseudo-F; null where there is no error to divide by.")
    error_df: int | None = Field(description="Degrees of freedom of that error; null where df is 0.")
    p: float | None = Field(description="Permutation p; null where nothing may be exchanged.")
    p_holm: float | None = Field(description="p adjusted over all tested terms by Holm's method; null where p is.")
    p_floor: float | None = Field(description="The smallest p that these cells can give; null where df is 0.")


class VarianceBy(Part):
    """Analysis of variance of all trainings by their factors (docs/measurements/factorial.md)."""

    of: Subject = Field(
        description="update: the stacked dW; direction: the same at norm 1; effect: at norm 1 too, weighed by the "
        "inputs that its modules get."
    )
    deltas: int = Field(
        description="Trainings that entered: those whose update has a direction, and whose start is the first's."
    )
    total: float = Field(description="Sum of squared distances to the mean.")
    balanced: bool = Field(description="Whether every combination of levels was trained equally often.")
    terms: list[Term] = Field(description="Factors first, then interactions.")
    residual: Effect = Field(description="What no term explains.")
    overlap: float | None = Field(
        description="Share that several terms could explain, 0 where balanced; it may be negative. Null for no total."
    )
    aliased: list[str] = Field(description="Terms that others explain wholly, of which nothing can be said.")


class OneFactor(Part):
    """Pairs of trainings that differ in one factor alone."""

    factor: str
    pairs: int = Field(description="How many pairs.")
    squared: float = Field(
        description="Mean of |dW - dW'|^2 over the mean |dW|^2 of all trainings: 2 for orthogonal updates of mean size."
    )
    cosine: float | None = Field(description="Mean cosine over the pairs; null where none is defined.")
    cosine_min: float | None = Field(description="The lowest; null where none is defined.")
    cosine_max: float | None = Field(description="The highest; null where none is defined.")
    weighted: float | None = Field(description="Mean activation-weighted cosine; null where it was not measured.")


class Attribution(Part):
    """What the trainings differ in, and which of it moves the updates."""

    trainings: list[Levels] = Field(description="Those that entered.")
    one_factor: list[OneFactor] = Field(description="A row for each factor in which some pair differs alone.")
    variance: list[VarianceBy]
