"""What was studied, on which base, what failed, what is not done; or what was compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from results.part import MayBeAbsent, Part
from results.places import Named


class StudyFacts(Part):
    """The study in words and settings."""

    name: str
    title: str = Field(description="Empty where the study gives none.")
    question: str
    settings: dict[str, JsonValue] = Field(
        description="Every setting that decides a result, by its dotted name: placement, folders and saving do not."
    )
    note: MayBeAbsent[str] = Field(default=None, description="Absent where the study gives none.")


class Base(Part):
    """The base model. Name and kind alone where it is not made yet."""

    name: str
    kind: Literal["from_scratch", "hub", "local", "gguf", "random"]
    revision: MayBeAbsent[str] = Field(
        default=None, description="The hub's commit, the files' hash, or 'made by this study'."
    )
    parameters: MayBeAbsent[int] = Field(default=None, description="With embeddings.")
    layers: MayBeAbsent[int] = None
    hidden: MayBeAbsent[int] = Field(default=None, description="Width of the hidden states.")
    modules: MayBeAbsent[int] = Field(default=None, description="Adapted modules. Absent without geometry.")


class KeptPairs(Part):
    """Which pairs of models a study of many trainings lists; the Grams hold every pair's cosine in any case."""

    trainings: int = Field(description="How many trainings the study has.")
    beside: str = Field(
        description="By layer, projection, module and checkpoint only pairs with this training are listed; of features "
        "also those with base."
    )
    overall: MayBeAbsent[int] = Field(
        default=None,
        description="How many pairs of trainings are listed over all modules, and tested in accuracy: each training "
        "beside that one, and, for each factor, beside the first that differs from it in this alone. Absent where all "
        "are.",
    )


class Failure(Part):
    """A step that failed."""

    step: str = Field(description="Kind and name, such as train/dpo.")
    error: str = Field(description="In words.")
    dependants: list[str] = Field(description="Steps that did not run because of it.")


class Unfinished(Part):
    """What a report midway lacks."""

    steps: int = Field(description="All steps of the plan.")
    done: int = Field(description="Steps that are done.")
    failed: list[str]
    waiting: list[str] = Field(description="Steps that are neither, those of early among them.")
    early: list[str] = Field(description="Steps that were measured aside for this report, of what is there.")


class ComparedAdapter(Named):
    """An adapter as it was given."""

    base: str | None = Field(description="The base that its config names; null where it names none.")
    modules: int = Field(description="Modules that it has.")
    rslora: bool = Field(description="Whether its scale is alpha / sqrt(r).")


class Comparison(Part):
    """What was compared without a study."""

    adapters: list[ComparedAdapter]
    shared_modules: int = Field(description="Modules that all of them have in one shape: those that are compared.")
    notes: list[str] = Field(description="What a reader must know of unlike adapters, a sentence each.")
