"""What an objective declares about itself: the one record that the trainer, the schema and the docs read."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Setting = float | str | bool


@dataclass(frozen=True)
class Method:
    """One training objective.

    ``losses(batch, **settings)`` is a pure function of a :class:`methods.batch.Batch`; the sum of what it
    returns is the numerator of the loss. ``unit`` names what the denominator counts over a whole optimiser
    step: completion tokens or pairs. ``view`` names the rollouts it sees: all, those with reward 1, or
    (chosen, rejected) pairs. ``metrics(batch, **settings)`` gives further values, one a unit, whose means are
    logged. ``reference`` says that the batch must carry the base model's log-probabilities, ``positive``
    which settings must be above zero.
    """

    title: str
    unit: Literal["token", "pair"]
    view: Literal["all", "right", "pairs"]
    losses: Callable[..., Tensor]
    metrics: Callable[..., dict[str, Tensor]] | None = None
    reference: bool = False
    positive: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Setting]:
        """Names and defaults of the settings: the keyword-only parameters of ``losses``."""
        parameters = inspect.signature(self.losses).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

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
        numbers = {key: float(value) for key, value in given.items() if isinstance(known[key], float)}
        return {**known, **given, **numbers}


def _check_type(name: str, key: str, value: Any, default: Setting) -> None:
    if isinstance(default, float):
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        expected = "a finite number"
    else:
        right = isinstance(value, type(default))
        expected = f"a {type(default).__name__}"
    if not right:
        raise ValueError(f"{name}: setting {key} must be {expected}, not {value!r}")
