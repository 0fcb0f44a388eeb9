"""Storage of finished steps, with an atomic commit of a folder of files.

A ``Folder`` is on a POSIX file system, shared by all nodes: files are written under a temporary name and renamed. A
``Bucket`` is an S3-compatible object store through Arrow: files are uploaded, and last of all the record that makes
them count. Names are relative and use ``/``. Credentials of an object store come from each node's environment (or its
instance's role), never from a study or a command line, and are never logged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from execution import durable
from execution.errors import UserError, first_line
from execution.fingerprint import file_hash
from execution.workspace import LOCK, alone, own

T = TypeVar("T")
RECORD = "step.json"  # marks a folder as finished
SETTLE = 1.0  # seconds before a claim on an object store is read back: there is no compare-and-swap here
LEFT = "work.tar"  # resume state, where a workspace is not shared
KEPT = "kept"  # size of the resume state in bytes
ATTEMPTS = 10  # per request, with growing pauses: an object store may be unreachable for a while


class Storage(Protocol):
    """What the store needs of a file system.

    ``pace`` is the least time in seconds between two polls, each of which costs a round trip.
    """

    pace: float

    def __str__(self) -> str: ...

    def open(self) -> None:
        """``OSError`` where nothing can be written or read back."""
        ...

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if it does not exist, empty if it is a folder."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file atomically."""
        ...

    def claim(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Write ``after`` if the file still holds ``before`` (None: does not exist). Whether it was written."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file or a folder; its record first, so that a folder with missing files never counts."""
        ...

    def checksum(self, name: str) -> str | None:
        """SHA-256 of a file's content in hex; None if it does not exist."""
        ...

    def publish(self, source: Path, name: str) -> None:
        """Commit the files below ``source``, with their record, as the folder ``name``. May move ``source``."""
        ...

    def fetch(self, name: str, files: Mapping[str, str]) -> Path:
        """A local folder with the ``files`` (path to checksum) of the finished folder ``name``."""
        ...

    def workspace(self, name: str) -> AbstractContextManager[Path]:
        """A local folder for one unfinished step, locked by this process, with the ``work/`` that was kept before."""
        ...

    def keep(self, name: str, workspace: Path) -> None:
        """Save the workspace's ``work/`` so that it outlives this node."""
        ...

    def begun(self, name: str) -> bool:
        """Whether an unfinished step left anything."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names of the entries of a folder, sorted; empty if it does not exist."""
        ...

    def kept(self, name: str) -> int:
        """Bytes of an unfinished step's saved resume state, which grow as it progresses."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of a POSIX file system."""

    root: Path
    pace = 0.0

    def __str__(self) -> str:
        return str(self.root)

    def open(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".write-test-{os.getpid()}"
        probe.write_text("")
        probe.unlink()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except (IsADirectoryError, NotADirectoryError):
            return b""

    def _folder(self, path: Path) -> Path:
        """Create the folder at ``path`` if missing. A file in its place is damage and is removed."""
        for part in (path, *path.parents):
            if part == self.root:
                break
            if part.exists() and not part.is_dir():
                part.unlink()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        self._folder(path.parent)
        if path.is_dir():
            durable.discard(path)
        durable.replace(path, lambda aside: aside.write_bytes(data), shared=True)

    def claim(self, name: str, before: bytes | None, after: bytes) -> bool:
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read(name) != before:
                return False
            self.write(name, after)
            return True

    def remove(self, name: str) -> None:
        path = self.root / name
        durable.discard(path / RECORD)
        durable.discard(path)

    def checksum(self, name: str) -> str | None:
        try:
            return file_hash(self.root / name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def publish(self, source: Path, name: str) -> None:
        durable.sync_tree(source)
        final = self.root / name
        self._folder(final.parent)
        self.remove(name)  # anything there has no readable record
        os.replace(source, final)
        durable.sync(final.parent)

    def fetch(self, name: str, files: Mapping[str, str]) -> Path:
        return self.root / name

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        folder = self._folder(self.root / "partial" / name)
        if (folder / LOCK).is_dir():
            durable.discard(folder / LOCK)
        with alone(folder / LOCK):
            yield folder

    def keep(self, name: str, workspace: Path) -> None:
        pass  # it is on the shared file system already

    def begun(self, name: str) -> bool:
        return (self.root / "partial" / name).exists()

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(p.name for p in (self.root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def kept(self, name: str) -> int:
        total = 0
        for file in (self.root / "partial" / name / "work").rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                total += file.stat().st_size if file.is_file() and file.suffix != ".aside" else 0
        return total


@dataclass(frozen=True)
class Bucket:
    """A prefix in an S3-compatible object store: ``s3://BUCKET/PREFIX``. Nodes keep verified copies in a cache.

    An endpoint other than Amazon's is set by ``AWS_ENDPOINT_URL``; region and keys by AWS's usual variables.
    """

    uri: str
    pace = 2.0

    def __str__(self) -> str:
        return self.uri

    @property
    def _prefix(self) -> str:
        parts = urlsplit(self.uri)
        return f"{parts.netloc}{parts.path}".rstrip("/")

    @property
    def _fs(self) -> Any:
        return _file_system(urlsplit(self.uri).netloc)

    @property
    def _cache(self) -> Path:
        """Folder of this node's copies, below ``ORCHESTRATOR_CACHE`` if that is set."""
        own = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
        return Path(os.environ.get("ORCHESTRATOR_CACHE") or Path.home() / ".cache" / "orchestrator") / own

    def open(self) -> None:
        name = f".write-test-{os.getpid()}-{time.time_ns()}"
        self.write(name, b"x")
        content = self.read(name)
        self.remove(name)
        if content != b"x":
            raise OSError(f"{self.uri}: a test file could not be read back after it was written")

    def read(self, name: str) -> bytes | None:
        return self._unmoved(name, lambda stream: stream.readall())

    def _unmoved(self, name: str, take: Callable[[Any], T]) -> T | None:
        """``take(stream)`` of an object; None if it does not exist.

        Arrow raises a generic OSError for an object that is removed or rewritten between lookup and read, as a step's
        progress is when the step ends: it is then looked up again.
        """
        for retries in range(ATTEMPTS - 1, -1, -1):
            try:
                with self._fs.open_input_stream(f"{self._prefix}/{name}") as stream:
                    return take(stream)
            except FileNotFoundError:
                return None
            except OSError:
                if not self._there(name):
                    return None
                if not retries:
                    raise
        return None

    def _there(self, name: str) -> bool:
        from pyarrow.fs import FileType

        return self._fs.get_file_info(f"{self._prefix}/{name}").type == FileType.File

    def write(self, name: str, data: bytes) -> None:
        with self._fs.open_output_stream(f"{self._prefix}/{name}") as stream:
            stream.write(data)

    def claim(self, name: str, before: bytes | None, after: bytes) -> bool:
        if self.read(name) != before:
            return False
        self.write(name, after)
        time.sleep(SETTLE)  # of two concurrent claims the later write wins, and both then read that one
        return self.read(name) == after

    def remove(self, name: str) -> None:
        if self._there(name):
            files = [f"{self._prefix}/{name}"]
        else:
            files = sorted(self._files(name), key=lambda file: not file.endswith(f"/{RECORD}"))
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another process was first
                self._fs.delete_file(file)

    def _files(self, name: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self._prefix}/{name}", recursive=True, allow_not_found=True)
        return [info.path for info in self._fs.get_file_info(selector) if info.type == FileType.File]

    def checksum(self, name: str) -> str | None:
        def digest(stream: Any) -> str:
            sha256 = hashlib.sha256()
            while chunk := stream.read(1 << 22):
                sha256.update(chunk)
            return sha256.hexdigest()

        return self._unmoved(name, digest)

    def publish(self, source: Path, name: str) -> None:
        files = sorted((p for p in source.rglob("*") if p.is_file()), key=lambda p: (p.name == RECORD, str(p)))
        for path in files:
            self._upload(path, f"{name}/{path.relative_to(source).as_posix()}")

    def _upload(self, path: Path, name: str) -> None:
        with path.open("rb") as source, self._fs.open_output_stream(f"{self._prefix}/{name}") as target:
            while chunk := source.read(1 << 22):
                target.write(chunk)

    def fetch(self, name: str, files: Mapping[str, str]) -> Path:
        folder = self._cache / name
        for file, checksum in files.items():
            path = folder / file
            if path.is_file() and file_hash(path) == checksum:
                continue
            durable.discard(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(path, partial(self._checked_download, f"{name}/{file}", checksum), shared=True)
        return folder

    def _checked_download(self, name: str, checksum: str, path: Path) -> None:
        self._download(name, path)
        if file_hash(path) != checksum:
            path.unlink()
            raise OSError(f"{self.uri}/{name} does not match its recorded checksum: run again to recompute it")

    def _download(self, name: str, path: Path) -> None:
        with self._fs.open_input_stream(f"{self._prefix}/{name}") as source, path.open("wb") as target:
            while chunk := source.read(1 << 22):
                target.write(chunk)

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        self._cache.mkdir(parents=True, exist_ok=True)
        with own("unfinished-", self._cache) as folder:
            archive_path = folder / LEFT
            try:
                self._download(f"partial/{name}/{LEFT}", archive_path)
                with tarfile.open(archive_path) as archive:
                    archive.extractall(folder / "work", filter="data")
            except FileNotFoundError:
                pass
            except (tarfile.TarError, ValueError) as error:  # its files have checksums of their own
                durable.lost(Path(name, LEFT), ValueError(first_line(error)), "the step starts over")
                durable.discard(folder / "work")
            durable.discard(archive_path)
            yield folder

    def keep(self, name: str, workspace: Path) -> None:
        archive_path = workspace / LEFT
        with tarfile.open(archive_path, "w") as archive:
            archive.add(workspace / "work", arcname=".")
        self._upload(archive_path, f"partial/{name}/{LEFT}")
        archive_path.unlink()
        files = [p for p in (workspace / "work").rglob("*") if p.is_file()]
        self.write(f"partial/{name}/{KEPT}", str(sum(p.stat().st_size for p in files)).encode())

    def begun(self, name: str) -> bool:
        return bool(self._files(f"partial/{name}"))

    def names(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(f"{self._prefix}/{folder}", allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def kept(self, name: str) -> int:
        size = self.read(f"partial/{name}/{KEPT}") or b""
        return int(size) if size.isdigit() else 0


def storage_of(where: str) -> Storage:
    """The storage at a user's address: a folder, or ``s3://BUCKET/PREFIX``. ``UserError`` for any other address."""
    if not where.strip():
        raise UserError("--store is empty: name a folder or s3://BUCKET/PREFIX, or leave it out")
    if "://" not in where:
        return Folder(Path(where).resolve())
    parts = _split(where, "--store")
    if parts.username or parts.password:
        raise UserError("--store: keys do not belong in the address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.scheme != "s3" or not parts.netloc or parts.query:
        raise UserError(f"--store {where}: name a folder or s3://BUCKET/PREFIX (another endpoint: AWS_ENDPOINT_URL)")
    return Bucket(where.rstrip("/"))


def _split(address: str, what: str) -> SplitResult:
    """``urlsplit`` with a ``UserError`` that names the setting ``what``."""
    try:
        return urlsplit(address)
    except ValueError as error:
        raise UserError(f"{what}: {address} is not an address ({error})") from None


@cache
def _file_system(bucket: str) -> Any:
    """This process's Arrow S3 file system; ``UserError`` for an invalid endpoint."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    # By default Arrow gives up after 3 attempts, within about a second: too soon for a run of many hours.
    patient = {"connect_timeout": 10, "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if given:
        endpoint = _split(given, "AWS_ENDPOINT_URL")
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
            raise UserError(f"AWS_ENDPOINT_URL: {given} is not an endpoint: write http://HOST:PORT or https://HOST")
        return S3FileSystem(
            endpoint_override=endpoint.netloc, scheme=endpoint.scheme, region=region or "us-east-1", **patient
        )
    return S3FileSystem(region=region or resolve_s3_region(bucket), **patient)
