"""A whole study: a second run does nothing, a report is rebuilt, what is damaged or fails leaves the rest."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MODELS, SCALED, TITLES, committed, finished, forked_run, orchestrator


def test_serial_run_reports_every_part(serial: Path) -> None:
    """Made without Ray and, as its engine is Transformers, without vLLM (see ``serial``)."""
    assert finished(serial) == set(TITLES)
    results = json.loads((serial / "report" / "results.json").read_text())
    names = ["sft", "rft", "dft", "rift", "offline_grpo", "dpo", "dpo-lr3e-4", "sft-order43"]
    assert [a["name"] for a in results["geometry"]["adapters"]] == names
    assert len(results["geometry"]["pairs"]) == 8 * 7 // 2
    wanted = {"a", "b", "cosine", "angle_min_median_deg", "angle_max_median_deg", "orthogonal_fraction", "u1", "v1"}
    assert wanted <= results["geometry"]["pairs"][0].keys()
    assert {"name", "norm", "effective_rank", "modules"} <= results["geometry"]["adapters"][0].keys()
    assert results["geometry"]["adapters"][0]["modules"] == 8
    assert [m["name"] for m in results["evaluation"]["tasks"][0]["models"]] == ["base", *names]
    assert all(c["passed"] for c in results["evaluation"]["canary"])
    assert [t["status"] for t in results["trainings"]] == ["done"] * 8
    assert results["failures"] == []
    assert [p["name"] for p in results["sweep"]["points"]] == ["dpo", "dpo-lr3e-4"]
    page = (serial / "report" / "report.html").read_text()
    assert "<script" not in page and "Offline GRPO" in page
    assert (serial / "report" / "figures").is_dir() and list((serial / "report" / "csv").glob("*.csv"))


def test_scaled_copies_are_further_models_and_no_trainings(serial: Path) -> None:
    """At SFT's norm to float32's rounding; evaluated, with losses and a CKA, but in no table of pairs."""
    results = json.loads((serial / "report" / "results.json").read_text())
    norms = {row["name"]: row["norm"] for row in results["geometry"]["adapters"]}
    assert [row["name"] for row in results["scaled"]] == list(SCALED)
    for row in results["scaled"]:
        assert (row["norm"], row["reference_norm"]) == (pytest.approx(norms["sft"], rel=1e-6),) * 2
        assert row["factor"] == pytest.approx(norms["sft"] / norms[row["of"]], rel=1e-6)
    task = results["evaluation"]["tasks"][0]
    assert [row["name"] for row in task["scaled"]] == list(SCALED)
    assert [row["name"] for row in results["evaluation"]["canary"]] == [*MODELS, *SCALED]
    measured = [*results["geometry"]["pairs"], *results["similarity"]["hidden"], *task["pairs"]]
    assert not any(row[end] in SCALED for row in measured for end in ("a", "b"))
    kl = {row["name"]: row["kl_to_base"] for row in results["losses"]}
    assert kl["dpo-norm"] > 10 * kl["dpo"] > 0, "eight times its update is further from the base"
    cka = {(row["name"], row["layer"]): row["cka"] for row in results["scaled_cka"]}
    assert 0.9 < cka["dpo-norm", 1] < 1 - 1e-9 and {name for name, _ in cka} == set(SCALED)
    rows = {(row["method"], row["learning_rate"]): row for row in results["matched"] if row["matched"] == "norm"}
    dpo = rows["dpo", 3e-5]
    assert dpo["trainings"] == ["dpo-norm"] and dpo["kl_to_base"] == kl["dpo-norm"]
    accuracies = {row["name"]: row["accuracy"] for row in (*task["models"], *task["scaled"])}
    mean = (accuracies["sft"] + accuracies["sft-order43"]) / 2
    assert dpo["accuracy"][0]["difference"] == pytest.approx(accuracies["dpo-norm"] - mean)
    assert len(rows) == 6 and "DPO, at SFT’s norm" in (serial / "report" / "report.html").read_text()


def test_second_run_does_nothing(mini: Path, serial: Path) -> None:
    before, page = committed(serial), (serial / "report" / "report.html").stat().st_mtime_ns
    again = orchestrator("run", str(mini), "--out", str(serial))
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert "Ray is up" not in again.stdout
    assert committed(serial) == before
    assert (serial / "report" / "report.html").stat().st_mtime_ns == page


def test_report_is_rebuilt_from_the_store_alone(mini: Path, serial: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(serial, copy)
    shutil.rmtree(copy / "report")
    done = forked_run("report", "--out", str(copy))
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "report.html"):
        assert (copy / "report" / name).read_bytes() == (serial / "report" / name).read_bytes()


def test_a_study_of_two_forms_of_a_method(mini: Path, serial: Path, tmp_path: Path) -> None:
    """Under names of their own, from steps to report; one of them reads the base on all rows."""
    out = tmp_path / "forms"
    for kind in ("base", "rollouts", "problems"):
        shutil.copytree(serial / kind, out / kind)
    source = "offline_grpo_source: {method: offline_grpo, settings: {form: source}}"
    ipo = "ipo: {method: dpo, learning_rate: 3.0e-5, settings: {loss: ipo, length_normalised: true}}"
    done = forked_run(
        "run", str(mini), "--serial", "--out", str(out), "--set", f"methods={{sft: {{}}, {source}, {ipo}}}",
        "--set", "sweep=null", "--set", "replicas=[]", "--set", "analysis.connectivity.pairs=[[sft, ipo]]",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"reference/all-rows", "reference/base"} <= finished(out)
    results = json.loads((out / "report" / "results.json").read_text())
    trained = {t["name"]: t for t in results["trainings"]}
    assert [t["objective"] for t in trained.values()] == ["sft", "offline_grpo", "dpo"]
    assert trained["offline_grpo_source"]["settings"]["form"] == "source"
    assert all(t["heldout_kl"] > 0 and 0 <= t["gradient_wrong"] <= 1 for t in trained.values())
    assert trained["sft"]["nll_pushed_last"] is None and trained["ipo"]["nll_pushed_last"] > 0
    assert trained["ipo"]["loss_first"] == pytest.approx(25.0, rel=1e-4), "1 / (4 beta^2) at the base"
    page = (out / "report" / "report.html").read_text()
    assert "offline_grpo_source" in page and "Logged KL" in page


def test_a_report_midway_has_the_geometry_of_what_is_finished(serial: Path, tmp_path: Path) -> None:
    out = tmp_path / "midway"
    for part in ("base/*", "rollouts/*", "problems/*", "train/sft-[0-9a-f]*", "train/rift-*"):
        for folder in serial.glob(part):
            shutil.copytree(folder, out / folder.relative_to(serial))
    shutil.copy(serial / "study.json", out)
    done = forked_run("report", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    whole, half = (json.loads((folder / "report" / "results.json").read_text()) for folder in (serial, out))
    assert [a["name"] for a in half["geometry"]["adapters"]] == ["sft", "rift"]
    (pair,) = half["geometry"]["pairs"]
    same = next(p for p in whole["geometry"]["pairs"] if (p["a"], p["b"]) == ("sft", "rift"))
    assert {k: v for k, v in pair.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in same.items() if isinstance(v, float)}, rel=1e-9
    )
    assert {t["name"]: t["status"] for t in half["trainings"]}["dpo"] == "not run"
    assert not list(out.glob("geometry/*")) and not list(out.glob("failed/*")), "the run's store is only read"
    shutil.rmtree(next(out.glob("train/rift-*")))
    done = forked_run("report", "--out", str(out))
    assert done.returncode == 0 and "geometry" not in json.loads((out / "report" / "results.json").read_text())


def count_passes(log: Path) -> None:
    """From here on the models of the steps features and losses note each batch in a file, and whether it is adapted."""
    from orchestrator.measurements import features, losses

    def counting(load: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def loaded(*words: Any, **how: Any) -> Any:
            model = load(*words, **how)

            def note(*_: Any) -> None:
                linear = model.get_submodule("model.layers.0.self_attn.q_proj")
                with log.open("a") as lines:
                    lines.write(f"{kind} {'adapted' if linear._forward_hooks else 'base'}\n")

            model.model.register_forward_pre_hook(note)
            return model

        return loaded

    for module, kind in ((features, "features"), (losses, "losses")):
        module.load = counting(module.load, kind)  # type: ignore[attr-defined]


def test_one_training_more_is_passed_through_alone(mini: Path, serial: Path, tmp_path: Path) -> None:
    """A finished study of eight trainings gets a ninth: no other is passed through again, and no path measured."""
    copy, log = tmp_path / "copy", tmp_path / "passes"
    shutil.copytree(serial, copy)
    before = committed(copy)
    done = forked_run(
        "run", str(mini), "--serial", "--out", str(copy), "--set",
        "factorial=[{methods: [rft], learning_rate: [1.0e-3]}]", first=partial(count_passes, log),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.rpartition("-")[0].removeprefix(f"{copy}/") for path in committed(copy).keys() - before.keys()}
    own = {f"{kind}/rft-lr1e-3" for kind in ("train", "evaluate", "losses", "features")}
    assert made == own | {"geometry/weights", "activations/rows", "spectra/base", "similarity/cka"}
    passes = Counter(log.read_text().splitlines())
    # 24 prompts, and 8 right and 8 wrong rows, in batches of 8; the rows on base for the KL, and one to check its head.
    assert passes == {"features adapted": 3, "losses adapted": 2, "losses base": 2 + 3}
    one, two = (json.loads((folder / "report" / "results.json").read_text()) for folder in (serial, copy))
    assert one["losses"] == [row for row in two["losses"] if row["name"] != "rft-lr1e-3"]
    assert [row["name"] for row in two["losses"]].count("rft-lr1e-3") == 1
    assert one["scaled"] == two["scaled"] and one["scaled_cka"] == two["scaled_cka"]
    assert one["connectivity"] == two["connectivity"]
    among = [row for row in two["similarity"]["hidden"] if "rft-lr1e-3" not in (row["a"], row["b"])]
    assert among == one["similarity"]["hidden"]


def test_a_damaged_step_is_made_again(mini: Path, serial: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(serial, copy)
    weights = next(copy.glob("train/dft-*/adapter/adapter_model.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = forked_run("run", str(mini), "--serial", "--out", str(copy))
    assert done.returncode == 0, done.stderr
    assert "train/dft: adapter/adapter_model.safetensors was changed since it was made" in done.stdout
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("backend", ["native", "trl"])
def test_a_failed_training_leaves_the_others(mini: Path, serial: Path, tmp_path: Path, backend: str) -> None:
    """A learning rate of 1e30 makes DFT's weights infinite: its step fails, the rest goes on, exit code 1."""
    copy = tmp_path / "copy"
    for kind in ("base", "rollouts", "problems", "reference"):
        shutil.copytree(serial / kind, copy / kind)
    done = forked_run(
        "run", str(mini), "--serial", "--out", str(copy), "--set", f"training.backend={backend}",
        "--set", "methods={sft: {}, dft: {learning_rate: 1.0e+30}, dpo: {learning_rate: 3.0e-5}}",
        "--set", "analysis.connectivity.pairs=[[sft, dpo], [sft, dft]]", "--set", "replicas=[]",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "train/dft: FAILED" in done.stdout
    assert "evaluate/dft: not run, needs train/dft" in done.stdout
    assert "scale/dft-norm: not run, needs train/dft" in done.stdout
    results = json.loads((copy / "report" / "results.json").read_text())
    status = {t["name"]: t["status"] for t in results["trainings"]}
    assert status == {"sft": "done", "dft": "failed", "dpo": "done", "dpo-lr3e-4": "done"}
    assert [a["name"] for a in results["geometry"]["adapters"]] == ["sft", "dpo", "dpo-lr3e-4"]
    assert results["failures"][0]["step"] == "train/dft"
    assert {"evaluate/dft", "scale/dft-norm", "evaluate/dft-norm"} <= set(results["failures"][0]["dependants"])
    assert [row["of"] for row in results["scaled"]] == ["dpo", "dpo-lr3e-4"], "the other copies go on"
    assert {row["name"] for row in results["scaled_cka"]} == {"dpo-norm", "dpo-lr3e-4-norm"}
