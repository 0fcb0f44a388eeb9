"""Rollouts from a hub dataset or local dataset folder: maps columns to our names and splits lists of completions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evals.answers import canonical
from evals.extraction import extract
from execution.errors import UserError, joined
from execution.fingerprint import folder_hash
from orchestrator.config.values import Frozen, Revision, here, hub_like
from orchestrator.rollouts.dataset import normal
from orchestrator.rollouts.row import Row, row_of, whole
from orchestrator.rollouts.sources.given import GivenRollouts

if TYPE_CHECKING:
    from orchestrator.planning.resolve import Resolver

LISTED = ("completion", "reward", "teacher")  # columns that may hold a list with an entry per completion
WITHOUT, TWO = "without a final answer", "with two golds"  # reasons to leave out completions without a gold column


class Columns(Frozen):
    """The dataset's column names of a rollout's fields.

    If ``completion`` holds a list, each entry is a rollout; ``reward`` must then be a list too, and ``teacher`` can be.
    """

    problem: str = "problem"
    completion: str = "completion"
    answer: str | None = "answer"  # null: the gold answer is the completion's own final answer
    reward: str | None = None
    teacher: str | None = None
    problem_id: str | None = None


class HubRollouts(GivenRollouts):
    """Rows of a dataset by its hub name, or of a local folder that ``datasets`` can read."""

    source: Literal["hub"]
    name: Annotated[str, Field(min_length=1, max_length=4096)]
    config: str | None = None
    split: str = "train"
    revision: Revision = "main"
    columns: Columns = Columns()
    places: ClassVar[frozenset[str]] = frozenset({"name", "revision"})

    @property
    def place(self) -> str:
        return self.name

    def identity(self, resolver: Resolver) -> str:
        """A folder's content hash, or a hub name's commit."""
        folder = here(self.name)
        if folder is not None and folder.is_dir():
            return folder_hash(folder)
        if folder is not None or not hub_like(self.name):
            raise UserError(f"rollouts.name: {self.name} is neither a folder nor a hub name; a file is source: file")
        return resolver.commit(self.name, self.revision, "dataset")

    def rows_at_hand(self) -> list[Row]:
        """The rows of a local folder; hub datasets are not fetched."""
        if here(self.name) is None:
            return []
        return read_dataset(self.name, None, self.model_dump(), self.draw, self.table.seed)[0]

    @classmethod
    def read(
        cls, config: Mapping[str, Any], runtime: Mapping[str, Any], progress: Callable[[str], None]
    ) -> tuple[list[Row], Counter[str]]:
        progress(f"reading {runtime['path']}")
        return read_dataset(runtime["path"], runtime["revision"], config, config["draw"], config["table"]["seed"])


def read_dataset(
    name: str, revision: str | None, spec: Mapping[str, Any], draw: int | None = None, seed: int = 0
) -> tuple[list[Row], Counter[str]]:
    """The rows of ``name`` (a folder, or a hub name at the commit ``revision``), or of a fixed ``draw`` of problems.

    ``spec`` has ``config``, ``split`` and ``columns`` (see ``Columns``). Without a gold column each completion's own
    final answer is the gold; the second value then counts completions left out, by reason: without a final answer, or
    of a problem whose completions have different ones. ``UserError`` names a bad row.
    """
    columns, rows, dropped = spec["columns"], [], Counter[str]()
    for where, record in _records(name, revision, spec):
        for place, one in _apart(record, where):
            if columns["answer"] is None:
                one["answer"] = extract(one["completion"]) if isinstance(one["completion"], str) else None
                if one["answer"] is None:
                    dropped[WITHOUT] += 1
                    continue
            rows.append(row_of(one, place))
    if columns["answer"] is None:
        before = len(rows)
        rows = _of_one_gold(rows)
        dropped += Counter({TWO: before - len(rows)})
        if dropped and not rows:
            said = "the completions of each problem state two" if before else "no completion states a"
            raise UserError(
                f"{name}: {said} final answer{'s' * bool(before)}: name the gold answers' column in columns.answer"
            )
    return whole(rows, name, draw, seed), dropped


def _of_one_gold(rows: list[Row]) -> list[Row]:
    """The rows of problems whose golds are all equal after normalisation."""
    golds: dict[str, set[str | None]] = defaultdict(set)
    for row in rows:
        golds[normal(row.problem)].add(canonical(row.answer))
    return [row for row in rows if len(golds[normal(row.problem)]) == 1]


def _records(name: str, revision: str | None, spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``name[index]``, the row's fields under our names) pairs."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    of = f" of {spec['config']}" if spec["config"] else ""
    try:
        table = load_dataset(name, spec["config"], split=spec["split"], revision=revision)
    except Exception as error:  # the library and its client raise many types
        text = joined(error.__cause__ or error)
        mend = ": name a local folder, or go online" if isinstance(error, ConnectionError) else ""
        raise UserError(f"rollouts.name: {name}: cannot load split {spec['split']}{of} ({text}){mend}") from None
    columns = {ours: theirs for ours, theirs in spec["columns"].items() if theirs is not None}
    for ours, theirs in columns.items():
        if theirs not in table.column_names:
            raise UserError(
                f"rollouts.columns.{ours}: {name} has no column {theirs}; it has {', '.join(table.column_names)}"
                + ("; null takes each completion's own final answer as gold" if ours == "answer" else "")
            )
    for index, record in enumerate(table.select_columns(sorted(set(columns.values())))):
        yield f"{name}[{index}]", {ours: record[theirs] for ours, theirs in columns.items()}


def _apart(record: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The record, or if it holds a list of completions one record for each; a null completion becomes empty."""
    texts = record["completion"]
    if not isinstance(texts, list):
        yield where, record | {"completion": "" if texts is None else texts}
        return
    if "answer" not in record:
        raise UserError(
            f"{where}: columns.answer: null needs one completion per row, and this is a list: name the gold's column"
        )
    listed = {name: record[name] for name in LISTED if isinstance(record.get(name), list)}
    if record.get("reward") is not None and "reward" not in listed:
        raise UserError(f"{where}: {len(texts)} completions and one reward: the reward must be a list too")
    for name, values in listed.items():
        if len(values) != len(texts):
            raise UserError(f"{where}: {len(texts)} completions and {len(values)} {name}s: give each its own")
    for k, text in enumerate(texts):
        one = {name: values[k] for name, values in listed.items()}
        yield f"{where}[{k}]", record | one | {"completion": "" if text is None else text}
