"""GPUs seen from their workers, on a real cluster of two nodes with logical GPUs, by steps that sleep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import ROOT

PROGRAM = """
import json, sys
from pathlib import Path
from benchmarks.night import joining, killing, losing, nodes, plan_of, spend

study, steps, planned = plan_of(Path("configs/qwen3-4b.yaml"), json.loads(sys.argv[2]), 4)
with nodes(2, 2) as found:
    happenings = [killing("train", 1.0), losing(1, 0), joining(2, 8, 1)]
    night = spend(found, study, steps, planned, 1.0, Path(sys.argv[1]), happenings)
    second, third = found.nodes[1].node_id, found.nodes[2].node_id
print(json.dumps({
    "naps": [[nap.title, nap.gpu, nap.start, nap.end, nap.whole] for nap in night.naps], "twice": night.twice(),
    "lost": second, "joined": third, "gone": {gpu: end for gpu, (_, end) in night.gpus.items()}, "lines": night.lines,
    "steps": [step.title for step in steps],
}))
"""
SMALL = [
    "methods={sft: , rft: , dpo: {learning_rate: 5e-7}}",
    "replicas=[]",
    "sweep={method: dpo, learning_rates: [5e-7, 5e-6]}",
    "analysis.connectivity.pairs=[[sft, dpo]]",
    "analysis.spectra.top=0",
]


def test_no_gpu_is_held_twice_whatever_dies_or_joins(tmp_path: Path) -> None:
    """A training's worker is killed, then the second node is lost at work, and another joins when one has ended."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "night"), json.dumps(SMALL)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["twice"] == 0
    whole = {title for title, *_, ended in told["naps"] if ended}
    assert whole == set(told["steps"])
    on_gpus = {"train", "evaluate", "losses", "features", "reference", "connectivity", "activations", "rollouts"}
    for title, gpu, *_ in told["naps"]:
        assert bool(gpu) == (title.partition("/")[0] in on_gpus), f"{title} saw the GPUs {gpu!r}"
    killed = [title for title, *_, ended in told["naps"] if not ended]
    again = [line.partition(":")[0] for line in told["lines"] if "placed again" in line]
    assert killed and set(again) == set(killed)
    lost, joined = (
        [(start, end) for _, gpu, start, end, _ in told["naps"] if gpu.startswith(told[node])]
        for node in ("lost", "joined")
    )
    assert lost and joined, "both were at work"
    assert max(end for _, end in lost) <= min(told["gone"][gpu] for gpu in told["gone"] if told["lost"] in gpu) + 0.5
