"""A base that one GPU does not hold is refused by plan and run, with the largest that it does: by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli import main

ROOT = Path(__file__).resolve().parents[2]
STUDY = str(ROOT / "configs" / "qwen3-4b.yaml")
WEIGHTS = 4_022_272_000  # of the reference base (test_cost.py)
ADAPTER = 36 * 32 * (2 * (4096 + 2560) + 2 * (1024 + 2560))
# Llama-3.1-70B's shape: 80 layers of two 8192 x 8192, two 8192 x 1024 and three 8192 x 28672, one tied embedding.
LARGE = "{layers: 80, hidden: 8192, heads: 64, kv_heads: 8, head_dim: 128, intermediate: 28672, vocabulary: 128256}"
LARGE_WEIGHTS = 80 * (2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672) + 128256 * 8192


def planned(capsys: pytest.CaptureFixture[str], *settings: str, command: str = "plan") -> tuple[int, str]:
    code = main([command, STUDY, *(word for setting in settings for word in ("--set", setting))])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_a_base_that_no_gpu_holds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    settings = (f"base.shape={LARGE}", "placement.gpu_memory_gib=80")
    for command in ("plan", "run"):
        code, told = planned(capsys, *settings, command=command)
        assert code == 2 and len(told.splitlines()) == 1, told
        found = re.search(r"needs (\d+) GiB of a GPU in (.*), and there are (\d+) .* has about ([\d.]+) B param", told)
        assert found is not None, told
        assert int(found[1]) == round(LARGE_WEIGHTS * 4 / 2**30) and "float32" in found[2]
        assert int(found[3]) == 79 and float(found[4]) == pytest.approx(79 * 2**30 / 4 / 1e9, rel=0.05)


@pytest.mark.parametrize(
    ("gib", "share", "fits"), [(15.9, 1, False), (16.1, 1, True), (21, 0.4, True), (21, 0.38, False)]
)
def test_the_border_is_the_weights_and_the_context(
    gib: float, share: float, fits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a GPU less 1 GiB the measurements take all weights in float32, 14.98 GiB; a training has its share, and takes
    them in bfloat16, 7.49 GiB, with an adapter in float32, its gradient and two moments, .35 GiB."""
    measuring, training = 4 * WEIGHTS / 2**30, (2 * WEIGHTS + 16 * ADAPTER) / 2**30
    assert (measuring, training) == pytest.approx((14.98, 7.84), abs=0.01)
    code, told = planned(capsys, f"placement.gpu_memory_gib={gib}", f"placement.gpus_per_training={share}")
    assert (code == 0) is fits, told
    if share < 1 and not fits:
        assert "a training (bfloat16)" in told


def test_a_base_that_workers_share_out_needs_less(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the 36 layers of four workers each holds nine, and two that it gathers: a training of 4.02 B parameters, .39 B
    of them embeddings, has 1.50 B at once, 2.79 GiB."""
    rest = 151936 * 2560
    shared = (rest + (WEIGHTS - rest) * (9 + 2) / 36) * 2 / 2**30
    assert shared == pytest.approx(2.79, abs=0.01)
    least = shared + 16 * ADAPTER / 2**30
    for share, fits in ((1.02 * least / 20, True), (0.98 * least / 20, False)):
        sharing = ("training.workers=4", "training.shard_base=true", f"placement.gpus_per_training={share:.4f}")
        code, told = planned(capsys, "placement.gpu_memory_gib=21", *sharing)
        assert (code == 0) is fits, told


def test_what_a_plan_says_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """A large micro-batch fits in the end; on a stated number of GPUs of unknown memory nothing is checked."""
    settings = ("placement.gpu_memory_gib=24", "training.micro_batch=32", "training.gradient_checkpointing=false")
    code, told = planned(capsys, *settings)
    assert code == 0 and "it will be halved until it fits; training.gradient_checkpointing=true" in told
    code, told = planned(capsys, "placement.gpu_memory_gib=80")
    assert code == 0 and "halved" not in told
    assert main(["plan", STUDY, "--gpus", "8"]) == 0
    assert "give placement.gpu_memory_gib" in capsys.readouterr().out
