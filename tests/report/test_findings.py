"""The sentences of the first page: each holds for every pair of runs there is, in planted cases and in drawn ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import combinations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from report import findings, headline
from report.findings import Findings, claim, direction, function, rate
from report.findings.evidence import Evidence
from report.findings.trials import Tested
from report.headline import Row
from report.model_index import model_index
from results import VERSION, Results
from tests.report.claim_checks import check
from tests.report.drawn_study import COURSE, drawn
from tests.report.example_study import results as made

EXAMPLE = made()
TEXT = json.dumps(EXAMPLE)


def results() -> dict:
    return json.loads(TEXT)


def _found(given: dict) -> Findings:
    return _said(Results.model_validate(given))


def _said(results: Results) -> Findings:
    index = model_index(results)
    return findings.findings(results, index, headline.rows(results, index))


def _rows(given: dict) -> dict[str, Row]:
    results = Results.model_validate(given)
    return {row.name: row for row in headline.rows(results, model_index(results))}


def _remove(given: dict, name: str) -> None:
    """As if this training had never been planned."""
    geometry = given["geometry"]
    for part in (given["trainings"], geometry["adapters"], given["headline"]):
        part[:] = [row for row in part if row["name"] != name]
    floors = {kind: of for kind, of in geometry["floors"].items() if kind != "itself"}
    for kind, part in {"pairs": geometry["pairs"], **floors}.items():
        part[:] = [row for row in part if name not in (row["a"], row["b"])]
        if not part:
            del geometry["floors"][kind]


def _cosine(given: dict, name: str, value: float | None) -> None:
    """To both runs of SFT at the initial A of all."""
    for row in given["headline"]:
        if row["name"] == name:
            row["cosine"] = value
    for row in given["geometry"]["pairs"]:
        if {row["a"], row["b"]} in ({"sft", name}, {"sft-order43", name}):
            row["cosine"] = value


def _study(cosines: dict[tuple[str, str], float | None], rates: dict[str, float] | None = None) -> dict:
    """Results of runs called ``method``, ``method-orderN``, ``method-initN`` or ``method-lrX``, with these cosines."""
    names = list(dict.fromkeys(name for pair in cosines for name in pair))
    rows = []
    for name in names:
        method, _, what = name.partition("-")
        role = next((role for role in ("order", "init") if what.startswith(role)), "sweep" if what else "method")
        row = {"name": name, "method": method, "objective": method, "role": role, "init_seed": 42, "order_seed": 42}
        row |= {"of": None if role == "method" else method, "status": "done", "error": None}
        row["learning_rate"] = float(what[2:]) if role == "sweep" else (rates or {}).get(method, 1e-3)
        row |= {f"{role}_seed": int(what.removeprefix(role))} if role in ("order", "init") else {}
        rows.append(COURSE | row)
    example = EXAMPLE["geometry"]
    pairs = [example["pairs"][0] | {"a": a, "b": b, "cosine": cosine} for (a, b), cosine in cosines.items()]
    zero = {name for name in names if all(value is None for pair, value in cosines.items() if name in pair)}
    adapters = [_adapter(name, float(name not in zero)) for name in names]
    geometry = example | {"adapters": adapters, "pairs": pairs, "floors": {"itself": example["itself"]}}
    return {"version": VERSION, "trainings": rows, "geometry": geometry}


def _adapter(name: str, norm: float) -> dict:
    return EXAMPLE["geometry"]["adapters"][0] | {"name": name, "norm": norm}


def _answered(accuracy: dict[str, float], shown: dict[tuple[str, str], float], n: int = 1000) -> dict:
    """An evaluation in which these pairs differ significantly, with these p."""
    evaluation = EXAMPLE["evaluation"]
    task = evaluation["tasks"][0]
    score, pair = task["models"][0], task["pairs"][0]
    pairs = [
        pair | {"a": a, "b": b, "p_holm": shown.get((a, b), 1.0), "difference": accuracy[b] - accuracy[a]}
        for a, b in combinations(accuracy, 2)
    ]
    models = [score | {"name": name, "n": n, "samples": 1, "accuracy": share} for name, share in accuracy.items()]
    task = task | {"task": "sums", "title": "Sums", "n": n, "models": models, "pairs": pairs}
    return evaluation | {"tasks": [task], "canary": [row for row in evaluation["canary"] if row["name"] in accuracy]}


def test_a_method_that_does_not_reproduce_itself_is_said_to_and_is_not_called_apart() -> None:
    """Two-step trainings: Offline GRPO lies far from SFT, from itself, and near SFT in another order."""
    given = _study(
        {
            ("sft", "sft-order43"): 0.81, ("offline_grpo", "offline_grpo-order43"): 0.025,
            ("sft", "offline_grpo"): -0.095, ("sft", "offline_grpo-order43"): 0.43,
            ("sft-order43", "offline_grpo"): 0.02, ("sft-order43", "offline_grpo-order43"): 0.11,
        }
    )  # fmt: skip
    assert _found(given).lead == (
        "Open whether there is more than one direction: Offline GRPO is not shown to differ in direction from SFT by "
        "more than a new order of rows explains. A new order of rows gives, as cosine of a method to itself: SFT 0.810 "
        "(1 pair of runs) and Offline GRPO 0.025 (1 pair of runs). Offline GRPO does not reproduce itself: its runs in "
        "different orders have cosine 0.025 to each other, −0.095 to 0.430 to SFT: nothing is said of its direction."
    )


def test_a_method_whose_own_training_is_absent_is_compared_by_the_runs_there_are() -> None:
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "dft-order43"): 0.5, ("sft-order43", "dft-order43"): 0.4})
    assert _found(given).lead.endswith("DFT (0.400 to 0.500).")
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "dpo-lr1e-4"): 0.5, ("sft-order43", "dpo-lr1e-4"): 0.4})
    assert "DPO lr1e-4 (0.400 to 0.500, at another learning rate, unmatched)" in _found(given).lead


def test_a_method_is_apart_where_every_pair_of_runs_is_and_only_there() -> None:
    cosines: dict[tuple[str, str], float | None] = {
        ("sft", "sft-order43"): 0.9, ("sft", "sft-order44"): 0.88, ("sft-order43", "sft-order44"): 0.86,
        ("dft", "dft-order43"): 0.7,
        **{(a, b): 0.5 for a in ("sft", "sft-order43", "sft-order44") for b in ("dft", "dft-order43")},
    }  # fmt: skip
    lead = _found(_study(cosines)).lead
    assert lead.startswith("Not one update with another step size: DFT differs in direction from SFT")
    assert "SFT 0.860 to 0.900 (3 pairs of runs) and DFT 0.700 (1 pair of runs)" in lead
    assert lead.endswith("In every pair of runs below what that gives SFT and themselves: DFT (0.500).")
    cosines["sft-order44", "dft-order43"] = 0.7  # one pair of the six agrees as well as DFT with itself
    lead = _found(_study(cosines)).lead
    assert lead.startswith("Open whether there is more than one direction: DFT is not shown to differ")
    assert lead.endswith("Not told apart from SFT by direction: DFT (0.500 to 0.700).")


def test_a_method_is_called_below_the_floors_that_it_was_held_to_and_below_no_others() -> None:
    """RFT was run once and lies below all floors; DPO, run twice, lies below its own and SFT's and above another."""
    twice, own = ("sft", "dpo", "offline_grpo"), {"sft": 0.9, "dpo": 0.95, "offline_grpo": 0.6}
    to_sft = {"dpo": 0.7, "offline_grpo": 0.3, "rft": 0.1}
    cosines: dict[tuple[str, str], float | None] = {(name, f"{name}-order43"): own[name] for name in twice}
    for sft in ("sft", "sft-order43"):
        for method, value in to_sft.items():
            cosines |= {(sft, name): value for name in (method, f"{method}-order43") if method in own or name == method}
    assert _found(_study(cosines)).lead.endswith(
        "In every pair of runs below that: RFT (0.100). In every pair of runs below what that gives SFT and "
        "themselves: DPO (0.700) and Offline GRPO (0.300)."
    )
    # At other rates, and SFT at another one lies as far from itself as they from it.
    cosines |= {("sft", "sft-lr1e-4"): 0.05}
    lead = _found(_study(cosines, {"dpo": 1e-4, "offline_grpo": 1e-4, "rft": 1e-4})).lead
    where = ", at its own learning rate, unmatched)"
    alone = "but another learning rate alone takes a method as far from itself (0.050)."
    assert f"RFT (0.100{where}: below that, {alone}" in lead
    assert f"Offline GRPO (0.300{where}: below what that gives SFT and themselves, {alone}" in lead


def test_no_distance_is_told_of_what_is_undecided() -> None:
    """DPO at SFT's rate lies below both orders of SFT, and no lower than Offline GRPO from itself."""
    cosines: dict[tuple[str, str], float | None] = {
        ("sft", "sft-order43"): 0.9, ("offline_grpo", "offline_grpo-order43"): 0.6, ("sft", "dpo"): 0.2,
        ("sft-order43", "dpo"): 0.2, ("sft", "dpo-lr1e-3"): 0.7, ("sft-order43", "dpo-lr1e-3"): 0.7,
    }  # fmt: skip
    found = _found(_study(cosines, {"dpo": 1e-4}))
    assert "Undecided for want of another order of their own: DPO lr1e-3 (0.700" in found.lead
    (point,) = [point for point in found.points if point.startswith("DPO at its own rate")]
    assert point == (
        "DPO at its own rate 1e-4 has cosine 0.200 to SFT and 1.00× SFT’s norm (0.100× by learning rate × "
        "steps); at SFT’s rate 1e-3, 0.700 and 1.00× SFT’s norm."
    )
    del cosines["offline_grpo", "offline_grpo-order43"]
    assert "closes 71% of the distance" in _closes(cosines), "held to SFT alone it is decided"


def _closes(cosines: dict) -> str:
    """Where a new order is known to move a cosine by little, so that a distance is told."""
    with_rft = {("sft", "rft"): 0.95, ("sft-order43", "rft"): 0.94}
    return " ".join(_found(_study(cosines | with_rft, {"dpo": 1e-4})).points)


def test_replicas_of_another_method_are_a_floor_where_the_reference_has_none() -> None:
    cosines: dict[tuple[str, str], float | None] = {
        ("sft", "dft"): 0.4, ("sft", "dft-order43"): 0.45, ("dft", "dft-order43"): 0.8, ("sft", "rft"): 0.85,
    }  # fmt: skip
    lead = _found(_study(cosines)).lead
    assert "1 of 2 methods differs" in lead
    assert "A new order of rows was tried once: two runs of DFT, cosine 0.800." in lead
    assert "below that: DFT (0.400 to 0.450)." in lead and "by direction: RFT (0.850)." in lead


def test_another_rate_is_a_floor_of_what_was_run_at_another_rate() -> None:
    """DPO lies below both orders of SFT; SFT itself at DPO's rate lies as low."""
    cosines: dict[tuple[str, str], float | None] = {
        ("sft", "sft-order43"): 0.9, ("sft", "dpo"): 0.3, ("sft-order43", "dpo"): 0.3,
    }  # fmt: skip
    lead = _found(_study(cosines, {"dpo": 1e-4})).lead
    assert (
        lead.startswith("Unlike, but at unlike learning rates: DPO differs") and "none of them was run at SFT" in lead
    )
    cosines |= {("sft", "sft-lr1e-4"): 0.25, ("sft-lr1e-4", "dpo"): 0.5}
    lead = _found(_study(cosines, {"dpo": 1e-4})).lead
    assert lead.startswith("Open whether there is more than one direction: DPO is not shown to differ")
    assert "another learning rate alone takes a method as far from itself (0.250)" in lead
    cosines["sft", "sft-lr1e-4"] = 0.35
    assert _found(_study(cosines, {"dpo": 1e-4})).lead.startswith("Not one update with another step size")


def test_another_initial_a_decides_nothing_and_a_zero_update_has_no_direction() -> None:
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "dft"): 0.01, ("sft-order43", "dft"): 0.01})
    next(row for row in given["trainings"] if row["name"] == "dft")["init_seed"] = 7
    assert (
        _found(given).lead
        == "DFT began from another initial A than SFT: a cosine between them tells nothing of direction."
    )
    given["trainings"] = [row | {"start": "b"} for row in given["trainings"]]
    assert (
        _found(given).lead
        == "DFT began from another initial B than SFT: a cosine between them tells nothing of direction."
    )
    for row in given["trainings"]:
        row |= {"start": "a" if row["name"] == "dft" else "b", "init_seed": 42}
    assert _found(given).lead == "Between a random B (SFT) and a random A (DFT) a cosine tells nothing of direction."
    given = _study({("sft", "dft"): None, ("dft", "dft-order43"): 0.5})
    assert _found(given).lead == "SFT’s update is zero, so nothing can be compared with it."
    given = _study({("sft", "sft-order43"): 0.5})
    assert _found(given).lead == "Nothing is compared: no other method than SFT has an update with a direction."
    assert "two runs of SFT, cosine 0.500" in _found(given).points[0]
    given["geometry"]["adapters"].append(_adapter("dft", 0.0))
    assert "Zero, and without a direction: the update of DFT." in _found(given).lead
    del given["geometry"]
    assert _found(given).lead.startswith("No two updates could be")


def test_an_update_of_rounding_has_no_direction() -> None:
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "dpo"): -0.03, ("sft-order43", "dpo"): 0.01})
    assert _found(given).lead.startswith("Not one update with another step size: DPO differs")
    next(row for row in given["trainings"] if row["name"] == "dpo")["noise"] = True
    assert _found(given).lead == (
        "Nothing is compared: no other method than SFT has an update with a direction. Made of rounding, and "
        "without a direction: the update of DPO."
    )
    given["trainings"][0]["noise"] = True
    assert _found(given).lead.startswith("SFT’s update is noise, so nothing can be compared with it.")


@pytest.mark.parametrize("name", ["dpo", "sft"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("noise", "Made of rounding, and without a direction"), ("zero", "Zero, and without a direction")],
)
def test_no_other_order_stands_for_an_update_without_a_direction(name: str, kind: str, words: str) -> None:
    runs = {"sft": ["sft", "sft-order43", "sft-order44"], "dpo": ["dpo", "dpo-order43", "dpo-order44"]}
    cosines: dict[tuple[str, str], float | None] = {pair: 0.9 for of in runs.values() for pair in combinations(of, 2)}
    cosines |= {(a, b): 0.3 for a in runs["sft"] for b in (*runs["dpo"], "rft")}
    if kind == "zero":
        cosines |= {pair: None for pair in cosines if name in pair}
    given = _study(cosines)
    if kind == "noise":
        next(row for row in given["trainings"] if row["name"] == name)["noise"] = True
    lead = _found(given).lead
    if name == "sft":
        assert lead == f"SFT’s update is {kind}, so nothing can be compared with it."
        return
    assert lead == (
        "Not one update with another step size: RFT differs in direction from SFT by more than a new order of rows "
        "explains. A new order of rows gives, as cosine of a method to itself: SFT 0.900 (3 pairs of runs). In every "
        f"pair of runs below that: RFT (0.300). {words}: the update of DPO."
    )


def test_the_headline_compares_no_update_of_rounding() -> None:
    given = results()
    next(row for row in given["trainings"] if row["name"] == "dpo")["noise"] = True
    rows = _rows(given)
    assert rows["dpo"].noise == ("dpo",) and rows["dpo"].norm == 0.41
    assert {rows["dpo"].cosine, rows["dpo"].u1, rows["dpo"].angle_min, rows["dpo"].weighted} == {None}
    assert rows["dpo-lr1e-3"].cosine == 0.204 and not rows["dpo-lr1e-3"].noise
    assert rows["dpo-lr3e-4"].noise == ("dpo",) and rows["dpo-lr3e-4"].cosine is None, "a floor beside noise"
    given["trainings"][0]["noise"] = True
    made_of = _rows(given)
    assert given["trainings"][0]["name"] == "sft" and {made_of[name].cosine for name in ("sft", "rft", "dft")} == {None}


def test_a_floor_beside_a_zero_update_holds_no_cosine_to_the_reference() -> None:
    """The row is of DPO in another order beside DPO's own run, which is zero: it has no cosine, to SFT it has one."""
    given = results()
    _remove(given, "dpo-lr3e-4")
    names, geometry = ("dpo", "sft-order43"), given["geometry"]
    (replica,) = (row for row in given["trainings"] if row["name"] == "sft-order43")
    replica |= {"method": "dpo", "objective": "dpo", "of": "dpo", "learning_rate": 1e-4}
    next(row for row in geometry["adapters"] if row["name"] == "dpo")["norm"] = 0.0
    for row in geometry["pairs"]:
        if "dpo" in (row["a"], row["b"]):
            row |= dict.fromkeys(("cosine", "u1", "v1", "angle_min_median_deg", "angle_max_median_deg"))
    geometry["floors"]["order"] = [row for row in geometry["pairs"] if {row["a"], row["b"]} == set(names)]
    found = _rows(given)["sft-order43"]
    assert (found.kind, found.to_reference, found.norm) == ("floor", False, 2.86)
    assert {found.cosine, found.u1, found.v1, found.angle_min, found.angle_max} == {None}


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({("sft", "rft"): 6e-7}, "RFT stands 9.0 points above SFT on Sums (Holm p 6e-7)."),
        ({}, None),
    ],
)
def test_not_told_apart_by_direction_is_not_told_alike_in_function(shown: dict, words: str | None) -> None:
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "rft"): 0.95, ("sft-order43", "rft"): 0.9})
    given["evaluation"] = _answered({"base": 0.6, "sft": 0.6, "rft": 0.69}, shown)
    lead = _found(given).lead
    assert "by direction: RFT (0.900 to 0.950)." in lead
    assert ("In function they do differ: " in lead) == bool(words)
    assert words is None or lead.endswith(words)


def test_a_difference_in_accuracy_between_two_orders_of_one_method_is_no_methods() -> None:
    given = _study({("sft", "sft-order43"): 0.9, ("sft", "rft"): 0.95, ("sft-order43", "rft"): 0.9})
    shown = {("sft", "sft-order43"): 1e-4, ("sft", "rft"): 1e-3, ("sft-order43", "rft"): 1e-3}
    given["evaluation"] = _answered({"sft": 0.6, "sft-order43": 0.7, "rft": 0.65}, shown)
    assert _found(given).lead.endswith(
        "RFT and SFT differ in accuracy on Sums in 2 of 2 pairs of runs (by 5.0 points, Holm p at most 0.0010); two "
        "orders of one of them by up to 10.0 points."
    )
    assert "In function" not in _found(given).lead


def test_accuracy_names_every_model_that_stands_above_or_below_the_base() -> None:
    """The sweep's points and the replicas, too: the most accurate one was DPO at the others' rate."""
    names = {"base": 0.5, "sft": 0.6, "dpo": 0.51, "dpo-lr1e-3": 0.637, "sft-order43": 0.4}
    given = _study({("sft", "dpo"): 0.2, ("sft", "dpo-lr1e-3"): 0.3, ("sft", "sft-order43"): 0.9}, {"dpo": 1e-4})
    given["evaluation"] = _answered(names, {("base", name): 1e-6 for name in names if name != "dpo"})
    assert (
        "Sums (n = 1\u202f000): the base stands at 50.0%; SFT and DPO lr1e-3 above it; SFT order43 below it; "
        "DPO is not shown to differ (McNemar, Holm-adjusted p < 0.05)."
    ) in _found(given).points


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ({"base": 0.0, "sft": 0.0}, "all 2 models stand at 0.0%: this task cannot tell them apart."),
        ({"base": 1.0, "sft": 1.0, "rft": 1.0}, "all 3 models stand at 100.0%: this task cannot tell them apart."),
        ({"base": 0.4, "sft": 0.4}, "SFT is not shown to differ (McNemar"),
        ({"base": 0.4}, None),
        ({"sft": 0.4}, None),
    ],
)
def test_no_more_is_said_of_accuracies_than_there_are(accuracy: dict, words: str | None) -> None:
    points = [
        p for p in _found({"evaluation": _answered(accuracy, {})} | _study({("sft", "rft"): 0.5})).points if "Sums" in p
    ]
    assert len(points) == (words is not None)
    assert words is None or words in points[0]


def test_answers_that_were_cut_off_are_said_beside_the_accuracy() -> None:
    given = _study({("sft", "rft"): 0.5})
    given["evaluation"] = _answered({"base": 0.4, "sft": 0.1, "rft": 0.0}, {})
    (task,) = given["evaluation"]["tasks"]
    assert task["sampling"]["max_tokens"] == 64
    for row, cut in zip(task["models"], (99, 430, 1000), strict=True):
        row["truncated"] = cut
    words = (
        "On Sums 43.0% to 100.0% of the answers of SFT and RFT were cut off at max_tokens (64): their accuracy is held"
    )
    assert words in _found(given).points[-1]
    for row in task["models"]:
        row["truncated"] = 1000
    assert "On Sums every answer was cut off at max_tokens (64)" in _found(given).points[-1]
    for row in task["models"]:
        row["truncated"] = 99
    assert "cut off" not in " ".join(_found(given).points)


def test_the_lead_names_methods_below_the_order_floor_at_the_matched_rate() -> None:
    lead = _found(results()).lead
    assert lead.startswith("Not one update with another step size: 3 of 5 methods differ")
    assert "A new order of rows was tried once: two runs of SFT, cosine 0.893." in lead
    assert (
        "below that: DFT (0.529 to 0.572), Offline GRPO (0.677 to 0.741) and DPO lr1e-3 (0.204, at SFT’s learning rate)"
    ) in lead
    assert "Not told apart from SFT by direction: RFT (0.856 to 0.951) and RIFT (0.844 to 0.936)." in lead
    assert "RFT stands 28.2 to 29.0 points above SFT on Two-step arithmetic (Holm p <1e-9)" in lead


def test_none_is_told_apart_when_all_reach_the_floor() -> None:
    given = results()
    for name in ("rft", "dft", "rift", "offline_grpo", "dpo", "dpo-lr1e-3"):
        _cosine(given, name, 0.893)
    assert _found(given).lead.startswith("Open whether there is more than one direction: none of 5 methods is shown")
    _cosine(given, "dft", 0.892)
    assert "1 of 5 methods differs" in _found(given).lead
    _cosine(given, "dft", 0.8929)  # printed alike, and not called different
    assert "none of 5 methods" in _found(given).lead


def test_without_another_order_the_lead_stays_undecided() -> None:
    given = results()
    _remove(given, "sft-order43")
    lead = _found(given).lead
    assert lead.startswith(
        "Undecided: cosines to SFT run from 0.204 to 0.951, but no run repeats a method with another"
    )


def test_a_method_without_a_matched_run_is_called_unmatched() -> None:
    given = results()
    _remove(given, "dpo-lr1e-3")
    assert "DPO (0.063 to 0.079, at its own learning rate, unmatched)" in _found(given).lead


@pytest.mark.parametrize(
    ("matched", "words"),
    [
        (0.478, "closes 50% of the distance to what a new order gives (0.893)."),
        (0.9, "Matched, it reaches what a new order gives (0.893)."),
        (0.05, "brings it no nearer to what a new order gives"),
        (
            0.1,
            "no more than a new order of rows alone makes (up to 0.095): nothing is said",
        ),
    ],
)
def test_the_rate_sentence_gives_the_share_of_the_gap_that_matching_closes(matched: float, words: str) -> None:
    """Half way between .063 and .893 is .478; RFT's cosines to the two orders of SFT are .095 apart."""
    given = results()
    _cosine(given, "dpo", 0.063)
    _cosine(given, "dpo-lr1e-3", matched)
    (point,) = [point for point in _found(given).points if point.startswith("DPO at its own rate")]
    assert words in point


@pytest.mark.parametrize(
    ("accuracy", "p", "words"),
    [
        ((0.5, 0.3), 1e-5, "From the one to the other its accuracy on Sums falls from 50.0% to 30.0% (Holm p 1e-5)."),
        ((0.5, 0.49), 0.4, "Between the two its accuracy on Sums, 50.0% and 49.0%, is not shown to change."),
        ((0.0, 0.0), 1.0, ""),
    ],
)
def test_accuracy_changes_between_two_rates_where_a_paired_test_shows_it(accuracy: tuple, p: float, words: str) -> None:
    given = _study({("sft", "dpo"): 0.2, ("sft", "dpo-lr1e-3"): 0.3}, {"dpo": 1e-4})
    given["evaluation"] = _answered(dict(zip(("dpo", "dpo-lr1e-3"), accuracy, strict=True)), {("dpo", "dpo-lr1e-3"): p})
    (point,) = [point for point in _found(given).points if point.startswith("DPO at its own rate")]
    assert point.endswith(words) and ("accuracy" in point) == bool(words)


def test_warnings_for_a_canary_that_failed_or_is_blind() -> None:
    given = results()
    rows = {row["name"]: row for row in given["evaluation"]["canary"]}
    rows["rft"]["passed"] = False
    rows["dpo"]["told_apart"] = False
    given["evaluation"]["controls"][1]["passed"] = False
    warnings = " ".join(_found(given).warnings)
    assert "The canary failed for RFT" in warnings
    assert "The canary failed for an adapter of zeros" in warnings
    assert not any("the base stands at" in point for point in _found(given).points), "no accuracy can be relied on"
    given["evaluation"]["controls"][1]["passed"] = True
    short = next(point for point in _found(given).points if point.startswith("Two-step"))
    assert "DFT, Offline GRPO" in short and "RFT" not in short, "who was not served is not told above the base"
    assert "cannot tell DPO from the base" in warnings


def test_a_model_that_has_answered_in_part_is_named_and_not_counted() -> None:
    given = results()
    given["evaluation"]["incomplete"] = [{"name": "sft", "parts": 1, "of": 2}]
    warnings = _found(given).warnings
    assert "Left out of the accuracies: SFT, of whose evaluation 1 of 2 parts are finished." in warnings


def test_the_test_is_named_where_models_are_told_from_the_base() -> None:
    points = _found(results()).points
    short, long = (next(p for p in points if p.startswith(name)) for name in ("Two-step", "Three-step"))
    assert "(McNemar, Holm-adjusted p < 0.05)" in short and "(sign-flip test, Holm-adjusted p < 0.05)" in long


def test_groups_that_are_nearly_all_right_are_called_likeness_by_construction() -> None:
    given = results()
    assert "by construction" not in " ".join(_found(given).points)
    given["rollouts"]["groups"] = {"mixed": 5, "all_right": 93, "all_wrong": 2}
    assert "5.0% of the groups" in " ".join(_found(given).points)
    assert "by construction" in " ".join(_found(given).points)
    given["rollouts"]["groups"] = {"mixed": 5, "all_right": 2, "all_wrong": 93}
    assert "by construction" not in " ".join(_found(given).points), "RFT sees few of the rows that SFT sees"


def test_claims_are_data() -> None:
    claims = _found(results()).claims
    kept = json.loads(json.dumps([asdict(one) for one in claims], allow_nan=False))
    assert [row["words"] for row in kept] == [one.words for one in claims]
    apart = next(row for row in kept if row["kind"] == "apart")
    assert apart["subjects"] == ["dft", "offline_grpo", "dpo-lr1e-3"] and apart["numbers"]["dpo-lr1e-3"][1] < 0.893


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(133)
@example(140)
@example(4477)
def test_no_number_of_a_drawn_study_contradicts_a_sentence(seed: int) -> None:
    """Any replicas of any method, any geometry, zero updates, evaluated or not."""
    study = drawn(seed)
    check(study, _said(study.typed).claims)


def _first_run_alone(self: Evidence, a: Any, b: Any) -> list[float]:
    pair = frozenset((a.name, b.name))
    return [self.known[pair]] if pair in self.known else []


WRONG: dict[str, tuple[Any, str, Any]] = {
    "the first run alone": (Evidence, "cross", _first_run_alone),
    "the reference's floor alone": (Evidence, "floor", lambda self, a, b: self.within(self.reference) or self.orders()),
    "another rate is no floor": (Evidence, "rates", lambda self: []),
    "a margin below the floor": (direction, "below", lambda value, other: value < other + 0.1),
    "what reproduces itself badly is level": (direction, "COMMON", -1.0),
    "any change closes a distance": (Evidence, "swing", lambda self: 0.0),
    "p not looked at": (Tested, "shown", property(lambda self: self.difference != 0)),
    "accuracies of two orders not looked at": (function, "_within", lambda task, *of: []),
    "few cut answers are none": (function, "MANY_CUT", 0.5),
    "the lowest for the range": (claim, "ends", lambda values: (min(values), min(values))),
    "below its own floor is below all": (direction, "_repeated", lambda ev, one: False),
    "a distance of what is undecided": (rate, "DECIDED", ("apart", "rate", "level", "unrepeated", "unsteady")),
    "noise has a direction": (sys.modules[Evidence.__module__], "noise", lambda trainings: set()),
    "one rate for another": (rate, "below", lambda value, other: value > other),
}


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_rule_is_found_out(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, wrong = WRONG[rule]
    monkeypatch.setattr(target, name, wrong)
    with pytest.raises(AssertionError):
        for seed in range(400):
            study = drawn(seed)
            check(study, _said(study.typed).claims)
