"""Every method beside the reference at equal settings, from all trainings of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from results.part import MayBeAbsent, Part

Quantity = Literal["learning rate", "steps", "rows", "tokens", "problems"]
Match = Literal["as published", "learning rate", "steps", "rows", "tokens", "problems", "norm", "best rate"]


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


class Both(Part):
    """Of one number, the means over the method's and over the reference's trainings."""

    its: float | None = Field(description="The method's; null where it is not known of any.")
    reference: float | None = Field(description="The reference's; null where it is not known of any.")


class MatchedRow(Part):
    """A method and the reference, from the same initial A, each in all orders of rows that were trained.

    Either may be trained with another number of steps, batch size or choice of rows than the study's own: where the
    methods' own trainings do not agree in an amount, those that do have a row of their own. Where ``matched`` is norm,
    accuracy, losses, KL and CKA are those of scaled copies of the method's trainings, and the cosines and angles, which
    no scale changes, those of the trainings.
    """

    method: str = Field(description="The method; a variant by its name where it differs in a setting.")
    to: str = Field(description="The reference's method, or a variant of it.")
    matched: Match = Field(
        description="What makes it a row. as published: each at its own learning rate. learning rate: at one rate. "
        "steps, rows, tokens, problems: at one rate, and the nearest of their trainings that agree in this amount, "
        "where no row above has them. norm: the method's updates scaled to the norm of the reference's own training. "
        "best rate: each at the rate that its search chose."
    )
    equal: list[Quantity] = Field(
        description="In what the two agree up to report_step: learning rate exactly; optimiser steps, rows and "
        "completion tokens trained on, different problems within 2 % of the larger mean."
    )
    learning_rate: float = Field(description="The method's.")
    reference_rate: float = Field(description="The reference's.")
    trainings: list[str] = Field(description="The method's; where matched is norm, their scaled copies.")
    reference_trainings: list[str]
    cosine: Span | None = Field(description="Between their updates; null where none is defined.")
    floor: Span | None = Field(
        description="Cosine of two trainings of one of the two, in different orders; null where neither was repeated."
    )
    weighted: Span | None = Field(description="Activation-weighted cosine; null where it was not measured.")
    angle_min: Span | None = Field(description="Median smallest principal angle, degrees; null where none is defined.")
    norm_ratio: Span | None = Field(description="Norm over the reference's; null for a zero update.")
    factor: MayBeAbsent[Span] = Field(
        default=None, description="What the updates were multiplied by. Absent where none was scaled."
    )
    norm: Both = Field(description="Norm of the update.")
    undone: Both = Field(description="Share of the way that later steps undo, 0 to 1.")
    signal: Both = Field(description="Share of the gradient's power that is its running mean's at report_step, 0 to 1.")
    nll_right: Both = Field(description="Nats a token on right held-out rows.")
    margin: Both = Field(description="Nats a token on wrong held-out rows less those on right ones.")
    cka_to_base: Both = Field(description="CKA of hidden states to the base's, mean over layers, embeddings left out.")
    barrier: Span | None = Field(
        description="Largest excess of the loss on the line between the two over the line between its ends, nats a "
        "token; null where no path between two of them was measured."
    )
    kl_to_base: float | None = Field(description="Mean over its trainings, nats a token; null if not measured.")
    reference_kl: float | None = Field(description="The same of the reference's; null if not measured.")
    accuracy: list[AccuracyDifference] = Field(description="A row a task on which both were evaluated.")
