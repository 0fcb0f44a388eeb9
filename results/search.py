"""The search of each method's learning rate: its trials, and the rate that was chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from results.part import MayBeAbsent, Part


class Rung(Part):
    """A trial's greedy accuracy on the problems that are held out of the rollouts, after some of its steps."""

    steps: int = Field(description="Optimiser steps trained by then.")
    right: int = Field(description="Problems answered rightly.")
    problems: int = Field(description="Problems answered.")
    accuracy: float = Field(description="Share right, 0 to 1.")
    standard_error: float = Field(description="Of the accuracy, from the choice of problems.")
    low: float = Field(description="Lower end of Wilson's 95 % interval.")
    high: float = Field(description="Upper end.")


class Stopped(Part):
    """Why a trial was not trained further."""

    steps: int = Field(description="The rung, in optimiser steps.")
    value: float = Field(description="The trial's accuracy there.")
    cutoff: float = Field(description="The least accuracy that went on, from those that had come there before.")
    values: list[float] = Field(description="Those accuracies, in the order of their coming.")


class Trial(Part):
    """One learning rate."""

    name: str = Field(description="The training at this rate, as it is called where the study has it.")
    learning_rate: float = Field(description="Peak learning rate.")
    status: Literal["finished", "stopped", "failed"]
    steps: int = Field(description="Optimiser steps up to its last rung.")
    rungs: list[Rung] = Field(description="In order; empty where it failed before the first.")
    stopped: MayBeAbsent[Stopped] = Field(default=None, description="Absent unless it was stopped.")
    error: MayBeAbsent[str] = Field(default=None, description="Why it failed; absent unless it did.")


class Search(Part):
    """One method's search."""

    method: str = Field(description="The method, by its name in the study.")
    algorithm: Literal["grid", "random", "asha", "tpe"]
    rungs: list[int] = Field(description="Optimiser steps after which a trial is judged, the last its whole length.")
    trials: list[Trial] = Field(description="By learning rate.")
    chosen: str = Field(
        description="The training that was most accurate at full length, of equals the smallest rate's."
    )
    learning_rate: float = Field(description="Its rate, with which the method is compared as at its best.")
    steps: int = Field(description="Optimiser steps of all trials up to their last rungs.")
    full_steps: int = Field(description="What the same trials take if each is trained to its end.")
