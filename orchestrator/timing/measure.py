"""Measures this machine for ``doctor --measure``: a small training, generation, measurement and pretraining, timed.

Each part runs in a process of its own, which imports what a worker of a run imports; on cores as many trainings side
by side as there are cores, since they share caches and memory as in a run. The model has the layers of the study's
base, few of them, and random weights. Rates are in the operations that ``planning/cost.py`` counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from execution.settings import keyed
from orchestrator.bases.base import Shape
from orchestrator.config.study import Study
from orchestrator.planning import cost
from orchestrator.planning.resolve import engine_kind
from orchestrator.runtime.device import cards
from orchestrator.runtime.serving import engine_runtime
from orchestrator.runtime.threads import ENVIRONMENT
from orchestrator.timing.calibration import Rates

LAYERS = 4  # of the measured model at most
SECONDS = 10.0  # for which each part is timed
ROWS = 64  # different ones to train on
PROMPTS = 256  # sequences generated at once: those of an engine's batch
SIDE = 2048  # of the square matrices that are multiplied
BYTES = 2**28  # that are copied
ROOT = Path(__file__).resolve().parents[2]


class _Enough(Exception):
    """Ends a training that was timed for long enough."""


def measure(study: Study, told: Callable[[str], None]) -> Rates:
    """All rates of this machine for the study's model. ``RuntimeError`` with the last line of a part that failed."""
    with TemporaryDirectory(prefix="orchestrator-measure-") as folder:
        place = Path(folder)
        (place / "asked.json").write_text(json.dumps(asked(study, place), default=str))
        found: dict[str, float] = {}
        for part, beside in (("plain", 1), ("training", 1 if cards() else os.cpu_count() or 1), ("serving", 1)):
            told(f"{part}: about {SECONDS:.0f} s, and its imports")
            found |= _together(part, beside, place)
    return Rates(**found)


def asked(study: Study, folder: Path) -> dict[str, Any]:
    """What the parts are given: the small model's shape, and the study's own settings."""
    shape = study.base.shape
    assert shape is not None
    small = shape.model_copy(update={"layers": min(shape.layers, LAYERS), "vocabulary": shape.vocabulary or 128})
    engine = {"kind": engine_kind(study), "adapters": study.engine.adapters_in(engine_kind(study))}
    return {
        "folder": str(folder),
        "shape": small.model_dump(),
        "training": keyed(study.training) | {"rank": study.adapter.rank, "targets": list(study.adapter.targets)},
        "engine": keyed(study.engine) | engine | engine_runtime(study, adapters=False) | {"tensor_parallel": 1},
        "row": [study.prompt.max_prompt_tokens // 2, study.prompt.max_answer_tokens // 2],
        "answer": answer_tokens(study),
        "base": study.base.model_dump() if study.base.kind == "from_scratch" else None,
    }


def answer_tokens(study: Study) -> int:
    """Tokens of a generated answer: half of what evaluation allows, as estimates assume, at most 256."""
    return max(1, min(256, round(study.evaluation.max_tokens * cost.TOKENS_A_ROW)))


def _together(part: str, count: int, folder: Path) -> dict[str, float]:
    """The means of what so many processes side by side found."""
    environment = os.environ | ENVIRONMENT
    running = [
        subprocess.Popen([sys.executable, "-m", "orchestrator.timing.measure", part, str(folder / "asked.json")],
                         cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]  # fmt: skip
    ended = [process.communicate() for process in running]
    for process, (_, errors) in zip(running, ended, strict=True):
        if process.returncode:
            raise RuntimeError(f"{part}: {(errors.strip().splitlines() or ['ended without a word'])[-1]}")
    results = [json.loads(told.strip().splitlines()[-1]) for told, _ in ended]
    return {name: mean(result[name] for result in results) for name in results[0]}


def main(part: str, file: str) -> None:
    """In the process of one part: print what was found as JSON."""
    asked = json.loads(Path(file).read_text())
    begun = time.monotonic()
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    imported = time.monotonic() - begun
    device = "cuda" if cards() else "cpu"
    shape = Shape(**asked["shape"])
    found = {"plain": _plain, "training": _training, "serving": _serving}[part](asked, shape, device)
    print(json.dumps(found | ({"startup": imported} if part == "training" else {})))


def _timed(work: Callable[[], object], device: str, seconds: float) -> float:
    """Mean seconds of a call, after one that is not counted, over about so many seconds."""
    import torch

    def settle() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    work()
    settle()
    begun, calls = time.monotonic(), 0
    while calls < 2 or time.monotonic() - begun < seconds:
        work()
        settle()
        calls += 1
    return (time.monotonic() - begun) / calls


def _plain(asked: Mapping[str, Any], shape: Shape, device: str) -> dict[str, float]:
    """Products of matrices in the training's precision, bytes copied, and a base's pretraining where it has one."""
    import torch

    kind = getattr(torch, asked["training"]["precision"])
    a = torch.randn(SIDE, SIDE, device=device).to(kind)
    source = torch.zeros(BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {
        "matrix": 2 * SIDE**3 / _timed(lambda: torch.mm(a, a), device, 2.0),
        "memory": 2 * BYTES / _timed(lambda: target.copy_(source), device, 1.0),
    }
    if asked["base"] is not None:
        found["pretraining"] = _pretraining(asked["base"])
    return found


def _pretraining(base: Mapping[str, Any]) -> float:
    """Operations a second of the base's own pretraining, on its threads."""
    import torch

    from orchestrator.bases import scratch
    from orchestrator.bases.from_scratch import ScratchBase

    torch.set_num_threads(base["threads"])
    fast = scratch.tokenizer()
    shape = {name: size for name, size in base["shape"].items() if size is not None}
    model = scratch.Qwen3ForCausalLM(scratch.architecture(len(fast), shape)).float().train()
    texts = scratch.pretraining_texts(0, base["hard_share"], base["teacher_share"], base["largest"])
    optimisers = scratch.optimisers(model, base["learning_rate"])
    each = _timed(lambda: scratch.pretraining_step(model, optimisers, texts, fast, base["batch"]), "cpu", SECONDS)
    return ScratchBase.seconds({**base, "steps": 1}) * cost.CPU_FLOPS / each


def _model(asked: Mapping[str, Any], shape: Shape, precision: str) -> Path:
    """A folder with a model of this shape, of random weights, and the small base's tokenizer."""
    import torch

    from orchestrator.bases import scratch

    folder = Path(asked["folder"]) / f"model-{precision}-{os.getpid()}"
    sizes = {name: size for name, size in shape.model_dump().items() if name != "vocabulary"}
    config = scratch.architecture(int(shape.vocabulary or 0), sizes)
    config.max_position_embeddings = max(config.max_position_embeddings, asked["engine"]["max_model_len"])
    with torch.device("cuda" if cards() else "cpu"):
        scratch.Qwen3ForCausalLM(config).to(getattr(torch, precision)).save_pretrained(folder)
    scratch.tokenizer().save_pretrained(folder)
    return folder


def _training(asked: Mapping[str, Any], shape: Shape, device: str) -> dict[str, float]:
    """SFT by the study's own training loop, and forward passes in the measurements' float32."""
    import torch

    from methods.config import TrainConfig
    from methods.data.batch import Rollout
    from methods.training.trainer import train
    from models.base import load

    given, folder = asked["training"], Path(asked["folder"])
    model = _model(asked, shape, given["precision"])
    prompt, answer = asked["row"]
    rows = [
        Rollout([3 + (i + j) % 60 for j in range(max(1, prompt))], [5 + (i * j) % 60 for j in range(max(1, answer))],
                1.0, i)
        for i in range(ROWS)
    ]  # fmt: skip
    used = ("batch_size", "micro_batch", "precision", "attention", "gradient_checkpointing", "head_chunk", "threads")
    settings = {name: given[name] for name in used} | {"rank": given["rank"], "targets": tuple(given["targets"])}
    config = TrainConfig(method="sft", init_seed=0, order_seed=0, steps=10**6, resume_every=0, resume_seconds=0.0,
                         base_name=str(model), **settings)  # fmt: skip
    stamps: list[float] = []

    def on_step(_: Any) -> None:
        stamps.append(time.monotonic())
        if len(stamps) > 2 and stamps[-1] - stamps[0] > SECONDS:
            raise _Enough

    try:
        train(config, model, rows, folder / f"out-{os.getpid()}", work=folder / f"work-{os.getpid()}",
              on_step=on_step, device=device)  # fmt: skip
    except _Enough:
        each = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
    weights = cost.parameters(shape)
    flops = given["batch_size"] * (prompt + answer) * weights * (6 if given["gradient_checkpointing"] else 4)
    base = load(model, "float32", device=device)
    batch = torch.randint(3, 60, (8, max(2, prompt + answer)), device=device)

    def forward() -> None:
        with torch.no_grad():
            base(batch)

    passes = batch.numel() * 2 * weights / _timed(forward, device, SECONDS / 4)
    return {"training": flops / each, "measuring": passes}


def _serving(asked: Mapping[str, Any], shape: Shape, device: str) -> dict[str, float]:
    """Tokens that the study's engine generates, greedily and to the full length."""
    from evals.engines import Sampling, open_engine

    model = _model(asked, shape, asked["engine"]["precision"])
    engine = open_engine(model=model, **asked["engine"], device=device)
    prompts = [[3 + (i + j) % 60 for j in range(max(1, asked["row"][0]))] for i in range(PROMPTS)]
    sampling = Sampling(n=1, temperature=0.0, top_p=1.0, max_tokens=asked["answer"], seed=0, stop=())
    tokens = 0

    def generate() -> None:
        nonlocal tokens
        tokens = sum(
            len(answer.token_ids) for answers in engine.generate(prompts, sampling, None) for answer in answers
        )

    try:
        each = _timed(generate, "cpu", SECONDS / 2)
    finally:
        engine.close()
    return {"serving": tokens * 2 * cost.parameters(shape) / each}


if __name__ == "__main__":
    main(*sys.argv[1:])
