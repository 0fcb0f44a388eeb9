"""The headline's figures: what the analysis finds of planted effects, and what a factorial costs.

    python benchmarks/factorial.py [planted] [studies [FOLDER]]

planted  the largest error of planted sums of squares, p under a planted null, power beside the predicted one; 1 minute
studies  configs/lr-matched.yaml whole, and one training more in the finished run, by the clock less what the training
         and its evaluation took themselves; half an hour on two cores, or less with a FOLDER that has begun it

Without arguments planted alone. ASHA against the grid is in search.py, a thousand cells are in cells.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from analysis.statistics.power import power_at  # noqa: E402
from analysis.statistics.trainings import method_difference  # noqa: E402
from analysis.weights.factorial import factorial_variance  # noqa: E402

STUDY = ROOT / "configs" / "lr-matched.yaml"
LEVELS = {"loss": 3, "rate": 3, "order": 2, "init": 2}
DRAWS = 500
Row = tuple[str, str, str]  # what, seen, must


def main(words: list[str]) -> None:
    rows = list(_planted()) if not words or "planted" in words else []
    if "studies" in words:
        rest = words[words.index("studies") + 1 :]
        with tempfile.TemporaryDirectory() as folder:
            rows += _studies(Path(rest[0]) if rest else Path(folder) / "run")
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in [("figure", "seen", "must"), *rows]:
        print("  ".join(cell.ljust(max(width, 6)) for cell, width in zip(row, widths, strict=True)).rstrip())


def _planted() -> Iterator[Row]:
    yield "planted sums of squares, largest relative error", f"{_sums_of_squares():.1e}", "1e-6"
    for name, p in _null().items():
        yield f"planted null, {name}: Kolmogorov-Smirnov p of {DRAWS} draws", f"{p:.3f}", "above .01"
    for trainings in (2, 3, 5):
        seen, predicted = _power(trainings)
        yield (
            f"power of {trainings} trainings of each: simulated, predicted",
            f"{seen:.3f}, {predicted:.3f}",
            ".05 apart",
        )


def _crossing(replicates: int = 1) -> dict[str, list[int]]:
    cells = [cell for cell in product(*(range(n) for n in LEVELS.values())) for _ in range(replicates)]
    return {name: [cell[i] for cell in cells] for i, name in enumerate(LEVELS)}


def _sums_of_squares() -> float:
    """Each factor moves the update along axes of its own; a balanced design's sum of squares is N d^2 (1 - 1 / L)."""
    factors, sizes = _crossing(), {"loss": 3.0, "rate": 1.0, "order": 0.1, "init": 0.01}
    count = len(factors["loss"])
    columns = [np.ones(count)]
    for name, size in sizes.items():
        columns += [size * (np.array(factors[name]) == level) for level in range(LEVELS[name])]
    x = np.stack(columns, axis=1)
    found = factorial_variance(x @ x.T, factors, list(LEVELS), permutations=0)["terms"]
    expected = {name: count * size**2 * (1 - 1 / LEVELS[name]) for name, size in sizes.items()}
    return max(abs(found[name]["sum_squares"] / expected[name] - 1) for name in expected)


def _null() -> dict[str, float]:
    """p of factors that do nothing, beside a rate that does; uniform, by Kolmogorov and Smirnov."""
    generator, factors = np.random.default_rng(0), _crossing()
    tested = ["loss", "order", "init"]
    p: dict[str, list[float]] = {name: [] for name in tested}
    for _ in range(DRAWS):
        x = generator.normal(size=(len(factors["loss"]), 6)) + 4.0 * np.array(factors["rate"])[:, None]
        found = factorial_variance(x @ x.T, factors, list(LEVELS), generator=generator, permutations=99)["terms"]
        for name in tested:
            p[name].append(found[name]["p"])
    jitter = generator.random(DRAWS) / 100  # p has 100 values
    return {name: float(stats.kstest(np.array(values) - jitter, "uniform").pvalue) for name, values in p.items()}


def _power(trainings: int) -> tuple[float, float]:
    """Of ``method_difference`` on simulated studies, and as ``power_at`` has it."""
    between, interaction, residual, problems, difference = 4e-4, 0.02, 0.05, 300, 0.08 if trainings > 2 else 0.15
    generator, told = np.random.default_rng(trainings), 0
    for _ in range(DRAWS):
        methods = []
        for mean in (0.0, difference):
            of_method = generator.normal(0, math.sqrt(interaction), problems)
            of_training = generator.normal(0, math.sqrt(between), (trainings, 1))
            noise = generator.normal(0, math.sqrt(residual), (trainings, problems))
            methods.append(mean + of_method + of_training + noise)
        p = method_difference(*methods).p
        told += p is not None and p <= 0.05
    return told / DRAWS, power_at(trainings, difference, between, interaction, residual, problems)


def _studies(out: Path) -> Iterator[Row]:
    begun = (out / "study.json").exists()
    whole = _run(out)
    yield "lr-matched whole, with its report", f"{whole:.0f} s{' (the rest of it)' if begun else ''}", "2400 s"
    order = 44
    while list(out.glob(f"train/sft-order{order}-*")):
        order += 1
    before = _seconds(out)
    replicas = [{"method": "sft", "order_seed": 43}, {"method": "sft", "init_seed": 43}]
    more = _run(out, "--set", f"replicas={json.dumps([*replicas, {'method': 'sft', 'order_seed': order}])}")
    own = sum(seconds for step, seconds in _seconds(out).items() if step not in before and f"order{order}" in step
              and step.startswith(("train", "evaluate")))  # fmt: skip
    yield "one training more: the command", f"{more:.0f} s", ""
    yield "one training more: beyond its own training and evaluation", f"{more - own:.0f} s", "60 s"


def _run(out: Path, *words: str) -> float:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "orchestrator", "run", str(STUDY), "--out", str(out), *words],
                          cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout)
    return time.monotonic() - begun


def _seconds(out: Path) -> dict[str, float]:
    """Each finished step's seconds, the start of its process among them, by kind, name and key."""
    paths = out.glob("times/*/*.json")
    return {f"{path.parent.name}/{path.stem}": float(json.loads(path.read_text())["seconds"]) for path in paths}


if __name__ == "__main__":
    main(sys.argv[1:])
