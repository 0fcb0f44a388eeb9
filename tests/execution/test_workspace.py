"""Folders of one process's own: others keep out, and a dead one's are removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from execution import durable, process, workspace
from execution.errors import UserError
from execution.process import note
from execution.workspace import LOCK, hold, left, own
from orchestrator.cluster import session

# Leaves, when it dies, two folders: one with a child that writes into it.
DIES = """
import os, subprocess, sys
from pathlib import Path
from execution.workspace import hold
parent = Path(sys.argv[1])
kept = [hold(prefix, parent) for prefix in ("orchestrator-ray-", "report-")]
log = (kept[0][0] / "raylet.out").open("w")
child = subprocess.Popen(["sleep", "600"], stdout=log, stderr=log, start_new_session=True)
print(kept[0][0], kept[1][0], child.pid, flush=True)
os._exit(9)
"""


def dead(parent: Path) -> tuple[Path, Path, int]:
    words = [sys.executable, "-c", DIES, str(parent)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    one, two, child = done.stdout.split()
    return Path(one), Path(two), int(child)


def test_it_is_closed_to_others_and_gone_at_the_end(tmp_path: Path) -> None:
    with own("x-", tmp_path) as one, own("x-", tmp_path) as two:
        assert one != two and one.stat().st_mode & 0o777 == 0o700
        assert list(left("x-", tmp_path)) == [], "both live"
        (one / "deep").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_what_the_dead_left_is_ended_removed_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_place", lambda: tmp_path)
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path))
    cluster, report, child = dead(tmp_path)
    assert session.processes(cluster) == [child]
    said: list[str] = []
    with own("orchestrator-ray-", tmp_path / "..") as living, own("orchestrator-job-", tmp_path) as job:
        session.sweep(tmp_path, said.append)
        assert living.exists() and job.exists()
    assert said == [
        f"left by a dead run: 1 processes, killed, and {cluster}, removed", f"left by a dead run: {report}, removed"
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    "change", [{"machine": "another"}, {"boot": "another"}, {"processes": "pid:[1]"}, {"born": None}]
)
def test_what_is_not_surely_the_deads_is_left_alone(tmp_path: Path, change: dict[str, object]) -> None:
    """Another machine's folder on a shared file system that knows locks of one machine alone; another container's."""
    folder, lock = hold("x-", tmp_path)
    lock.close()
    child = subprocess.Popen(["true"])
    child.wait()
    (folder / LOCK).write_text(durable.seal(note() | {"pid": child.pid}))
    assert list(left("x-", tmp_path)) == [folder]
    (folder / LOCK).write_text(durable.seal(note() | {"pid": child.pid} | change))
    assert list(left("x-", tmp_path)) == []


def test_what_only_looks_like_a_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x-without-a-lock" / "kept").mkdir(parents=True)
    (tmp_path / "x-file").write_text("kept")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / LOCK).write_text(durable.seal(note() | {"pid": 2**22 + 1}))
    (tmp_path / "x-link").symlink_to(tmp_path / "elsewhere")
    with own("x-", tmp_path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "x-file", "x-link", "x-without-a-lock"]


def test_one_that_was_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, gone = workspace.fcntl.flock, []

    def late(*given: int) -> None:
        if not gone:
            gone.extend(tmp_path.iterdir())
            durable.discard(gone[0])
        flock(*given)

    monkeypatch.setattr(workspace.fcntl, "flock", late)
    with own("x-", tmp_path) as folder:
        assert gone and folder not in gone and (folder / LOCK).is_file()


def test_a_process_that_only_reads_there_is_not_ended(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x")
    with subprocess.Popen(["tail", "-f", str(tmp_path / "log")], stdout=subprocess.PIPE) as reader:
        assert reader.stdout and reader.stdout.read(1) == b"x"
        assert session.processes(tmp_path) == []
        reader.kill()


def test_a_driver_that_has_joined_is_not_ended_with_the_cluster(tmp_path: Path) -> None:
    """It has logs of its own there; what it prints goes elsewhere."""
    child = ["sh", "-c", f"exec 5>{tmp_path}/python-core-driver-1.log; echo up; exec sleep 600"]
    with subprocess.Popen(child, stdout=subprocess.PIPE) as driver:
        assert driver.stdout and driver.stdout.readline() == b"up\n"
        assert session.processes(tmp_path) == []
        driver.kill()


def test_processes_are_found_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (tmp_path / "real" / "gcs_server.out").open("w") as out, subprocess.Popen(["sleep", "600"], stdout=out) as one:
        assert session.processes(tmp_path / "link") == [one.pid]
        one.kill()


def test_what_cannot_be_removed_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a failure of who comes after, nor without its lock."""
    folder = dead(tmp_path)[1]
    (folder / "held").mkdir()
    discard = durable.discard

    def busy(path: Path) -> None:
        if path.name == "held":
            raise OSError(39, "Directory not empty")
        discard(path)

    monkeypatch.setattr(durable, "discard", busy)
    with own("report-", tmp_path) as mine:
        assert mine.exists() and (folder / LOCK).exists()
    monkeypatch.setattr(durable, "discard", discard)
    with own("report-", tmp_path):
        assert not folder.exists()


def test_a_machine_without_a_name_knows_its_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = process._text
    monkeypatch.setattr(process, "_text", lambda path: "" if "machine-id" in path else text(path))
    child = subprocess.Popen(["true"])
    child.wait()
    assert process.lives(process.note()) is True
    assert process.lives(process.note() | {"pid": child.pid}) is False


def test_a_session_is_inside_a_folder_that_nobody_else_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path / ("long" * 20)))
    with session.session() as folder:
        assert folder.parent.parent == Path("/tmp") and folder.parent.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)  # as Ray does
        assert not session.open_to_all(folder)
        assert len(f"{folder}{session.SOCKET}") <= session.PATH
    assert not folder.parent.exists()


def test_a_folder_that_all_may_write_is_open_to_all(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"open-{tmp_path.name}"
    folder.mkdir()
    try:
        assert not session.open_to_all(folder)
        folder.chmod(0o777)
        assert session.open_to_all(folder)
    finally:
        folder.rmdir()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray"


def modes(home: Path) -> tuple[int, int]:
    return home.stat().st_mode & 0o777, (home / "auth_token").stat().st_mode & 0o777


def test_a_token_is_made_for_its_user_alone(home: Path) -> None:
    said: list[str] = []
    session.close_token(True, said.append)
    made = (home / "auth_token").read_text()
    assert modes(home) == (0o700, 0o600) and len(made) == 64 and not said
    session.close_token(True, said.append)
    assert (home / "auth_token").read_text() == made and not said


def test_a_token_that_others_can_read_is_closed_and_said(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "auth_token").write_text("secret")
    (home / "auth_token").chmod(0o644)
    said: list[str] = []
    session.close_token(False, said.append)
    assert modes(home) == (0o700, 0o600) and (home / "auth_token").read_text() == "secret"
    assert len(said) == 1 and "auth_token could be read by other users: closed now" in said[0]


def test_a_token_that_cannot_be_closed_is_refused_with_the_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session.close_token(True, print)
    (home / "auth_token").chmod(0o644)

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(UserError, match=r"auth_token cannot be kept from other users \(Operation not permitted\)"):
        session.close_token(True, print)
    said: list[str] = []
    session.close_token(False, said.append)  # of a cluster that others started: theirs to decide
    assert len(said) == 1


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN=x", "RAY_AUTH_MODE=disabled"])
def test_no_token_is_made_where_none_is_read(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(*variable.split("="))
    session.close_token(True, print)
    assert not home.exists()
