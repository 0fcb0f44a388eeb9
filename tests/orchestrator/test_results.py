"""From finished steps to results: made-up files of every kind, joined by hand."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from statsmodels.stats.proportion import proportion_confint

from execution.errors import UserError
from execution.runner import DagRunner, Outcome
from execution.step import Step
from execution.store import Store, open_store, write_json
from orchestrator import cli
from orchestrator.config.study import Study
from orchestrator.results.gather import gather, settings_of
from orchestrator.results.reference import directions
from orchestrator.results.report_fingerprint import fingerprint
from orchestrator.results.write_report import RUN, provenance, shown
from orchestrator.rollouts.dataset import freeze, statistics_of, write_table
from orchestrator.runtime.threads import ENVIRONMENT
from orchestrator.steps.base import NOTE
from orchestrator.steps.evaluate import CANARY, VERDICTS
from results import Results, dump

NORMS = {"sft": 2.0, "rft": 1.5, "dpo": 0.2, "dpo-lr3e-4": 1.9, "sft-order43": 2.1, "sft-init43": 2.2}
# Which of the four problems each model answers; problems 0 and 1 are easy.
RIGHT = {
    "base": {0, 1, 2}, "sft": {0}, "rft": {0, 1}, "dpo": {0, 1, 2, 3}, "dpo-lr3e-4": {3}, "sft-order43": {0},
    "sft-init43": set(),
}  # fmt: skip
MEASURES = {
    "cosine": 0.5, "orthogonal_fraction": 0.75**0.5, "angle_min_median_deg": 5.0, "angle_max_median_deg": 80.0,
    "right_angle_min_median_deg": 3.0, "right_angle_max_median_deg": 70.0, "u1": 0.9, "v1": 0.8, "overlap": 0.4,
    "right_overlap": 0.6, "gap_median": 0.2, "k": 4, "k_max": 4, "defined_modules": 16,
}  # fmt: skip
# problem 0 is mixed, 1 all right, 2 all wrong, 3 mixed
REWARDS = [[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 0, 1]]


def write_step(step: Step, out: Path) -> None:
    """What a step of each kind leaves, small enough to reckon with."""
    WRITERS[step.kind.name](step, out)


def _base(step: Step, out: Path) -> None:
    note = {"name": step.name, "kind": step.config["kind"], "revision": "made by this study", "folder": "/somewhere"}
    write_json(out / NOTE, note | {"parameters": 900, "layers": 4, "hidden": 8})


def _rollouts(step: Step, out: Path) -> None:
    rows = [
        {
            "problem_id": f"p{i}", "problem": f"{i}?", "answer": "1", "completion": str(k), "teacher": "t",
            "reward": float(r), "prompt_ids": [3], "completion_ids": [4 + k, 1],
        }
        for i, rewards in enumerate(REWARDS)
        for k, r in enumerate(rewards)
    ]  # fmt: skip
    table = freeze(rows, {"heldout": 0.0, "rows": None, "seed": 0})
    write_table(table, out)
    tokens = {"rows": len(rows), "parted": 0, "first": None, "mended": {}, "as_drawn": 0, "end": "<eos>"}
    told = {"asked": "{problem}", "tokens": tokens, "dropped": {}, "source": "vllm"}
    write_json(out / "statistics.json", statistics_of(table) | told)


def _problems(step: Step, out: Path) -> None:
    problems = [
        {"id": f"q{i}", "problem": f"1 + {i}?", "answer": "1", "stratum": "easy" if i < 2 else "hard", "prompt": "?"}
        for i in range(4)
    ]
    write_json(
        out / "problems.json",
        {
            "tasks": [{"task": "arithmetic", "title": "Arithmetic", "problems": problems}],
            "contamination": {"policy": "refuse", "checked": 4, "excluded": 0},
        },
    )


def _train(step: Step, out: Path) -> None:
    write_json(
        out / "training.json",
        {
            "method": step.config["method"], "settings": {}, "learning_rate": step.config["learning_rate"], "steps": 4,
            "run_steps": 4, "report_step": 4, "units": 8, "rows_seen": 8, "tokens_seen": 16, "epochs": 0.5,
            "distinct_problems": 4, "distinct_rows": 8, "loss_first": 1.0, "loss_last": 1.0, "gradient_wrong": None,
            "nll_pushed_first": None, "nll_pushed_last": None, "heldout_nll_right": None, "heldout_nll_wrong": None,
            "heldout_kl": None, "clip_rate": 1.0, "noise_steps": 0, "noise": False,
            "a_moved_rel": NORMS[step.name] / 100, "b_norm": 0.3, "view_rows": 12, "view_units": 12, "equal_pairs": 0,
            "out_of_memory": [],
        },
    )  # fmt: skip
    line = {"loss": 1.0, "grad_norm": 2.0, "learning_rate": 3e-4, "a_moved": 0.1, "a_moved_rel": 0.2, "b_norm": 0.3}
    (out / "log.jsonl").write_text("".join(json.dumps(line | {"step": s}) + "\n" for s in (1, 2)))


def _evaluate(step: Step, out: Path) -> None:
    rows = [
        {
            "task": "arithmetic", "id": f"q{i}", "sample": 0, "stratum": "easy" if i < 2 else "hard", "answer": "1",
            "completion": f"{step.role} says {i}", "extracted": None if i == 3 else "1",
            "vote": None if i == 3 else "1", "correct": i in RIGHT[step.role], "tokens": 10 * (i + 1),
            "finish": "length" if i == 2 else "stop",
        }
        for i in range(4)[step.config["part"] :: step.config["parts"]]
    ]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table({c: [r[c] for r in rows] for c in rows[0]}), out / VERDICTS)
    row = {"max_difference": 1e-6 * (1 + step.config["part"]), "passed": True, "tolerance": 5e-4, "effect": 0.1}
    names = ["base", "zero"] + ["adapter"] * ("adapter" in step.inputs)
    write_json(out / CANARY, [row | {"name": name, "told_apart": name == "adapter"} for name in names])


def _geometry(step: Step, out: Path) -> None:
    names = [role.removeprefix("adapter:") for role in step.inputs]
    chance = {key: 0.5 for key in MEASURES if not key.startswith(("k", "gap", "orthogonal", "defined"))}
    pairs = [
        {"a": b, "b": a, **MEASURES, "cosine": round(0.1 * (i + 1), 2), "angle_min_median_deg": 5.0 + i}
        for i, (a, b) in enumerate(itertools.combinations(names, 2))
    ]
    sizes = {n: {"norm": NORMS[n], "effective_rank": 2.0, "stable_rank": 1.5} for n in names}
    spectrum = {"modules": 16, "zero_modules": 0, "rank": 4, "gap_median": 0.5, "first_gap_median": 0.5}
    start, place = {"a_moved_rel": 0.1, "start_share": 0.9}, {"module": "0.q_proj", "layer": 0, "projection": "q_proj"}
    parts = {
        "adapter_layers": [{"name": n, "layer": 0, **sizes[n]} for n in names],
        "adapter_projections": [{"name": n, "projection": "q_proj", **sizes[n]} for n in names],
        "adapter_modules": [{"name": n, **place, **sizes[n], **start} for n in names],
        "layers": [],
        "projections": [],
        "modules": [],
        "gram": gram_of(names),
        "itself": {"a": names[0], "b": names[0], **MEASURES, "cosine": 1.0},
        "along": {
            "pairs": [{"step": 2, **row} for row in pairs],
            "adapters": [{"step": 2, "name": n, **sizes[n], **spectrum, "to_end": 0.5} for n in names],
        },
        "chance": {"draws": 2, "ambient": chance, "shared_a": chance, "of": names[0]},
    }
    adapters = [{"name": n, **sizes[n], **spectrum, **start} for n in names]
    write_json(out / "geometry.json", {"k": 4, "adapters": adapters, "pairs": pairs, **parts})


def gram_of(names: Sequence[str]) -> list[list[float]]:
    """Inner products of updates of which every two have cosine 1/2."""
    return [[NORMS[a] * NORMS[b] * (1.0 if a == b else 0.5) for b in names] for a in names]


def _activations(step: Step, out: Path) -> None:
    names = [role.removeprefix("adapter:") for role in step.inputs if role.startswith("adapter:")]
    pairs = [{"a": a, "b": b, "cosine": 0.7} for a, b in itertools.combinations(names, 2)]
    adapters = [{"name": n, "norm": 10 * NORMS[n]} for n in names]
    found = {"rows": 8, "tokens": 80, "adapters": adapters, "pairs": pairs, "layers": [], "projections": []}
    write_json(out / "activations.json", found | {"gram": gram_of(names), "modules": 16, "chance": 0.1, "left_out": []})


def _spectra(step: Step, out: Path) -> None:
    names = [role.removeprefix("adapter:") for role in step.inputs if role.startswith("adapter:")]
    shares = {"both": 0.01, "left": 0.1, "right": 0.2}
    counts = {"intruders": 3, "modules": 16, "zero_modules": 0}
    adapters = [{"name": n, **shares, "relative_norm": 0.05, "relative_sigma_median": 0.1, **counts} for n in names]
    found = {"k": 10, "threshold": 0.5, "adapters": adapters, "layers": [], "projections": [], "modules": []}
    write_json(out / "spectra.json", found | {"chance": shares, "left_out": []})


def _losses(step: Step, out: Path) -> None:
    right = 1.0 + ["base", *NORMS].index(step.name)
    write_json(out / "losses.json", {"name": step.name, "nll_right": right, "nll_wrong": 2.0, "kl_to_base": 0.0})


def _connectivity(step: Step, out: Path) -> None:
    paths = {"loss": "nats a token of right held-out completions", "rows": 2, "paths": []}
    write_json(out / "connectivity.json", paths)


def _similarity(step: Step, out: Path) -> None:
    how = {"estimator": "debiased linear CKA", "position": "last", "prompts": 6}
    write_json(out / "similarity.json", how | {"hidden": [], "modules": []})


WRITERS: dict[str, Callable[[Step, Path], None]] = {
    "base": _base, "rollouts": _rollouts, "problems": _problems, "train": _train, "evaluate": _evaluate,
    "geometry": _geometry, "activations": _activations, "spectra": _spectra, "losses": _losses,
    "connectivity": _connectivity, "similarity": _similarity,
    "features": lambda step, out: (out / "grams.safetensors").write_bytes(b""),
    "reference": lambda step, out: (out / "reference.npy").write_bytes(b""),
}  # fmt: skip


@pytest.fixture
def ran(
    make_study: Callable[..., Study], plan_of: Callable[[Study], list[Step]], tmp_path: Path, stand_in: Any
) -> Callable[..., tuple[Study, Outcome, Store]]:
    """A function that runs the small study with made-up results into a new store."""

    def run(*overrides: str, name: str = "store", **how: Any) -> tuple[Study, Outcome, Store]:
        study, store = make_study(*overrides), open_store(tmp_path / name)
        executor = stand_in(store, write=write_step, **how)
        return study, DagRunner(plan_of(study), store, lambda line: None).run(lambda: executor), store

    return run


def told(*run: Any) -> dict[str, Any]:
    """What is gathered of a run, as ``results.json`` holds it."""
    return dump(gather(*run))


@pytest.fixture
def results(ran: Callable[..., Any]) -> dict[str, Any]:
    return told(*ran())


def pair(entries: list[dict[str, Any]], a: str, b: str) -> dict[str, Any]:
    return next(p for p in entries if {p["a"], p["b"]} == {a, b})


def test_results_are_json_without_paths_and_times(results: dict[str, Any]) -> None:
    text = json.dumps(results, allow_nan=False)
    assert "/somewhere" not in text and "seconds" not in text


def test_the_base_is_stated_with_its_adapted_modules(results: dict[str, Any]) -> None:
    sizes = {"parameters": 900, "layers": 4, "hidden": 8, "modules": 16}
    assert results["base"] == {"name": "scratch", "kind": "from_scratch", "revision": "made by this study"} | sizes


def test_accuracy_counts_and_intervals(results: dict[str, Any]) -> None:
    task = results["evaluation"]["tasks"][0]
    assert (task["task"], task["n"]) == ("arithmetic", 4)
    assert [m["name"] for m in task["models"]] == ["base", *NORMS]
    assert {m["name"]: (m["n"], m["correct"], m["accuracy"]) for m in task["models"]} == {
        name: (4, len(right), len(right) / 4) for name, right in RIGHT.items()
    }
    for model in task["models"]:
        assert (model["truncated"], model["not_found"], model["mean_tokens"]) == (1, 1, 25.0)
        low, high = proportion_confint(model["correct"], 4, method="wilson")
        assert (model["low"], model["high"]) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_models_are_compared_problem_by_problem(results: dict[str, Any]) -> None:
    pairs = results["evaluation"]["tasks"][0]["pairs"]
    assert len(pairs) == 7 * 6 // 2
    base_sft = pair(pairs, "base", "sft")
    assert (base_sft["a"], base_sft["only_a"], base_sft["only_b"], base_sft["p"]) == ("base", 2, 0, 0.5)
    crossed = pair(pairs, "base", "dpo-lr3e-4")
    assert (crossed["only_a"], crossed["only_b"]) == (3, 1)
    assert crossed["p"] == pytest.approx(2 * (1 + 4) / 2**4)  # exact binomial: 2 P(X <= 1), X ~ B(4, 1/2)
    assert pair(pairs, "sft", "sft-order43")["p"] == 1.0
    assert all(p["p_holm"] >= p["p"] for p in pairs)
    assert min(p["p"] for p in pairs) == pair(pairs, "dpo", "sft-init43")["p"] == 2 / 2**4


def test_strata_are_told_apart(results: dict[str, Any]) -> None:
    strata = {(s["name"], s["stratum"]): (s["n"], s["accuracy"]) for s in results["evaluation"]["tasks"][0]["strata"]}
    assert strata["base", "easy"] == (2, 1.0) and strata["base", "hard"] == (2, 0.5)
    assert strata["rft", "easy"] == (2, 1.0) and strata["rft", "hard"] == (2, 0.0)


def test_every_model_has_its_canary(results: dict[str, Any]) -> None:
    rows = results["evaluation"]["canary"]
    assert [c["name"] for c in rows] == ["base", *NORMS]
    assert [c["told_apart"] for c in rows] == [False] + [True] * len(NORMS), "each its own, not a control"
    controls = {c["name"]: (c["passed"], c["checks"]) for c in results["evaluation"]["controls"]}
    assert controls == {"base": (True, 7), "zero": (True, 7)}


def test_parts_of_an_evaluation_are_one(ran: Callable[..., Any], results: dict[str, Any]) -> None:
    """In any number of parts the verdicts are the same, in the problems' order; the worst canary counts."""
    found = told(*ran("evaluation.parts=3", name="parts"))["evaluation"]
    assert found["tasks"] == results["evaluation"]["tasks"] and "incomplete" not in found
    assert [row["max_difference"] for row in found["canary"]] == [3e-6] * 7
    assert {row["checks"] for row in found["controls"]} == {21}


def test_a_model_without_all_its_parts_is_left_out_and_said(ran: Callable[..., Any]) -> None:
    study, outcome, store = ran("evaluation.parts=2", fails=["evaluate/dpo-part2of2", "evaluate/rft-part1of2"])
    found = told(study, outcome, store)["evaluation"]
    assert [m["name"] for m in found["tasks"][0]["models"]] == [n for n in ("base", *NORMS) if n not in ("rft", "dpo")]
    assert found["incomplete"] == [{"name": "rft", "parts": 1, "of": 2}, {"name": "dpo", "parts": 1, "of": 2}]
    problem = shown(study, outcome, store)["answers"][0]["problems"][0]
    assert {"rft", "dpo"}.isdisjoint(m["name"] for m in problem["models"])


def test_completions_are_shown_and_not_among_the_results(ran: Callable[..., Any], results: dict[str, Any]) -> None:
    found = shown(*ran())
    (task,) = found["answers"]
    assert (task["n"], task["differing"]) == (4, 4)
    problem = task["problems"][2]
    assert (problem["id"], problem["problem"], problem["answer"]) == ("q2", "1 + 2?", "1")
    assert [(m["name"], m["right"]) for m in problem["models"]] == [(n, int(2 in RIGHT[n])) for n in ("base", *NORMS)]
    assert problem["models"][1]["answers"][0]["completion"] == "sft says 2"
    assert "says" not in json.dumps(results)
    rollouts = found["rollouts"]
    assert (rollouts["of"], [p["id"] for p in rollouts["problems"]]) == (4, ["p0", "p1", "p2", "p3"])
    assert [[row["reward"] for row in p["rows"]] for p in rollouts["problems"]] == REWARDS
    assert rollouts["problems"][0]["rows"][2] == {"teacher": "t", "reward": 1.0, "completion": "2", "tokens": 2}


def test_views_say_what_each_method_saw(results: dict[str, Any]) -> None:
    views = {v["method"]: (v["units"], v["rows"], v["problems"]) for v in results["rollouts"]["views"]}
    # sft: all 12 rows of 4 problems; rft: 2 + 3 + 0 + 1 right ones of 3; dpo: a pair in each of the 2 mixed groups
    assert views == {"sft": (12, 12, 4), "rft": (6, 6, 3), "dpo": (2, 4, 2)}
    assert results["rollouts"]["contamination"] == {"policy": "refuse", "checked": 4, "excluded": 0}
    assert results["rollouts"]["groups"] == {"mixed": 2, "all_right": 1, "all_wrong": 1}


def test_trainings_carry_what_was_asked_and_what_came_out(results: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in results["trainings"]}
    assert list(rows) == list(NORMS)
    assert [r["role"] for r in rows.values()] == ["method", "method", "method", "sweep", "order", "init"]
    assert {(r["status"], r["error"], r["steps"]) for r in rows.values()} == {("done", None, 4)}
    dpo = rows["dpo-lr3e-4"]
    assert (dpo["method"], dpo["learning_rate"], dpo["init_seed"], dpo["order_seed"]) == ("dpo", 3e-4, 42, 42)
    curve = results["curves"][0]
    assert (curve["name"], curve["step"], curve["grad_norm"]) == ("sft", [1, 2], [2.0, 2.0])


def test_trainings_carry_the_factor_that_was_drawn(results: dict[str, Any], ran: Callable[..., Any]) -> None:
    assert {row["start"] for row in results["trainings"]} == {"a"}
    assert "adapter.start" not in results["study"]["settings"]
    mirrored = told(*ran("adapter.start=b"))
    assert {row["start"] for row in mirrored["trainings"]} == {"b"}
    assert mirrored["study"]["settings"]["adapter.start"] == "b"


def test_floors_stand_beside_their_own_method(results: dict[str, Any]) -> None:
    floors = results["geometry"]["floors"]
    pairs = {kind: [{pair["a"], pair["b"]} for pair in of] for kind, of in floors.items() if kind != "itself"}
    assert pairs == {
        "order": [{"sft", "sft-order43"}], "init": [{"sft", "sft-init43"}], "learning_rate": [{"dpo", "dpo-lr3e-4"}],
    }  # fmt: skip
    assert (floors["itself"]["a"], floors["itself"]["b"], floors["itself"]["cosine"]) == ("sft", "sft", 1.0)


def test_what_was_measured_stands_in_the_results_as_it_was_written(results: dict[str, Any]) -> None:
    assert [row["name"] for row in results["activations"]["adapters"]] == list(NORMS)
    assert (results["activations"]["rows"], results["activations"]["chance"]) == (8, 0.1)
    assert len(results["activations"]["pairs"]) == 6 * 5 // 2
    assert [row["name"] for row in results["spectra"]["adapters"]] == list(NORMS)
    assert (results["spectra"]["k"], results["spectra"]["threshold"]) == (10, 0.5)
    along = results["geometry"]["along"]
    assert [(row["step"], row["name"], row["to_end"]) for row in along["adapters"]] == [(2, n, 0.5) for n in NORMS]
    for part in ("adapter_projections", "adapter_modules"):
        assert [row["norm"] for row in results["geometry"][part]] == list(NORMS.values())


def test_directions_are_told_from_the_gram(results: dict[str, Any]) -> None:
    """Every two updates have cosine 1/2, so all that is told of them can be reckoned by hand."""
    rows = {row["name"]: row for row in results["directions"]["adapters"]}
    assert list(rows) == list(NORMS)
    for name, row in rows.items():
        own = name == "sft"
        assert row["scale"] == pytest.approx(NORMS[name] / NORMS["sft"] / (1 if own else 2))
        assert row["left_over"] == pytest.approx(0 if own else 0.75**0.5)
        # Of two directions with cosine 1/2 to each other and to a third: 1/2 + 1/2 over 1 + 1/2, by 1/2 each.
        assert (row["span_of"], row["span_rank"]) == (2, 2)
        assert row["span_left_over"] == pytest.approx((2 / 3) ** 0.5)
    told = results["directions"]["variance"]
    # Four at one initial A and their own rates: sft twice, rft and dpo once. All distances are 1: 6 / 4 in all, 1/2
    # within. The other rate of dpo is no replicate of it.
    assert (told["deltas"], told["between_df"], told["within_df"]) == (4, 2, 1)
    assert (told["methods"], told["repeated"]) == (3, 1)
    assert (told["total"], told["within"]) == (pytest.approx(1.5), pytest.approx(1 / 2))
    assert told["between_share"] == pytest.approx(told["between_chance"]) == pytest.approx(2 / 3)
    assert told["p"] == 1.0 and told["exact"]


def test_an_update_without_a_direction_has_no_part_in_the_spread(ran: Callable[..., Any]) -> None:
    results = gather(*ran())
    trainings, geometry = results.trainings, results.geometry
    assert geometry is not None

    def noisy(name: str) -> list[Any]:
        return [row.model_copy(update={"noise": row.name == name}) for row in trainings]

    found = directions(geometry, noisy("dpo"), "sft")
    assert found is not None and found.variance is not None
    left = [name for name in NORMS if name != "dpo"]
    assert [row.name for row in found.adapters] == left
    assert {row.name: row.span_of for row in found.adapters} == {n: 2 if n.startswith("dpo") else 1 for n in left}
    assert (found.variance.methods, found.variance.deltas) == (2, 3)
    adapters = [row.model_copy(update={"norm": row.norm * (row.name != "dpo")}) for row in geometry.adapters]
    assert directions(geometry.model_copy(update={"adapters": adapters}), trainings, "sft") == found
    assert directions(geometry, noisy("sft"), "sft") is None


def test_the_headline_compares_every_training_with_sft(results: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in results["headline"]}
    assert list(rows) == ["sft", "rft", "dpo", "dpo-lr3e-4"]
    assert [r["matched"] for r in rows.values()] == ["as published"] * 3 + ["learning rate"]
    assert rows["sft"]["cosine"] is None
    for name in ("rft", "dpo", "dpo-lr3e-4"):
        assert rows[name]["cosine"] == pair(results["geometry"]["pairs"], "sft", name)["cosine"]
        assert rows[name]["norm"] == NORMS[name]
        assert rows[name]["accuracy"] == {"arithmetic": len(RIGHT[name]) / 4}


def test_the_sweep_goes_along_the_learning_rates(results: dict[str, Any]) -> None:
    sweep = results["sweep"]
    assert (sweep["method"], sweep["matched_learning_rate"]) == ("dpo", 3e-4)
    assert [(p["name"], p["learning_rate"], p["norm"]) for p in sweep["points"]] == [
        ("dpo", 3e-5, 0.2), ("dpo-lr3e-4", 3e-4, 1.9),
    ]  # fmt: skip
    nll = {row["name"]: row["nll_right"] for row in results["losses"]}
    for point in sweep["points"]:
        assert point["cosine_to_sft"] == pair(results["geometry"]["pairs"], "sft", point["name"])["cosine"]
        assert point["nll_right"] == nll[point["name"]]
        assert point["a_moved_rel"] == NORMS[point["name"]] / 100


def test_nothing_has_failed(results: dict[str, Any]) -> None:
    assert results["failures"] == []


def test_the_order_in_which_steps_end_changes_nothing(ran: Callable[..., Any], results: dict[str, Any]) -> None:
    assert told(*ran(name="other", latest=True)) == results


def test_a_second_run_reports_the_same(ran: Callable[..., Any], results: dict[str, Any]) -> None:
    study, outcome, store = ran()
    assert not outcome.made
    assert told(study, outcome, store) == results


@pytest.fixture
def command(
    study_file: Path, tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, bytes]]:
    """A function that gives a command to the command line, with made-up steps and results in place of a page.

    Returns the exit code and results.json.
    """
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def render(results: Results, provenance: dict[str, Any], out: Path, shown: dict[str, Any]) -> None:
        out.mkdir(parents=True)
        (out / "results.json").write_text(json.dumps(dump(results)))
        (out / "report.html").write_text("page")

    monkeypatch.setattr("orchestrator.results.write_report.render", render)

    def command(*words: str, fails: Sequence[str] = ()) -> tuple[int, bytes]:
        serial = lambda store, resources: stand_in(store, fails=fails, write=write_step)  # noqa: E731
        monkeypatch.setattr("execution.runner.SerialExecutor", serial)
        out = tmp_path / "out"
        code = cli.main([words[0], str(study_file), "--out", str(out), *words[1:]])
        return code, (out / "report" / "results.json").read_bytes()

    return command


def test_the_report_rebuilt_from_the_store_is_the_same(command: Callable[..., Any]) -> None:
    code, first = command("run", "--serial")
    assert code == 0
    assert command("report") == (0, first)


def test_a_second_run_has_nothing_to_do(command: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    first = command("run", "--serial")
    capsys.readouterr()
    assert command("run", "--serial", fails=["base/scratch"]) == first  # no executor is asked
    assert "nothing to do: every step is done" in capsys.readouterr().out


def test_a_failed_step_is_exit_code_one_and_mended_by_the_next_run(command: Callable[..., Any]) -> None:
    code, first = command("run", "--serial", fails=["train/dpo"])
    assert code == 1
    assert command("report") == (1, first)
    assert json.loads(first)["failures"][0]["step"] == "train/dpo"
    code, second = command("run", "--serial")
    assert code == 0 and json.loads(second)["failures"] == []


def test_a_failed_training_is_a_row_and_its_dependants_are_named(ran: Callable[..., Any]) -> None:
    found = told(*ran(fails=["train/dpo"]))
    row = next(r for r in found["trainings"] if r["name"] == "dpo")
    assert (row["status"], row["error"]) == ("failed", "planted")
    own = [f"{kind}/dpo" for kind in ("evaluate", "features", "losses")]
    assert found["failures"] == [{"step": "train/dpo", "error": "planted", "dependants": own}]
    assert "dpo" not in [m["name"] for m in found["evaluation"]["tasks"][0]["models"]]
    for part in ("geometry", "activations", "spectra", "directions"):
        names = [a["name"] for a in found[part]["adapters"]]
        assert names == ["sft", "rft", "dpo-lr3e-4", "sft-order43", "sft-init43"], part
    points = {p["name"]: p for p in found["sweep"]["points"]}
    assert points["dpo"]["norm"] is None and points["dpo"]["accuracy"] == {}
    assert points["dpo-lr3e-4"]["norm"] == 1.9


def test_dependants_of_dependants_are_named_too(ran: Callable[..., Any]) -> None:
    found = told(*ran(fails=["reference/base"]))
    (failure,) = found["failures"]
    kinds = ("train", "evaluate", "losses", "features")
    assert set(failure["dependants"]) == {f"{k}/{n}" for k in kinds for n in ("dpo", "dpo-lr3e-4")}
    row = next(r for r in found["trainings"] if r["name"] == "dpo")
    assert (row["status"], row["error"]) == ("not run", "needs reference/base")


def test_without_the_reference_there_are_no_multiples_of_it(ran: Callable[..., Any]) -> None:
    found = told(*ran(fails=["train/sft"]))
    assert "directions" not in found
    assert [a["name"] for a in found["geometry"]["adapters"]] == list(NORMS)[1:]
    assert list(found["geometry"]["floors"]) == ["learning_rate", "itself"], "a replica has nothing to stand beside"


@pytest.mark.parametrize("title", ["geometry/weights", "activations/rows", "spectra/base", "similarity/cka"])
def test_a_measurement_that_failed_takes_no_other_with_it(ran: Callable[..., Any], title: str) -> None:
    parts = {"geometry", "activations", "spectra", "connectivity", "similarity"}
    found = told(*ran(fails=[title]))
    assert parts - found.keys() == {title.split("/")[0]}
    assert ("directions" in found) == (title != "geometry/weights")


@pytest.mark.parametrize(
    "fails",
    [
        ["base/scratch"], ["rollouts/sampled"], ["problems/evaluation"], ["geometry/weights"], ["activations/rows"],
        ["spectra/base"], ["connectivity/paths"], ["losses/base"], ["features/base"],
    ],
)  # fmt: skip
def test_results_are_gathered_whatever_failed(ran: Callable[..., Any], fails: list[str]) -> None:
    found = told(*ran(fails=fails))
    assert [f["step"] for f in found["failures"]] == fails
    assert len(found["trainings"]) == 6
    json.dumps(found, allow_nan=False)


def test_the_base_of_the_results_is_the_studys_not_the_teacher(ran: Callable[..., Any]) -> None:
    found = told(*ran("rollouts.model={kind: hub, name: big/teacher}", latest=True))
    assert found["base"]["name"] == "scratch"


def test_settings_are_flat_and_without_placement_and_folders(
    make_study: Callable[..., Study], data_folder: Path
) -> None:
    file = "rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}"
    flat = settings_of(make_study(file, f"data={data_folder}"))
    assert flat["training.learning_rate"] == 3e-4
    assert flat["rollouts.path"] == "rollouts.jsonl"
    assert flat["methods.dpo.learning_rate"] == 3e-5
    assert flat["replicas.0.order_seed"] == 43
    assert flat["adapter.targets"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert not any(k.startswith(("placement", "data")) for k in flat)
    assert str(data_folder) not in json.dumps(flat)


def test_a_hub_name_stays_whole_among_the_settings(make_study: Callable[..., Study]) -> None:
    flat = settings_of(make_study("evaluation.tasks=[{task: gsm8k, source: openai/gsm8k}]"))
    assert flat["evaluation.tasks.0.source"] == "openai/gsm8k"
    assert settings_of(make_study("rollouts={source: hub, name: openai/gsm8k}"))["rollouts.name"] == "openai/gsm8k"


def test_a_folder_in_place_of_a_hub_name_is_shortened(make_study: Callable[..., Study], tmp_path: Path) -> None:
    flat = settings_of(make_study(f"rollouts={{source: hub, name: {tmp_path / 'mine'}}}"))
    assert flat["rollouts.name"] == "mine" and str(tmp_path) not in json.dumps(flat)


def test_answers_cost_what_the_studys_prices_say_now(ran: Callable[..., Any], make_study: Callable[..., Study]) -> None:
    """Other prices make no new table: they are no part of it."""
    asked = (
        "rollouts={{source: openai, base_url: 'http://127.0.0.1:9/v1', model: m, prices: {}, "
        "problems: {{task: arithmetic, split: train, draw: 4}}}}"
    )
    study, outcome, store = ran(asked.format([0, 0]))
    path = next(store.folder(s) for s in outcome.steps if s.kind.name == "rollouts") / "statistics.json"
    api = {"answers": 9, "refused": 1, "prompt_tokens": 1000, "completion_tokens": 3000, "with_reasoning": 0}
    write_json(path, json.loads(path.read_text()) | {"api": api})
    assert told(study, outcome, store)["rollouts"]["api"] == api
    for prices, cost in (([2, 4], 0.014), ([1, 0], 0.001)):
        found = told(make_study(asked.format(prices)), outcome, store)
        assert found["rollouts"]["api"] == api | {"cost": pytest.approx(cost)}


def _changed(*way: Any, to: Any) -> Callable[[str], str]:
    """A change of one value of a JSON text, at the end of the ``way``."""

    def change(text: str) -> str:
        value = part = json.loads(text)
        for key in way[:-1]:
            part = part[key]
        part[way[-1]] = to
        return json.dumps(value)

    return change


MISFITS: dict[str, tuple[str, str, Callable[[str], str], str]] = {
    "a base without a name": ("base/scratch", NOTE, _changed("name", to=None), "name: "),
    "a table with a key too many": ("rollouts/sampled", "statistics.json", _changed("x", to=1), "x: "),
    "problems of no policy": (
        "problems/evaluation", "problems.json", _changed("contamination", "policy", to="?"), "contamination.policy: ",
    ),
    "a course with a text": ("train/dpo", "training.json", _changed("b_norm", to="0.3"), "b_norm: "),
    "a log without a loss": ("train/dpo", "log.jsonl", lambda text: '{"step": 1}\n', "KeyError: 'loss'"),
    "a log with a text": ("train/dpo", "log.jsonl", lambda text: text.replace("2.0", '"2"', 1), "grad_norm.0: "),
    "a log that ends early": ("train/dpo", "log.jsonl", lambda text: text[:-9], "JSONDecodeError: "),
    "a canary that says nothing": ("evaluate/dpo", CANARY, _changed(0, "passed", to=None), "0.passed: "),
    "verdicts that are none": ("evaluate/dpo", VERDICTS, lambda text: "verdicts", "ArrowInvalid: "),
    "a cosine in text": (
        "geometry/weights", "geometry.json", _changed("pairs", 3, "cosine", to="1"), "pairs.3.cosine: ",
    ),
    "rows that are none": ("activations/rows", "activations.json", _changed("rows", to=1.5), "rows: "),
    "no JSON": ("spectra/base", "spectra.json", lambda text: text[:-9], "the file: Invalid JSON"),
    "losses of nobody": (
        "losses/sft", "losses.json", _changed("name", to=None), "name: ",
    ),
    "paths that are none": ("connectivity/paths", "connectivity.json", _changed("paths", to=None), "paths: "),
    "an unknown position": ("similarity/cka", "similarity.json", _changed("position", to="first"), "position: "),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_a_file_that_does_not_fit_is_refused_in_a_line(ran: Callable[..., Any], what: str) -> None:
    """It names the step, its file and the field, and how to go on."""
    title, file, change, field = MISFITS[what]
    study, outcome, store = ran()
    step = next(step for step in outcome.steps if step.title == title)
    path = store.folder(step) / file
    path.write_text(change("" if file == VERDICTS else path.read_text()))
    with pytest.raises(UserError) as error:
        gather(study, outcome, store)
    assert str(error.value).startswith(f"{step.folder}: {file} is not what this version of the step writes ({field}")
    assert str(error.value).endswith(f": remove {step.folder} from the store, and run makes it again")
    assert len(str(error.value).splitlines()) == 1


def test_provenance_tells_the_times_of_the_steps(ran: Callable[..., Any]) -> None:
    study, outcome, store = ran()
    of = fingerprint(study, outcome)
    sft = next(s for s in outcome.steps if s.title == "train/sft")
    store.record_times(sft, {"started": 1.0, "ended": 3.5, "seconds": 2.5, "startup_seconds": 0.5})
    write_json(
        store.root / "run.json",
        {"started": 0.0, "wall_seconds": 9.0, "cached": ["base/scratch"], "cluster_startup": 4.0, "of": of},
    )
    told = provenance(outcome, store, of)
    steps = {s["step"]: s for s in told["steps"]}
    assert list(steps) == ["cluster", *(s.title for s in outcome.steps)]
    assert (steps["cluster"]["seconds"], steps["cluster"]["startup_seconds"]) == (4.0, 4.0)
    assert (steps["train/sft"]["seconds"], steps["train/sft"]["startup_seconds"]) == (2.5, 0.5)
    assert steps["base/scratch"]["cached"] and not steps["train/sft"]["cached"]
    assert (told["started"], told["wall_seconds"]) == ("1970-01-01T00:00:00Z", 9.0)
    assert {"torch", "transformers", "python"} <= set(told["versions"])


def test_what_a_report_midway_lacks_is_counted_and_named(ran: Callable[..., Any], plan_of: Callable[..., Any]) -> None:
    study, outcome, store = ran(fails=["train/rft"])
    assert "unfinished" not in told(*ran(name="whole"))
    plan = plan_of(study)
    done = next(step for step in outcome.steps if step.title == "train/dpo")
    shutil.rmtree(store.folder(done))
    midway = DagRunner(plan, store, lambda line: None).survey()
    found = told(study, midway, store)["unfinished"]
    collective = ["connectivity/paths", "geometry/weights", "similarity/cka"]
    waiting = sorted([f"{k}/{n}" for k in ("evaluate", "features", "losses") for n in ("dpo", "rft")])
    waiting = sorted([*waiting, "train/dpo", *collective])
    assert (found["failed"], found["early"]) == (["train/rft"], [])
    assert [title for title in found["waiting"] if title not in ("activations/rows", "spectra/base")] == waiting
    assert found["done"] + 1 + len(found["waiting"]) == found["steps"] == len(plan)
    geometry = next(step for step in outcome.steps if step.title == "geometry/weights")
    midway.steps.append(geometry)  # as measured aside for this report
    del midway.blocked[geometry.title]
    aside = told(study, midway, store, {geometry.title: store.folder(geometry)})["unfinished"]
    assert aside == found | {"early": [geometry.title]}


def test_an_earlier_runs_date_is_not_this_ones(ran: Callable[..., Any], plan_of: Callable[..., Any]) -> None:
    study, outcome, store = ran()
    of = fingerprint(study, outcome)
    clock = {"started": 0.0, "wall_seconds": 9.0, "cached": [], "cluster_startup": 4.0}
    write_json(store.root / RUN, clock | {"of": of})
    assert provenance(outcome, store, of)["started"] == "1970-01-01T00:00:00Z"
    shutil.rmtree(store.folder(next(step for step in outcome.steps if step.title == "train/dpo")))
    midway = DagRunner(plan_of(study), store, lambda line: None).survey()
    told = provenance(midway, store, fingerprint(study, midway))
    assert (told["started"], told["wall_seconds"]) == (None, None)
    assert {step["cached"] for step in told["steps"]} == {None}
