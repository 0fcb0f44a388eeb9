from __future__ import annotations

from pathlib import Path

import pytest
import torch

from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from models.base import load
from tests.models.test_logprobs import chosen, plainly


def test_reference(tiny_model: Path, rollouts: list[Rollout]) -> None:
    """The plain log-probabilities of the rows asked for, nothing for the others."""
    values = reference_logprobs(tiny_model, rollouts, rows=[5, 2, 40], batch_size=2, precision="float32")
    model = load(tiny_model, "float32", "sdpa")
    with torch.no_grad():
        for row in (2, 5, 40):
            expected = chosen(plainly(model, rollouts[row].tokens), rollouts[row].completion_ids)
            assert values[row] == pytest.approx(expected.numpy(), abs=1e-5)
    assert [row for row, value in enumerate(values) if len(value)] == [2, 5, 40]
    together = reference_logprobs(tiny_model, rollouts, precision="float32")
    for row in (2, 5, 40):
        assert values[row] == pytest.approx(together[row], abs=1e-5)


@pytest.mark.parametrize(
    ("rollout", "line"),
    [
        (Rollout([3], [64], 1.0, 0), "row 0: a token id lies outside the model's vocabulary of 64"),
        (Rollout([3] * 200, [4] * 57, 1.0, 0), "row 0: 257 tokens, the model takes 256"),
    ],
)
def test_rows_the_model_cannot_take(tiny_model: Path, rollout: Rollout, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        reference_logprobs(tiny_model, [rollout], precision="float32")
    assert str(caught.value) == line
