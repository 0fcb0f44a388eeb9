"""Results of a study drawn at random: any replicas of any method, some updates zero or noise, evaluated or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from random import Random

import numpy as np
import torch

from analysis.statistics.significance import holm, mcnemar_exact, paired_interval, smallest_difference, wilson
from analysis.weights.geometry import module_geometry
from analysis.weights.summary import summarise
from models.adapter import Factors
from orchestrator.results.attribution import attribution
from orchestrator.results.reference import with_floors
from results import VERSION, Results
from results.weights import MeasuredGeometry

LABELS = {"sft": "SFT", "rft": "RFT", "dft": "DFT", "offline_grpo": "Offline GRPO", "dpo": "DPO"}
RATE = 1e-3
PROBLEMS = 120
MODULE = "model.layers.0.mlp.down_proj"
BESIDE = ("cosine", "angle_min_median_deg", "u1", "v1")  # what the headline repeats of a pair
IDENTITY = (
    "name", "method", "objective", "role", "of", "learning_rate", "init_seed", "order_seed", "report_step", "status",
    "error",
)  # fmt: skip
COURSE = {
    "settings": {}, "steps": 100, "run_steps": 100, "report_step": 100, "units": 3200, "rows_seen": 3200,
    "tokens_seen": 50_000, "epochs": 2.0, "distinct_problems": 300, "distinct_rows": 1600, "loss_first": 0.4,
    "loss_last": 0.3, "gradient_wrong": None, "nll_pushed_first": None, "nll_pushed_last": None,
    "heldout_nll_right": None, "heldout_nll_wrong": None, "heldout_kl": None, "clip_rate": 0.5, "noise_steps": 0,
    "noise": False, "a_moved_rel": 0.01, "b_norm": 1.0, "view_rows": 1600, "view_units": 1600, "equal_pairs": 0,
    "out_of_memory": [],
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """What a run is, by which the tests know it: not by what the results say of it."""

    method: str
    rate: float | None
    init: int | None
    order: int | None

    @property
    def family(self) -> tuple[str, float | None, int | None]:
        return self.method, self.rate, self.init


@dataclass
class Drawn:
    """Results as they stand in results.json, what each of their runs is, and whose update is noise."""

    results: dict
    keys: dict[str, Key] = field(default_factory=dict)
    noise: set[str] = field(default_factory=set)

    @cached_property
    def typed(self) -> Results:
        """The results in types."""
        return Results.model_validate(self.results)


def _runs(random: Random) -> dict[str, tuple[Key, str]]:
    """Each run's key and role, by name."""
    found = {}
    for method in ["sft", *random.sample(sorted(LABELS.keys() - {"sft"}), random.randint(1, 3))]:
        rate = RATE if method == "sft" or random.random() < 0.7 else RATE / 10
        found[method] = Key(method, rate, 42, 42), "method"
        for other in {RATE, RATE * 3} - {rate} if random.random() < 0.4 else ():
            role = "rate" if method == "sft" else "sweep"
            found[f"{method}-lr{other:g}"] = Key(method, other, 42, 42), role
        for seed in range(43, 43 + random.choice([0, 0, 1, 1, 2, 3])):
            found[f"{method}-order{seed}"] = Key(method, rate, 42, seed), "order"
        for seed in range(43, 43 + random.choice([0, 0, 0, 1, 2])):
            found[f"{method}-init{seed}"] = Key(method, rate, seed, 42), "init"
    return found


def _updates(random: Random, runs: dict[str, tuple[Key, str]]) -> dict[str, np.ndarray]:
    """Vectors: a method's own direction near a common one, moved by its rate and by chance; few dimensions."""
    generator = np.random.default_rng(random.getrandbits(32))
    size = random.choice([3, 8, 40])
    common = generator.normal(size=size)
    unlike, steady = (
        random.choice([0.0, 0.3, 2.0]),
        {key.method: random.choice([0.02, 0.2, 3.0]) for key, _ in runs.values()},
    )
    own = {(m, rate): unlike * generator.normal(size=size) for m in steady for rate in (RATE, RATE / 10, RATE * 3)}
    found = {}
    for name, (key, _) in runs.items():
        centre = common + own[key.method, key.rate]
        found[name] = (centre + steady[key.method] * generator.normal(size=size)) * key.rate
        if key.init != 42:
            found[name] = generator.normal(size=size) * key.rate
        if random.random() < 0.04:
            found[name] = np.zeros(size)
    return found


def _geometry(random: Random, updates: dict[str, np.ndarray]) -> dict:
    """Each update as the one row of a weight of 1 x its size, measured as an adapter's is; pairs either way round."""
    factors = [Factors(torch.ones(1, 1, dtype=torch.float64), torch.tensor(row)[None]) for row in updates.values()]
    found = summarise(list(updates), {MODULE: module_geometry(factors)})
    for pair in found["pairs"]:
        if random.random() >= 0.5:
            pair["a"], pair["b"] = pair["b"], pair["a"]
    for row in (*found["adapters"], *found["adapter_modules"]):
        row |= {"a_moved_rel": 0.01, "start_share": 0.9}
    first = next(iter(updates))
    (itself,) = summarise([first, "itself"], {MODULE: module_geometry([factors[0], factors[0]])})["pairs"]
    sides = {f"{side}angle_{end}_median_deg": 60.0 for side in ("", "right_") for end in ("min", "max")}
    chance = {"cosine": 0.004, **sides, "u1": 0.3, "v1": 0.3, "overlap": 0.25, "right_overlap": 0.25}
    return found | {
        "itself": itself | {"b": first},
        "along": {"pairs": [], "adapters": []},
        "chance": {"draws": 2, "ambient": chance, "shared_a": chance, "of": first},
    }


def _training(name: str, key: Key, role: str, done: bool) -> dict:
    row = {
        "name": name, "method": key.method, "objective": key.method, "role": role,
        "of": None if role == "method" else key.method, "learning_rate": key.rate, "init_seed": key.init,
        "order_seed": key.order, "status": "done" if done else "not run", "error": None,
    }  # fmt: skip
    return COURSE | row if done else row


def _headline(results: dict, trained: dict[str, tuple[Key, str]]) -> list[dict]:
    rows = {row["name"]: row for row in results["geometry"]["adapters"]}
    pairs = {frozenset((row["a"], row["b"])): row for row in results["geometry"]["pairs"]}
    tasks = results.get("evaluation", {}).get("tasks", [])
    return [
        {
            "name": name, "compared_to": "sft", "learning_rate": key.rate, "norm": rows[name]["norm"],
            "matched": "as published" if role == "method" else "learning rate" if key.rate == RATE else "sweep",
            **{key: pairs.get(frozenset(("sft", name)), {}).get(key) for key in BESIDE},
            "accuracy": {t["task"]: m["accuracy"] for t in tasks for m in t["models"] if m["name"] == name},
        }
        for name, (key, role) in trained.items()
        if role in ("method", "sweep")
    ]  # fmt: skip


def _task(random: Random, keys: dict[str, Key | None]) -> dict:
    names = list(keys)
    generator = np.random.default_rng(random.getrandbits(32))
    kind = random.choice(["spread", "spread", "alike", "none", "all"])
    shares = {"none": [0.0], "all": [1.0], "alike": [0.5], "spread": [0.2, 0.3, 0.5, 0.8]}[kind]
    latent = generator.random(PROBLEMS)
    usual = {key and key.family: random.choice(shares) for key in keys.values()}
    chances = {n: usual[k and k.family] if random.random() < 0.9 else random.choice(shares) for n, k in keys.items()}
    right = {name: latent + generator.normal(0, 0.03, PROBLEMS) < chance for name, chance in chances.items()}
    if kind in ("none", "all"):
        right = {name: np.full(PROBLEMS, kind == "all") for name in names}
    cut = {name: random.choice([0, 3, 30, PROBLEMS]) if random.random() < 0.4 else 0 for name in names}
    pairs = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            fell, rose = int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())
            low, high = paired_interval(fell, rose, PROBLEMS)
            pairs.append(
                {
                    "a": a, "b": b, "test": "mcnemar", "only_a": fell, "only_b": rose, "p": mcnemar_exact(fell, rose),
                    "difference": (rose - fell) / PROBLEMS, "low": low, "high": high,
                    "agreement": 1 - (rose + fell) / PROBLEMS,
                }
            )  # fmt: skip
    for row, adjusted in zip(pairs, holm([row["p"] for row in pairs]), strict=True):
        row["p_holm"] = adjusted
    models = [_score(name, int(right[name].sum()), cut[name]) for name in names]
    solved = np.array(list(right.values()))
    alone = {name: np.flatnonzero(own & (solved.sum(0) == 1)) for name, own in right.items()}
    tests = {"single": 1, "holm": max(1, len(pairs))}
    return {
        "task": "sums",
        "title": "Sums",
        "n": PROBLEMS,
        "samples": 1,
        "sampling": {"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 64, "seed": 0},
        "models": models,
        "pairs": pairs,
        "strata": [],
        "smallest_difference": {name: smallest_difference(PROBLEMS, 0.05, count) for name, count in tests.items()},
        "solved_by_all": int(solved.all(0).sum()),
        "solved_by_none": int((~solved.any(0)).sum()),
        "alone": [
            {"name": name, "count": len(of), "ids": [f"q{i}" for i in of[:20]]}
            for name, of in alone.items()
            if len(names) > 1
        ],
    }


def _score(name: str, right: int, cut: int) -> dict:
    low, high = wilson(right, PROBLEMS)
    return {
        "name": name, "n": PROBLEMS, "samples": 1, "correct": right, "accuracy": right / PROBLEMS, "low": low,
        "high": high, "pass_at": {"1": right / PROBLEMS}, "maj": None, "truncated": cut, "not_found": 0,
        "mean_tokens": 20.0, "median_tokens": 20, "p95_tokens": 30,
    }  # fmt: skip


def _evaluation(random: Random, keys: dict[str, Key | None]) -> dict:
    row = {"max_difference": 1e-6, "tolerance": 5e-4, "passed": True, "effect": 0.1, "told_apart": True}
    engine = {
        "kind": "vllm", "adapters": "lora", "precision": "float32", "max_model_len": 256, "batch_size": 256,
        "threads": 1, "seed": 0, "shard": 500, "parts": 1,
    }  # fmt: skip
    return {
        "tasks": [_task(random, keys)],
        "canary": [{"name": name, **row} for name in keys],
        "controls": [{"name": name, **row, "checks": len(keys)} for name in ("base", "zero")],
        "engine": engine,
    }


def drawn(seed: int) -> Drawn:
    """The results that this seed gives."""
    random = Random(seed)
    runs = _runs(random)
    trained = {name: (key, role) for name, (key, role) in runs.items() if random.random() < 0.95}
    results: dict = {
        "version": VERSION,
        "trainings": [_training(name, key, role, name in trained) for name, (key, role) in runs.items()],
        "geometry": _geometry(random, _updates(random, trained)),
    }
    if random.random() < 0.7:
        asked = {"base": None} | {name: key for name, (key, _) in trained.items()}
        answered = {name: key for name, key in asked.items() if random.random() < 0.9}
        if answered:
            results["evaluation"] = _evaluation(random, answered)
    results["headline"] = _headline(results, trained)
    keys = {name: key for name, (key, _) in runs.items()}
    marks = Random(f"noise {seed}")  # of its own, so that all else is as drawn without it
    # as adapters from elsewhere are compared: some or all are names alone, and none is known to be noise
    if "sft" in trained and random.random() < 0.2:
        foreign = {key.method for key in keys.values() if random.random() < 0.7}
        known = {name for name, key in keys.items() if name in trained and key.method not in foreign}
        keys = {n: Key(n, None, None, None) if key.method in foreign else key for n, key in keys.items()}
        results = _compared(results, known)
    else:
        for row in results["trainings"]:
            row |= {"noise": True, "noise_steps": 100} if row["status"] == "done" and marks.random() < 0.05 else {}
    found = Results.model_validate({"version": VERSION, "trainings": results["trainings"]})
    geometry = with_floors(MeasuredGeometry.model_validate(results["geometry"]), found.trainings, "sft")
    results["geometry"]["floors"] = geometry.floors.model_dump(exclude_unset=True)
    turned = None if "comparison" in results else attribution(geometry, None, found.trainings, seed)
    results |= {} if turned is None else {"attribution": turned.model_dump(exclude_unset=True)}
    return Drawn(results, keys, {row["name"] for row in results["trainings"] if row.get("noise")})


def _compared(results: dict, known: set[str]) -> dict:
    """The same adapters in a comparison, of which this tool trained those in ``known``."""
    names = [row["name"] for row in results["geometry"]["adapters"]]
    rows = [row for row in results["trainings"] if row["name"] in known]
    told = {row["name"]: row["matched"] for row in results["headline"]}
    hidden = {row["name"] for row in rows if row["role"] not in ("method", "sweep")}
    return {
        "version": VERSION,
        "geometry": results["geometry"],
        "trainings": [{key: row[key] for key in IDENTITY} for row in rows],
        "headline": [
            {"name": name, "compared_to": "sft", "matched": told[name] if name in known else None}
            for name in names
            if name not in hidden
        ],
        "comparison": {
            "adapters": [{"name": name, "base": None, "modules": 1, "rslora": False} for name in names],
            "shared_modules": 1,
            "notes": [],
        },
    }
