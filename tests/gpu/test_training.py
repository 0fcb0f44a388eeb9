"""The trainer on a GPU: the numbers of the CPU, the same bytes again, and what it does where memory runs out."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from methods import METHODS
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.determinism import Unordered
from methods.training.logprobs import reference_logprobs
from methods.training.trainer import Reference, train
from tests.conftest import Agreement

Make = Callable[..., TrainConfig]
Go = Callable[..., Path]


@pytest.fixture(scope="module")
def reference(model_dir: Path, rollouts: list[Rollout]) -> Reference:
    return reference_logprobs(model_dir, rollouts, device="cuda")


@pytest.fixture
def go(model_dir: Path, rollouts: list[Rollout], reference: Reference, tmp_path: Path) -> Go:
    """A function ``(name, config, **others)`` that trains, on the GPU unless told otherwise, to a folder."""

    def run(name: str, config: TrainConfig, device: str = "cuda", **others: Any) -> Path:
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        work.mkdir(parents=True, exist_ok=True)
        train(config, model_dir, rollouts, out, reference=reference, work=work, device=device, **others)
        return out

    return run


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """A function that leaves this process so many bytes beyond what it holds; real allocations fail above them."""
    total = torch.cuda.get_device_properties(0).total_memory

    def leave(more: int) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def flat(out: Path) -> torch.Tensor:
    """All factors as one vector, float64."""
    held = load_file(out / "adapter" / "adapter_model.safetensors")
    return torch.cat([held[name].double().reshape(-1) for name in sorted(held)])


def moved(out: Path, start: Path) -> torch.Tensor:
    return flat(out) - flat(start)


def cosine(one: torch.Tensor, two: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, two, dim=0))


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in log(out)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("method", METHODS)
def test_the_gpu_trains_what_the_cpu_trains(go: Go, make_config: Make, agreement: Agreement, method: str) -> None:
    """Every loss, and the direction in which the factors moved from the start that both draw alike."""
    few = {"run_steps": 4, "report_step": 4, "threads": 8}
    gpu, cpu = go("gpu", make_config(method, **few)), go("cpu", make_config(method, **few), "cpu")
    agreement(f"{method}: losses on a GPU, on a CPU", losses(gpu), losses(cpu), 1e-4)
    few |= {"run_steps": 1, "report_step": 1}  # warm-up: the one step has rate 0
    start = go("start", make_config(method, **few))
    assert torch.equal(flat(start), flat(go("start-cpu", make_config(method, **few), "cpu")))
    assert cosine(moved(gpu, start), moved(cpu, start)) > 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(
    go: Go, make_config: Make, method: str, precision: str
) -> None:
    config = make_config(method, precision=precision, resume_every=2, checkpoint_every=4, dropout=0.1)
    whole = go("whole", config)
    assert content(go("twice", config)) == content(whole)

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go("killed", config, on_step=stop)
    assert content(go("killed", config)) == content(whole)


@pytest.mark.filterwarnings("error::methods.training.determinism.Unordered")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_long_rows_give_the_same_bytes_again(
    model_dir: Path, make_config: Make, tmp_path: Path, attention: str
) -> None:
    """Rows of a thousand tokens: as many blocks as attention kernels split a row into, and add up, in any order."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(2, 8192, (16, 1000), generator=generator).tolist()
    rows = [Rollout(row[:40], row[40:], 1.0, i) for i, row in enumerate(ids)]
    config = make_config(precision="bfloat16", attention=attention, gradient_checkpointing=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        train(config, model_dir, rows, tmp_path / name / "out", work=tmp_path / name, device="cuda")
    assert content(tmp_path / "one" / "out") == content(tmp_path / "two" / "out")


def test_a_base_that_knows_no_order_is_trained_and_said(
    go: Go, make_config: Make, model_dir: Path, rollouts: list[Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bins counted on a GPU, as some routers of experts do."""
    plain, forward = go("plain", make_config()), Qwen3MLP.forward

    def counting(self: Qwen3MLP, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x) + 0 * torch.histc(x.detach().float(), bins=4).sum()

    monkeypatch.setattr(Qwen3MLP, "forward", counting)
    with pytest.warns(Unordered, match="bytes will differ from run to run: .*histc"):
        found = go("counting", make_config())
    with pytest.warns(Unordered, match="histc"):
        reference_logprobs(model_dir, rollouts[:4], device="cuda")
    assert losses(found) == pytest.approx(losses(plain), rel=1e-4)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_bfloat16_base_trains_a_float32_adapter_alike(go: Go, make_config: Make) -> None:
    start = go("start", make_config(run_steps=1, report_step=1))
    full, half = go("full", make_config()), go("half", make_config(precision="bfloat16"))
    held = load_file(half / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in held.values()} == {torch.float32}
    assert losses(half) == pytest.approx(losses(full), rel=5e-3)
    assert cosine(moved(half, start), moved(full, start)) > 0.9


def test_checkpointing_saves_memory_and_changes_nothing_but_rounding(go: Go, make_config: Make) -> None:
    peaks, found = {}, {}
    for checkpointing in (False, True):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        config = make_config(
            gradient_checkpointing=checkpointing, micro_batch=16, run_steps=3, report_step=3, head_chunk=64
        )
        found[checkpointing] = losses(go(str(checkpointing), config))
        peaks[checkpointing] = torch.cuda.max_memory_allocated() - before
    assert peaks[True] < 0.7 * peaks[False], peaks
    assert found[True] == pytest.approx(found[False], rel=1e-5)


def test_a_token_budget_bounds_the_memory(go: Go, make_config: Make) -> None:
    peaks = []
    for budget in (512, 4096):
        torch.cuda.reset_peak_memory_stats()
        go(str(budget), make_config(micro_tokens=budget, run_steps=2, report_step=2))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] < 0.5 * peaks[1], peaks


@pytest.mark.parametrize("limit", [{"micro_batch": 16}, {"micro_tokens": 5120}])
def test_where_memory_runs_out_the_pass_is_halved_and_the_training_goes_on(
    go: Go, make_config: Make, little_memory: Callable[[int], None], limit: dict[str, int]
) -> None:
    """The allocator itself refuses: what one pass of all rows takes, less a third, is all there is."""
    plain = go("plain", make_config(**limit))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    go("peak", make_config(**limit, run_steps=2, report_step=2))
    peak = torch.cuda.max_memory_reserved() - before
    little_memory(peak * 2 // 3)
    short = go("short", make_config(**limit))
    told = json.loads((short / "training.json").read_text())["out_of_memory"]
    assert told and told[0]["to"] == told[0]["from"] // 2, told
    assert losses(short) == pytest.approx(losses(plain), rel=1e-4)


def test_what_never_fits_is_one_line(go: Go, make_config: Make, little_memory: Callable[[int], None]) -> None:
    little_memory(2**20)
    with pytest.raises(RuntimeError, match=r"the base does not fit one cuda device in float32"):
        go("base", make_config())
    little_memory(170 * 2**20)  # the base takes 60 MiB and a little
    with pytest.raises(RuntimeError, match=r"sft: one row of step \d does not fit into memory: set training"):
        go("row", make_config(head_chunk=100_000, rank=512))


@pytest.mark.skipif(not importlib.util.find_spec("flash_attn"), reason="flash-attn is not installed")
def test_flash_attention_trains_alike(go: Go, make_config: Make) -> None:
    plain, flash = (go(a, make_config(precision="bfloat16", attention=a)) for a in ("sdpa", "flash"))
    assert losses(flash) == pytest.approx(losses(plain), rel=5e-3)
