"""An adapter's start: A drawn and B zero, or, with ``start: b``, B drawn and A zero; and what updates share for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from analysis.weights.geometry import module_geometry
from analysis.weights.start import left_start
from methods.config import Start, TrainConfig
from methods.data.batch import Rollout
from methods.data.view import group_means
from methods.training.logprobs import reference_logprobs
from methods.training.lora import attach
from methods.training.parallel import Group
from methods.training.start import INITIAL, initial_a, initial_b
from methods.training.trainer import Reference, Trainer, train
from models.adapter import load_factors
from models.base import load

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
Make = Callable[..., TrainConfig]
Go = Callable[..., Path]


@pytest.fixture(scope="module")
def reference(tiny_model: Path, rollouts: list[Rollout]) -> Reference:
    return reference_logprobs(tiny_model, rollouts, precision="float32")


@pytest.fixture
def go(tiny_model: Path, rollouts: list[Rollout], reference: Reference, tmp_path: Path) -> Go:
    """A function ``(name, config, **others)`` that trains and returns the output folder."""

    def run(name: str, config: TrainConfig, **others: Any) -> Path:
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        work.mkdir(parents=True, exist_ok=True)
        train(config, tiny_model, rollouts, out, reference=reference, work=work, **others)
        return out

    return run


def tensors(out: Path, letter: str) -> dict[str, torch.Tensor]:
    found = load_file(out / "adapter" / "adapter_model.safetensors")
    return {name: value for name, value in found.items() if f"lora_{letter}" in name}


def test_a_is_drawn_as_it_always_was() -> None:
    """Finished trainings are compared with what they started from: the first values of one draw."""
    expected = [
        [-0.3123900592327118, -0.34939685463905334, -0.26455971598625183],
        [-0.517427921295166, -0.03811749815940857, 0.2992153465747833],
    ]
    assert torch.equal(initial_a(1, "model.layers.0.self_attn.q_proj", 2, 3), torch.tensor(expected))


def test_b_is_drawn_from_seed_and_name_alone() -> None:
    """Within 1 / sqrt(rank), of variance 1 / (3 rank), in a stream that is not A's."""
    drawn = initial_b(1, "q_proj", 4096, 16)
    assert drawn.shape == (4096, 16) and drawn.dtype == torch.float32
    assert 0.99 * 16**-0.5 < drawn.abs().max() <= 16**-0.5
    assert float(drawn.var()) == pytest.approx(1 / 48, rel=0.02)
    assert torch.equal(drawn, initial_b(1, "q_proj", 4096, 16))
    assert not torch.equal(drawn, initial_b(2, "q_proj", 4096, 16))
    assert not torch.equal(drawn, initial_b(1, "k_proj", 4096, 16))
    assert not torch.equal(drawn, initial_a(1, "q_proj", 4096, 16))


def test_start_b_is_the_mirror_of_start_a(tiny_model: Path) -> None:
    """B drawn, A zero: the same function as the base's; what ``drift`` tells is of B."""
    adapter = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1, "b")
    for name, b in adapter.b.items():
        assert torch.equal(b, initial_b(1, name, len(b), 4)) and torch.equal(b, adapter.initial[name])
        assert not adapter.a[name].any()
    ids = torch.arange(2, 12)[None]
    ours = adapter.model.eval()
    with ours.disable_adapter():
        base = ours(input_ids=ids).logits
    assert torch.equal(ours(input_ids=ids).logits, base)
    entries = sum(b.numel() for b in adapter.b.values())
    start = sum(b.double().pow(2).sum().item() for b in adapter.b.values()) ** 0.5
    with torch.no_grad():
        for b in adapter.b.values():
            b.add_(0.5)
        a = adapter.a["model.layers.0.self_attn.k_proj"].fill_(1.0)
    assert adapter.drift().tolist() == pytest.approx([0.5 * entries**0.5, start, a.numel() ** 0.5], rel=1e-5)


@pytest.mark.parametrize(("start", "still", "moving"), [("a", "a", "b"), ("b", "b", "a")])
def test_the_first_gradient_is_of_the_factor_that_is_zero(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, start: Start, still: str, moving: str
) -> None:
    config = make_config(start=start)
    adapter = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1, start)
    trainer = Trainer(config, rollouts, group_means(rollouts), None, adapter, "cpu", Group())
    trainer.gradients(1, [(row,) for row in range(8)])
    gradients = {name: parameter.grad for name, parameter in adapter.parameters.items()}
    for name, gradient in gradients.items():
        assert gradient is not None and bool(gradient.any()) == name.endswith(f"/{moving}"), name
    assert any(name.endswith(f"/{still}") for name in gradients)


def test_one_seed_gives_all_methods_one_b(go: Go, make_config: Make) -> None:
    """Step 1 has rate 0 under warm-up: one step shows each run's start."""
    short = {"run_steps": 1, "report_step": 1, "start": "b"}
    runs = [go(method, make_config(method, **short)) for method in ("sft", "dpo", "rift")]
    first, *others = [tensors(out, "B") for out in runs]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert not any(value.any() for out in runs for value in tensors(out, "A").values())
    another = tensors(go("init", make_config(**short, init_seed=9)), "B")
    assert not any(torch.equal(first[name], another[name]) for name in first)


def test_what_is_logged_is_of_b(go: Go, make_config: Make) -> None:
    out = go("run", make_config(start="b"))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    summary = json.loads((out / "training.json").read_text())
    config = make_config(start="b")
    prefix, suffix = "base_model.model.", ".lora_B.weight"
    moved, start = [], []
    for name, b in tensors(out, "B").items():
        b0 = initial_b(config.init_seed, name.removeprefix(prefix).removesuffix(suffix), *b.shape)
        moved.append(float((b - b0).norm()))
        start.append(float(b0.norm()))
    assert lines[0]["a_moved"] == 0 and lines[-1]["a_moved"] == pytest.approx(math.hypot(*moved), rel=1e-5)
    assert summary["a_moved_rel"] == pytest.approx(math.hypot(*moved) / math.hypot(*start), rel=1e-5)
    norm = math.hypot(*(float(a.norm()) for a in tensors(out, "A").values()))
    assert summary["b_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(go: Go, make_config: Make) -> None:
    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt

    config = make_config(start="b", resume_every=2)
    whole = go("whole", config)
    with pytest.raises(KeyboardInterrupt):
        go("killed", config, on_step=stop)
    killed = go("killed", config)
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert path.read_bytes() == (killed / path.relative_to(whole)).read_bytes(), path.name
    # A state of the other start is another training's.
    begun: list[int] = []
    with pytest.warns(UserWarning, match="start is 'b' there"):
        go("killed", make_config(resume_every=2), on_step=lambda line: begun.append(line["step"]))
    assert begun[0] == 1


def test_peft_reads_what_is_saved(tiny_model: Path, go: Go, make_config: Make) -> None:
    out = go("run", make_config(start="b", learning_rate=1e-2))
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    read = PeftModel.from_pretrained(load(tiny_model, "float32", "sdpa"), out / "adapter").eval()
    ours = attach(load(tiny_model, "float32", "sdpa"), TARGETS, 4, 8, 0.0, 1, "b")
    with torch.no_grad():
        for letter, factors in (("A", ours.a), ("B", ours.b)):
            for name, value in tensors(out, letter).items():
                factors[name.removeprefix("base_model.model.").removesuffix(f".lora_{letter}.weight")].copy_(value)
    ids = torch.arange(2, 12)[None]
    logits = read(input_ids=ids).logits
    assert torch.equal(logits, ours.model.eval()(input_ids=ids).logits)
    with ours.model.disable_adapter():
        assert not torch.allclose(logits, ours.model(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("start", ["a", "b"])
def test_the_side_that_updates_share_is_that_of_the_factor_drawn(go: Go, make_config: Make, start: Start) -> None:
    """Two methods from one start: largest angles of a few degrees on the side of the drawn factor, and of nearly 90 on
    the other side; from another start nearly 90 on both. The share within the start's span is nearly 1."""
    common = {"start": start, "steps": 12, "run_steps": 12, "report_step": 12, "learning_rate": 1e-3}
    sft, grpo, other = (
        load_factors(go(name, make_config(method, **common, **more)) / "adapter")
        for name, method, more in (
            ("sft", "sft", {}), ("grpo", "offline_grpo", {}), ("other", "offline_grpo", {"init_seed": 9})
        )
    )  # fmt: skip
    shared, free = ("left", "right") if start == "b" else ("right", "left")
    for module in sft:
        found = module_geometry([sft[module], grpo[module], other[module]], 4)
        largest = {side: getattr(found, side)[:, -1] for side in ("left", "right")}
        one_start, another_start = 0, 1  # of the pairs in their order
        assert largest[shared][one_start] < 6 and largest[free][one_start] > 60, module
        assert largest[shared][another_start] > 60 and largest[free][another_start] > 60, module
        initial = INITIAL[start](1, module, *(sft[module].a if start == "a" else sft[module].b).shape)
        left = left_start(sft[module], initial * (2 if start == "b" else 1), start)  # alpha / rank is 2
        moved = left.a_moved_rel
        assert moved is not None and 0 < moved < 0.1
        assert left.start_share is not None and left.start_share > 0.99


def test_the_first_step_of_adam_is_longer_from_b(in_: int = 512, out: int = 256, rank: int = 16) -> None:
    """By sqrt(in / rank), as docs/training.md says: a step by the gradient's sign, from A and from B."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(out, 64, generator=generator) @ torch.randn(64, in_, generator=generator)
    a, b = initial_a(1, "m", rank, in_), initial_b(1, "m", out, rank)
    of_a, of_b = (gradient @ a.T).sign() @ a, b @ (b.T @ gradient).sign()
    assert float(of_b.norm() / of_a.norm()) == pytest.approx(math.sqrt(in_ / rank), rel=0.05)
