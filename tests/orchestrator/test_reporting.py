"""The report's folder: whole, its own at each attempt, and made again where it is not what was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution import durable
from execution.clock import Began
from execution.runner import Outcome
from execution.store import Store, open_store
from orchestrator.config.study import Study
from orchestrator.results import write_report as reporting
from orchestrator.results.report_fingerprint import FILE, outdated
from orchestrator.results.write_report import write_report
from results import VERSION, Results

NAMES = ("report.html", "results.json", "figures/spectra.svg", "csv/pairs.csv")


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``write_report`` around a page of a few files; ``during`` is called while it is drawn."""
    told: dict[str, Any] = {"text": "one", "during": lambda page: None}

    def render(results: object, found: object, page: Path, texts: object) -> None:
        text = told["text"]
        for i, name in enumerate(NAMES):
            (page / name).parent.mkdir(parents=True, exist_ok=True)
            (page / name).write_text(f"{text} {name}")
            if i == 1:
                told["during"](page)

    monkeypatch.setattr(reporting, "render", render)
    for name in ("shown", "provenance"):
        monkeypatch.setattr(reporting, name, lambda *given: {})
    monkeypatch.setattr(reporting, "gather", lambda *given: Results(version=VERSION, trainings=[]))
    return told


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "out")


def texts(store: Store) -> set[str]:
    page = store.root / "report"
    return {p.read_text() for p in page.rglob("*") if p.is_file() and p.name != FILE}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_text("other"),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", [*NAMES, FILE])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_the_report_is_noticed(
    rendered: dict[str, Any], store: Store, make_study: Callable[..., Study], name: str, damage: str
) -> None:
    study, outcome = make_study(), Outcome()
    assert outdated(study, outcome, store) == "", "there is none"
    write_report(study, outcome, store, None)
    assert outdated(study, outcome, store) is None
    assert outdated(study, Outcome(failed={"train/sft": "x"}), store) == "", "it is of another end"
    DAMAGE[damage](store.root / "report" / name)
    found = outdated(study, outcome, store)
    if name == FILE or damage == "a folder":
        assert found is not None
    else:
        assert found == f"report/{name} {'is missing' if damage == 'missing' else 'was changed'}"
    write_report(study, outcome, store, None)
    assert outdated(study, outcome, store) is None


def test_of_two_reports_at_once_the_last_one_stands_whole(
    rendered: dict[str, Any], store: Store, make_study: Callable[..., Study]
) -> None:
    """The second is made from end to end while the first is drawn, as beside a run."""
    pages = []

    def second(page: Path) -> None:
        pages.append(page)
        rendered.update(text="two", during=pages.append)
        write_report(make_study(), Outcome(), store, None)
        assert texts(store) == {f"two {name}" for name in NAMES}

    rendered["during"] = second
    write_report(make_study(), Outcome(), store, None)
    assert len({page.parent for page in pages}) == 2
    assert texts(store) == {f"one {name}" for name in NAMES}
    assert outdated(make_study(), Outcome(), store) is None
    assert list((store.root / "partial").iterdir()) == [], "and both have cleaned up"


def test_a_report_that_came_between_the_two_renames_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("final", "page", "others", "aside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(name)
    replace, turns = reporting.os.replace, []

    def beside(source: Path, target: Path) -> None:
        turns.append(target)
        replace(source, target)
        if len(turns) == 1:
            replace(tmp_path / "others", tmp_path / "final")

    monkeypatch.setattr(reporting.os, "replace", beside)
    reporting.publish(tmp_path / "page", tmp_path / "final", tmp_path / "aside")
    assert (tmp_path / "final" / "text").read_text() == "page"


def test_a_report_that_fails_leaves_the_old_one_and_no_workspace(
    rendered: dict[str, Any], store: Store, make_study: Callable[..., Study]
) -> None:
    write_report(make_study(), Outcome(), store, None)

    def full(page: Path) -> None:
        raise OSError(28, "No space left on device")

    rendered["during"] = full
    with pytest.raises(OSError, match="No space left"):
        write_report(make_study(), Outcome(), store, None)
    assert outdated(make_study(), Outcome(), store) is None and list((store.root / "partial").iterdir()) == []


def test_the_runs_time_is_told_by_a_clock_that_nobody_sets(
    rendered: dict[str, Any], store: Store, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Began.now()
    monkeypatch.setattr("execution.clock.time.time", lambda: begun.date - 3600)
    write_report(make_study(), Outcome(), store, (begun, 1.5))
    told = reporting.read_json(store.root / "run.json")
    assert told["started"] == begun.date and 0 <= told["wall_seconds"] < 60 and told["cluster_startup"] == 1.5
    durable.discard(store.root / "run.json")
