"""Rollouts from a local file; errors name file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from evals.json_rows import json_rows
from execution.errors import UserError, first_line
from execution.fingerprint import file_hash
from orchestrator.rollouts.row import Row, row_of, whole
from orchestrator.rollouts.sources.given import GivenRollouts

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver


class FileRollouts(GivenRollouts):
    """Rows of a JSONL or Parquet file: problem, answer, completion; reward and teacher optional."""

    source: Literal["file"]
    path: str
    places: ClassVar[frozenset[str]] = frozenset({"path"})

    @property
    def place(self) -> str:
        return self.path

    def identity(self, resolver: Resolver) -> str:
        path = Path(self.path)
        if not path.is_file():
            raise UserError(f"rollouts.path: {path} is not there: name a JSONL or Parquet file of rollouts")
        return file_hash(path)

    def rows_at_hand(self) -> list[Row]:
        return read_rollouts(Path(self.path), self.draw, self.table.seed)

    @classmethod
    def read(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], progress: Callable[[str], None]
    ) -> tuple[list[Row], Counter[str]]:
        return read_rollouts(Path(runtime["path"]), config["draw"], config["table"]["seed"]), Counter()


def read_rollouts(path: Path, draw: int | None = None, seed: int = 0) -> list[Row]:
    """All rows of a JSON or Parquet file, or those of a fixed ``draw`` of problems, in the file's order.

    JSON is read by ``evals/json_rows.py``. ``UserError`` names file and line (for Parquet: row) of the first bad row.
    """
    try:
        if not path.is_file():
            raise UserError(f"rollouts.path: {path} is not there: name a JSONL or Parquet file of rollouts")
        records = _parquet(path) if path.suffix == ".parquet" else _json(path)
        rows = [row_of(record, where) for where, record in records]
    except OSError as error:
        raise UserError(f"rollouts.path: {str(path)[:200]} cannot be read: {error.strerror}") from None
    return whole(rows, str(path), draw, seed)


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix in (".csv", ".tsv"):
        raise UserError(f"{path}: rows of a table are read as a dataset: set rollouts.source=hub and name its folder")
    try:
        yield from json_rows(path, lambda line: f"{path}, line {line}")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({first_line(error)})") from None
    for number, record in enumerate(records, 1):
        yield f"{path}, row {number}", record
