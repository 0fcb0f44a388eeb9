"""The numbers of a small study that stand for each kind of step's output.

``python tests/golden/freeze.py RESULTS.json`` prints them with the steps' versions, to be kept as ``mini.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def numbers(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """A few numbers a kind of step, out of the results of the small study of ``tests/integration``.

    Those that another processor's rounding hardly moves: its cosine to Offline GRPO was seen at .42 and at .64.
    """
    trained = {row["name"]: row for row in results["trainings"]}
    norms = {row["name"]: row["norm"] for row in results["geometry"]["adapters"]}
    pairs = {(row["a"], row["b"]): row for row in results["geometry"]["pairs"]}
    losses = {row["name"]: row for row in results["losses"]}
    hidden = {(row["a"], row["b"], row["layer"]): row["cka"] for row in results["similarity"]["hidden"]}
    task = results["evaluation"]["tasks"][0]
    accuracy = {row["name"]: row["accuracy"] for row in task["models"]}
    return {
        "base": {"parameters": results["base"]["parameters"], "nll_right": losses["base"]["nll_right"]},
        "rollouts": {"rows": results["rollouts"]["rows"], "share_right": results["rollouts"]["share_right"]},
        "problems": {"n": task["n"]},
        "reference": {"first_loss": trained["dpo"]["loss_first"]},
        "train": {m: trained[m]["b_norm"] for m in ("sft", "rft", "dft", "rift", "offline_grpo", "dpo")},
        "scale": {row["name"]: row["factor"] for row in results["scaled"] if row["of"] in ("rft", "dft", "rift")},
        "evaluate": {m: accuracy[m] for m in ("base", "sft")},
        "geometry": {
            "norm": norms["sft"],
            **{f"cosine sft {m}": pairs["sft", m]["cosine"] for m in ("rft", "dft", "rift")},
            "angle": pairs["sft", "rft"]["angle_min_median_deg"] / 90,
            "u1": pairs["sft", "rft"]["u1"],
        },
        "activations": {
            "norm": next(row["norm"] for row in results["activations"]["adapters"] if row["name"] == "sft"),
            "cosine sft rft": next(
                row["cosine"] for row in results["activations"]["pairs"] if (row["a"], row["b"]) == ("sft", "rft")
            ),
        },
        "spectra": {
            key: next(row[key] for row in results["spectra"]["adapters"] if row["name"] == "sft")
            for key in ("left", "right", "relative_norm")
        },
        "losses": {"nll_right": losses["sft"]["nll_right"]},
        "features": {"first layer": hidden["base", "sft", 0]},
        "connectivity": {"between sft and rft": results["connectivity"]["paths"][0]["loss"][1]},
        "similarity": {"last layer": hidden["base", "sft", 1]},
    }


def main() -> None:
    from orchestrator.steps import STEP_KINDS

    results = json.loads(Path(sys.argv[1]).read_text())
    versions = {name: kind.version for name, kind in STEP_KINDS.items()}
    print(json.dumps({"versions": versions, "numbers": numbers(results)}, indent=1))


if __name__ == "__main__":
    main()
