"""A model that answers the problems of a study's rollouts: which one, on what engine, how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from execution.settings import Count
from orchestrator.bases import Base
from orchestrator.config.values import Free, Frozen, changed

if TYPE_CHECKING:
    from evals.engines.settings import EngineSettings


class Teacher(Frozen):
    """One of several teachers. ``engine`` has the settings in which its engine differs from the study's."""

    model: Literal["base"] | Base
    samples: Count | None = None  # completions per problem; None: rollouts.samples
    engine: dict[str, Free] = Field(default_factory=dict)

    @property
    def own(self) -> Base | None:
        """The model, if it is another one than the study's base."""
        return None if self.model == "base" else self.model

    @property
    def called(self) -> str:
        """Its name in a plan."""
        return "the base" if self.own is None else self.own.name


def engine_of(settings: EngineSettings, own: dict[str, Any]) -> EngineSettings:
    """The study's engine ``settings`` with a teacher's ``own`` in their place. ``ValueError`` for unfit ones."""
    return changed(settings, own)
