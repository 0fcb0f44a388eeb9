"""One run a store: a living holder is named, a dead one's lease is taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path

import pytest

from execution.errors import Interrupted, UserError
from execution.lease import FILE, hold
from execution.storage import Folder


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    place = Folder(tmp_path)
    place.open()
    return place


def held_by(place: Folder, **told: object) -> None:
    place.write(FILE, json.dumps({"host": "elsewhere", "pid": 7, "born": "1", "id": "x", "beat": 3} | told).encode())


def test_a_living_holder_is_named(place: Folder) -> None:
    with (
        hold(place, print),
        pytest.raises(UserError, match=rf"in use by process {os.getpid()} on "),
        hold(place, print),
    ):
        pass
    assert place.read(FILE) is None


@pytest.mark.parametrize("way", ["killed", "zombie", "reused"])
def test_a_dead_holder_on_this_machine_is_taken_over_at_once(place: Folder, way: str) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom execution.lease import hold\n"
        "from execution.storage import Folder\n"
        f"with hold(Folder(Path({str(place.root)!r})), print):\n    os.kill(os.getpid(), 9)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not collected
    if way != "zombie":
        child.wait()
    told = json.loads(place.read(FILE) or b"")
    if way == "reused":  # the process id is another process's by now
        held_by(place, **told | {"pid": os.getpid()})
    said: list[str] = []
    with hold(place, said.append, patience=1000):
        assert "taken over" in said[-1]
    child.wait()


def test_a_holder_elsewhere_that_does_not_renew_is_taken_over(place: Folder) -> None:
    held_by(place)
    said: list[str] = []
    with hold(place, said.append, patience=0.1):
        assert json.loads(place.read(FILE) or b"")["pid"] == os.getpid()
    assert "process 7 on elsewhere" in said[-1]


def test_a_holder_elsewhere_that_renews_is_not(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(place)
    monkeypatch.setattr("execution.lease.time.sleep", lambda seconds: held_by(place, beat=4))
    with pytest.raises(UserError, match="in use by process 7 on elsewhere"), hold(place, print):
        pass


@pytest.mark.parametrize(
    ("field", "value"),
    [*product(("machine", "boot", "processes"), ("another", "", None)), ("born", None), ("pid", "7")],
)
def test_a_holder_whose_processes_are_not_surely_ours_counts_by_renewal_alone(
    place: Folder, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    """Of the same host name, with a process id that is free here: a container, a machine made from the same image."""
    with hold(place, print):
        told = json.loads(place.read(FILE) or b"")
    child = subprocess.Popen(["true"])
    child.wait()
    dead = told | {"pid": child.pid, "beat": 3}
    held_by(place, **dead)
    with hold(place, print, patience=1000):  # as it stands, its process decides
        pass
    held_by(place, **dead | {field: value})
    monkeypatch.setattr("execution.lease.time.sleep", lambda seconds: held_by(place, **dead | {"beat": 4}))
    with pytest.raises(UserError, match=r"in use by process \d+ on "), hold(place, print, patience=1000):
        pass


# Says that it holds, until its standard input ends.
HOLDER = """
import sys
import threading
import time
from itertools import product
from pathlib import Path
from execution.lease import hold
from execution.storage import Folder
with hold(Folder(Path(sys.argv[1])), print, beat=0.02):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("proc", [[], ["--mount-proc"]], ids=["outer-proc", "own-proc"])
def test_a_living_holder_in_another_namespace_of_processes_keeps_its_lease(place: Folder, proc: list[str]) -> None:
    """As of a run in another container: its process id there is 1, and so is that of another process here."""
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", *proc, sys.executable, "-c", HOLDER]
    with subprocess.Popen([*words, str(place.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        if child.stdout.readline() != "held\n":
            pytest.skip("this machine makes no namespaces")
        with pytest.raises(UserError, match="in use by process 1 on "), hold(place, print, patience=30):
            pass
        child.stdin.close()
    assert place.read(FILE) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"\xff"])
def test_a_lease_that_cannot_be_read_is_taken_over(place: Folder, text: bytes) -> None:
    place.write(FILE, text)
    with hold(place, print, patience=0.1):
        pass
    assert place.read(FILE) is None


def test_the_loser_of_a_takeover_is_told(place: Folder) -> None:
    with hold(place, print, beat=0.01) as lease:
        held_by(place)
        lease._thread.join(10)
        with pytest.raises(Interrupted, match="another run has taken over"):
            lease.check()
    assert json.loads(place.read(FILE) or b"")["host"] == "elsewhere", "what is not ours is not given back"


def test_a_held_lease_is_renewed(place: Folder) -> None:
    with hold(place, print, beat=0.01) as lease:
        while json.loads(place.read(FILE) or b"")["beat"] < 3:
            pass
        lease.check()


def test_a_write_that_is_reported_lost_but_arrived_loses_no_lease(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store under load answers too late: the request is given up, and done all the same."""
    wrote = Folder.write

    def late(self: Folder, name: str, data: bytes) -> None:
        wrote(self, name, data)
        if json.loads(data)["beat"] % 2:
            raise OSError("timed out")

    with hold(place, print, beat=0.01) as lease:
        monkeypatch.setattr(Folder, "write", late)
        while not lease._lost and json.loads(place.read(FILE) or b"")["beat"] < 1:
            pass
        lease._thread.join(0.2)
        lease.check()
    assert place.read(FILE) is None, "and it is given back"


def test_a_lease_that_somebody_deleted_or_damaged_is_written_again(place: Folder) -> None:
    with hold(place, print, beat=0.01) as lease:
        for _ in range(2):
            place.remove(FILE)
            while place.read(FILE) is None:
                lease.check()
            place.write(FILE, b"{" * 9)
            while place.read(FILE) == b"{" * 9:
                lease.check()


def test_a_store_that_does_not_answer_holds_nobody_up(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease stays, to be taken over as a dead holder's."""
    asked, answered = threading.Event(), threading.Event()

    def read(self: Folder, name: str) -> bytes | None:
        asked.set()
        answered.wait(60)
        return None

    with hold(place, print, beat=0.05):
        monkeypatch.setattr(Folder, "read", read)
        assert asked.wait(10)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    answered.set()
    monkeypatch.undo()
    assert place.read(FILE) is not None
