"""A synthetic study whose numbers look like a small real one: twelve models, one failed; four layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from analysis.statistics.sampling import difference_interval, ladder, pass_at, share_interval
from analysis.statistics.significance import holm, mcnemar_exact, sign_flip, wilson
from analysis.weights.directions import directions
from analysis.weights.replicas import runs
from orchestrator.results.attribution import attribution
from orchestrator.results.matched import matched
from results import VERSION, Results, dump

LAYERS = 4
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
CHECKPOINTS = (20, 40, 60, 80, 100)  # the last is the report's step
# name, method, role, learning rate, cosine to SFT, norm, accuracy
MODELS = (
    ("sft", "sft", "method", 1e-3, 1.0, 2.84, 0.612),
    ("rft", "rft", "method", 1e-3, 0.951, 2.82, 0.941),
    ("dft", "dft", "method", 1e-3, 0.572, 2.31, 0.905),
    ("rift", "rift", "method", 1e-3, 0.936, 3.04, 0.548),
    ("offline_grpo", "offline_grpo", "method", 1e-3, 0.741, 3.4, 0.872),
    ("dpo", "dpo", "method", 1e-4, 0.063, 0.41, 0.839),
    ("dpo-lr1e-3", "dpo", "sweep", 1e-3, 0.204, 3.61, 0.402),
    ("dpo-lr3e-3", "dpo", "sweep", 3e-3, None, None, None),
    ("sft-order43", "sft", "order", 1e-3, 0.893, 2.86, 0.617),
    ("sft-init43", "sft", "init", 1e-3, 0.012, 2.83, 0.609),
    ("dpo-lr3e-4", "dpo", "rate", 3e-4, 0.118, 1.18, 0.826),
)
ERROR = "loss is not finite at step 41, rows 1312 to 1343; last good checkpoint: step 40"
TRAINED = [row[0] for row in MODELS if row[4] is not None]
MODULES = [
    (f"model.layers.{layer}.self_attn.{projection}", layer, projection)
    for layer in range(LAYERS)
    for projection in PROJECTIONS
]


def _cosine(a: tuple, b: tuple) -> float:
    """A cosine that a set of directions sharing one axis would have; runs of one method share more."""
    product = (a[4] or 0.0) * (b[4] or 0.0)
    rest = math.sqrt((1 - (a[4] or 0.0) ** 2) * (1 - (b[4] or 0.0) ** 2))
    return product + rest * (0.75 if a[1] == b[1] == "dpo" else 0.05)


def _pair(a: tuple, b: tuple, cosine: float | None = None) -> dict:
    if cosine is None:
        cosine = 1.0 if a == b else _cosine(a, b)
    other_init = "init" in (a[2], b[2])
    angle = 84.0 if other_init else 4 + 78 * (1 - cosine) ** 0.8
    right = 80.0 if other_init else 2 + 12 * (1 - cosine)
    return {
        "a": a[0],
        "b": b[0],
        "cosine": cosine,
        "angle_min_median_deg": angle,
        "angle_max_median_deg": min(89.9, 30 + 70 * math.sqrt(1 - abs(cosine))),
        "right_angle_min_median_deg": right,
        "right_angle_max_median_deg": min(89.0, right + 55),
        "orthogonal_fraction": math.sqrt(1 - cosine**2),
        "u1": max(0.08, abs(cosine) * 0.98),
        "v1": 0.06 if other_init else 0.66 + 0.33 * abs(cosine),
        "overlap": max(0.08, 0.9 * cosine**2),
        "right_overlap": 0.08 if other_init else 0.6 + 0.3 * cosine**2,
        "gap_median": 0.12,
        "k": 10,
        "k_max": 10,
        "defined_modules": 4 * LAYERS,
    }


def _part(a: tuple, b: tuple, share: float, modules: int, **label: object) -> dict:
    """A pair over some modules: less alike than over all."""
    measures = _pair(a, b, (1.0 if a == b else _cosine(a, b)) * share)
    names = {key: measures.pop(key) for key in ("a", "b")}
    return {**names, **label, **measures, "defined_modules": modules}


def _at_module(a: tuple, b: tuple, module: str, layer: int, projection: str) -> dict:
    found = _part(a, b, 1 - 0.06 * layer, 1, module=module, layer=layer, projection=projection)
    ends = {"": ("angle_min_median_deg", "angle_max_median_deg")}
    ends["right_"] = ("right_angle_min_median_deg", "right_angle_max_median_deg")
    return found | {
        f"{side}angles_deg": np.linspace(found[low], found[high], 10).tolist() for side, (low, high) in ends.items()
    }


def _sizes(row: tuple, share: float = 1.0) -> dict:
    ranks = {"effective_rank": 11.2 + 3 * (1 - row[4]), "stable_rank": 2.1 + (1 - row[4])}
    return {"norm": row[5] * share, **ranks}


SPECTRUM = {
    "modules": 4 * LAYERS, "zero_modules": 0, "rank": 16, "gap_median": 0.17, "first_gap_median": 0.32,
}  # fmt: skip


def _gram(rows: list[tuple], cosine: Callable[[tuple, tuple], float], unit: float = 1.0) -> list[list[float]]:
    return [[unit**2 * a[5] * b[5] * (1.0 if a == b else cosine(a, b)) for b in rows] for a in rows]


def _training(row: tuple) -> dict:
    name, method, role, rate, _, norm, _ = row
    entry = {
        "name": name,
        "method": method,
        "objective": method,
        "role": role,
        "of": None if role == "method" else method,
        "learning_rate": rate,
        "init_seed": 43 if role == "init" else 42,
        "order_seed": 43 if role == "order" else 42,
        "status": "done" if norm else "failed",
        "error": None,
    }
    if norm is None:
        return {**entry, "error": ERROR}
    pairs = method == "dpo"
    return {
        **entry,
        "settings": {"beta": 0.1} if pairs else {},
        "steps": 120,
        "run_steps": 120,
        "report_step": 100,
        "units": 3200,
        "rows_seen": 6400 if pairs else 3200,
        "tokens_seen": 105_472 if pairs else 52_736,
        "epochs": 9.2 if pairs else 1.78,
        "distinct_problems": 346,
        "distinct_rows": 692 if pairs else 1800,
        "loss_first": 0.693 if pairs else 0.412,
        "loss_last": 0.31 if pairs else 0.298,
        "clip_rate": 0.04 if pairs else 0.61,
        "gradient_wrong": 0.5 if pairs else 0.38,
        "nll_pushed_first": 0.31 if pairs else None,
        "nll_pushed_last": 1.94 if pairs else None,
        "heldout_nll_right": 0.31,
        "heldout_nll_wrong": 0.64,
        "heldout_kl": 0.0123,
        "noise_steps": 0,
        "noise": False,
        "a_moved_rel": 0.02 * norm,
        "b_norm": norm * 0.8,
        "path_ratio": 0.71,
        "undone": 0.824 if pairs else 0.463,
        "signal": 0.112 if pairs else 0.307,
        "view_rows": 692 if pairs else 1800,
        "view_units": 346 if pairs else 1800,
        "equal_pairs": 0,
        "out_of_memory": [],
    }


def _search(method: str, own: float, rates: tuple[float, ...]) -> dict:
    """ASHA of a method: the first trial is stopped at the first rung, the second is chosen, one of four fails."""
    trials = []
    for i, rate in enumerate(rates):
        right = (20, 41, 40, 0)[i]
        rungs = [_rung(25, max(0, right - 4)), _rung(100, right)][: (1, 2, 2, 0)[i]]
        ended: dict = {"status": ("stopped", "finished", "finished", "failed")[i]}
        if i == 0:
            ended["stopped"] = {"steps": 25, "value": rungs[0]["accuracy"], "cutoff": 0.5, "values": [0.74, 0.5]}
        if i == 3:
            ended["error"] = ERROR
        name = method if rate == own else f"{method}-lr{rate:.0e}".replace("e-0", "e-")
        trials.append({"name": name, "learning_rate": rate, "steps": (25, 100, 100, 0)[i], "rungs": rungs, **ended})
    return {
        "method": method,
        "algorithm": "asha",
        "rungs": [25, 100],
        "trials": trials,
        "chosen": trials[1]["name"],
        "learning_rate": rates[1],
        "steps": sum(trial["steps"] for trial in trials),
        "full_steps": 100 * len(trials),
    }


def _rung(steps: int, right: int) -> dict:
    low, high = wilson(right, 50)
    share = right / 50
    error = math.sqrt(share * (1 - share) / 50)
    of = {"right": right, "problems": 50, "accuracy": share, "standard_error": error}
    return {"steps": steps, **of, "low": low, "high": high}


def _curve(row: tuple, generator: np.random.Generator) -> dict:
    steps, scale = np.arange(1, 121), row[5]
    start = 0.693 if row[1] == "dpo" else 0.42
    loss = start * (0.55 + 0.45 * np.exp(-steps / 30)) + generator.normal(0, 0.03, len(steps))
    if row[1] == "offline_grpo":
        loss = loss - 0.004 * steps
    growth = 1 - np.exp(-steps / 45)
    return {
        "name": row[0],
        "step": steps.tolist(),
        "loss": loss.tolist(),
        "grad_norm": (1.4 * np.exp(generator.normal(0, 0.25, len(steps)))).tolist(),
        "learning_rate": (row[3] * np.minimum(1, steps / 6)).tolist(),
        "a_moved": (1.3 * scale * growth).tolist(),
        "a_moved_rel": (0.02 * scale * growth).tolist(),
        "b_norm": (0.8 * scale * growth).tolist(),
        "undone": [None, *(0.5 * growth[1:]).tolist()],
        "signal": (1 - 0.7 * growth).tolist(),
    }


def _task(key: str, title: str, n: int, shift: float, generator: np.random.Generator, samples: int = 1) -> dict:
    chances = {"base": 0.601, **{row[0]: row[6] for row in MODELS if row[6] is not None}}
    latent = generator.random(n)
    right = {
        name: (latent[:, None] + generator.normal(0, 0.12, (n, samples)) < chance + shift).sum(axis=1)
        for name, chance in chances.items()
    }
    names = list(right)
    pairs = [_tested(a, b, right, samples) for i, a in enumerate(names) for b in names[i + 1 :]]
    for row, adjusted in zip(pairs, holm([row["p"] for row in pairs]), strict=True):
        row["p_holm"] = float(adjusted)
    hard = np.arange(n) % 5 != 0
    strata = [
        {"name": name, "stratum": stratum, "n": int(rows.sum()), "accuracy": float(found[rows].mean() / samples)}
        for name, found in right.items()
        for stratum, rows in (("easy", ~hard), ("hard", hard))
    ]
    solved = np.array([found > 0 for found in right.values()])
    alone = {name: np.flatnonzero(own & (solved.sum(axis=0) == 1)) for name, own in zip(names, solved, strict=True)}
    return {
        "task": key,
        "title": title,
        "n": n,
        "samples": samples,
        "sampling": {
            "samples": samples,
            "temperature": 0.0 if samples == 1 else 0.7,
            "top_p": 1.0,
            "max_tokens": 64,
            "seed": 0,
        },
        "models": [_scored(name, right[name], samples) for name in names],
        "pairs": pairs,
        "strata": strata,
        "smallest_difference": {"single": 6 / n / samples, "holm": 12 / n / samples},
        "alone": [{"name": name, "count": len(of), "ids": [f"q{i}" for i in of[:20]]} for name, of in alone.items()],
        "solved_by_all": int(solved.all(axis=0).sum()),
        "solved_by_none": int((~solved.any(axis=0)).sum()),
    }


def _scored(name: str, right: np.ndarray, samples: int) -> dict:
    low, high = share_interval(right.tolist(), samples)
    return {
        "name": name,
        "n": len(right),
        "samples": samples,
        "correct": int(right.sum()),
        "accuracy": float(right.mean() / samples),
        "low": low,
        "high": high,
        "pass_at": {str(k): float(np.mean([pass_at(k, int(c), samples) for c in right])) for k in ladder(samples)},
        "maj": float((right > samples / 2).mean()) if samples > 1 else None,
        "truncated": 3,
        "not_found": 11,
        "mean_tokens": 24.7,
        "median_tokens": 23,
        "p95_tokens": 31,
    }


def _tested(a: str, b: str, right: dict[str, np.ndarray], samples: int) -> dict:
    steps = right[b] - right[a]
    fell, rose = int((steps < 0).sum()), int((steps > 0).sum())
    if samples == 1:
        found = {"test": "mcnemar", "only_a": fell, "only_b": rose, "p": mcnemar_exact(fell, rose)}
    else:
        found = {"test": "sign flip", "more_a": fell, "more_b": rose, "p": sign_flip(steps.tolist())}
    low, high = difference_interval(steps.tolist(), samples)
    difference, agreement = float(steps.mean() / samples), float(1 - np.abs(steps).mean() / samples)
    return {"a": a, "b": b, **found, "difference": difference, "low": low, "high": high, "agreement": agreement}


def _geometry() -> dict:
    trained = [row for row in MODELS if row[4] is not None]
    both = [(a, b) for i, a in enumerate(trained) for b in trained[i + 1 :]]
    pairs = [_pair(a, b) for a, b in both]
    layers = [_part(a, b, 1 - 0.06 * n, len(PROJECTIONS), layer=n) for a, b in both for n in range(LAYERS)]
    by_names = {(row["a"], row["b"]): row for row in pairs}
    ambient = {
        "cosine": 0.0004,
        "angle_min_median_deg": 66.1,
        "angle_max_median_deg": 89.4,
        "u1": 0.07,
        "v1": 0.07,
        "right_angle_min_median_deg": 61.0,
        "right_angle_max_median_deg": 89.1,
        "overlap": 0.08,
        "right_overlap": 0.08,
    }
    shared = {**ambient, "cosine": 0.0011, "v1": 0.35, "right_angle_min_median_deg": 15.4, "right_overlap": 0.63}
    angles = {key: 2e-6 for key in ambient if key.endswith("_deg")}
    measures = {key: 1.0 for key in ("cosine", "u1", "v1", "overlap", "right_overlap")}
    itself = {**_pair(MODELS[0], MODELS[0]), **measures, **angles, "orthogonal_fraction": 0.0}
    return {
        "k": 10,
        "adapters": [
            {"name": row[0], **_sizes(row), **SPECTRUM, "a_moved_rel": 0.02 * row[5], "start_share": 1 - 0.03 * row[5]}
            for row in trained
        ],
        "adapter_layers": [
            {"name": row[0], "layer": layer, **_sizes(row, 1 / 2)} for row in trained for layer in range(LAYERS)
        ],
        "adapter_projections": [
            {"name": row[0], "projection": projection, **_sizes(row, 1 / 2)}
            for row in trained
            for projection in PROJECTIONS
        ],
        "adapter_modules": [
            {
                "name": row[0],
                "module": module,
                "layer": layer,
                "projection": projection,
                **_sizes(row, 1 / 8),
                "a_moved_rel": 0.02 * row[5],
                "start_share": 1 - 0.03 * row[5],
            }
            for row in trained
            for module, layer, projection in MODULES
        ],
        "pairs": pairs,
        "layers": layers,
        "projections": [
            _part(a, b, 1 - 0.03 * i, LAYERS, projection=name) for a, b in both for i, name in enumerate(PROJECTIONS)
        ],
        "modules": [_at_module(a, b, *module) for a, b in both for module in MODULES],
        "gram": _gram(trained, _cosine),
        "along": _along(trained),
        "itself": itself,
        "chance": {"draws": 8, "ambient": ambient, "shared_a": shared, "of": "sft"},
        "floors": {
            "order": [by_names["sft", "sft-order43"]],
            "init": [by_names["sft", "sft-init43"]],
            "learning_rate": [by_names["dpo", "dpo-lr3e-4"]],
            "itself": itself,
        },
    }


def _along(trained: list[tuple]) -> dict:
    """Updates of one initial A begin alike and part; each turns towards its own end. The last step is the end."""
    pairs, adapters = [], []
    for step in CHECKPOINTS:
        share = step / CHECKPOINTS[-1]
        for i, a in enumerate(trained):
            to_end = 1 - (0.2 + 0.3 * (1 - a[4])) * (1 - share)
            size = _sizes(a, 0.4 + 0.6 * share)
            adapters.append({"step": step, "name": a[0], **size, **SPECTRUM, "to_end": to_end})
            for b in trained[i + 1 :]:
                cosine = _cosine(a, b)
                parted = cosine if "init" in (a[2], b[2]) else 1 - (1 - cosine) * math.sqrt(share)
                pairs.append({"step": step, **_pair(a, b, parted)})
    return {"pairs": pairs, "adapters": adapters}


def _weighted(a: tuple, b: tuple) -> float:
    """What the updates do is more alike than their entries, and most of all across initial A's."""
    to_sft, other = (0.58 if row[2] == "init" else 0.3 + 0.7 * row[4] for row in (a, b))
    rest = math.sqrt((1 - to_sft**2) * (1 - other**2))
    return to_sft * other + rest * (0.75 if a[1] == b[1] == "dpo" else 0.05)


def _activations() -> dict:
    trained = [row for row in MODELS if row[4] is not None]
    cosines = [(a[0], b[0], _weighted(a, b)) for i, a in enumerate(trained) for b in trained[i + 1 :]]
    return {
        "rows": 64,
        "tokens": 1054,
        "adapters": [{"name": row[0], "norm": 0.31 * row[5]} for row in trained],
        "pairs": [{"a": a, "b": b, "cosine": cosine} for a, b, cosine in cosines],
        "layers": [
            {"a": a, "b": b, "layer": layer, "cosine": cosine * (1 - 0.04 * layer)}
            for a, b, cosine in cosines
            for layer in range(LAYERS)
        ],
        "projections": [
            {"a": a, "b": b, "projection": projection, "cosine": cosine * (1 - 0.03 * i)}
            for a, b, cosine in cosines
            for i, projection in enumerate(PROJECTIONS)
        ],
        "gram": _gram(trained, _weighted, 0.31),
        "modules": len(MODULES),
        "chance": 0.071,
        "left_out": [],
    }


# Of the top 10 directions of 128 x 128 weights (q, o) and of 64 x 128 ones (k, v).
SPECTRA_CHANCE = {"both": 400 / 49_152, "left": 5_120 / 49_152, "right": 3_840 / 49_152}


def _spectra() -> dict:
    trained = [row for row in MODELS if row[4] is not None]

    def entry(row: tuple, count: int, **label: object) -> dict:
        lean = 1 + 0.6 * row[4]  # towards what the base's weights do already
        return {
            "name": row[0],
            **label,
            "both": SPECTRA_CHANCE["both"] * lean**2,
            "left": SPECTRA_CHANCE["left"] * lean,
            "right": SPECTRA_CHANCE["right"] * lean,
            "relative_norm": 0.021 * row[5],
            "relative_sigma_median": 0.08 * row[5],
            "intruders": count * round(row[5] / 2),
            "modules": count,
            "zero_modules": 0,
        }

    labels = [{"module": module, "layer": layer, "projection": projection} for module, layer, projection in MODULES]
    return {
        "k": 10,
        "threshold": 0.5,
        "adapters": [entry(row, len(MODULES)) for row in trained],
        "layers": [entry(row, len(PROJECTIONS), layer=layer) for row in trained for layer in range(LAYERS)],
        "projections": [entry(row, LAYERS, projection=name) for row in trained for name in PROJECTIONS],
        "modules": [entry(row, 1, **label) for row in trained for label in labels],
        "chance": SPECTRA_CHANCE,
        "left_out": [],
    }


def _directions(geometry: dict) -> dict:
    return directions(runs([_training(row) for row in MODELS], TRAINED), geometry["gram"], "sft")


def _similarity() -> dict:
    hidden, modules = [], []
    names = ["base", *TRAINED]
    strength = {"base": 0.0, **{row[0]: 1.2 - (row[4] or 0.0) for row in MODELS}}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            for layer in range(LAYERS + 1):  # after layer 0, 1, ...; what comes first are the embeddings
                cka = 1 - 0.09 * layer * abs(strength[a] - strength[b]) - 0.01 * layer
                hidden.append(
                    {
                        "a": a,
                        "b": b,
                        "layer": layer - 1,
                        "cka": cka,
                        "low": cka - 0.03,
                        "high": min(1.0, cka + 0.02),
                        "shuffled": 0.004 * (-1) ** layer,
                        "biased": cka,
                    }
                )
            for module, layer, projection in MODULES:
                cka = 1 - 0.05 * (layer + 1) * abs(strength[a] - strength[b]) - 0.02 * PROJECTIONS.index(projection)
                label = {"module": module, "layer": layer, "projection": projection}
                modules.append({"a": a, "b": b, **label, "cka": cka})
    return {
        "estimator": "debiased linear CKA",
        "position": "last",
        "prompts": 100,
        "hidden": hidden,
        "modules": modules,
    }


def _headline(tasks: list[dict]) -> list[dict]:
    scores = {
        row["name"]: {task["task"]: row["accuracy"] for task in tasks for row in task["models"] if row["name"] == name}
        for name in ["base", *TRAINED]
        for row in [{"name": name}]
    }
    rows = []
    for row in MODELS:
        if row[4] is None or row[2] not in ("method", "sweep"):
            continue
        found = {} if row[0] == "sft" else _pair(MODELS[0], row)
        rows.append(
            {
                "name": row[0],
                "compared_to": "sft",
                "matched": "as published" if row[2] == "method" else "learning rate" if row[3] == 1e-3 else "sweep",
                "learning_rate": row[3],
                "norm": row[5],
                "accuracy": scores[row[0]],
                **{key: found.get(key) for key in ("cosine", "angle_min_median_deg", "u1", "v1")},
            }
        )
    return rows


def _paths() -> list[dict]:
    weights = np.linspace(0, 1, 11)
    paths = []
    for a, b, left, right, bump in (
        ("sft", "rft", 0.30, 0.29, 0.0),
        ("sft", "dft", 0.30, 0.41, 0.01),
        ("sft", "rift", 0.30, 0.33, 0.0),
        ("sft", "offline_grpo", 0.30, 0.62, 0.08),
        ("sft", "dpo", 0.30, 0.44, 0.02),
        ("rift", "dpo", 0.33, 0.44, 0.05),
        ("sft", "sft-order43", 0.30, 0.31, 0.0),
        ("sft", "sft-init43", 0.30, 0.30, 0.03),
    ):
        loss = right + (left - right) * weights + 4 * bump * weights * (1 - weights)
        paths.append({"a": a, "b": b, "weights": weights.tolist(), "loss": loss.tolist(), "barrier": bump})
    return paths


def _rollouts() -> dict:
    return {
        "source": "vllm",
        "rows": 2000,
        "problems": 500,
        "train_rows": 1800,
        "heldout_rows": 200,
        "share_right": 0.618,
        "groups": {"mixed": 374, "all_right": 82, "all_wrong": 44},
        "duplicates": 611,
        "right_counts": [44, 118, 141, 115, 82],
        "length": {
            "median": 16,
            "p95": 21,
            "max": 32,
            "right": {"median": 16, "p95": 20, "max": 24},
            "wrong": {"median": 17, "p95": 22, "max": 32},
        },
        "teachers": [{"name": "base, prefixed “Explain.”", "rows": 2000, "share_right": 0.618}],
        "asked": "{problem} Explain.",
        "tokens": {"rows": 2000, "parted": 0, "first": None, "mended": {}, "as_drawn": 0, "end": "<eos>"},
        "dropped": {"answer too long": 4},
        "views": [
            {"method": "sft", "units": 1800, "rows": 1800, "problems": 450},
            {"method": "rft", "units": 1112, "rows": 1112, "problems": 411},
            {"method": "dpo", "units": 346, "rows": 692, "problems": 346},
        ],
        "contamination": {"policy": "exclude", "checked": 1400, "excluded": 0},
    }


def _points(tasks: list[dict]) -> list[dict]:
    return [
        {
            "name": row[0],
            "learning_rate": row[3],
            "norm": row[5],
            "cosine_to_sft": row[4],
            "nll_right": 0.3 + 0.02 * row[5] if row[5] else None,
            "a_moved_rel": 0.02 * row[5] if row[5] else None,
            "accuracy": {t["task"]: m["accuracy"] for t in tasks for m in t["models"] if m["name"] == row[0]},
        }
        for row in MODELS
        if row[1] == "dpo" and row[2] != "rate"
    ]


def results() -> dict:
    """The whole results of the synthetic study as they stand in results.json, for a test to change."""
    generator = np.random.default_rng(7)
    tasks = [_task("arithmetic", "Two-step arithmetic", 1000, 0.0, generator)]
    tasks.append(_task("arithmetic-long", "Three-step arithmetic", 400, -0.22, generator, samples=4))
    geometry = _geometry()
    return _attributed(
        {
            "version": VERSION,
            "study": {
                "name": "tiny",
                "title": "Six objectives, one tiny base",
                "question": "Do six objectives write different updates, or one update with another step size?",
                "settings": {
                    "training.rank": 16,
                    "training.learning_rate": 1e-3,
                    "methods.dpo.learning_rate": 1e-4,
                    "seeds": [42, 43],
                    "evaluation.greedy": True,
                },
            },
            "base": {
                "name": "from_scratch",
                "kind": "from_scratch",
                "revision": "made by this study",
                "parameters": 823_424,
                "layers": LAYERS,
                "modules": 4 * LAYERS,
                "hidden": 128,
            },
            "rollouts": _rollouts(),
            "trainings": [_training(row) for row in MODELS],
            "curves": [_curve(row, generator) for row in MODELS if row[5]],
            "losses": [
                {
                    "name": name,
                    "nll_right": 0.30 + 0.02 * i,
                    "nll_wrong": 0.62 + 0.05 * i,
                    "kl_to_base": 0.0 if i == 0 else 0.02 * i,
                }
                for i, name in enumerate(["base", *TRAINED])
            ],
            "sweep": {"method": "dpo", "matched_learning_rate": 1e-3, "points": _points(tasks)},
            "search": [_search("sft", 1e-3, (1e-4, 1e-3)), _search("dpo", 1e-4, (3e-5, 1e-4, 3e-4, 3e-3))],
            "evaluation": {
                "tasks": tasks,
                "canary": [
                    {
                        "name": name,
                        "max_difference": 3.1e-6,
                        "tolerance": 1e-3,
                        "passed": True,
                        "effect": 0.0 if name == "base" else 0.8,
                        "told_apart": name != "base",
                    }
                    for name in ["base", *TRAINED]
                ],
                "controls": [
                    {
                        "name": name,
                        "max_difference": 2.2e-6,
                        "tolerance": 1e-3,
                        "passed": True,
                        "effect": 0.0,
                        "told_apart": True,
                        "checks": 1 + len(TRAINED),
                    }
                    for name in ("base", "zero")
                ],
                "engine": {
                    "kind": "vllm",
                    "adapters": "lora",
                    "precision": "float32",
                    "max_model_len": 256,
                    "batch_size": 256,
                    "threads": 1,
                    "seed": 0,
                    "shard": 500,
                    "parts": 1,
                },
            },
            "geometry": geometry,
            "activations": _activations(),
            "spectra": _spectra(),
            "directions": _directions(geometry),
            "connectivity": {
                "loss": "nats a token of held-out right completions",
                "rows": 123,
                "paths": _paths(),
            },
            "similarity": _similarity(),
            "headline": _headline(tasks),
            "failures": [{"step": "train/dpo-lr3e-3", "error": ERROR, "dependants": ["evaluate/dpo-lr3e-3"]}],
        }
    )


def _attributed(told: dict) -> dict:
    """The same with what its own numbers say of the factors, and of methods at one rate."""
    found = Results.model_validate(told)
    assert found.geometry is not None
    generator = np.random.default_rng(3)
    shares = {
        task.task: {row.name: (generator.random(task.n) < row.accuracy).astype(float) for row in task.models}
        for task in found.tasks
    }
    moved = attribution(found.geometry, found.activations, found.trainings, 0)
    beside = matched(
        found.trainings,
        "sft",
        found.geometry,
        found.activations,
        found.losses or [],
        shares,
        similarity=found.similarity,
        connectivity=found.connectivity,
    )
    assert moved is not None
    return told | {"attribution": dump(moved), "matched": [dump(row) for row in beside]}


@cache
def typed() -> Results:
    """The same in types."""
    return Results.model_validate(results())


def provenance() -> dict:
    """Where and how fast the synthetic study ran."""
    steps = [
        ("base", 92.4, 11.0, False),
        ("rollouts", 31.5, 17.2, False),
        ("train/sft", 14.2, 3.0, False),
        ("train/dpo", 30.8, 3.1, False),
        ("evaluate", 44.1, 17.9, False),
        ("geometry", 2.1, 0.4, True),
    ]
    return {
        "started": "2026-11-22T12:00:00Z",
        "wall_seconds": 287.4,
        "versions": {
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.19.0",
            "peft": "0.21.2",
            "vllm": "0.32.0",
        },
        "machine": {"cores": 2, "memory_gib": 24, "gpu": None},
        "steps": [
            {"step": name, "seconds": seconds, "startup_seconds": startup, "cached": cached}
            for name, seconds, startup, cached in steps
        ],
    }


def begun_at_b(given: dict) -> dict:
    """``given`` as though every training had drawn its B and begun with A = 0."""
    geometry = given["geometry"]
    for row in (*given["trainings"], *geometry["adapters"], *geometry["adapter_modules"], geometry["chance"]):
        row["start"] = "b"
    return given
