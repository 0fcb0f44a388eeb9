"""The declaration of a training objective, read by the trainer, the schema and the docs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1e30  # largest absolute value of a setting: losses are float32
Setting = float | str | bool
Unit = Literal["token", "sequence", "pair"]


@dataclass(frozen=True)
class Method:
    """One training objective.

    ``losses(batch, **settings)`` is a pure function of a :class:`methods.data.batch.Batch`; the sum of what it
    returns is the numerator of the loss. ``unit`` is what the denominator counts over a whole optimiser step:
    completion tokens, rows (sequence), or pairs. ``view`` is the rollouts that it sees: all, those with reward 1, or
    (chosen, rejected) pairs. ``weights(reward, group_mean, **settings)`` is the signed weight of a row, for methods
    with a setting ``divide_by`` that can make the sum of absolute weights the denominator.
    ``metrics(batch, **settings)`` returns further values, one per unit, whose means are logged. ``reference`` says
    whether the batch must hold the base model's log-probabilities, ``real`` whether the objective is defined for
    rewards other than 0 and 1; like ``unit`` they can be functions of the settings. ``blind`` says that the objective
    imitates every row whatever its reward: of (chosen, rejected) pairs it is given the chosen rows alone. ``positive``
    names settings that must be above zero, ``choices`` lists the values of a setting, ``forms`` the settings that are
    read under one value of the setting ``form`` only, and ``refuse(**settings)`` returns what is wrong with their
    combination, or None.
    """

    title: str
    unit: Unit | Callable[..., Unit]
    view: Literal["all", "right", "pairs"]
    losses: Callable[..., Tensor]
    weights: Callable[..., Any] | None = None
    metrics: Callable[..., dict[str, Tensor]] | None = None
    reference: bool | Callable[..., bool] = False
    real: bool | Callable[..., bool] = False
    blind: bool = False
    positive: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refuse: Callable[..., str | None] | None = None

    @property
    def settings(self) -> dict[str, Setting]:
        """Names and defaults of the settings: the keyword-only parameters of ``losses``."""
        parameters = inspect.signature(self.losses).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def read(self, settings: Mapping[str, Any]) -> dict[str, Setting]:
        """The (complete) settings without those of another form."""
        idle = {key for form, keys in self.forms.items() if form != settings["form"] for key in keys}
        return {key: value for key, value in settings.items() if key not in idle}

    def unit_of(self, settings: Mapping[str, Any]) -> Unit:
        """The unit under these (complete) settings."""
        return self.unit(**settings) if callable(self.unit) else self.unit

    def needs_reference(self, settings: Mapping[str, Any]) -> bool:
        """Whether these (complete) settings need the base model's log-probabilities."""
        return self.reference(**settings) if callable(self.reference) else self.reference

    def takes_real(self, settings: Mapping[str, Any]) -> bool:
        """Whether rewards may be other than 0 and 1 under these (complete) settings."""
        return self.real(**settings) if callable(self.real) else self.real

    def check(self, name: str, given: Mapping[str, Any]) -> dict[str, Setting]:
        """``given`` completed with the defaults; ``ValueError`` on an unknown name or a bad value."""
        known = self.settings
        for key, value in given.items():
            if key not in known:
                options = ", ".join(sorted(known)) or "it has none"
                raise ValueError(f"{name}: unknown setting {key!r}; known settings: {options}")
            _check_type(name, key, value, known[key])
            if key in self.positive and not value > 0:
                raise ValueError(f"{name}: setting {key} must be above 0, not {value}")
            if key in self.choices and value not in self.choices[key]:
                raise ValueError(f"{name}: setting {key} must be one of {', '.join(self.choices[key])}, not {value!r}")
        numbers = {key: float(value) for key, value in given.items() if isinstance(known[key], float)}
        settings = {**known, **given, **numbers}
        idle = [key for key in settings.keys() - self.read(settings).keys() if settings[key] != known[key]]
        if idle:
            key = min(idle)
            form = next(form for form, keys in self.forms.items() if key in keys)
            raise ValueError(f"{name}: setting {key} belongs to form {form}, this is form {settings['form']}")
        wrong = self.refuse(**settings) if self.refuse else None
        if wrong:
            raise ValueError(f"{name}: {wrong}")
        return settings


def _check_type(name: str, key: str, value: Any, default: Setting) -> None:
    if isinstance(default, float):
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
        expected = "a number of at most 1e30 in size"
    else:
        right = isinstance(value, type(default))
        expected = f"a {type(default).__name__}"
    if not right:
        raise ValueError(f"{name}: setting {key} must be {expected}, not {value!r}")
