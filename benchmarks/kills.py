"""Kills runs of a study at random: the final ``results.json`` must equal the undisturbed run's byte for byte.

    python benchmarks/kills.py [MINUTES] [SEED] [--set KEY=VALUE ...]

Each round runs configs/mini.yaml, with these settings, in a new folder, serially or on Ray, kills at one to four random
times, starts the same command again after each, and lets the last one finish. What is killed: the whole run, only its
driver, one of Ray's workers, or Ray's node process (the raylet). Exit code 1 if any round's results differ.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "orchestrator", "run", str(ROOT / "configs" / "mini.yaml"), "--out"]
CHANGES: list[str] = []  # of the study
VICTIMS = ("everything", "driver", "worker", "raylet")
PATIENCE = 300.0  # seconds within which every run must end


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """Start a run in its own session, which identifies the processes it starts."""
    with (out.parent / f"{out.name}.log").open("a") as log:
        return subprocess.Popen(
            [*COMMAND, str(out), *CHANGES, *more],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def members(session: int) -> list[psutil.Process]:
    """The processes of a session, including its leader."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.pid and os.getsid(process.pid) == session:
                processes.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return processes


def choose(run: subprocess.Popen[str], victim: str, chance: random.Random) -> list[psutil.Process]:
    """The processes to kill now; empty if none of that kind has started yet."""
    alive = members(run.pid)
    if victim == "everything":
        return alive
    if victim == "driver":
        return [process for process in alive if process.pid == run.pid]
    named = []
    for process in alive:
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if words.startswith("ray::") if victim == "worker" else process.name() == "raylet":
            named.append(process)
    return [chance.choice(named)] if named else []


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


def steps_done(out: Path) -> int:
    return len(list(out.glob("*/*/step.json")))


def disturbed(out: Path, more: list[str], lasts: float, chance: random.Random) -> Counter[str]:
    """Run to the end through one to four kills at random times; returns the number of kills by victim."""
    killed: Counter[str] = Counter()
    for left in range(chance.randint(1, 4), -1, -1):
        run = start(out, *more)
        try:
            victim = chance.choice(VICTIMS) if not more else "everything"
            try:
                code = run.wait(chance.uniform(0, lasts) if left else PATIENCE)
            except subprocess.TimeoutExpired:
                if not left:
                    raise SystemExit(f"a run did not end within {PATIENCE:.0f} s: {out}.log") from None
                before, victims = steps_done(out), choose(run, victim, chance)
                what = " ".join(victims[0].cmdline()[:1])[:40] if victim == "worker" and victims else victim
                kill(victims)
                if victims:
                    killed[victim] += 1
                    print(f"    killed {what} with {before} steps done", flush=True)
                # A run that lost a worker or its node continues by itself; one that lost its driver has ended.
                code = run.wait(PATIENCE)
            if code == 0:
                break
            if not left:
                raise SystemExit(f"the last run ended with exit code {code}: {out}.log")
        finally:
            # Half the time orphans survive into the next run.
            kill(members(run.pid) if left == 0 or chance.random() < 0.5 else [])
    return killed


def main(minutes: float = 10, seed: int = 0) -> int:
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    lasts: dict[str, float] = {}
    for kind in ("--serial", "ray"):
        begun = time.monotonic()
        if start(folder / kind.strip("-"), *([kind] if kind.startswith("-") else [])).wait(PATIENCE):
            raise SystemExit(f"the undisturbed run failed: {folder}")
        lasts[kind] = time.monotonic() - begun
        print(f"undisturbed, {kind.strip('-')}: {lasts[kind]:.0f} s", flush=True)
    wanted = (folder / "serial" / "report" / "results.json").read_bytes()
    if (folder / "ray" / "report" / "results.json").read_bytes() != wanted:
        raise SystemExit("the undisturbed runs differ between themselves")
    killed: Counter[str] = Counter()
    rounds = differ = 0
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        rounds += 1
        kind = chance.choices(("--serial", "ray"), (1, 3))[0]
        print(f"round {rounds}, {kind.strip('-')}", flush=True)
        out = folder / f"round-{rounds}"
        killed += disturbed(out, [kind] if kind.startswith("-") else [], lasts[kind], chance)
        same = (out / "report" / "results.json").read_bytes() == wanted
        differ += not same
        print(f"    {'the same results' if same else 'DIFFERENT RESULTS: ' + str(out)}", flush=True)
    kills = ", ".join(f"{n} {name}" for name, n in killed.most_common())
    print(f"{rounds} rounds, {killed.total()} kills ({kills}): {differ} with different results (seed {seed})")
    if not differ:
        shutil.rmtree(folder)
    return int(differ > 0)


if __name__ == "__main__":
    numbers = [word for word in sys.argv[1:3] if not word.startswith("--")]
    CHANGES += sys.argv[1 + len(numbers) :]
    sys.exit(main(*(kind(word) for kind, word in zip((float, int), numbers, strict=False))))
