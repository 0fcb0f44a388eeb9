"""Results of a study drawn at random: any replicas of any method, some updates zero or noise, evaluated or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np

from analysis.statistics.significance import holm, mcnemar_exact

LABELS = {"sft": "SFT", "rft": "RFT", "dft": "DFT", "offline_grpo": "Offline GRPO", "dpo": "DPO"}
RATE = 1e-3
PROBLEMS = 120


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
    """Results, what each of their runs is, and whose update is noise."""

    results: dict
    keys: dict[str, Key] = field(default_factory=dict)
    noise: set[str] = field(default_factory=set)


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
    norms = {name: float(np.linalg.norm(vector)) for name, vector in updates.items()}
    pairs, names = [], list(updates)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            scale = norms[a] * norms[b]
            cosine = float(np.clip(updates[a] @ updates[b] / scale, -1, 1)) if scale else None
            first, second = (a, b) if random.random() < 0.5 else (b, a)
            pairs.append({"a": first, "b": second, "cosine": cosine})
    return {
        "adapters": [{"name": name, "norm": norm} for name, norm in norms.items()],
        "pairs": pairs,
        "chance": {"shared_a": {"cosine": 0.004}},
    }


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
            p = mcnemar_exact(fell, rose)
            pairs.append({"a": a, "b": b, "test": "mcnemar", "p": p, "difference": (rose - fell) / PROBLEMS})
    for row, adjusted in zip(pairs, holm([row["p"] for row in pairs]), strict=True):
        row["p_holm"] = adjusted
    models = [
        {"name": name, "n": PROBLEMS, "samples": 1, "accuracy": float(right[name].mean()), "truncated": cut[name]}
        for name in names
    ]
    sampling = {"samples": 1, "temperature": 0.0, "max_tokens": 64}
    return {"task": "sums", "title": "Sums", "n": PROBLEMS, "sampling": sampling, "models": models, "pairs": pairs}


def drawn(seed: int) -> Drawn:
    """The results that this seed gives."""
    random = Random(seed)
    runs = _runs(random)
    trained = {name: (key, role) for name, (key, role) in runs.items() if random.random() < 0.95}
    results: dict = {
        "trainings": [
            {
                "name": name, "method": key.method, "role": role, "of": None if role == "method" else key.method,
                "learning_rate": key.rate, "init_seed": key.init, "order_seed": key.order, "report_step": 100,
                "status": "done" if name in trained else "not run", "error": None,
            }
            for name, (key, role) in runs.items()
        ],
        "geometry": _geometry(random, _updates(random, trained)),
        "headline": [
            {"name": name, "compared_to": "sft", "matched": "as published" if role == "method" else "learning rate"}
            for name, (key, role) in trained.items()
            if role == "method" or (role == "sweep" and key.rate == RATE)
        ],
    }  # fmt: skip
    if random.random() < 0.7:
        asked = {"base": None} | {name: key for name, (key, _) in trained.items()}
        answered = {name: key for name, key in asked.items() if random.random() < 0.9}
        results["evaluation"] = {"tasks": [_task(random, answered)]} if answered else {}
    keys = {name: key for name, (key, _) in runs.items()}
    if (
        "sft" in trained and random.random() < 0.2
    ):  # as adapters from elsewhere are compared: some or all are names alone
        foreign = {key.method for key in keys.values() if random.random() < 0.7}
        results = {part: results[part] for part in ("trainings", "geometry")}
        results["trainings"] = [row for row in results["trainings"] if row["method"] not in foreign]
        results["headline"] = [{"name": name, "compared_to": "sft"} for name in trained]
        keys = {n: Key(n, None, None, None) if key.method in foreign else key for n, key in keys.items()}
    if random.random() < 0.3:
        for row in results["trainings"]:  # as rows of an older run have it
            del row["of"]
    marks = Random(f"noise {seed}")  # of its own, so that all else is as drawn without it
    noise = [row for row in results["trainings"] if row["status"] == "done" and marks.random() < 0.05]
    for row in noise:
        row["noise"] = True
    return Drawn(results, keys, {row["name"] for row in noise})
