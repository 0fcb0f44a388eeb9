"""A search on Ray: the grid's bytes are those of a run in one process; ASHA, killed in the middle, decides again as it
did, and what it trained in parts is what an undisturbed training gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from execution.execute import attempt
from execution.storage import Folder
from execution.store import Store
from orchestrator.config.study_file import load_study
from orchestrator.planning.resolve import gather
from orchestrator.planning.search import searches, stage
from orchestrator.runtime.engines import Engines
from orchestrator.search.log import FILE as LOG
from orchestrator.search.trials import Trials
from orchestrator.steps.trials.search import SEARCH
from tests.integration.conftest import ROOT, committed, finished, forked_run, orchestrator, results

STUDY = """
name: searched
base: {kind: from_scratch, name: scratch, threads: 1, steps: 60, batch: 32, learning_rate: 6e-3, largest: 3,
       shape: {layers: 2, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, intermediate: 128}}
adapter: {rank: 8, alpha: 16, targets: [q_proj, v_proj]}
prompt: {max_prompt_tokens: 64, max_answer_tokens: 48}
rollouts:
  source: vllm
  model: base
  problems: {task: arithmetic, split: train, draw: 40, seed: 0, settings: {largest: 3}}
  instruction: "{problem} Explain."
  samples: 4
  temperature: 1.0
  max_tokens: 40
  shard: 40
  table: {heldout: 0.5}
training: {learning_rate: 3e-4, steps: 8, batch_size: 8, micro_batch: 8, resume_every: 3, precision: float32}
methods: {sft: , dpo: }
engine: {kind: transformers, precision: float32, max_model_len: 128}
evaluation:
  tasks: [{task: arithmetic, split: test, draw: 12, seed: 1, settings: {largest: 3}}]
  max_tokens: 40
analysis: {chance_draws: 2, connectivity: {rows: 4, points: 3}, similarity: {prompts: 12, groups: 2}}
"""
GRID = "search={learning_rates: [3e-4, 3e-3], orders: [42, 43]}"
ASHA = "search={algorithm: asha, learning_rates: [1e-4, 3e-4, 1e-3, 3e-3, 1e39], reduction: 2, grace: 2}"
WAIT = 300.0  # seconds for a first rung


def written(tmp_path: Path) -> Path:
    path = tmp_path / "searched.yaml"
    path.write_text(STUDY)
    return path


def test_a_grid_on_ray_has_the_bytes_of_one_in_this_process(tmp_path: Path) -> None:
    study, alone, on_ray = written(tmp_path), tmp_path / "alone", tmp_path / "ray"
    done = forked_run("run", str(study), "--set", GRID, "--serial", "--out", str(alone))
    assert done.returncode == 0, done.stderr
    done = orchestrator("run", str(study), "--set", GRID, "--out", str(on_ray))
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished(on_ray) == finished(alone) and results(on_ray) == results(alone)

    document = json.loads(results(on_ray))
    chosen = {search["method"]: search["learning_rate"] for search in document["search"]}
    assert {row["method"]: row["learning_rate"] for row in document["matched"] if row["matched"] == "best rate"} == {
        "dpo": chosen["dpo"]
    }
    for search in document["search"]:
        assert f"train/{search['chosen']}-order43" in finished(on_ray)
    before = committed(on_ray)
    done = orchestrator("run", str(study), "--set", GRID, "--out", str(on_ray))
    assert "nothing to do" in done.stdout and committed(on_ray) == before


def test_asha_killed_in_the_middle_decides_as_before_and_trains_the_same_bytes(tmp_path: Path) -> None:
    path, out = written(tmp_path), tmp_path / "out"
    words = ["run", str(path), "--set", ASHA, "--out", str(out)]
    first = subprocess.Popen([sys.executable, "-m", "orchestrator", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + WAIT
    while not (before := decisions(out)) and time.monotonic() < until and first.poll() is None:
        time.sleep(0.1)
    first.kill()
    first.wait()
    before = decisions(out)
    assert before, "a decision was taken before the kill"
    made = committed(out)
    done = orchestrator(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: when for name, when in committed(out).items() if name in made} == made, "nothing was made twice"

    store = Store(out, Folder(out))
    study = load_study(path, [ASHA])
    facts = gather(study, out, online=False)
    for step in searches(stage(study, facts, store).steps):
        trials = Trials.of(step.config, step.runtime)
        found = json.loads((store.folder(step) / SEARCH).read_text())
        rows = {row["learning_rate"]: row for row in found["trials"]}
        assert rows[1e39]["status"] == "failed" and f"{step.name}: adapter is not finite" in rows[1e39]["error"]
        for decision in before.get(step.name, []):
            row = rows[step.config["rates"][decision["trial"]]]
            assert row["rungs"][decision["rung"]]["accuracy"] == decision["value"]
            if decision["stop"]:
                assert row["status"] == "stopped" and row["stopped"]["values"] == decision["values"]
        for row in rows.values():
            if row["status"] == "stopped":
                last = row["rungs"][-1]
                assert row["stopped"]["value"] == last["accuracy"] < row["stopped"]["cutoff"]
        assert found["steps"] == sum(row["steps"] for row in rows.values()) <= found["full_steps"]
        assert rows[found["learning_rate"]]["status"] == "finished"
        undisturbed(trials, found["learning_rate"], store, tmp_path)


def decisions(out: Path) -> dict[str, list[dict[str, Any]]]:
    """What the searches have logged so far, by method."""
    found = {}
    for path in out.glob(f"partial/search/*/work/{LOG}"):
        log = json.loads(path.read_text())["decisions"]
        if log:
            found[path.parts[-3].rpartition("-")[0]] = log
    return found


def undisturbed(trials: Trials, rate: float, store: Store, tmp_path: Path) -> None:
    """The whole trial, trained in parts, has the bytes of the same step trained in one go."""
    whole = trials.training(rate, len(trials.rungs) - 1)
    aside = Store(tmp_path / f"aside-{whole.name}", Folder(tmp_path / f"aside-{whole.name}"))
    for other in whole.inputs.values():
        link = aside.root / other.folder
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(store.folder(other), link)
    assert attempt(whole, aside, Engines()) is None
    one, two = store.folder(whole), aside.folder(whole)
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file() and p.name != "step.json")
    assert names == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file() and p.name != "step.json")
    differing = [str(name) for name in names if (one / name).read_bytes() != (two / name).read_bytes()]
    assert [name for name in differing if not name.endswith("adapter_config.json")] == []
