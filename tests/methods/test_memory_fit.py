"""Forward passes by units or by a token budget, and what happens where memory runs out (injected on the CPU)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from methods.config import TrainConfig
from methods.data.batch import Batch, Rollout
from methods.data.split import divisible, micro_batches, share
from methods.training import trainer

Make = Callable[..., TrainConfig]


def rows(*lengths: int) -> list[Rollout]:
    return [Rollout([2] * (n - 1), [1], 1.0, i) for i, n in enumerate(lengths)]


def test_a_budget_cuts_where_the_padded_size_would_exceed_it() -> None:
    rollouts = rows(4, 4, 8, 2, 2, 2, 30)
    units = [(i,) for i in range(7)]
    # 2 x 4 = 8 fits 16, 3 x 8 = 24 does not; 4 rows padded to 8 would be 32
    assert micro_batches(units, rollouts, 16, True) == [[(0,), (1,)], [(2,), (3,)], [(4,), (5,)], [(6,)]]
    assert micro_batches(units, rollouts, 3, False) == [units[:3], units[3:6], units[6:]]
    assert micro_batches([(0, 2), (1, 3)], rollouts, 16, True) == [[(0, 2)], [(1, 3)]]
    assert divisible(units, rollouts, 16, True) and not divisible(units, rollouts, 2, True)
    assert divisible(units, rollouts, 2, False) and not divisible(units, rollouts, 1, False)


def test_shares_are_all_units_once() -> None:
    units = [(i,) for i in range(7)]
    parts = [share(units, rank, 3) for rank in range(3)]
    assert sorted(u for part in parts for u in part) == units
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def trained(config: TrainConfig, model: Path, rollouts: list[Rollout], folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    trainer.train(config, model, rollouts, folder / "out", work=folder)
    return load_file(folder / "out" / "adapter" / "adapter_model.safetensors")


def test_a_budget_changes_nothing_but_rounding(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    plain = trained(make_config(), tiny_model, rollouts, tmp_path / "plain")
    budget = trained(make_config(micro_tokens=24), tiny_model, rollouts, tmp_path / "budget")
    for name, value in plain.items():
        torch.testing.assert_close(budget[name], value, rtol=1e-3, atol=1e-5)


class Short:
    """A device with room for ``rows`` rows: the real forward pass, after a check like the allocator's."""

    def __init__(self, rows: int) -> None:
        self.rows, self.forward = rows, trainer.Trainer.batch

    def __call__(self, own: trainer.Trainer, units: Any) -> Batch:
        if sum(map(len, units)) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.forward(own, units)


@pytest.mark.parametrize(("limit", "events"), [({}, [(8, 4), (4, 2)]), ({"micro_tokens": 64}, [(64, 32), (32, 16)])])
def test_out_of_memory_halves_and_goes_on(
    tiny_model: Path,
    rollouts: list[Rollout],
    make_config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, int],
    events: list[tuple[int, int]],
) -> None:
    plain = trained(make_config(), tiny_model, rollouts, tmp_path / "plain")
    short = Short(2)
    monkeypatch.setattr(trainer.Trainer, "batch", lambda self, units: short(self, units))
    found = trained(make_config(**limit), tiny_model, rollouts, tmp_path / "short")
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    told = json.loads((tmp_path / "short" / "out" / "training.json").read_text())["out_of_memory"]
    assert [(e["from"], e["to"]) for e in told][: len(events)] == events
    assert told[0]["step"] == 1


def test_the_smaller_pass_and_its_record_outlive_a_kill(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Short(2)
    monkeypatch.setattr(trainer.Trainer, "batch", lambda self, units: short(self, units))
    whole = trained(make_config(resume_every=2), tiny_model, rollouts, tmp_path / "whole")

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(make_config(resume_every=2), tiny_model, rollouts, folder / "out", work=folder, on_step=stop)
    short.rows = 100  # the memory is there again: the training keeps its smaller passes, and so its bytes
    again = trained(make_config(resume_every=2), tiny_model, rollouts, folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    told = [json.loads((f / "out" / "training.json").read_text()) for f in (tmp_path / "whole", folder)]
    assert told[0] == told[1] and len(told[0]["out_of_memory"]) == 2


def test_one_row_that_does_not_fit_says_how_to_mend_it(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Short(0)
    monkeypatch.setattr(trainer.Trainer, "batch", lambda self, units: short(self, units))
    with pytest.raises(RuntimeError, match="one row of step 1 does not fit into memory: set"):
        trained(make_config(), tiny_model, rollouts, tmp_path / "none")


def test_a_base_that_does_not_fit_says_that_it_can_be_sharded(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 60.00 GiB")

    monkeypatch.setattr(trainer, "load", load)
    with pytest.raises(
        RuntimeError, match=r"does not fit one cpu device .*: set training\.precision.*training\.shard_base=true"
    ):
        trained(make_config(), tiny_model, rollouts, tmp_path)
