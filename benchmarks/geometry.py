"""Compares the time and memory of the geometry of many adapters with other ways to compute the same numbers.

    python benchmarks/geometry.py [metrics] [dense] [adapters] [memory] [workers] [--first-try FILE]

metrics   six adapters at Qwen3-4B's shapes (36 layers x q, k, v, o, rank 32), all 15 pairs, float64: ours, the plain
          way below, and ``geometry(adapters, dtype)`` of FILE if given
dense     the same against forming dW and its dense SVD, on one module of each shape, extrapolated to all
adapters  6, 12, 24, 48 adapters: seconds fitted as a M + b M^2
memory    48 adapters in files: peak memory of measuring beyond one module of all adapters
workers   48 adapters, created in the workers: speed-up of two Ray workers over one, one thread each, median of 5

Without arguments all five, about five minutes on two cores. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from analysis.weights.geometry import module_geometry  # noqa: E402
from analysis.weights.summary import summarise  # noqa: E402
from models.adapter import Factors  # noqa: E402

SHAPES = {"q_proj": (4096, 2560), "k_proj": (1024, 2560), "v_proj": (1024, 2560), "o_proj": (2560, 4096)}
LAYERS, RANK, TOP = 36, 32, 10
ROUNDS = 5


def made(adapters: int, layers: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, list[Factors]]:
    """Random adapters by module; no two layers have the same values."""
    generator = torch.Generator().manual_seed(seed)

    def factors(out: int, in_: int) -> Factors:
        return Factors(
            torch.randn(out, RANK, generator=generator).to(dtype), torch.randn(RANK, in_, generator=generator).to(dtype)
        )

    return {
        f"model.layers.{layer}.self_attn.{name}": [factors(*shape) for _ in range(adapters)]
        for layer in range(layers)
        for name, shape in SHAPES.items()
    }


def ours(modules: dict[str, list[Factors]]) -> dict:
    """All metrics that need only the adapters, per module, layer, projection and in total."""
    count = len(next(iter(modules.values())))
    geometries = {name: module_geometry(factors, TOP) for name, factors in modules.items()}
    return summarise([f"adapter {m}" for m in range(count)], geometries)


def plain(modules: dict[str, list[Factors]]) -> None:
    """The direct way: QR and SVD per adapter, then every pair separately. Three of the metrics."""
    for factors in modules.values():
        tops = []
        for f in factors:
            qb, rb = torch.linalg.qr(f.b)
            qa, ra = torch.linalg.qr(f.a.T)
            u, _, vh = torch.linalg.svd(rb @ ra.T)
            tops.append((qb @ u[:, :TOP], qa @ vh.T[:, :TOP]))
        for i, f in enumerate(factors):
            for j in range(i):
                ((f.b.T @ factors[j].b) * (f.a @ factors[j].a.T)).sum()
                for x, y in zip(tops[i], tops[j], strict=True):
                    torch.linalg.svdvals(x.T @ y)


def seconds(*ways: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """The median time of each way; the ways alternate, so that other load affects all of them."""
    for way in ways:
        way()
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for held, way in zip(times, ways, strict=True):
            begun = time.perf_counter()
            way()
            held.append(time.perf_counter() - begun)
    return [statistics.median(held) for held in times]


def metrics(first_try: Path | None) -> None:
    modules = made(6, LAYERS)
    ways: list[Callable[[], object]] = [lambda: ours(modules), lambda: plain(modules)]
    if first_try is not None:
        peer = _load(first_try)
        listed = [
            [[(f[m].b, f[m].a) for f in list(modules.values())[4 * layer : 4 * layer + 4]] for layer in range(LAYERS)]
            for m in range(6)
        ]
        ways.append(lambda: peer.geometry(listed, torch.float64))
    times = seconds(*ways)
    print(f"metrics   ours {times[0]:.2f} s; the plain way {times[1]:.2f} s, ours / plain {times[0] / times[1]:.2f}")
    if first_try is not None:
        print(
            f"          {first_try.name} {times[2]:.2f} s, ours / this {times[0] / times[2]:.2f} (target: at most 0.6)"
        )


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("first_try", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"error: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dense() -> None:
    modules = made(6, LAYERS)
    (own,) = seconds(lambda: ours(modules), rounds=3)
    total = 0.0
    for name in SHAPES:
        f = modules[f"model.layers.0.self_attn.{name}"][0]
        begun = time.perf_counter()
        torch.linalg.svd(f.b @ f.a, full_matrices=False)
        total += time.perf_counter() - begun
    all_of_it = total * 6 * LAYERS
    print(f"dense     {total:.1f} s for one module of each shape, so {all_of_it:.0f} s for 6 adapters (extrapolated)")
    print(f"          dense / ours ({own:.2f} s) {all_of_it / own:.0f} (target: at least 500)")


def adapters() -> None:
    sizes, layers = (6, 12, 24, 48), 2
    times: list[float] = []
    for size in sizes:
        modules = made(size, layers)
        times += [t * LAYERS / layers for t in seconds(lambda m=modules: ours(m), rounds=3)]  # type: ignore[misc]
    m, t = np.array(sizes, dtype=float), np.array(times)
    (a, b), *_ = np.linalg.lstsq(np.stack([m, m**2], 1) / t[:, None], np.ones(len(t)), rcond=None)
    listed = ", ".join(f"{size}: {time_:.1f} s" for size, time_ in zip(sizes, times, strict=True))
    print(f"adapters  {listed} (from {layers} of {LAYERS} layers)")
    print(f"          {a:.3f} M + {b:.5f} M^2 s; at 48 the quadratic part is {b * 48**2 / (a * 48 + b * 48**2):.0%}")


def memory() -> None:
    """Print the peak of a process's anonymous memory (file pages are reclaimable and not counted)."""
    layers, count = 12, 48
    with tempfile.TemporaryDirectory() as folder:
        for m in range(count):
            _save(Path(folder) / str(m), made(1, layers, torch.float32, seed=m))
        names = list(made(1, layers))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            held = fresh.submit(_measured, folder, names, count).result()
    module = count * RANK * sum(SHAPES["q_proj"]) * 8 / 2**30
    print(f"memory    {held:.2f} GiB for {len(names)} modules of {count} adapters ({module * len(names):.1f} GiB);")
    print(f"          {held - module:.2f} GiB beyond one module of all adapters ({module:.2f} GiB) (limit: 1 GiB)")


def _measured(folder: str, names: list[str], count: int) -> float:
    """Peak GiB of measuring beyond the libraries' own memory; called in a new process."""
    from orchestrator.measurements.geometry import Place, Subject, Task, measure

    inputs = {str(m): Path(folder) / str(m) for m in range(count)}
    subjects = [Subject(str(m), Place(str(m), ".")) for m in range(count)]
    measure(Task(names[:1], subjects[:2], TOP, 1), inputs)  # warm-up: allocates the libraries' own memory
    before = _own_memory()
    most, done = [before], threading.Event()
    watch = threading.Thread(target=_watch, args=(most, done))
    watch.start()
    measure(Task(names, subjects, TOP, 1), inputs)
    done.set()
    watch.join()
    return most[0] - before


def _own_memory() -> float:
    """Anonymous memory of this process in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def _watch(most: list[float], done: threading.Event) -> None:
    while not done.wait(0.005):
        most[0] = max(most[0], _own_memory())


def _save(folder: Path, modules: dict[str, list[Factors]]) -> None:
    folder.mkdir()
    tensors = {}
    for name, (f,) in modules.items():
        tensors |= {f"base_model.model.{name}.lora_{k}.weight": t for k, t in (("A", f.a), ("B", f.b))}
    save_file({k: t.contiguous() for k, t in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}))


class Worker:
    """A Ray actor that creates its own adapters, 48 of each shape."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.own = made(48, 1)

    def measure(self, layers: int) -> None:
        for _ in range(layers):
            for factors in self.own.values():
                module_geometry(factors, TOP)


def workers() -> None:
    import ray

    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, runtime_env={"env_vars": variables}, **quiet)
    try:
        # Imported by its module's name, so that workers can import it.
        actor = ray.remote(num_cpus=1)(importlib.import_module("geometry").Worker)
        held = [actor.remote(), actor.remote()]
        one, two = seconds(
            lambda: ray.get(held[0].measure.remote(4)), lambda: ray.get([w.measure.remote(2) for w in held])
        )
    finally:
        ray.shutdown()
    print(f"workers   one {one:.2f} s, two {two:.2f} s: {one / two:.2f} (target: at least 1.5)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("metrics", "dense", "adapters", "memory", "workers")
    parser.add_argument("words", nargs="*", choices=[*every, []], default=[])
    parser.add_argument("--first-try", type=Path, metavar="FILE")
    options = parser.parse_args()
    parts = {"metrics": lambda: metrics(options.first_try), "dense": dense, "adapters": adapters}
    for word in options.words or every:
        {**parts, "memory": memory, "workers": workers}[word]()


if __name__ == "__main__":
    main()
