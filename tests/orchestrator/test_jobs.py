"""What a job that died leaves with Ray, on a real local cluster in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, time, ray
from orchestrator.cluster.connection import join
from orchestrator.cluster.jobs import MARK, clear

join(None)

@ray.remote(num_cpus=0)
class Controller:
    def hold(self, mark):
        ray.get(ray.util.placement_group([{"CPU": 0.25, MARK: mark}]).ready())

held = lambda: sum(group["state"] == "CREATED" for group in ray.util.placement_group_table().values())
dead, alive = Controller.remote(), Controller.remote()
ray.get([dead.hold.remote(1), alive.hold.remote(2)])
ray.kill(dead)
time.sleep(2)
told = [held()]
clear({1, 3})
until = time.time() + 30
while held() > 1 and time.time() < until:
    time.sleep(0.1)
told.append(held())
print(json.dumps(told))
ray.shutdown()
"""


def test_what_a_dead_job_held_is_freed_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before == 2, "Ray itself keeps what the dead one held: else this is not needed any more"
    assert after == 1
