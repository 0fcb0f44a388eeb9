"""Every method beside the reference at equal settings, from all trainings of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from results.part import Part


class Span(Part):
    """Of one number over several pairs of trainings."""

    mean: float
    low: float = Field(description="The lowest.")
    high: float = Field(description="The highest.")
    pairs: int = Field(description="How many pairs.")


class Settled(Part):
    """What would tell the difference from zero with 80 % power at Holm's first step, from the variance seen."""

    trainings: int | None = Field(description="Trainings of each method; null where no number is enough.")
    problems: int | None = Field(
        description="Where trainings is null, problems that would be enough with three trainings of each; null where "
        "no number is."
    )


class AccuracyDifference(Part):
    """The method's mean accuracy less the reference's on one task, for other trainings and other problems."""

    task: str
    trainings: int = Field(description="The method's that were evaluated.")
    reference_trainings: int = Field(description="The reference's that were evaluated.")
    difference: float = Field(description="-1 to 1.")
    low: float | None = Field(
        description="Lower end of the 95 % interval; null with one training of each, where nothing tells how trainings "
        "vary, and where nothing varies."
    )
    high: float | None = Field(description="Upper end; null where low is.")
    p: float | None = Field(description="Two-sided p of equal means; null where low is.")
    p_holm: float | None = Field(description="Adjusted by Holm's method for all rows of the task; null where p is.")
    sd_trainings: float | None = Field(
        description="Standard deviation between trainings of one method, in accuracy; null with one training of each."
    )
    sd_problems: float = Field(description="Standard error of the difference from the choice of problems alone.")
    pooled: bool = Field(description="One method has one training: it is taken to vary as the other does.")
    settled: Settled | None = Field(description="Null where it is told already, or nothing is known of the variance.")


class MatchedRow(Part):
    """A method and the reference, from the same initial A, each in all orders of rows that were trained."""

    method: str
    to: str = Field(description="The reference's method.")
    matched: Literal["learning rate", "as published", "best rate"]
    learning_rate: float = Field(description="The method's.")
    reference_rate: float = Field(description="The reference's.")
    trainings: list[str] = Field(description="The method's.")
    reference_trainings: list[str]
    cosine: Span | None = Field(description="Between their updates; null where none is defined.")
    floor: Span | None = Field(
        description="Cosine of two trainings of one of the two, in different orders; null where neither was repeated."
    )
    weighted: Span | None = Field(description="Activation-weighted cosine; null where it was not measured.")
    angle_min: Span | None = Field(description="Median smallest principal angle, degrees; null where none is defined.")
    norm_ratio: Span | None = Field(description="Norm over the reference's; null for a zero update.")
    kl_to_base: float | None = Field(description="Mean over its trainings, nats a token; null if not measured.")
    reference_kl: float | None = Field(description="The same of the reference's; null if not measured.")
    accuracy: list[AccuracyDifference] = Field(description="A row a task on which both were evaluated.")
