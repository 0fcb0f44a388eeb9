"""Runs a small study on two hosts and disturbs it: ``results.json`` must equal the serial run's byte for byte.

    python benchmarks/hosts.py [CASE ...]      # all cases by default; root, iproute2 and util-linux are needed

The hosts are network namespaces of this machine (tests/hosts.py), which share nothing but an object store on the first
one. Each case is a run of configs/mini.yaml, joined to a Ray node on each host, in which three trainings and what reads
them are still to be made:

    undisturbed   nothing happens
    cut           the second host is cut off for 30 s once a training has ended
    long-cut      the same for 120 s
    lost          the second host loses its power then
    job           the study is submitted from the second host, by ``ray job submit``

Exit code 1 if any case's results differ or are missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.hosts import JOBS, RAY, Host, lack, start_ray, two_hosts
from tests.integration.conftest import MINI, ROOT, UNFINISHED, results, run_serially
from tests.object_store import object_store

STORE = "s3://studies/mini"
HAND_OVER = f"""
import sys
from pathlib import Path
from execution.storage import storage_of
from tests.integration.conftest import handed_over
handed_over(Path(sys.argv[1]), storage_of({STORE!r}), *sys.argv[2:])
"""
LIMIT = 600.0  # seconds within which a run must end
Disturb = Callable[[Host], None]


def cut(seconds: float) -> Disturb:
    def disturb(second: Host) -> None:
        second.cable("down")
        threading.Timer(seconds, second.cable, ["up"]).start()

    return disturb


CASES: dict[str, Disturb | None] = {
    "undisturbed": None,
    "cut": cut(30),
    "long-cut": cut(120),
    "lost": Host.end,
    "job": None,
}


def followed(run: subprocess.Popen[str], begun: float, disturb: Callable[[], None] | None) -> int:
    """A run to its end, shown line by line: its exit code. It is disturbed once, when a training has ended."""
    limit = threading.Timer(LIMIT, run.kill)
    limit.start()
    assert run.stdout is not None
    for line in run.stdout:
        print(f"    {time.monotonic() - begun:5.1f}  {line}", end="", flush=True)
        if disturb and " train/" in line and "done in" in line:
            print(f"    {time.monotonic() - begun:5.1f}  (now)", flush=True)
            disturb()
            disturb = None
    limit.cancel()
    return run.wait()


def job(second: Host, address: str, out: Path) -> list[str]:
    """The command that submits the study from the second host, and the copy of this folder there that it uploads."""
    copy = second.own / "copy"
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(list_files, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    return [
        RAY, "job", "submit", "--address", f"http://{address}:{JOBS}", "--working-dir", str(second.inside / "copy"),
        "--", sys.executable, "-m", "orchestrator", "run", "configs/mini.yaml", "--address", "auto", "--out", str(out),
        "--store", STORE,
    ]  # fmt: skip


def unread(folder: str, names: list[str]) -> list[str]:
    """What is not kept of a host's folder: sockets, and the code that Ray unpacked."""
    return [name for name in names if name == "runtime_resources" or Path(folder, name).is_socket()]


def perform(case: str, serial: Path) -> bool:
    """Whether the case ends with the serial run's results."""
    with two_hosts() as (head, second), object_store(on=head) as environment:
        address = start_ray((head, second), environment)
        over = head.words(sys.executable, "-c", HAND_OVER, str(serial), *UNFINISHED, folder=ROOT)
        subprocess.run(over, check=True)
        out, begun = head.inside / "out", time.monotonic()
        if case == "job":
            words = second.words(*job(second, head.address, out))
        else:
            run = [sys.executable, "-m", "orchestrator", "run", str(MINI), "--out", str(out), "--store", STORE]
            words = head.words(*run, "--address", address, folder=ROOT)
        disturb = CASES[case]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            code = followed(process, begun, disturb and (lambda: disturb(second)))
        same = code == 0 and results(head.own / "out") == results(serial)
        print(f"{case}: {time.monotonic() - begun:.0f} s, exit code {code}, {'the same' if same else 'NOT THE SAME'}")
        if not same:
            kept = Path(tempfile.mkdtemp(prefix=f"hosts-{case}-"))
            for host in (head, second):
                shutil.copytree(host.own, kept / host.name, symlinks=True, ignore=unread)
            print(f"    its hosts' folders: {kept}")
        return same


def main(cases: list[str]) -> int:
    if (why := lack()) is not None:
        raise SystemExit(f"this machine {why}")
    with tempfile.TemporaryDirectory() as folder:
        serial = Path(folder) / "serial"
        run_serially(MINI, serial)
        failed = [case for case in cases or CASES if not perform(case, serial)]
    print(f"{', '.join(failed)}: NOT THE SAME" if failed else "all the same")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
