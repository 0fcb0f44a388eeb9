from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from methods import METHODS, check
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.data.divisor import divisor
from methods.data.view import group_means, order, view
from methods.training.logprobs import reference_logprobs
from methods.training.lora import attach
from methods.training.parallel import Group
from methods.training.state import Due
from methods.training.trainer import Reference, Trainer, TrainingDiverged, set_modes, train
from models.base import load
from tests.conftest import Agreement

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def reference(tiny_model: Path, rollouts: list[Rollout]) -> Reference:
    return reference_logprobs(tiny_model, rollouts, precision="float32")


@pytest.fixture
def go(tiny_model: Path, rollouts: list[Rollout], reference: Reference, tmp_path: Path) -> Callable[..., Path]:
    """A function ``(name, config, **others)`` that trains and returns the output folder."""

    def run(name: str, config: TrainConfig, rows: list[Rollout] = rollouts, **others: Any) -> Path:
        out, work = tmp_path / name / "out", tmp_path / name / "work"
        work.mkdir(parents=True, exist_ok=True)
        train(config, tiny_model, rows, out, reference=reference, work=work, **others)
        return out

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_outputs_and_same_bytes_twice(go: Callable[..., Path], make_config: Make, method: str) -> None:
    config = make_config(method, report_step=4, checkpoint_every=3)
    one, two = content(go("one", config)), content(go("two", config))
    assert one == two
    adapter = ("adapter_config.json", "adapter_model.safetensors")
    folders = ("adapter", "checkpoints/step-000003", "checkpoints/step-000006")
    expected = {f"{folder}/{name}" for folder in folders for name in adapter} | {"log.jsonl", "training.json"}
    assert set(one) == expected
    assert one["adapter/adapter_model.safetensors"] != one["checkpoints/step-000003/adapter_model.safetensors"]
    lines = [json.loads(line) for line in one["log.jsonl"].decode().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["b_norm"] > 0 and lines[-1]["a_moved"] > 0


def test_log_and_summary(go: Callable[..., Path], make_config: Make, rollouts: list[Rollout]) -> None:
    """Counts by hand: 4 reported steps of 8 units; 48 rows are 1.5 passes for 72 units, here 32 / 48."""
    out = go("run", make_config("sft", report_step=4, clip=1e-3))
    summary, lines = json.loads((out / "training.json").read_text()), log(out)
    seen = [row for (row,) in order(48, view("sft", rollouts), 32, 2)]
    assert summary["units"] == summary["rows_seen"] == summary["distinct_rows"] == 32
    assert summary["tokens_seen"] == sum(len(rollouts[row].completion_ids) for row in seen)
    assert summary["distinct_problems"] == len({rollouts[row].group for row in seen})
    assert summary["epochs"] == pytest.approx(2 / 3) and summary["view_rows"] == summary["view_units"] == 48
    assert (summary["loss_first"], summary["loss_last"]) == (lines[0]["loss"], lines[3]["loss"])
    assert summary["clip_rate"] == 1.0 and all(line["clipped"] for line in lines)
    assert summary["b_norm"] == lines[3]["b_norm"] and summary["a_moved_rel"] == lines[3]["a_moved_rel"]
    assert [line["learning_rate"] for line in lines][:2] == [0.0, 3e-3]
    assert lines[0]["a_moved"] == 0.0 and lines[0]["nll_right"] == pytest.approx(math.log(64), abs=0.5)


def test_dpo_starts_at_ln2(go: Callable[..., Path], make_config: Make) -> None:
    first, *_, last = log(go("run", make_config("dpo", learning_rate=1e-2)))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["margin"] == pytest.approx(0.0, abs=1e-5)
    assert last["margin"] > 0.01 and last["reward_accuracy"] > 0.5


@pytest.mark.parametrize(("method", "kill"), [("sft", 3), ("sft", 5), ("dpo", 1), ("dpo", 4), ("rift", 6)])
def test_resumed_after_a_kill_gives_equal_bytes(
    go: Callable[..., Path], make_config: Make, method: str, kill: int, tmp_path: Path
) -> None:
    """State every 2 steps, dropout on, killed after the log line of a step, a half-written line behind it."""
    config = make_config(method, report_step=4, checkpoint_every=2, resume_every=2, dropout=0.2)
    whole = go("whole", config)

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == kill:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go("killed", config, on_step=stop)
    assert not (tmp_path / "killed" / "out").exists()
    with (tmp_path / "killed" / "work" / "result" / "log.jsonl").open("a") as file:
        file.write('{"step": 9')
    steps: list[int] = []
    resumed = go("killed", config, on_step=lambda line: steps.append(line["step"]))
    assert steps == list(range((kill - 1) // 2 * 2 + 1, 7))
    assert content(resumed) == content(whole)
    again: list[int] = []
    assert content(go("killed", config, on_step=lambda line: again.append(line["step"]))) == content(whole)
    assert again == []


def test_a_state_is_due_by_steps_and_by_the_clock() -> None:
    """Every 4 steps, and 30 s after the last; after a save of 3 s only 60 s later, a twentieth of the time."""
    now = 0.0
    due = Due(4, 30.0, lambda: now)
    found = []
    for step, seconds, takes in [(1, 10, 0), (2, 20, 1), (3, 29, 0), (4, 0, 0), (5, 30, 3), (6, 59, 0), (7, 1, 0)]:
        now += seconds
        if due(step):
            found.append(step)
            now += takes
            due.saved()
    assert found == [2, 4, 5, 7]
    assert not any(Due(0, 0.0, lambda: 1e9)(step) for step in range(1, 200))


def test_a_kill_before_the_first_step_that_saves_does_not_cost_all_steps(
    go: Callable[..., Path], make_config: Make
) -> None:
    """By steps nothing would be saved; by the clock the first one is. The bytes are those of an undisturbed run."""
    config = make_config(resume_every=100, resume_seconds=1e-9, dropout=0.2)

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go("killed", config, on_step=stop)
    steps: list[int] = []
    resumed = go("killed", config, on_step=lambda line: steps.append(line["step"]))
    assert steps[0] > 1 and steps[-1] == 6
    assert content(resumed) == content(go("whole", make_config(dropout=0.2)))


def test_state_of_another_training_is_said_and_not_gone_on_from(go: Callable[..., Path], make_config: Make) -> None:
    go("run", make_config(resume_every=3))
    with pytest.warns(UserWarning, match=r"learning_rate is 0\.003 there, 0\.1 here"):
        found = weights(go("run", make_config(resume_every=3, learning_rate=0.1)))
    fresh = weights(go("fresh", make_config(learning_rate=0.1)))
    assert all(torch.equal(found[name], fresh[name]) for name in fresh)


def test_dropout_acts(go: Callable[..., Path], make_config: Make) -> None:
    plain, dropped = weights(go("plain", make_config())), weights(go("dropped", make_config(dropout=0.5)))
    assert not any(torch.equal(plain[k], dropped[k]) for k in plain)


def test_order_keeps_a0_and_init_keeps_order(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, go: Callable[..., Path]
) -> None:
    """Step 1 has rate 0 under warm-up: one step shows each run's A0 and, in its loss, its first rows."""
    short = {"run_steps": 1, "report_step": 1}
    base = go("base", make_config(**short))
    other_order = go("order", make_config(**short, order_seed=3))
    other_init = go("init", make_config(**short, init_seed=9))
    a0, a0_order, a0_init = (
        {k: v for k, v in weights(out).items() if "lora_A" in k} for out in (base, other_order, other_init)
    )
    assert all(torch.equal(a0[k], a0_order[k]) for k in a0)
    assert not any(torch.equal(a0[k], a0_init[k]) for k in a0)
    assert log(base)[0]["loss"] == log(other_init)[0]["loss"] != log(other_order)[0]["loss"]


def test_all_right_rft_is_sft_and_lambda_zero_rift_is_sft(
    go: Callable[..., Path], make_config: Make, rollouts: list[Rollout]
) -> None:
    right = [replace(rollout, reward=1.0) for rollout in rollouts]
    sft, rft = (weights(go(m, make_config(m), rows=right)) for m in ("sft", "rft"))
    assert all(torch.equal(sft[k], rft[k]) for k in sft)
    mixed = weights(go("mixed", make_config("sft")))
    rift = weights(go("rift", make_config("rift", settings={"lambda_": 0.0})))
    assert all(torch.equal(mixed[k], rift[k]) for k in mixed)
    assert not all(torch.equal(sft[k], weights(go("r2", make_config("rift"), rows=right))[k]) for k in sft)


# Every objective in every form that has a formula of its own.
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHODS),
    ("rft", {"duplicates": "drop"}),
    *(("rift", {"form": "source", "probability": p}) for p in ("token", "normalised", "sequence")),
    ("rift", {"form": "source", "divide_by": "weights"}),
    ("offline_grpo", {"divide_by": "weights"}),
    ("offline_grpo", {"form": "source"}),
    ("offline_grpo", {"form": "source", "kl": 0.0, "divide_by": "weights"}),
    *(("dpo", {"loss": loss, "length_normalised": mean}) for loss in ("ipo", "hinge") for mean in (False, True)),
    ("dpo", {"label_smoothing": 0.1}),
    ("dpo", {"length_normalised": True}),
]
NAMES = [" ".join([method, *map(str, settings.values())]) for method, settings in FORMS]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize(("method", "settings"), FORMS, ids=NAMES)
def test_accumulation_agreement_of_32_with_4_times_8(
    tiny_model: Path, rollouts: list[Rollout], reference: Reference, make_config: Make, agreement: Agreement,
    method: str, settings: dict[str, Any], dtype: torch.dtype, limit: float,
) -> None:  # fmt: skip
    """Loss and gradient of one step, at factors moved off their start; rows in another order change nothing either."""
    gradients, losses = [], []
    for micro, turned in ((32, False), (8, False), (32, True)):
        config = make_config(method, batch_size=32, micro_batch=micro, settings=settings)
        model = load(tiny_model, "float32", "sdpa")
        adapter = attach(model, config.targets, 4, 8, 0.0, 1)
        with torch.no_grad():
            for seed, b in enumerate(adapter.b.values()):
                b.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
        adapter.model.to(dtype)
        trainer = Trainer(config, rollouts, group_means(rollouts), reference, adapter, "cpu", Group())
        units = order(len(rollouts), view(method, rollouts, settings=settings), 32, 2)
        sums, each = trainer.accumulate(units[::-1] if turned else units, trainer.count(units))
        assert len(each) == 32
        losses.append(sums["loss"].item() / trainer.count(units))
        gradients.append(torch.cat([p.grad.flatten().double() for p in trainer.parameters]))
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=limit)
    name = f"{' '.join([method, *map(str, settings.values())])}, {str(dtype)[6:]}: 1 x 32"
    agreement(f"{name} = 4 x 8", gradients[1], gradients[0], limit)
    agreement(f"{name} = reversed", gradients[2], gradients[0], limit)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (Rollout([3], [99], 1.0, 0), "held-out row 1: a token id lies outside the model's vocabulary of 64"),
        (Rollout([3], [], 1.0, 0), "held-out row 1: prompt and completion need at least one token each"),
    ],
)
def test_bad_held_out_rows_are_named_before_the_first_step(
    go: Callable[..., Path], make_config: Make, rollouts: list[Rollout], row: Rollout, line: str
) -> None:
    steps: list[int] = []
    with pytest.raises(ValueError) as caught:
        go("run", make_config(probe_every=3), heldout=[rollouts[0], row], on_step=lambda x: steps.append(x["step"]))
    assert str(caught.value) == line and not steps
    go("unread", make_config(probe_every=3, probe_rows=1), heldout=[rollouts[0], row])


@pytest.mark.parametrize(("method", "settings"), FORMS[len(METHODS) :], ids=NAMES[len(METHODS) :])
def test_every_form_trains_to_the_same_bytes_twice(
    go: Callable[..., Path], make_config: Make, method: str, settings: dict[str, Any]
) -> None:
    config = make_config(method, settings=settings, run_steps=4, report_step=4)
    one, two = content(go("one", config)), content(go("two", config))
    assert one == two
    plain = content(go("plain", make_config(method, run_steps=4, report_step=4)))
    weights_of = "adapter/adapter_model.safetensors"
    assert (one[weights_of] == plain[weights_of]) == (method == "rft"), "no right completion repeats another one here"


def test_weights_as_divisor_by_hand(rollouts: list[Rollout]) -> None:
    """Three rows of 2, 3 and 5 tokens, A = .85, -.15, -.15: N is 10 tokens, or 1.7 + .45 + .75 = 2.9."""
    rows = [Rollout([3], [4] * n, r, 0) for n, r in ((2, 1.0), (3, 0.0), (5, 0.0), (1, 0.0))]
    means = group_means(rows)
    units = [(0,), (1,), (2,)]
    method = METHODS["offline_grpo"]
    for by, expected in (("count", 10), ("weights", 2.9)):
        assert divisor(method, check("offline_grpo", {"divide_by": by}), units, rows, means) == pytest.approx(expected)
    rift = check("rift", {"form": "source", "probability": "sequence", "divide_by": "weights"})
    assert divisor(METHODS["rift"], rift, units, rows, means) == pytest.approx(1.0 + 0.2 + 0.2)
    even = [Rollout([3], [4], 0.0, 1)]
    none = check("offline_grpo", {"bias": 0.0, "divide_by": "weights"})
    assert divisor(method, none, [(0,)], even, group_means(even)) == 1
    assert divisor(METHODS["dpo"], check("dpo", {}), [(0, 1), (0, 2)], rows, means) == 2


def test_what_a_step_logs_by_hand(
    tiny_model: Path, rollouts: list[Rollout], reference: Reference, make_config: Make
) -> None:
    """Offline GRPO: a right row pulls with |A| a token, a wrong one of a mixed group is pushed with |A|."""
    config = make_config("offline_grpo")
    adapter = attach(load(tiny_model, "float32", "sdpa"), config.targets, 4, 8, 0.0, 1)
    means = group_means(rollouts)
    trainer = Trainer(config, rollouts, means, reference, adapter, "cpu", Group())
    rows = [0, 1, 4, 8, 9, 10, 12, 13]
    line = trainer.step(1, [(row,) for row in rows])
    nll = {row: -float(reference[row].sum()) for row in rows}  # the adapter is still at its start
    tokens = {row: len(rollouts[row].completion_ids) for row in rows}
    advantage = {row: rollouts[row].reward - means[row] + 0.1 for row in rows}
    wrong = [row for row in rows if rollouts[row].reward == 0]
    pushed = [row for row in rows if advantage[row] < 0]
    assert wrong and pushed and len(pushed) < len(wrong)
    pull = {row: abs(advantage[row]) * tokens[row] for row in rows}
    assert line["gradient_wrong"] == pytest.approx(sum(pull[r] for r in wrong) / sum(pull.values()), rel=1e-5)
    assert line["nll_pushed"] == pytest.approx(sum(nll[r] for r in pushed) / sum(tokens[r] for r in pushed), rel=1e-5)
    right = sum(nll[r] for r in rows if r not in wrong)
    assert line["reward_nll"] == pytest.approx(right / sum(tokens.values()), rel=1e-5)
    sft = Trainer(make_config("sft"), rollouts, means, None, adapter, "cpu", Group()).step(1, [(0,), (1,)])
    assert sft["nll_pushed"] is None


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_held_out_rows_are_looked_at_and_change_nothing(
    go: Callable[..., Path], tiny_model: Path, make_config: Make, rollouts: list[Rollout], agreement: Agreement,
    dropout: float,
) -> None:  # fmt: skip
    """KL(base || adapted) and nll at each completion token, from the whole models' own logits in float64.

    Under dropout too the look draws no random number, and is the same whatever the global generator holds.
    """
    plain = go("plain", make_config(report_step=4, dropout=dropout))
    config = make_config(report_step=4, probe_every=3, probe_rows=10, dropout=dropout)
    out = go("looked", config, heldout=rollouts[8:])
    torch.manual_seed(7)
    assert content(go("again", config, heldout=rollouts[8:])) == content(out)
    assert weights(plain).keys() == weights(out).keys()
    assert all(torch.equal(a, weights(out)[k]) for k, a in weights(plain).items())
    lines = log(out)
    assert [line["step"] for line in lines if "heldout_kl" in line] == [3, 4, 6]
    to_the_end = go("to-the-end", make_config(report_step=None, run_steps=None, probe_every=4), heldout=rollouts[8:])
    assert [line["step"] for line in log(to_the_end) if "heldout_kl" in line] == [4, 6]
    base = load(tiny_model, "float32", "sdpa")
    adapted = PeftModel.from_pretrained(load(tiny_model, "float32", "sdpa"), str(out / "adapter"))
    sums, kl, tokens = {1.0: 0.0, 0.0: 0.0}, 0.0, {1.0: 0, 0.0: 0}
    for row in rollouts[8:18]:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        at = slice(len(row.prompt_ids) - 1, -1)
        with torch.no_grad():
            p, q = (m(input_ids=ids).logits[0, at].double().log_softmax(-1) for m in (base, adapted))
        kl += (p.exp() * (p - q)).sum().item()
        sums[row.reward] -= q.gather(1, ids[0, len(row.prompt_ids) :, None]).sum().item()
        tokens[row.reward] += len(row.completion_ids)
    found = [lines[3][name] for name in ("heldout_nll_right", "heldout_nll_wrong", "heldout_kl")]
    expected = [sums[1.0] / tokens[1.0], sums[0.0] / tokens[0.0], kl / sum(tokens.values())]
    assert found[2] > 0
    agreement("KL to base on held-out rows: whole logits", found[2:], expected[2:], 1e-4)
    agreement("nll of held-out rows: whole logits", found[:2], expected[:2], 1e-5)
    summary = json.loads((out / "training.json").read_text())
    assert summary["heldout_kl"] == found[2]


def test_gradient_checkpointing_changes_nothing(go: Callable[..., Path], make_config: Make) -> None:
    plain = weights(go("plain", make_config()))
    saved = weights(go("saved", make_config(gradient_checkpointing=True)))
    assert all(torch.allclose(plain[k], saved[k], atol=1e-6) for k in plain)


def test_checkpointing_recomputes(tiny_model: Path, rollouts: list[Rollout], make_config: Make) -> None:
    """Each layer runs twice when its backward is taken, and once without."""
    for gradient_checkpointing, expected in ((False, 1), (True, 2)):
        config = make_config(gradient_checkpointing=gradient_checkpointing)
        model = load(tiny_model, "float32", "sdpa")
        adapter = attach(model, config.targets, 4, 8, 0.0, 1)
        set_modes(model, gradient_checkpointing)
        calls: list[int] = []
        model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        Trainer(config, rollouts, group_means(rollouts), None, adapter, "cpu", Group()).accumulate([(0,), (1,)], 1)
        assert len(calls) == expected


def test_bfloat16_base_keeps_float32_factors(go: Callable[..., Path], make_config: Make) -> None:
    out = go("run", make_config(precision="bfloat16"))
    assert {t.dtype for t in weights(out).values()} == {torch.float32}
    exact = go("exact", make_config())
    a, b = (torch.cat([t.flatten() for t in weights(x).values()]) for x in (out, exact))
    assert not torch.equal(a, b)
    assert log(out)[-1]["loss"] == pytest.approx(log(exact)[-1]["loss"], abs=0.02)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


def test_divergence_names_step_and_rows_and_keeps_the_last_good(
    go: Callable[..., Path], make_config: Make, rollouts: list[Rollout], tmp_path: Path
) -> None:
    """A rate of 1e30 throws the factors out at step 2 (step 1 has rate 0), so step 3 cannot be computed."""
    config = make_config(learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(TrainingDiverged) as caught:
        go("run", config)
    stream = order(len(rollouts), view("sft", rollouts), 48, 2)
    assert caught.value.step == 3
    assert set(caught.value.rows) <= {row for (row,) in stream[16:24]} and caught.value.rows
    assert "sft: loss is nan at step 3 on rows" in str(caught.value)
    out = tmp_path / "run" / "out"
    assert not (out / "adapter").exists() and len(log(out)) == 2
    kept = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert kept == ["step-000001", "step-000002"]
    first = load_file(out / "checkpoints" / "step-000001" / "adapter_model.safetensors")
    assert all(torch.isfinite(value).all() for value in first.values())


def test_bad_row_alone_is_named(
    tiny_model: Path, rollouts: list[Rollout], reference: Reference, make_config: Make
) -> None:
    """One pair with an infinite reference among finite ones: its rows alone are named, nothing is updated."""
    config = make_config("dpo")
    pairs = view("dpo", rollouts)[:8]
    broken = list(reference)
    broken[pairs[3][0]] = np.full_like(reference[pairs[3][0]], math.inf)
    adapter = attach(load(tiny_model, "float32", "sdpa"), config.targets, 4, 8, 0.0, 1)
    trainer = Trainer(config, rollouts, group_means(rollouts), broken, adapter, "cpu", Group())
    with pytest.raises(TrainingDiverged) as caught:
        trainer.step(2, pairs)
    assert caught.value.rows == list(pairs[3])
    assert adapter.drift().tolist()[0] == 0.0 and not any(b.any() for b in adapter.b.values())


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, 0, []])
def test_dpo_needs_its_reference(
    tiny_model: Path, rollouts: list[Rollout], make_config: Make, bad: float | list[Any] | None, tmp_path: Path
) -> None:
    """None at all; a value that is not finite at the last token alone; rows of no token; no rows."""
    given = bad
    if isinstance(bad, float):
        given = [np.array([-1.0] * (len(r.completion_ids) - 1) + [bad]) for r in rollouts]
    elif bad == 0:
        given = [np.empty(0)] * len(rollouts)
    line = "needs reference log-probabilities" if bad is None else "no finite reference log-probabilities"
    with pytest.raises(ValueError, match=f"dpo: {line}"):
        train(make_config("dpo"), tiny_model, rollouts, tmp_path / "out", reference=given, work=tmp_path)
