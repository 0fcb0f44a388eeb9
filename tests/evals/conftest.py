"""What the engines' tests share: two adapters on the served tiny model, and prompts of unlike lengths."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(
    served_model: Path, write_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path | None]:
    """Name -> adapter folder; "base" is None. The two adapters differ in seed and rank."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "base": None,
        "first": write_adapter(folder / "first", served_model, seed=1, rank=8, scale=1.0),
        "second": write_adapter(folder / "second", served_model, seed=2, rank=4, scale=1.0),
    }


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """60 prompts of 3 to 24 tokens of the tiny vocabulary."""
    rng = random.Random(0)
    return [[rng.randrange(2, 64) for _ in range(rng.randrange(3, 25))] for _ in range(60)]
