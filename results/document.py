"""``results.json`` as a whole: the one thing that a run or a comparison leaves for readers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from results.attribution import Attribution
from results.evaluation import Evaluation, Task
from results.function import Activations, Connectivity, Losses, Similarity
from results.headline import PREFERRED, HeadlineRow, Listed
from results.matched import MatchedRow
from results.part import MayBeAbsent, Part
from results.rollouts import Rollouts
from results.scaled import CkaToBase, Scaled
from results.search import Search
from results.study import Base, Comparison, Failure, KeptPairs, StudyFacts, Unfinished
from results.trainings import AnyTraining, Curve, Sweep
from results.weights import Directions, Geometry, MeasuredGeometry, Spectra

VERSION: Literal[1] = 1  # docs/results.md says when it goes up


class Measured(Part):
    """What was measured of the trainings, each part by a step of its own, a list by one a model (``StepKind.read``)."""

    geometry: MayBeAbsent[MeasuredGeometry] = Field(default=None, description="Absent where it was not measured.")
    activations: MayBeAbsent[Activations] = Field(default=None, description="Absent where it was not measured.")
    spectra: MayBeAbsent[Spectra] = Field(default=None, description="Absent where it was not measured.")
    losses: MayBeAbsent[list[Losses]] = Field(
        default=None, description="Of every model, base first. Absent where it was not measured."
    )
    connectivity: MayBeAbsent[Connectivity] = Field(default=None, description="Absent where it was not measured.")
    similarity: MayBeAbsent[Similarity] = Field(default=None, description="Absent where it was not measured.")
    scaled: MayBeAbsent[list[Scaled]] = Field(
        default=None, description="Scaled copies of trainings. Absent where none was asked for or made."
    )
    scaled_cka: MayBeAbsent[list[CkaToBase]] = Field(
        default=None, description="The scaled copies beside base. Absent where it was not measured."
    )
    search: MayBeAbsent[list[Search]] = Field(
        default=None, description="Of each method whose learning rate was searched. Absent where none was."
    )


class Results(Measured):
    """All parts. Which are there depends on what was run: a study has ``study``, a comparison ``comparison``."""

    version: Literal[1] = Field(description="Of this schema.")
    study: MayBeAbsent[StudyFacts] = Field(default=None, description="Absent in a comparison.")
    base: MayBeAbsent[Base] = Field(default=None, description="Absent in a comparison.")
    rollouts: MayBeAbsent[Rollouts] = Field(default=None, description="Absent until they are made.")
    trainings: list[AnyTraining] = Field(
        description="A study's trainings, methods first; in a comparison the adapters that this tool trained."
    )
    curves: MayBeAbsent[list[Curve]] = Field(
        default=None, description="Of the trainings that are done. Absent in a comparison."
    )
    evaluation: MayBeAbsent[Evaluation] = Field(default=None, description="Absent where nothing was evaluated.")
    geometry: MayBeAbsent[Geometry] = Field(default=None, description="Absent where it was not measured.")
    failures: MayBeAbsent[list[Failure]] = Field(
        default=None, description="Steps that failed; empty where none did. Absent in a comparison."
    )
    unfinished: MayBeAbsent[Unfinished] = Field(default=None, description="Absent where every step is done.")
    kept_pairs: MayBeAbsent[KeptPairs] = Field(
        default=None, description="Absent where every pair is listed, as in a study of 16 trainings or fewer."
    )
    headline: MayBeAbsent[list[HeadlineRow | Listed]] = Field(
        default=None, description="What is compared to the reference. Absent without geometry."
    )
    directions: MayBeAbsent[Directions] = Field(
        default=None, description="Absent without geometry, and where the reference's update has no direction."
    )
    attribution: MayBeAbsent[Attribution] = Field(
        default=None, description="Absent where fewer than two factors differ among the trainings, and in a comparison."
    )
    matched: MayBeAbsent[list[MatchedRow]] = Field(
        default=None, description="Absent where no method was trained beside the reference, and in a comparison."
    )
    sweep: MayBeAbsent[Sweep] = Field(default=None, description="Absent where the study sweeps nothing.")
    comparison: MayBeAbsent[Comparison] = Field(default=None, description="Absent in a study.")

    @property
    def reference(self) -> str | None:
        """The model that all others are compared to: the headline's; else SFT, where it is among the trainings."""
        if self.headline:
            return self.headline[0].compared_to
        if any(training.name == PREFERRED for training in self.trainings):
            return PREFERRED
        return self.geometry.adapters[0].name if self.geometry else None

    def training(self, name: str | None) -> AnyTraining | None:
        """The training of this name; None for base, and for an adapter that this tool did not train."""
        return next((training for training in self.trainings if training.name == name), None)

    def setting(self, name: str) -> JsonValue:
        """A setting of the study by its dotted name; None where it has none of this name, and in a comparison."""
        return self.study.settings.get(name) if self.study else None

    @property
    def tasks(self) -> list[Task]:
        """The tasks that were evaluated; none where no model has answered every problem."""
        return (self.evaluation and self.evaluation.tasks) or []

    def accuracy(self, task: str, model: str) -> float | None:
        """The share of answers of ``model`` that are right on ``task``; None where it was not evaluated."""
        score = next((measured.score(model) for measured in self.tasks if measured.task == task), None)
        return None if score is None else score.accuracy
