"""Dict forms for the sections that still take the results as a dict. Deleted with the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from report import formats, headline, model_index, tables
from report.headline import Row, match_label
from report.model_index import ModelIndex
from results import Results, dump

__all__ = ["Row", "match_label"]
SIGN_FLIP = "sign flip"


def pair(results: dict, a: str, b: str) -> dict:
    rows = (results.get("geometry") or {}).get("pairs") or []
    return next((row for row in rows if {row["a"], row["b"]} == {a, b} and a != b), {})


def other(row: dict, name: str | None) -> str | None:
    return model_index.other(SimpleNamespace(**row), name)  # type: ignore[arg-type]


def dimensions(results: dict, rows: Iterable[dict]) -> str:
    told = formats.span(value for row in rows for value in (row.get("k"), row.get("k_max")))
    return told or formats.span([(results.get("geometry") or {}).get("k")])


def in_order(index: ModelIndex, rows: Iterable[dict]) -> list[dict]:
    named = {row["name"]: row for row in rows}
    return [named[name] for name in index.order(named)]


def rows(results: dict, index: ModelIndex) -> list[Row]:
    return headline.rows(Results.model_validate(results), index)


def reference_norm(results: dict, index: ModelIndex) -> float | None:
    return headline.reference_norm(Results.model_validate(results), index)


def pairs_of_floors(results: dict) -> list[tuple[str, dict]]:
    geometry = Results.model_validate(results).geometry
    return [(kind, dump(found)) for kind, found in geometry.floors.pairs] if geometry else []  # type: ignore[arg-type]


def tasks(results: dict) -> list[str]:
    return [task["task"] for task in (results.get("evaluation") or {}).get("tasks") or []]


def task_title(results: dict, task: str) -> str:
    return {row["task"]: row["title"] for row in (results.get("evaluation") or {}).get("tasks") or []}.get(task, task)


def verdict(results: dict, task: str, name: str) -> dict:
    rows = (results.get("evaluation") or {}).get("tasks") or []
    return next((m for row in rows if row["task"] == task for m in row["models"] if m["name"] == name), {})


def _row(row: dict) -> Any:
    return SimpleNamespace(**row) if not row.get("chance") else None


def named(index: ModelIndex, title: str = "Model", chance: str = "Chance") -> tuple[Any, Callable[[dict], tables.Cell]]:
    column, cell = tables.named(index, title, chance)
    return column, lambda row: cell(_row(row))


def tint(index: ModelIndex, row: dict, rate: bool = False) -> str:
    return tables.tint(index, _row(row), rate)


def size(key: str, digits: int) -> Callable[[dict], tables.Cell]:
    cell = tables.size(key, digits)
    return lambda row: cell(_row(row))


def left_out(found: dict, subject: str) -> str:
    rows = found.get("left_out") or []
    kept = formats.count(found["modules"]) if isinstance(found.get("modules"), int) else "the other"
    return f" {subject} {kept} modules; left out: {formats.left_out(rows)}." if rows else ""
