"""How a study's cost beside its trainings grows with their number, on planted results: no training is run.

    OMP_NUM_THREADS=1 python benchmarks/cells.py FOLDER [CELLS ...]

FOLDER is a finished run of a study with an evaluation and no scaled copies (configs/tiny.yaml). Of its files studies of
50, 200 and 1000 cells (methods x learning rates x orders of rows) are planted: each cell's adapter is its method's and
noise, its course and its answers are its method's. What compares all cells (geometry, similarity, spectra) then runs
for real, on one core; the activation-weighted Gram is drawn. Printed are, for each number of cells:

plan      seconds of ``orchestrator plan``, its start included
driver    the runner's own seconds, and as a share of the cells' work (the time of FOLDER's steps of one model) on this
          machine's cores, with the look at the store of every queued training five times a second
steps     seconds of geometry, similarity and spectra
report    seconds of gather, of the page with figures, CSV and JSON; sizes of page, results.json and CSV

and last the CKA and the geometry of 45 models against the same pair by pair.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from analysis.function.activations import summarise_activations  # noqa: E402
from analysis.function.cka import similarities, similarity  # noqa: E402
from analysis.weights.geometry import module_geometry  # noqa: E402
from execution.execute import attempt  # noqa: E402
from execution.runner import DagRunner, Outcome  # noqa: E402
from execution.step import Step  # noqa: E402
from execution.storage import Folder  # noqa: E402
from execution.store import Store, write_json  # noqa: E402
from models.adapter import Factors  # noqa: E402
from orchestrator.config.study import Study  # noqa: E402
from orchestrator.measurements.listed import listed  # noqa: E402
from orchestrator.planning.plan import make_plan  # noqa: E402
from orchestrator.results.gather import gather  # noqa: E402
from orchestrator.results.write_report import provenance, shown  # noqa: E402
from orchestrator.runtime.engines import Engines  # noqa: E402
from orchestrator.steps.train import adapters  # noqa: E402
from report.render import render  # noqa: E402

RATES = [1e-4, 3e-4, 1e-3]
REAL = ("geometry", "similarity", "spectra")
ONE_MODEL = ("train", "evaluate", "features", "losses")
POLLS = 5  # a second
PROMPTS = 40  # of the planted features


class Template:
    """A finished run's folder of each kind of step, by the method that it is of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.saved = json.loads((root / "study.json").read_text())
        paths = sorted(root.glob("times/*/*.json"))
        times = [(path.parent.name, float(json.loads(path.read_text())["seconds"])) for path in paths]
        self.cell_seconds = sum(statistics.median([s for kind, s in times if kind == of] or [0.0]) for of in ONE_MODEL)

    def study(self, cells: int) -> dict[str, Any]:
        """The study's settings with a factorial of at least so many cells in place of all others."""
        settings = self.saved["study"] | {"replicas": [], "sweep": None, "note": "", "max_trainings": 2 * cells}
        orders = math.ceil(cells / (len(settings["methods"]) * len(RATES)))
        own = settings["seeds"]["order"]
        levels = {"learning_rate": RATES, "order_seed": [own + i for i in range(orders)]}
        return settings | {"name": f"cells{cells}", "factorial": [levels]}

    def folder(self, step: Step) -> Path:
        """Of the same kind, and of the step's method (or base) where there is one of it."""
        found = sorted(path for path in (self.root / step.kind.name).iterdir() if path.is_dir())
        method = step.name.partition("-")[0]
        return next((path for path in found if path.name.startswith(f"{method}-")), found[0])


class Planter:
    """An executor that plants each step's files instead of running it; ``own``: the seconds that this took."""

    def __init__(self, store: Store, template: Template) -> None:
        self.store, self.template, self.queue = store, template, list[Step]()
        self.own, self.took = 0.0, dict[str, float]()

    def start(self, steps: Sequence[Step], coming: Sequence[Step]) -> None:
        self.queue += steps

    def wait(self) -> list[tuple[Step, str | None]]:
        begun, step = time.perf_counter(), self.queue.pop(0)
        if step.kind.name in REAL:
            error = attempt(step, self.store, Engines())
            self.took[step.kind.name] = time.perf_counter() - begun
        else:
            error = None
            with self.store.writing(step) as space:
                plant(step, self.template.folder(step), space.out, self.store)
        self.own += time.perf_counter() - begun
        return [(step, error)]

    def close(self) -> None:
        """Nothing is open."""


def plant(step: Step, source: Path, out: Path, store: Store) -> None:
    """The files of ``source`` as the step's, an adapter with noise of its own, features of few prompts and places."""
    if step.kind.name == "activations":
        inputs = {role: store.folder(other) for role, other in step.inputs.items()}
        write_json(out / "activations.json", weighted(list(adapters(inputs)), step))
        return
    left = shutil.ignore_patterns("step.json", "checkpoints", "grams.safetensors")
    shutil.copytree(source, out, dirs_exist_ok=True, ignore=left)
    generator = torch.Generator().manual_seed(int(step.key, 16) % 2**31)
    if step.kind.name == "train":
        path = out / "adapter" / "adapter_model.safetensors"
        factors = load_file(path)
        save_file({name: x + 0.3 * x.std() * torch.randn(x.shape, generator=generator) for name, x in factors.items()},
                  path)  # fmt: skip
    if step.kind.name == "features":
        grams = load_file(source / "grams.safetensors")
        kept = [name for name in grams if name.startswith("hidden.")][:3] + [n for n in grams if n[0] == "m"][:4]
        save_file({name: grams[name][:PROMPTS, :PROMPTS].contiguous() for name in kept}, out / "grams.safetensors")


def weighted(names: list[str], step: Step) -> dict[str, Any]:
    """A drawn activation-weighted Gram, summarised as a measured one is."""
    x = np.random.default_rng(0).normal(size=(len(names), 50)) + 1
    pairs = listed(names, step.config)
    overall, detailed = (None if some is None else some.tolist() for some in (pairs.pairs, pairs.detailed))
    grams = {f"model.layers.{layer}.self_attn.q_proj": (x @ x.T).tolist() for layer in range(4)}
    found = summarise_activations(names, grams, 1000, overall, detailed)
    return found | {"rows": 64, "modules": 4, "chance": 0.1, "left_out": []}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def plan_seconds(settings: dict[str, Any], folder: Path) -> float:
    """Of the command, with nothing finished."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "orchestrator", "plan", str(path), "--out", str(folder / "planned")]
    took, done = seconds(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True))
    if done.returncode:
        raise SystemExit(done.stderr)
    return took


def measure(template: Template, cells: int, folder: Path) -> dict[str, float]:
    """Everything of one number of cells, by name."""
    settings = template.study(cells)
    found = {"plan s": plan_seconds(settings, folder)}
    study = Study.model_validate(settings)
    steps, store = make_plan(study, template.saved["facts"]), Store(folder, Folder(folder))
    planter = Planter(store, template)
    whole, outcome = seconds(lambda: DagRunner(steps, store, lambda line: None).run(lambda: planter))
    if outcome.failed:
        raise SystemExit(str(outcome.failed))
    trainings = [step for step in steps if step.kind.name == "train"]
    look, _ = seconds(lambda: poll(trainings, store))
    wall = len(trainings) * template.cell_seconds / (os.cpu_count() or 1)
    found |= {"driver s": whole - planter.own, "driver %": 100 * ((whole - planter.own) / wall + POLLS * look)}
    found |= {f"{kind} s": took for kind, took in planter.took.items()}
    return found | report(study, outcome, store, folder)


def poll(queued: Sequence[Step], store: Store) -> list[Step]:
    """What the driver does between two steps that end: whether one of the queued trainings has."""
    ended = store.ended("train")
    return [step for step in queued if step.folder in ended]


def report(study: Study, outcome: Outcome, store: Store, folder: Path) -> dict[str, float]:
    gathered, results = seconds(lambda: gather(study, outcome, store))
    page, times = folder / "page", provenance(outcome, store, "")
    texts, answered = seconds(lambda: shown(study, outcome, store))
    rendered, _ = seconds(lambda: render(results, times, page, answered))
    sizes = {name: (page / name).stat().st_size / 1e6 for name in ("report.html", "answers.html", "results.json")}
    csv = sum(path.stat().st_size for path in (page / "csv").iterdir()) / 1e6
    return {"gather s": gathered, "page s": texts + rendered, "report s": gathered + texts + rendered,
            **{f"{name} MB": size for name, size in sizes.items()}, "csv MB": csv}  # fmt: skip


def pairwise() -> None:
    """The CKA of 45 models at a layer, and the geometry of 45 adapters at a module, against the same pair by pair."""
    generator = torch.Generator().manual_seed(0)
    grams = [x @ x.T for x in torch.randn(45, 100, 128, generator=generator, dtype=torch.float64)]
    pairs = list(itertools.combinations(range(45), 2))
    fast, _ = seconds(lambda: similarities(grams, pairs, torch.Generator().manual_seed(1)))
    slow, _ = seconds(lambda: [similarity(grams[i], grams[j], torch.Generator().manual_seed(1)) for i, j in pairs])
    print(f"CKA of {len(pairs)} pairs at a layer: {fast:.2f} s, pair by pair {slow:.2f} s, {slow / fast:.0f} times")
    b, a = (torch.randn(45, *shape, generator=generator, dtype=torch.float64) for shape in ((128, 16), (16, 128)))
    factors = [Factors(*both) for both in zip(b, a, strict=True)]
    fast, _ = seconds(lambda: module_geometry(factors))
    slow, _ = seconds(lambda: [module_geometry([factors[i], factors[j]]) for i, j in pairs])
    print(f"geometry of {len(pairs)} pairs at a module: {fast:.3f} s, pair by pair {slow:.2f} s, "
          f"{slow / fast:.0f} times")  # fmt: skip


def main(words: list[str]) -> None:
    if not words:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    template, counts = Template(Path(words[0])), [int(word) for word in words[1:]] or [50, 200, 1000]
    table: dict[int, dict[str, float]] = {}
    for cells in counts:
        with tempfile.TemporaryDirectory(prefix=f"cells-{cells}-") as folder, contextlib.redirect_stdout(sys.stderr):
            table[cells] = measure(template, cells, Path(folder))
    print("".join(f"{word:>12}" for word in ("cells", *map(str, counts), "growth")))
    for name in table[counts[0]]:
        values = [table[cells][name] for cells in counts]
        growth = math.log(values[-1] / values[0]) / math.log(counts[-1] / counts[0]) if len(counts) > 1 else math.nan
        print(f"{name:>16}" + "".join(f"{value:12.2f}" for value in values) + f"   n^{growth:.2f}")
    pairwise()


if __name__ == "__main__":
    main(sys.argv[1:])
