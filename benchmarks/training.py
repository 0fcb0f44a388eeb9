"""Compares the time of an optimiser step with plain Transformers and PEFT, on this machine's GPU, else its CPU.

    python benchmarks/training.py [--shape tiny|0.6b] [--steps N]

A random base of the given shape, a LoRA of rank 64 on its attention, and 64 rows of random tokens with lengths like
those of answers: many short, few long. One process for each:

plain     the usual script: PEFT's model, rows in training order padded to the longest of a micro-batch, the model's
          own loss over labels, AdamW on the LoRA's factors
ours      sft with the same micro-batch, and with a token budget equal to plain's largest padded micro-batch
others    each other method with that budget: seconds per step and memory

The ratio is plain / ours; both must have the same first loss. The first two steps are warm-up and not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from methods import METHODS  # noqa: E402
from methods.config import TrainConfig  # noqa: E402
from methods.data.batch import Rollout  # noqa: E402
from methods.training.logprobs import reference_logprobs  # noqa: E402
from methods.training.trainer import plan, train  # noqa: E402

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
    "0.6b": {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip
LONGEST = {"tiny": 200, "0.6b": 1600}  # tokens of a row
WARM_UP = 2
PLAIN, OURS = "plain", "sft"


def settings(method: str, shape: str, steps: int, budget: bool) -> TrainConfig:
    """The config of a training of ``steps`` steps of 16 units."""
    micro = {"micro_tokens": 8 * LONGEST[shape]} if budget else {}
    return TrainConfig(
        method=method, learning_rate=1e-4, steps=steps, report_step=steps, run_steps=steps, batch_size=16,
        micro_batch=8, rank=64, alpha=128, init_seed=1, order_seed=2, base_name="random", warmup=0.0,
        precision="bfloat16" if torch.cuda.is_available() else "float32", threads=torch.get_num_threads(),
        resume_every=0, resume_seconds=0.0, **micro,
    )  # fmt: skip


def rows(shape: str) -> list[Rollout]:
    """Sixteen problems of four rollouts, two of them right."""
    rng, longest, vocabulary = np.random.default_rng(0), LONGEST[shape], SHAPES[shape]["vocab_size"]
    made = []
    for group in range(16):
        prompt = rng.integers(2, vocabulary, longest // 10).tolist()
        for k in range(4):
            length = int(np.clip(rng.lognormal(np.log(longest / 4), 0.7), 8, longest - len(prompt) - 1))
            made.append(Rollout(prompt, [*rng.integers(2, vocabulary, length).tolist(), 1], float(k % 2), group))
    return made


def base(folder: Path, shape: str) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)


def ours(config: TrainConfig, model: Path, folder: Path, device: str) -> dict[str, Any]:
    rollouts, stamps, first = rows_of(folder), [], []

    def stamp(line: dict[str, Any]) -> None:
        stamps.append(time.perf_counter())
        first.append(line["loss"])

    needed = METHODS[config.method].needs_reference(config.settings)
    reference = reference_logprobs(model, rollouts, precision=config.precision, device=device) if needed else None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(config, model, rollouts, folder / "out", reference=reference, work=folder, on_step=stamp, device=device)
    return {"first": first[0], "seconds": np.diff(stamps)[WARM_UP - 1 :].tolist()}


def plain(config: TrainConfig, model: Path, folder: Path, device: str) -> dict[str, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    rollouts, stamps, first = rows_of(folder), [], []
    _, stream = plan(config, rollouts)
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, config.precision)).to(device)
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(whole, lora, autocast_adapter_dtype=True)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, fused=True)
    for step in range(config.last_step):
        batch = [rollouts[row] for (row,) in stream[step * config.batch_size : (step + 1) * config.batch_size]]
        count, loss = sum(len(row.completion_ids) for row in batch), 0.0
        for start in range(0, len(batch), config.micro_batch):
            part = batch[start : start + config.micro_batch]
            width = max(len(row.prompt_ids) + len(row.completion_ids) for row in part)
            ids, labels, mask = (torch.full((len(part), width), fill) for fill in (0, -100, 0))
            for i, row in enumerate(part):
                begin, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.completion_ids)
                ids[i, :end] = torch.tensor([*row.prompt_ids, *row.completion_ids])
                labels[i, begin:end] = ids[i, begin:end]
                mask[i, :end] = 1
            given = {"input_ids": ids, "labels": labels, "attention_mask": mask}
            loss_part = tuned(
                **{k: v.to(device) for k, v in given.items()}, num_items_in_batch=count, use_cache=False
            ).loss
            loss_part.backward()
            loss += float(loss_part.detach())
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        first.append(loss)
    return {"first": first[0], "seconds": np.diff(stamps)[WARM_UP - 1 :].tolist()}


def rows_of(folder: Path) -> list[Rollout]:
    return [Rollout(**row) for row in json.loads((folder.parent / "rows.json").read_text())]


def child(asked: dict[str, Any], folder: Path) -> None:
    """In a child process: run one variant and print its result with the peak memory."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method = OURS if asked["way"] == PLAIN else asked["way"]
    config = settings(method, asked["shape"], asked["steps"], asked["budget"])
    with tempfile.TemporaryDirectory(dir=folder) as work:
        run = plain if asked["way"] == PLAIN else ours
        result = run(config, folder / "model", Path(work), device)
    result["gib"] = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    print(json.dumps(result))


def measured(way: str, budget: bool, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    asked = {"way": way, "budget": budget, "shape": options.shape, "steps": options.steps}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(asked), str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"step": statistics.median(result["seconds"])}


def report(name: str, result: dict[str, Any], peer: dict[str, Any] | None) -> None:
    memory = "" if result["gib"] is None else f", peak {result['gib']:.1f} GiB"
    ratio = "" if peer is None else f", plain / this {peer['step'] / result['step']:.2f}"
    print(f"{name:<24} {result['step'] * 1000:7.0f} ms per step{memory}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b" if torch.cuda.is_available() else "tiny")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # what a child of this script does
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        parser.error(f"--steps {options.steps}: the first {WARM_UP} are warm-up; use more")
    if options.child:
        child(json.loads(options.child[0]), Path(options.child[1]))
        return
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        folder = Path(name)
        base(folder / "model", options.shape)
        made = rows(options.shape)
        (folder / "rows.json").write_text(json.dumps([vars(row) for row in made]))
        lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in made]
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
        print(
            f"{options.shape} on {where}: rows of {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / 64:.0f} mean"
        )
        peer = measured(PLAIN, False, options, folder)
        report("plain", peer, None)
        same, budget = (measured(OURS, wanted, options, folder) for wanted in (False, True))
        report("sft", same, peer)
        report("sft, token budget", budget, peer)
        apart = max(abs(result["first"] / peer["first"] - 1) for result in (same, budget))
        print(f"first losses differ by {apart:.1e} (relative)")
        for method in METHODS:
            if method != OURS:
                report(method, measured(method, True, options, folder), None)


if __name__ == "__main__":
    main()
