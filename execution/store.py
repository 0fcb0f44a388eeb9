"""The store: one folder per finished step, ``KIND/NAME-KEY``, committed atomically.

A step writes into a workspace of its own. When it has ended, its files are hashed, ``step.json`` (the payload that
the key is a hash of, and the checksums) is written beside them, and the folder is published: a rename on a POSIX file
system, the record last on an object store (``storage.py``). ``partial/`` holds the workspaces with their resume state
and is never read as a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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

NOTES = ("partial", "report", "failed", "times")  # a run's folders beside those of the kinds of steps
TIMES = ("started", "ended", "seconds", "startup_seconds")
FILES = ("study.json", "run.json", "pins.json", "lease.json", "estimates.json")  # and its files


class Workspace(NamedTuple):
    """``out`` starts empty and becomes the result; ``work`` holds an earlier attempt's resume state.

    ``keep()`` saves ``work`` so that it outlives this node.
    """

    out: Path
    work: Path
    keep: Callable[[], None]


@dataclass(frozen=True)
class Store:
    """Finished steps in ``storage``. ``root`` is the run's folder on the driver: the report and the study's files."""

    root: Path
    storage: Storage

    def folder(self, step: Step) -> Path:
        """A local folder with the finished step's files. ``FileNotFoundError`` if it is not finished."""
        record = self._record(step)
        if record is None:
            raise FileNotFoundError(f"{step.title} is not in {self.storage}")
        return self.storage.fetch(step.folder, record["files"])

    def done(self, step: Step) -> bool:
        """Whether the step is finished under exactly this payload."""
        return self._record(step) is not None

    def ended(self, kind: str) -> set[str]:
        """The folders of this kind's steps that were published or have failed: which of hundreds are worth a look."""
        failed = (name.removesuffix(".json") for name in self.storage.names(f"failed/{kind}"))
        return {f"{kind}/{name}" for name in (*self.storage.names(kind), *failed)}

    def spoilt(self, step: Step) -> bool:
        """Whether the step has a record, but a damaged one."""
        return self.storage.read(f"{step.folder}/{RECORD}") is not None and not self.done(step)

    def earlier(self, step: Step) -> dict[str, Any] | None:
        """The payload of the last finished step with the same title and another key, or None."""
        candidates = []
        for name in self.storage.names(step.kind.name):
            title, _, key = name.rpartition("-")
            if title == step.name and key != step.key:
                record = self._json(f"{step.kind.name}/{name}/{RECORD}")
                ended = self._json(f"times/{step.kind.name}/{name}.json").get("ended")
                if _is_of(record.get("payload"), key):
                    candidates.append((ended if isinstance(ended, int | float) else 0.0, name, record["payload"]))
        return max(candidates, default=(0.0, "", None))[2]

    def damage(self, step: Step) -> str | None:
        """What is wrong with a finished step: its first file that is missing or was changed.

        None if it is intact or was not finished.
        """
        record = self._record(step)
        if record is None:
            return f"{RECORD} was changed" if self.spoilt(step) else None
        for file, checksum in record["files"].items():
            actual = self.storage.checksum(f"{step.folder}/{file}")
            if actual != checksum:
                return f"{file} {'is missing' if actual is None else 'was changed'}"
        return None

    def intact(self, step: Step) -> bool:
        """Whether the step is finished, and its files are as they were then."""
        return self.damage(step) is None and self.done(step)

    def discard(self, step: Step) -> None:
        """Remove the step's result folder, which is damaged, before the step runs again."""
        self.storage.remove(step.folder)

    def _record(self, step: Step) -> dict[str, Any] | None:
        """The record of a finished step; None if there is none whose payload hashes to the step's key.

        ``UserError`` if another payload has the same key.
        """
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
        """The step's workspace, committed at the end of the block unless that raises."""
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
                with contextlib.suppress(OSError):  # the resume state stays
                    durable.discard(out)
                raise
            with contextlib.suppress(OSError):  # the step is committed: a leftover workspace does no harm
                self.storage.remove(f"partial/{name}")

    def seed(self, step: Step, folder: Path) -> None:
        """Give the step the resume state in ``folder``, another step's, to go on from; not where it has one already."""
        with self.storage.workspace(step.folder) as partial:
            work, aside = partial / "work", partial / "seed"
            if work.is_dir() and any(work.iterdir()):
                return
            durable.discard(work)
            durable.discard(aside)
            shutil.copytree(folder, aside)
            durable.sync_tree(aside)
            os.replace(aside, work)
            self.storage.keep(step.folder, partial)

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
        """Bytes of an unfinished attempt's saved resume state; they grow as it progresses."""
        return self.storage.kept(step.folder)

    def progress_writer(self, step: Step) -> Callable[[str], None]:
        """A function that stores a line of the running step's progress for the driver, at most once per ``pace``."""
        last = float("-inf")

        def progress(line: str) -> None:
            nonlocal last
            if time.monotonic() - last >= self.storage.pace:
                last = time.monotonic()
                self.storage.write(f"partial/{step.folder}/progress", line.encode())

        return progress

    def progress(self, step: Step) -> str:
        """The running step's last line of progress; empty if there is none."""
        return (self.storage.read(f"partial/{step.folder}/progress") or b"").decode(errors="replace")

    def clear_progress(self, step: Step) -> None:
        """Remove an ended attempt's line of progress."""
        self.storage.remove(f"partial/{step.folder}/progress")

    def failure(self, step: Step) -> str | None:
        """The one-line error of the step's last attempt, None if it did not fail or was finished since."""
        held = self.storage.read(f"failed/{step.folder}.json")
        if held is None or self.done(step):
            return None
        return str(_mapping(held).get("error", "the record of its failure cannot be read"))

    def record_failure(self, step: Step, error: str) -> None:
        with contextlib.suppress(OSError):  # e.g. disk full: the caller still has the line
            self._write_json(f"failed/{step.folder}.json", {"step": step.title, "error": error})

    def clear_failure(self, step: Step) -> None:
        self.storage.remove(f"failed/{step.folder}.json")

    def times(self, step: Step) -> dict[str, Any]:
        """When, how long and where the finished step ran; empty if unknown."""
        times = self._json(f"times/{step.folder}.json")
        return times if all(_is_time(times.get(name, 0.0)) for name in TIMES) else {}

    def record_times(self, step: Step, times: dict[str, Any]) -> None:
        self._write_json(f"times/{step.folder}.json", times)

    def _json(self, name: str) -> dict[str, Any]:
        return _mapping(self.storage.read(name) or b"")

    def _write_json(self, name: str, value: Any) -> None:
        self.storage.write(name, _text(value, sort=True).encode())


def _is_of(payload: Any, key: str) -> bool:
    """Whether the payload hashes to the key, which a damaged record's does not."""
    try:
        return isinstance(payload, dict) and key_of(payload) == key
    except (TypeError, RecursionError):
        return False


def open_store(root: Path, where: str | None = None, kinds: Iterable[str] = ()) -> Store:
    """The store of the run at ``root``, its steps at ``where`` if given. ``UserError`` if nothing can be written there,
    or if a file has the name of one of the ``kinds``' folders.
    """
    kinds = list(kinds)
    storage = storage_of(where) if where is not None else Folder(root.resolve())  # workers run in other folders
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
    """``UserError`` if a file has the name of one of a run's folders, or a folder that of one of its files."""
    for name in (*NOTES, *kinds):
        if (root / name).exists() and not (root / name).is_dir():
            raise UserError(f"{root / name} is a file where a run keeps a folder: move it away, or use another --out")
    for name in FILES:
        if (root / name).is_dir():
            raise UserError(f"{root / name} is a folder where a run keeps a file: move it away, or use another --out")


def _is_time(value: Any) -> bool:
    """Whether it is a number of seconds that can be converted to a date."""
    return isinstance(value, int | float) and abs(value) < 1e11


def _inside(name: str) -> bool:
    """Whether a relative path stays below its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _mapping(data: bytes | str) -> dict[str, Any]:
    """The mapping in a JSON text; empty if there is none or it cannot be read."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any, *, sort: bool) -> str:
    return json.dumps(value, indent=1, sort_keys=sort, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is none or it cannot be read."""
    try:
        return _mapping(path.read_text())
    except (OSError, ValueError):
        return {}


def write_json(path: Path, value: Any, *, sort: bool = True) -> None:
    """Write indented JSON atomically; ``sort=False`` keeps the order of keys."""
    text = _text(value, sort=sort)
    durable.replace(path, lambda aside: aside.write_text(text))
