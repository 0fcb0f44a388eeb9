"""What a batch refuses: each objective gets the shapes that its docstring names, or one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from methods import METHODS
from methods.data.batch import Batch

BESIDE = r"beside logp of \(4, 5\) it needs"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"logp": torch.zeros(4)}, r"batch: logp has shape \(4,\), not rows x completion tokens"),
        ({"mask": torch.ones(4, 1, dtype=torch.bool)}, rf"batch: mask has shape \(4, 1\), {BESIDE} \(4, 5\)"),
        ({"mask": torch.ones(5, dtype=torch.bool)}, rf"batch: mask has shape \(5,\), {BESIDE} \(4, 5\)"),
        ({"reward": torch.ones(1)}, rf"batch: reward has shape \(1,\), {BESIDE} \(4,\)"),
        ({"reward": torch.ones(4, 1)}, rf"batch: reward has shape \(4, 1\), {BESIDE} \(4,\)"),
        ({"group_mean": torch.tensor(0.5)}, rf"batch: group_mean has shape \(\), {BESIDE} \(4,\)"),
        ({"reference": torch.zeros(4)}, rf"batch: reference has shape \(4,\), {BESIDE} \(4, 5\)"),
        ({"reference": torch.zeros(1, 5)}, rf"batch: reference has shape \(1, 5\), {BESIDE} \(4, 5\)"),
    ],
)
def test_shapes_that_would_be_broadcast_in_silence(
    batch: Batch, method: str, changes: dict[str, Any], line: str
) -> None:
    entry = METHODS[method]
    with pytest.raises(ValueError, match=f"^{line}$"):
        entry.losses(replace(batch, **changes), **entry.settings)


def rows(batch: Batch, count: int) -> Batch:
    assert batch.reference is not None
    parts = (batch.logp, batch.mask, batch.reward, batch.group_mean, batch.reference)
    return Batch(*(part[:count] for part in parts))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("length_normalised", [False, True])
def test_a_row_without_its_pair(batch: Batch, count: int, length_normalised: bool) -> None:
    dpo = METHODS["dpo"]
    settings = dpo.settings | {"length_normalised": length_normalised}
    line = f"^batch: {count} rows are no pairs of a chosen row"
    with pytest.raises(ValueError, match=line):
        dpo.losses(rows(batch, count), **settings)
    assert dpo.metrics is not None
    with pytest.raises(ValueError, match=line):
        dpo.metrics(rows(batch, count), **settings)
    assert dpo.losses(rows(batch, 2), **settings).shape == (1,)


@pytest.mark.parametrize(("method", "settings"), [("dpo", {}), ("offline_grpo", {"form": "source"})])
def test_a_reference_that_is_not_there(batch: Batch, method: str, settings: dict[str, Any]) -> None:
    entry = METHODS[method]
    with pytest.raises(ValueError, match=r"^batch: the objective reads log pi_base, and there is no reference$"):
        entry.losses(replace(batch, reference=None), **entry.settings | settings)
