"""The store: one folder a finished step, ``KIND/NAME-KEY``, and nothing half-written among them.

A step writes into a folder of its own under ``partial/``. When it has ended, its files are hashed, ``step.json`` (the
payload that the key is the hash of, the checksums) is written beside them, and the folder is renamed into place. A
rename is atomic on a POSIX file system, so a step is either there, whole, or it is not there. What is under
``partial/`` is never read as a result; a training finds its own last checkpoint there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.fingerprint import differences, file_hash
from orchestrator.plan import Step

RECORD = "step.json"
TIMES = "times.json"


@dataclass(frozen=True)
class Store:
    root: Path

    def folder(self, step: Step) -> Path:
        """Where the step's finished folder is or will be."""
        return self.root / step.kind / f"{step.name}-{step.key}"

    def partial(self, step: Step) -> Path:
        """Where the step writes, and keeps what it resumes from, until it has ended."""
        return self.root / "partial" / step.kind / f"{step.name}-{step.key}"

    def done(self, step: Step) -> bool:
        """Whether the step is finished under this very payload."""
        record = self._record(step)
        if record is None:
            return False
        if record["payload"] != step.payload():
            lines = "; ".join(differences(record["payload"], step.payload()))
            raise UserError(f"{self.folder(step)} holds another step under the same key: {lines}")
        return True

    def damage(self, step: Step) -> str | None:
        """What is wrong with a finished step's files: the first that is missing or was changed; None if whole."""
        record = self._record(step) or {"files": {RECORD: ""}}
        for name, checksum in record["files"].items():
            path = self.folder(step) / name
            if not path.is_file():
                return f"{name} is missing"
            if file_hash(path) != checksum:
                return f"{name} was changed"
        return None

    def discard(self, step: Step) -> None:
        """Remove what stands where the step's result belongs: it was damaged, and is about to be made again."""
        shutil.rmtree(self.folder(step), ignore_errors=True)

    def _record(self, step: Step) -> dict[str, Any] | None:
        """The record of a finished step; None where there is none that can be read."""
        record = read_json(self.folder(step) / RECORD)
        return record if "payload" in record and isinstance(record.get("files"), dict) else None

    @contextmanager
    def writing(self, step: Step) -> Iterator[tuple[Path, Path]]:
        """``(out, work)``: folders for results and for resume state. Ends in a commit, unless an error passes through.

        ``out`` starts empty; ``work`` keeps what an earlier, unfinished attempt left there.
        """
        partial = self.partial(step)
        out, work = partial / "out", partial / "work"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        work.mkdir(exist_ok=True)
        try:
            yield out, work
            self.commit(step, out)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)  # what is half-written is of no use; the resume state stays
            raise
        shutil.rmtree(partial)

    def commit(self, step: Step, out: Path) -> None:
        """Checksum the files below ``out``, write the record, move the folder into its place."""
        files = sorted(p for p in out.rglob("*") if p.is_file())
        record = {"payload": step.payload(), "files": {p.relative_to(out).as_posix(): file_hash(p) for p in files}}
        write_json(out / RECORD, record)
        for path in [*files, out / RECORD]:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        final = self.folder(step)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)  # only what holds no readable record can stand there
        os.replace(out, final)

    def failure(self, step: Step) -> str | None:
        """The one line that the step's last attempt ended in, if it failed and was not mended since."""
        path = self._failure_path(step)
        if not path.exists() or self.done(step):
            return None
        return str(read_json(path).get("error", "the record of its failure cannot be read"))

    def record_failure(self, step: Step, error: str) -> None:
        path = self._failure_path(step)
        with contextlib.suppress(OSError):  # on a full disk the caller still has the line
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"step": step.title, "error": error})

    def clear_failure(self, step: Step) -> None:
        self._failure_path(step).unlink(missing_ok=True)

    def times(self, step: Step) -> dict[str, Any]:
        """How long the finished step took, by the clock of whoever ran it; empty if unknown."""
        path = self.root / "times" / step.kind / f"{step.name}-{step.key}.json"
        return read_json(path)

    def record_times(self, step: Step, times: dict[str, Any]) -> None:
        path = self.root / "times" / step.kind / f"{step.name}-{step.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, times)

    def _failure_path(self, step: Step) -> Path:
        return self.root / "failed" / step.kind / f"{step.name}-{step.key}.json"


def open_store(root: Path) -> Store:
    """The store at ``root``, made if it is not there; ``UserError`` where nothing can be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".write-test"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"--out {root} cannot be written ({error.strerror}): name a folder that can") from None
    for name in ("partial", "report", "failed", "times"):
        if (root / name).exists() and not (root / name).is_dir():
            raise UserError(f"{root / name} is a file where a run keeps a folder: move it away, or use another --out")
    return Store(root.resolve())  # workers stand in other folders


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file of the store; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Any, *, sort: bool = True) -> None:
    """Write JSON aside and rename it into place, readable, its keys sorted unless their order means something."""
    aside = path.with_name(path.name + ".aside")
    aside.write_text(json.dumps(value, indent=1, sort_keys=sort, allow_nan=False) + "\n")
    os.replace(aside, path)
