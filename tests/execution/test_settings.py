"""Settings that are declared once: their bounds, and which of them a key is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from execution.settings import Below1, Count, Neutral, Seed, Settings, Unkeyed, keyed, stated, unkeyed


@dataclass(frozen=True, kw_only=True)
class Some(Settings):
    kind: Literal["a", "b"] = "a"
    steps: Count = 5
    most: Count | None = None
    betas: tuple[Below1, Below1] = (0.5, 0.9)
    seed: Seed = 0
    saved_every: Unkeyed[Count] = 10
    smoothing: Neutral[Below1] = 0.0
    names: Neutral[tuple[str, ...]] = ()


ALWAYS: dict[str, Any] = {"kind": "a", "steps": 5, "most": None, "betas": (0.5, 0.9), "seed": 0}


def test_what_a_key_is_made_of() -> None:
    assert keyed(Some()) == ALWAYS
    assert keyed(Some(smoothing=0.1, names=["x"])) == ALWAYS | {"smoothing": 0.1, "names": ("x",)}  # type: ignore[arg-type]
    assert keyed(Some(saved_every=7)) == ALWAYS
    assert unkeyed(Some(saved_every=7)) == {"saved_every": 7}
    assert stated(Some()) == ALWAYS | {"saved_every": 10}
    assert Some(**stated(Some(smoothing=0.1))) == Some(smoothing=0.1)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kind": "c"}, "kind: 'c' is not one of a, b"),
        ({"steps": 0}, "steps: must be at least 1, not 0"),
        ({"most": 0}, "most: must be at least 1, not 0"),
        ({"betas": [0.5, 1.0]}, "betas: must be below 1, not 1.0"),
        ({"seed": 2**32}, "seed: must be below 4294967296, not 4294967296"),
        ({"smoothing": float("nan")}, "smoothing: must be a finite number, not nan"),
    ],
)
def test_a_value_out_of_bounds_is_named(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as refused:
        Some(**changes)
    assert str(refused.value) == line
