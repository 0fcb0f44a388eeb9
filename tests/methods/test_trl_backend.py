"""TRL's own trainers as an oracle: the same rows, order, start and optimiser must give the same adapter."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

from methods import METHODS
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.data.view import group_means
from methods.training import trainer, trl_backend
from methods.training.logprobs import reference_logprobs
from methods.training.lora import adapter_of, attach
from methods.training.parallel import Group
from methods.training.trainer import Trainer, TrainingDiverged, plan
from methods.training.trl_losses import trl_loss
from models.base import load
from tests.conftest import Agreement

Make = Callable[..., TrainConfig]


def deltas(folder: Path) -> torch.Tensor:
    """All B A of an adapter, stacked, float64."""
    tensors = {k: v.double() for k, v in load_file(folder / "adapter_model.safetensors").items()}
    names = sorted(k for k in tensors if "lora_A" in k)
    return torch.cat([(tensors[k.replace("lora_A", "lora_B")] @ tensors[k]).flatten() for k in names])


TRL_FORMS: list[tuple[str, dict[str, Any]]] = [
    ("sft", {}),
    ("dft", {}),
    ("dpo", {}),
    ("dpo", {"length_normalised": True, "beta": 2.0}),
    ("dpo", {"loss": "ipo", "length_normalised": True}),
    ("dpo", {"loss": "hinge", "beta": 0.5}),
]
TRL_NAMES = [trl_loss(method, METHODS[method].settings | settings) for method, settings in TRL_FORMS]


@pytest.mark.parametrize(("method", "settings"), TRL_FORMS, ids=TRL_NAMES)
def test_agreement_of_one_batch_with_trl(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, agreement: Agreement, tmp_path: Path,
    method: str, settings: dict[str, Any],
) -> None:  # fmt: skip
    """The same 16 units through TRL's own collator, forward pass and loss, at factors moved off their start."""
    config = make_config(method, settings=settings, batch_size=16, micro_batch=16, run_steps=1, report_step=1)
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    units, stream = plan(config, rollouts)
    if len(units) < 16:
        stream = (units * 16)[:16]
    found = []
    for name in ("ours", "TRL's"):
        model = load(tiny_model, "float32", "sdpa")
        if name == "ours":
            adapter = attach(model, config.targets, config.rank, config.alpha, 0.0, config.init_seed)
        else:
            theirs = trl_backend.build(config, model, tiny_model, rollouts, reference, stream, tmp_path, "cpu")
            adapter = adapter_of(cast(PeftModel, theirs.model), config.init_seed)
        with torch.no_grad():
            for seed, b in enumerate(adapter.b.values()):
                b.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
        if name == "ours":
            trainer = Trainer(config, rollouts, group_means(rollouts), reference, adapter, "cpu", Group())
            sums, _ = trainer.accumulate(stream[:16], trainer.count(stream[:16]))
            loss = sums["loss"].item() / trainer.count(stream[:16])
        else:
            batch = next(iter(theirs.get_train_dataloader()))
            told = theirs.compute_loss(theirs.model, batch, num_items_in_batch=None)
            told.backward()
            loss = told.item()
        gradient = torch.cat([p.grad.flatten() for p in adapter.parameters.values() if p.grad is not None])
        found.append((loss, gradient.double().numpy()))
    label = TRL_NAMES[TRL_FORMS.index((method, settings))]
    agreement(f"TRL {method} {label}: loss of a batch", found[0][0], found[1][0], 1e-5)
    agreement(f"TRL {method} {label}: gradient of a batch", found[0][1], found[1][1], 1e-5)


@pytest.mark.parametrize("method", ["sft", "dft", "dpo"])
def test_agreement_with_trl_over_50_steps(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, agreement: Agreement, method: str, tmp_path: Path
) -> None:
    config = make_config(method, steps=50, run_steps=50, report_step=50, learning_rate=1e-3)
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    found = []
    for backend in (trainer, trl_backend):
        out, work = tmp_path / backend.__name__ / "out", tmp_path / backend.__name__ / "work"
        work.mkdir(parents=True)
        backend.train(config, tiny_model, rollouts, out, reference=reference, work=work)
        found.append(deltas(out / "adapter"))
    cosine = torch.nn.functional.cosine_similarity(*found, dim=0).item()
    agreement(f"TRL {method}: cosine of the deltas after 50 steps", cosine, 1.0, 1e-4)


@pytest.mark.parametrize("method", ["sft", "dft", "dpo"])
def test_agreement(tiny_model: Path, rollouts: list[Rollout], make_config: Make, method: str, tmp_path: Path) -> None:
    """Ten steps of 8 units, micro-batches of 4, many passes for DPO, stopped before the horizon."""
    config = make_config(
        method, steps=12, run_steps=10, report_step=10, checkpoint_every=5, micro_batch=4, learning_rate=3e-3
    )
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    summaries = []
    for backend in (trainer, trl_backend):
        out, work = tmp_path / backend.__name__ / "out", tmp_path / backend.__name__ / "work"
        work.mkdir(parents=True)
        summaries.append(backend.train(config, tiny_model, rollouts, out, reference=reference, work=work))
    ours, theirs = tmp_path / "methods.training.trainer" / "out", tmp_path / "methods.training.trl_backend" / "out"
    for part in ("adapter", "checkpoints/step-000005"):
        a, b = deltas(ours / part), deltas(theirs / part)
        assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9999
        assert (a - b).norm() < 1e-3 * a.norm()
    for one, two in zip(*((f / "log.jsonl").read_text().splitlines() for f in (ours, theirs)), strict=True):
        one, two = json.loads(one), json.loads(two)
        assert one.keys() == two.keys()
        # TRL does not tell the first two; while B is 0 a margin's sign is that of a rounding error.
        left_out = {*trl_backend.UNTOLD} | ({"reward_accuracy"} if one["step"] <= 2 else set())
        for key in one.keys() - left_out:
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-5), key
    assert summaries[0].keys() == summaries[1].keys()
    assert {p.relative_to(ours) for p in ours.rglob("*")} == {p.relative_to(theirs) for p in theirs.rglob("*")}


def test_agreement_from_a_drawn_b(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, agreement: Agreement, tmp_path: Path
) -> None:
    config, found = make_config(start="b", learning_rate=1e-3), []
    for backend in (trainer, trl_backend):
        out, work = tmp_path / backend.__name__ / "out", tmp_path / backend.__name__ / "work"
        work.mkdir(parents=True)
        summary = backend.train(config, tiny_model, rollouts, out, work=work)
        found.append((deltas(out / "adapter"), summary["a_moved_rel"], summary["b_norm"]))
    (ours, *told), (theirs, *of_trl) = found
    agreement("TRL sft, start b: deltas after 6 steps", ours, theirs, 1e-3)
    assert told == pytest.approx(of_trl, rel=1e-3)


def test_trls_margins_of_sums_are_not_passed_for_those_of_means(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    config = make_config("dpo", settings={"length_normalised": True}, run_steps=2, report_step=2)
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    trl_backend.train(config, tiny_model, rollouts, tmp_path / "out", reference=reference, work=tmp_path / "work")
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [(line["margin"], line["reward_accuracy"]) for line in lines] == [(None, None)] * 2


@pytest.mark.parametrize("method", ["rft", "rift", "offline_grpo"])
def test_methods_trl_lacks(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, method: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=f"TRL has no trainer for {method}, only for sft, dft, dpo: set training.backend to native"
    ):
        trl_backend.train(make_config(method), tiny_model, rollouts, tmp_path / "out", work=tmp_path)


def test_uneven_micro_batches_are_refused(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="TRL: batch_size 8 is not a multiple of micro_batch 3"):
        trl_backend.train(make_config(micro_batch=3), tiny_model, rollouts, tmp_path / "out", work=tmp_path)


def test_divergence_and_global_generators(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, tmp_path: Path
) -> None:
    """As in the own backend: step 3 fails, what stood after step 2 is kept; TRL's seeding stays inside."""
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with pytest.raises(TrainingDiverged) as caught:
        trl_backend.train(
            make_config(learning_rate=1e30), tiny_model, rollouts, tmp_path / "out", work=tmp_path / "work"
        )
    assert caught.value.step == 3 and len(caught.value.rows) == 8
    assert (tmp_path / "out" / "checkpoints" / "step-000002" / "adapter_config.json").exists()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_tokenizer_without_a_pad_token_changes_nothing(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, method: str, tmp_path: Path
) -> None:
    """Nor one without a chat template: rows are tokens already, and masks come from their lengths."""
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    assert AutoTokenizer.from_pretrained(bare).pad_token is None
    settings = make_config(method, run_steps=3, report_step=3)
    reference = reference_logprobs(tiny_model, rollouts, precision="float32")
    found = []
    for model in (tiny_model, bare):
        work = tmp_path / f"work-{model.name}"
        trl_backend.train(settings, model, rollouts, work / "out", reference=reference, work=work)
        found.append(deltas(work / "out" / "adapter"))
    assert found[0].norm() > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-9)


def test_the_bases_dropout_does_not_act(rollouts: list[Rollout], make_config: Make, tmp_path: Path) -> None:
    """GPT-2 drops a tenth of its activations where it may; DPO's first loss is ln 2, as policy and base are one."""
    model = tmp_path / "gpt2"
    shape = GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    assert shape.resid_pdrop == shape.attn_pdrop == 0.1
    AutoModelForCausalLM.from_config(shape).float().save_pretrained(model)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"<eos>": 0})), eos_token="<eos>").save_pretrained(
        model
    )
    config = make_config("dpo", targets=("c_attn",), run_steps=2, report_step=2)
    reference = reference_logprobs(model, rollouts, precision="float32")
    trl_backend.train(config, model, rollouts, tmp_path / "out", reference=reference, work=tmp_path / "work")
    first = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
