"""A base shared out among two real gloo processes trains what workers train that hold it whole, byte for byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.logprobs import reference_logprobs
from methods.training.parallel import Group, load_sharded
from methods.training.trainer import train
from models.base import load
from tests import forked
from tests.methods.test_parallel import run_workers, weights

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sft", {"precision": "bfloat16", "micro_batch": 2}),
        ("dpo", {"gradient_checkpointing": True, "probe_every": 2, "probe_rows": 3}),
    ],
    ids=["bfloat16, several passes", "checkpointed, held-out rows"],
)
def test_a_shared_out_base_trains_the_same_bytes(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    """As two workers with a whole base each; and, to rounding, as one; also stopped and taken up again."""
    reference = reference_logprobs(tiny_model, rollouts, precision=changes.get("precision", "float32"))
    heldout = rollouts[:4] if "probe_every" in changes else []
    whole, shared = (make_config(method, workers=2, resume_every=2, shard_base=s, **changes) for s in (False, True))
    for config, name in ((whole, "whole"), (shared, "shared")):
        ended = run_workers(config, tiny_model, rollouts, reference, tmp_path / name, heldout=heldout)
        assert [e.returncode for e in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole" / "out").rglob("*") if path.is_file()]
    assert len(files) >= 4
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "shared" / file).read_bytes(), file

    stopped = run_workers(shared, tiny_model, rollouts, reference, tmp_path / "again", stop=3, heldout=heldout)
    assert stopped[0].returncode != 0 and stopped[1].returncode == 0, "the second worker is told, and ends"
    run_workers(shared, tiny_model, rollouts, reference, tmp_path / "again", heldout=heldout)
    again, once = weights(tmp_path / "again"), weights(tmp_path / "shared")
    assert all(torch.equal(again[name], once[name]) for name in once)

    single = make_config(method, **changes)
    folder = tmp_path / "one"
    train(single, tiny_model, rollouts, folder / "out", reference=reference, work=folder / "work", heldout=heldout)
    close = {"rtol": 1e-3, "atol": 1e-5} if single.precision == "float32" else {"rtol": 2e-2, "atol": 1e-4}
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(once[name], value, **close)
    if heldout:
        log = [json.loads(line) for line in (tmp_path / "shared" / "out" / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log if line.get("heldout_kl") is not None] == [2, 4, 6]


def parts(folder: str, meet: str, rank: int) -> None:
    """In a process of its own: write how much of the base this worker holds before and after a pass through it."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meet}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    model = load_sharded(Path(folder), "float32", "sdpa", Group(rank, 2, "cpu"))
    before, logits = held(model), model(input_ids=torch.tensor([[3, 4, 5]])).logits
    print(json.dumps({"before": before, "after": held(model), "logits": logits.flatten().tolist()}), flush=True)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads abort a process that is taken down after the other one has gone


def held(model: torch.nn.Module) -> list[int]:
    """Elements in this process's memory: of the layers, of the rest."""
    sizes = [0, 0]
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if isinstance(parameter, torch.distributed.tensor.DTensor) else parameter
        sizes[".layers." not in name] += local.numel()
    return sizes


def test_each_worker_holds_a_part_of_the_layers(tiny_model: Path, tmp_path: Path) -> None:
    """Half of them by two workers, whatever is rounded up where a first dimension is odd; the rest is whole."""
    model = load(tiny_model, "float32", "sdpa")
    layers, rest = held(model)
    calls = [(str(tiny_model), str(tmp_path / "meet"), rank) for rank in (0, 1)]
    ended = forked.run(parts, calls, tmp_path / "streams")
    assert [e.returncode for e in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    told = [json.loads(e.stdout.splitlines()[-1]) for e in ended]
    assert [t["before"] for t in told] == [t["after"] for t in told] == [[layers // 2, rest]] * 2
    expected = model(input_ids=torch.tensor([[3, 4, 5]])).logits.flatten().tolist()
    assert all(t["logits"] == expected for t in told)


def test_a_base_is_shared_out_among_equals(make_config: Make) -> None:
    for changes in ({}, {"workers": 3}, {"workers": 2, "micro_tokens": 64}):
        with pytest.raises(ValueError, match="shard_base: needs several workers"):
            make_config(shard_base=True, **changes)
