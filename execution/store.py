"""The store: one folder a finished step, ``KIND/NAME-KEY``, and nothing half-written among them.

A step writes into a workspace of its own. When it has ended, its files are hashed, ``step.json`` (the payload that
the key is the hash of, the checksums) is written beside them, and the folder is published: a rename on a POSIX file
system, the record last on an object store (``storage.py``). So a step is either there, whole, or it is not there. What
is under ``partial/`` is never read as a result; a training finds its own last state there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from execution import durable
from execution.errors import UserError, first_line
from execution.fingerprint import differences, file_hash
from execution.fingerprint import key as key_of
from execution.step import Step
from execution.storage import RECORD, Folder, Storage, storage_of

NOTES = ("partial", "report", "failed", "times")  # folders that a run keeps beside those of the kinds of steps
TIMES = ("started", "ended", "seconds", "startup_seconds")
FILES = ("study.json", "run.json", "pins.json", "lease.json")  # and its files


class Workspace(NamedTuple):
    """``out`` starts empty and becomes the result; ``work`` holds what an earlier attempt left to go on from.

    ``keep()`` makes what stands in ``work`` outlive this node.
    """

    out: Path
    work: Path
    keep: Callable[[], None]


@dataclass(frozen=True)
class Store:
    """Finished steps in ``storage``. ``root`` is the run's own folder on the driver: the report, the study's notes."""

    root: Path
    storage: Storage

    def folder(self, step: Step) -> Path:
        """A local folder with the finished step's files. ``FileNotFoundError`` where it is not finished."""
        record = self._record(step)
        if record is None:
            raise FileNotFoundError(f"{step.title} is not in {self.storage}")
        return self.storage.fetch(step.folder, record["files"])

    def done(self, step: Step) -> bool:
        """Whether the step is finished under this very payload."""
        return self._record(step) is not None

    def spoilt(self, step: Step) -> bool:
        """Whether the step was finished, but for a record that does not hold any more."""
        return self.storage.read(f"{step.folder}/{RECORD}") is not None and not self.done(step)

    def earlier(self, step: Step) -> dict[str, Any] | None:
        """The payload under which a step of this title was finished last, where that was another key."""
        found = []
        for name in self.storage.names(step.kind.name):
            title, _, key = name.rpartition("-")
            if title == step.name and key != step.key:
                record = self._json(f"{step.kind.name}/{name}/{RECORD}")
                ended = self._json(f"times/{step.kind.name}/{name}.json").get("ended")
                if _is_of(record.get("payload"), key):
                    found.append((ended if isinstance(ended, int | float) else 0.0, name, record["payload"]))
        return max(found, default=(0.0, "", None))[2]

    def damage(self, step: Step) -> str | None:
        """What is wrong with a finished step: the first file that is missing or was changed.

        None where it is whole, or was not finished.
        """
        record = self._record(step)
        if record is None:
            return f"{RECORD} was changed" if self.spoilt(step) else None
        for file, checksum in record["files"].items():
            found = self.storage.checksum(f"{step.folder}/{file}")
            if found != checksum:
                return f"{file} {'is missing' if found is None else 'was changed'}"
        return None

    def discard(self, step: Step) -> None:
        """Remove what stands where the step's result belongs: it was damaged, and is about to be made again."""
        self.storage.remove(step.folder)

    def _record(self, step: Step) -> dict[str, Any] | None:
        """The record of a finished step; None where there is none whose payload hashes to the step's key."""
        record = self._json(f"{step.folder}/{RECORD}")
        payload, files = record.get("payload"), record.get("files")
        if not _is_of(payload, step.key) or not isinstance(files, dict) or not all(map(_inside, files)):
            return None
        if payload != step.payload():
            lines = "; ".join(differences(payload, step.payload()))
            raise UserError(f"{self.storage}/{step.folder} holds another step under the same key: {lines}")
        return record

    @contextmanager
    def writing(self, step: Step) -> Iterator[Workspace]:
        """Folders for results and for resume state. Ends in a commit, unless an error passes through."""
        name = step.folder
        with self.storage.workspace(name) as partial:
            out, work = partial / "out", partial / "work"
            durable.discard(out)
            out.mkdir(parents=True)
            if not work.is_dir():
                durable.discard(work)
                work.mkdir()
            try:
                yield Workspace(out, work, lambda: self.storage.keep(name, partial))
                self.commit(step, out)
            except BaseException:
                with contextlib.suppress(OSError):  # what is half-written is of no use; the resume state stays
                    durable.discard(out)
                raise
            with contextlib.suppress(OSError):  # the step is there: what is left of its workspace harms nobody
                self.storage.remove(f"partial/{name}")

    def commit(self, step: Step, out: Path) -> None:
        """Checksum the files below ``out``, write the record, publish the folder."""
        files = sorted(p for p in out.rglob("*") if p.is_file())
        record = {"payload": step.payload(), "files": {p.relative_to(out).as_posix(): file_hash(p) for p in files}}
        write_json(out / RECORD, record)
        self.storage.publish(out, step.folder)

    def begun(self, step: Step) -> bool:
        """Whether an unfinished attempt at the step left anything."""
        return self.storage.begun(step.folder)

    def kept(self, step: Step) -> int:
        """Bytes of what an unfinished attempt has kept: more of them than before mean that it got on."""
        return self.storage.kept(step.folder)

    def progress_writer(self, step: Step) -> Callable[[str], None]:
        """A function that tells the running step's progress in a line, where the driver finds it."""
        last = float("-inf")

        def say(line: str) -> None:
            nonlocal last
            if time.monotonic() - last >= self.storage.pace:
                last = time.monotonic()
                self.storage.write(f"partial/{step.folder}/progress", line.encode())

        return say

    def progress(self, step: Step) -> str:
        """The last line of progress that a running step told; empty where it told none."""
        return (self.storage.read(f"partial/{step.folder}/progress") or b"").decode(errors="replace")

    def clear_progress(self, step: Step) -> None:
        """What an attempt that is over told is not said of the next one."""
        self.storage.remove(f"partial/{step.folder}/progress")

    def failure(self, step: Step) -> str | None:
        """The one line that the step's last attempt ended in, if it failed and was not mended since."""
        held = self.storage.read(f"failed/{step.folder}.json")
        if held is None or self.done(step):
            return None
        return str(_mapping(held).get("error", "the record of its failure cannot be read"))

    def record_failure(self, step: Step, error: str) -> None:
        with contextlib.suppress(OSError):  # on a full disk the caller still has the line
            self._write_json(f"failed/{step.folder}.json", {"step": step.title, "error": error})

    def clear_failure(self, step: Step) -> None:
        self.storage.remove(f"failed/{step.folder}.json")

    def times(self, step: Step) -> dict[str, Any]:
        """When and how long the finished step ran, where; empty if unknown."""
        told = self._json(f"times/{step.folder}.json")
        return told if all(_is_time(told.get(name, 0.0)) for name in TIMES) else {}

    def record_times(self, step: Step, times: dict[str, Any]) -> None:
        self._write_json(f"times/{step.folder}.json", times)

    def _json(self, name: str) -> dict[str, Any]:
        return _mapping(self.storage.read(name) or b"")

    def _write_json(self, name: str, value: Any) -> None:
        self.storage.write(name, _text(value, sort=True).encode())


def _is_of(payload: Any, key: str) -> bool:
    """Whether the key is this payload's: a damaged record's is not."""
    try:
        return isinstance(payload, dict) and key_of(payload) == key
    except (TypeError, RecursionError):
        return False


def open_store(root: Path, where: str | None = None, kinds: Iterable[str] = ()) -> Store:
    """The store of the run at ``root``, or at ``where``. ``UserError`` where nothing can be
    written, or where something else stands at the folder of one of the ``kinds`` of steps.
    """
    kinds = list(kinds)
    storage = storage_of(where) if where is not None else Folder(root.resolve())  # workers stand in other folders
    try:
        Folder(root).open()
    except OSError as error:
        raise UserError(f"--out {root} cannot be written ({error.strerror}): name a folder that can") from None
    if where:
        try:
            storage.open()
        except OSError as error:
            raise UserError(
                f"--store {where} cannot be written and read ({error.strerror or first_line(error)})"
            ) from None
    for folder in {root, storage.root if isinstance(storage, Folder) else root}:
        check_names(folder, kinds)
    return Store(root.resolve(), storage)


def check_names(root: Path, kinds: Iterable[str]) -> None:
    """``UserError`` where a file stands at one of a run's folders, or a folder at one of its files."""
    for name in (*NOTES, *kinds):
        if (root / name).exists() and not (root / name).is_dir():
            raise UserError(f"{root / name} is a file where a run keeps a folder: move it away, or use another --out")
    for name in FILES:
        if (root / name).is_dir():
            raise UserError(f"{root / name} is a folder where a run keeps a file: move it away, or use another --out")


def _is_time(value: Any) -> bool:
    """Whether it is a number of seconds that a date can be made of."""
    return isinstance(value, int | float) and abs(value) < 1e11


def _inside(name: str) -> bool:
    """Whether it names a file below a folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _mapping(data: bytes | str) -> dict[str, Any]:
    """The mapping in a JSON text; empty where there is none that can be read."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any, *, sort: bool) -> str:
    return json.dumps(value, indent=1, sort_keys=sort, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is none that can be read."""
    try:
        return _mapping(path.read_text())
    except (OSError, ValueError):
        return {}


def write_json(path: Path, value: Any, *, sort: bool = True) -> None:
    """Write JSON, whole or not at all, readable, its keys sorted unless their order means something."""
    text = _text(value, sort=sort)
    durable.replace(path, lambda aside: aside.write_text(text))
