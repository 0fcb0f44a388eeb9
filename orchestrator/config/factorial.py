"""A factorial: trainings that cross methods with learning rates, seeds and any further settings."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from execution.settings import Positive, Seed, Settings, hints, unkeyed
from methods.config import LoraSettings, TrainingSettings
from orchestrator.config.values import Free, Frozen, Several

METHOD = "method"
OWN = ("learning_rate", "init_seed", "order_seed")  # factors with a key of their own
ADAPTER, TRAINING, SETTINGS = "adapter.", "training.", "settings."  # prefixes of further factors
FIXED = {
    "adapter.targets": "the measurements compare the modules that all have",
    "training.workers": "placement is one",
    **dict.fromkeys(
        ("training.checkpoint_every", "training.probe_every", "training.probe_rows"), "it changes no update"
    ),
}

Levels = Annotated[Several[Free], Field(min_length=1)]


class Cells(Frozen):
    """Every combination of these levels, one training each; a factor that is left out stays as the study has it.

    ``vary`` holds further factors by the setting's key: ``adapter.rank``, ``training.steps``, or ``settings.beta`` of
    the methods. ``exclude`` lists combinations that are not trained, each a mapping of some factors to a level.
    """

    methods: Annotated[Several[str], Field(min_length=1)] | None = None  # all of the study where unset
    learning_rate: Annotated[Several[Positive], Field(min_length=1)] | None = None
    init_seed: Annotated[Several[Seed], Field(min_length=1)] | None = None
    order_seed: Annotated[Several[Seed], Field(min_length=1)] | None = None
    vary: dict[str, Levels] = Field(default_factory=dict)
    exclude: Several[dict[str, Free]] = ()

    @field_validator("methods", "learning_rate", "init_seed", "order_seed", "vary")
    @classmethod
    def _once(cls, levels: Any) -> Any:
        for name, several in levels.items() if isinstance(levels, dict) else [("", levels or ())]:
            seen: list[Any] = []
            for level in several:
                if level in seen:
                    raise ValueError(f"{name + ': ' if name else ''}{level} is given twice")
                seen.append(level)
        return levels

    @field_validator("vary")
    @classmethod
    def _settings(cls, vary: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key in vary:
            kinds: dict[str, type[Settings]] = {ADAPTER: LoraSettings, TRAINING: TrainingSettings}
            prefix = next((p for p in (*kinds, SETTINGS) if key.startswith(p)), None)
            name = key.removeprefix(prefix or "")
            if prefix is None or not name:
                raise ValueError(f"{key} is no factor: name a setting as adapter.X, training.X or settings.X")
            if prefix == TRAINING and name == "learning_rate":
                raise ValueError(f"{key}: give its levels as learning_rate, beside vary")
            if prefix in kinds and name not in hints(kinds[prefix]):
                raise ValueError(f"{key} is no setting of {prefix.rstrip('.')}")
            if key in FIXED:
                raise ValueError(f"{key} must be the same for all trainings: {FIXED[key]}")
            if prefix == TRAINING and name in unkeyed(TrainingSettings()):
                raise ValueError(f"{key} changes no result: there is nothing to compare")
        return vary

    def size(self, methods: int) -> int:
        """Number of combinations before exclusion, in a study of so many methods."""
        factors = (self.learning_rate, self.init_seed, self.order_seed, *self.vary.values())
        count = len(self.methods) if self.methods else methods
        return count * math.prod(len(levels) for levels in factors if levels)

    @model_validator(mode="after")
    def _excluded(self) -> Cells:
        for combination in self.exclude:
            unknown = sorted(combination.keys() - {METHOD, *OWN, *self.vary})
            if unknown or not combination:
                raise ValueError(
                    f"exclude: {unknown[0] if unknown else 'an empty mapping'} is no factor of these cells: name some "
                    f"of {', '.join((METHOD, *OWN, *self.vary))}"
                )
        return self
