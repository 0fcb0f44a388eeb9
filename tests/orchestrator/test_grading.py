"""grade: the rows as they were with their verdicts, one line for bad input, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.commands import grade as grading

ROOT = Path(__file__).resolve().parents[2]
GOOD = '{"completion": "A: 18", "answer": "18"}\n'


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Rows with fields of their own, in spellings that a JSON writer would not give back."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"id":1e400, "completion":"so \\\\boxed{\\\\frac{1}{2}}","answer":0.50,"more":{"a":[1,2.10]}}\n'
        b"\n"
        b'\xef\xbb\xbf  {"answer" : "x+1", "completion": "The answer is $1 + x$."  }\r\n'
        b'{"completion": "caf\xc3\xa9 \\ud800", "answer": 3, "z": "\\u00e9"}\n'
        b'{"completion": "", "answer": "18"}'
    )
    return path


def graded(path: Path, out: Path) -> list[dict[str, Any]]:
    assert cli.main(["grade", str(path), "--out", str(out)]) == 0
    return [json.loads(line.removeprefix(b"\xef\xbb\xbf")) for line in out.read_bytes().splitlines()]


def test_rows_keep_their_fields_and_gain_their_verdicts(
    rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "graded.jsonl"
    found = graded(rows_file, out)
    assert [(row.pop("extracted"), row.pop("correct")) for row in found] == [
        ("\\frac{1}{2}", True),
        ("1 + x", True),
        (None, False),
        (None, False),
    ]
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("4 rows: 2 correct (50.0%), 2 without an answer, ") and told.err.count("\n") == 1
    given = [line.strip() for line in rows_file.read_bytes().splitlines() if line.strip()]
    for before, after in zip(given, out.read_bytes().splitlines(), strict=True):
        assert after.startswith(before[:-1].rstrip() + b', "extracted": ')  # byte for byte
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graded.jsonl", "rows.jsonl"]


def test_without_out_rows_alone_go_to_stdout(rows_file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "grade", str(rows_file)], cwd=ROOT, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "graded.jsonl"
    graded(rows_file, out)
    assert done.stdout == out.read_bytes()
    assert done.stderr.count(b"\n") == 1


def test_many_rows_are_graded_in_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, one, two = (tmp_path / name for name in ("rows.jsonl", "one.jsonl", "two.jsonl"))
    path.write_text("".join(f'{{"completion": "A: {i}", "answer": {i + i % 2}}}\n' for i in range(1000)))
    found = graded(path, one)
    assert [row["correct"] for row in found] == [i % 2 == 0 for i in range(1000)]
    capsys.readouterr()
    monkeypatch.setattr(grading, "CHUNK_ROWS", 300)
    monkeypatch.setattr(grading, "CHUNK_BYTES", 5000)
    assert graded(path, two) == found
    told = capsys.readouterr().err.splitlines()
    assert len(told) > 4 and told[-2] == "1000/1000 graded" and told[-1].startswith("1000 rows: 500 correct (50.0%)")


def test_what_is_there_is_replaced_through_a_link(rows_file: Path, tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("old.jsonl")
    assert len(graded(rows_file, tmp_path / "link.jsonl")) == 4
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len((tmp_path / "old.jsonl").read_bytes().splitlines()) == 4


BAD = {
    "not JSON": (b"{]\n", "rows.jsonl:2: not a JSON object in UTF-8 ("),
    "no object": (b"[1]\n", "rows.jsonl:2: expected a JSON object, found list"),
    "too deep": (b"[" * 10**6, "rows.jsonl:2: not a JSON object in UTF-8 ("),
    "not UTF-8": (b'{"completion": "\xff", "answer": "1"}\n', "rows.jsonl:2: not a JSON object in UTF-8 ("),
    "binary": (bytes(range(256)), "rows.jsonl:2: not a JSON object in UTF-8 ("),
    "no completion": (b'{"answer": "1"}\n', "rows.jsonl:2: the field 'completion' must be a string"),
    "a completion that is no text": (
        b'{"completion": ["1"], "answer": "1"}\n',
        "the field 'completion' must be a string",
    ),
    "no answer": (b'{"completion": "1"}\n', "rows.jsonl:2: the field 'answer' must be a number or a non-empty string"),
    "an empty answer": (b'{"completion": "1", "answer": " "}\n', "rows.jsonl:2: the field 'answer' must be"),
    "a truth for an answer": (b'{"completion": "1", "answer": true}\n', "rows.jsonl:2: the field 'answer' must be"),
    "NaN for an answer": (b'{"completion": "1", "answer": NaN}\n', "rows.jsonl:2: the field 'answer' must be"),
    "an endless number": (b'{"completion": "1", "answer": ' + b"9" * 5000 + b"}\n", "rows.jsonl:2: not a JSON object"),
    "an unreadable answer": (
        b'{"completion": "1", "answer": "\\\\frac{"}\n',
        "rows.jsonl:2: the answer '\\\\frac{' can be read neither as a number nor as a formula",
    ),
    "a verdict already": (
        b'{"completion": "1", "answer": "1", "correct": true}\n',
        "rows.jsonl:2: the field 'correct' already exists: rename or remove it",
    ),
}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that must end in bad input."""
    assert cli.main(["grade", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(("content", "part"), BAD.values(), ids=BAD)
def test_bad_rows_are_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, part: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + content)
    assert part in refused(capsys, str(path))
    assert part in refused(capsys, str(path), "--out", str(tmp_path / "out.jsonl"))
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}/no.jsonl does not exist" in refused(capsys, str(tmp_path / "no.jsonl"))
    assert f"{tmp_path} is a folder" in refused(capsys, str(tmp_path))
    assert "- does not exist" in refused(capsys, "-")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    (tmp_path / "rows.json").write_text(f"[{GOOD.strip().replace(chr(10), ',')}]")
    assert "rows.json:1: this is a list: write one row per line" in refused(capsys, str(tmp_path / "rows.json"))
    (tmp_path / "twice.jsonl").write_text('{"completion": "1", "answer": "1", "answer": "2"}')
    assert "twice.jsonl:1: not a JSON object in UTF-8 (the key 'answer' appears twice" in refused(
        capsys, str(tmp_path / "twice.jsonl")
    )
    assert "rows.jsonl.gz:1: this is gzip: unpack it first" in refused(capsys, str(tmp_path / "rows.jsonl.gz"))
    (tmp_path / "empty.jsonl").write_text("\n \n")
    assert "empty.jsonl has no rows" in refused(capsys, str(tmp_path / "empty.jsonl"))
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is not a regular file" in refused(capsys, str(tmp_path / "pipe"))


def test_places_that_cannot_be_written_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    (tmp_path / "link.jsonl").symlink_to("rows.jsonl")
    os.link(path, tmp_path / "twin.jsonl")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for out, part in (
        ("rows.jsonl", "is the input file: name another file"),
        ("link.jsonl", "is the input file"),
        ("twin.jsonl", "is the input file"),
        ("", "is a folder: name a file"),
        ("pipe", "is not a regular file: name a file"),
        ("no/out.jsonl", "cannot be written: No such file or directory"),
        ("rows.jsonl/out.jsonl", "cannot be written: Not a directory"),
        ("loop", "cannot be written: "),
        ("x" * 300, "cannot be written: File name too long"),
        ("a\0b", "cannot be written: "),
    ):
        assert part in refused(capsys, str(path), "--out", str(tmp_path / out)), out
    assert path.read_text() == GOOD
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_grade_leaves_nothing(tmp_path: Path, number: int) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    hang = {"completion": "\\boxed{9^{9^{9}}}", "answer": "\\sqrt{7}"}
    path.write_text("".join(json.dumps(hang | {"answer": f"\\sqrt{{{i}}}"}) + "\n" for i in range(50, 100)))
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "grade", str(path), "--out", str(out)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not list(tmp_path.glob(".grade-*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "\nstopped; nothing was kept\n")
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_reader_that_goes_ends_it_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD * 50_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "grade", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read().decode().splitlines()
    assert process.wait(60) == 1
    assert told[-1] == "error: the reader of the output has exited; nothing was kept"
