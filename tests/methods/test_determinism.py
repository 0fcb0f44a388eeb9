"""Operations without an order, injected on the CPU as torch refuses them on a GPU; the real ones are in tests/gpu."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from methods.config import TrainConfig
from methods.data.batch import Batch, Rollout
from methods.training import trainer
from methods.training.determinism import Unordered, deterministic, in_order

REFUSED = "histc does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'"


@pytest.fixture(autouse=True)
def held() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_an_operation_without_an_order_is_computed_again_without_and_said_once() -> None:
    torch.use_deterministic_algorithms(True)

    def compute() -> int:
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(REFUSED)
        return 3

    with pytest.warns(Unordered, match=r"^bytes will differ from run to run: histc does not have"):
        assert in_order(compute) == 3
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("error", [RuntimeError("nondeterministic recomputation"), torch.OutOfMemoryError("CUDA")])
def test_other_errors_pass(error: Exception) -> None:
    calls = []

    def compute() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        in_order(compute)
    assert len(calls) == 1


def test_what_was_set_before_is_set_after() -> None:
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    with deterministic(3):
        assert torch.get_num_threads() == 3
        torch.use_deterministic_algorithms(False)
    assert torch.get_num_threads() == threads and torch.are_deterministic_algorithms_enabled()


def test_the_step_that_was_refused_is_drawn_anew(
    tiny_model: Path,
    rollouts: list[Rollout],
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused in the second of its forward passes, with dropout: masks and gradients are those of a run without."""
    config = make_config(dropout=0.2, micro_batch=4)
    forward, calls = trainer.Trainer.batch, list[int]()

    def refusing(self: trainer.Trainer, units: object) -> Batch:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError(REFUSED)
        return forward(self, units)  # type: ignore[arg-type]

    def adapter(name: str) -> bytes:
        (tmp_path / name).mkdir()
        trainer.train(config, tiny_model, rollouts, tmp_path / name / "out", work=tmp_path / name)
        return (tmp_path / name / "out" / "adapter" / "adapter_model.safetensors").read_bytes()

    plain = adapter("plain")
    monkeypatch.setattr(trainer.Trainer, "batch", refusing)
    with pytest.warns(Unordered):
        assert adapter("refused") == plain
