"""The engine that a process keeps open."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.runtime.engines import Engines


def test_an_engine_stays_open_until_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_engine(**settings: Any) -> Any:
        engine = SimpleNamespace(settings=settings, closed=0)
        engine.close = lambda: setattr(engine, "closed", engine.closed + 1)
        opened.append(engine)
        return engine

    monkeypatch.setattr("evals.engines.open_engine", open_engine)
    engines = Engines()
    one = engines({"kind": "a"}, Path("m"))
    assert engines({"kind": "a"}, Path("m")) is one
    two = engines({"kind": "a"}, Path("other"))
    assert (one.closed, two.closed, len(opened)) == (1, 0, 2)
    engines.close()
    engines.close()
    assert two.closed == 1
    assert json.dumps(two.settings, default=str) == '{"model": "other", "kind": "a"}'
