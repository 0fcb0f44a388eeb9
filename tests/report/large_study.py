"""Results of a study of many trainings, which lists few pairs: drawn, as large as is asked for."""

from __future__ import annotations

from itertools import combinations
from random import Random

import numpy as np
import torch

from analysis.weights.geometry import module_geometry
from analysis.weights.summary import summarise
from models.adapter import Factors
from orchestrator.results.attribution import attribution
from orchestrator.results.matched import matched
from orchestrator.results.reference import directions, with_floors
from results import VERSION, Results
from results.weights import MeasuredGeometry
from tests.report.drawn_study import MODULE, RATE, Key, _evaluation, _headline, _training, _updates, drawn

METHODS = ("sft", "rft", "dft", "dpo")
RATES = (RATE, RATE / 10)


def large(orders: int, everything: bool = False) -> Results:
    """4 methods x 2 rates x ``orders``; with ``everything`` every pair is listed, as in a small study."""
    runs: dict[str, tuple[Key, str]] = {}
    for method in METHODS:
        for rate in RATES:
            for order in range(42, 42 + orders):
                parts = [method, *([f"lr{rate:g}"] if rate != RATE else []), *([f"order{order}"] if order > 42 else [])]
                role = {(): "method", ("l",): "sweep", ("o",): "order"}.get(
                    tuple(part[0] for part in parts[1:]), "cell"
                )
                runs["-".join(parts)] = Key(method, rate, 42, order), role
    random = Random(orders)
    updates = {name: update + 1e-9 for name, update in _updates(random, runs).items()}
    trainings = [_training(name, key, role, True) for name, (key, role) in runs.items()]
    results: dict = {"version": VERSION, "trainings": trainings, "geometry": _geometry(updates, runs, everything)}
    results["evaluation"] = _evaluation(random, {"base": None} | {name: key for name, (key, _) in runs.items()})
    if not everything:
        overall = len(results["geometry"]["pairs"])
        results["kept_pairs"] = {"trainings": len(runs), "beside": "sft", "overall": overall}
        for task in results["evaluation"]["tasks"]:
            task["pairs"] = [pair for pair in task["pairs"] if {"base", "sft"} & {pair["a"], pair["b"]}]
    results["headline"] = _headline(results, runs)
    found = Results.model_validate({"version": VERSION, "trainings": trainings})
    geometry = with_floors(MeasuredGeometry.model_validate(results["geometry"]), found.trainings, "sft")
    results["geometry"]["floors"] = geometry.floors.model_dump(exclude_unset=True)
    turned = attribution(geometry, None, found.trainings, 0, np.array(geometry.gram)[None])
    beside = directions(geometry, found.trainings, "sft")
    equal = matched(found.trainings, "sft", geometry, None, [], {})
    assert turned is not None and beside is not None
    return Results.model_validate(
        results
        | {"attribution": turned.model_dump(exclude_unset=True), "directions": beside.model_dump(exclude_unset=True)}
        | {"matched": [row.model_dump(exclude_unset=True) for row in equal]}
    )


def _geometry(updates: dict[str, np.ndarray], runs: dict[str, tuple[Key, str]], everything: bool) -> dict:
    """Pairs with sft and with the first order of the same method and rate, those with sft by layer and module too."""
    factors = [Factors(torch.ones(1, 1, dtype=torch.float64), torch.tensor(row)[None]) for row in updates.values()]
    names, keys = list(updates), [key for key, _ in runs.values()]
    every = list(combinations(range(len(names)), 2))
    kept = [(i, j) for i, j in every if names[i] == "sft" or (keys[i].order == 42 and keys[i].family == keys[j].family)]
    pairs = np.array(every if everything else kept)
    beside = None if everything else (pairs == names.index("sft")).any(1)
    found = summarise(names, {MODULE: module_geometry(factors, pairs=pairs)}, pairs, beside)
    for row in (*found["adapters"], *found["adapter_modules"]):
        row |= {"a_moved_rel": 0.01, "start_share": 0.9}
    rest = drawn(1).results["geometry"]
    itself = rest["itself"] | {"a": names[0], "b": names[0]}
    return found | {"along": rest["along"], "chance": rest["chance"] | {"of": names[0]}, "itself": itself}
