"""The folder of a run: whose it is, and the study, the steps and the store that it holds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from execution.errors import UserError
from execution.fingerprint import differences
from execution.step import Step
from execution.storage import Folder, storage_of
from execution.store import Store
from orchestrator.commands.process import DEFAULT_STUDY, reading
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning import resolve as outside
from orchestrator.planning.plan import make_plan
from orchestrator.planning.search import searches, stage
from report.escape import tell

STUDY = "study.json"


def saved_run(options: argparse.Namespace) -> tuple[Study, list[Step], Store]:
    """The study of a run's folder as it was started, or as the given file and ``--set`` say; its plan, the store."""
    file = options.study or DEFAULT_STUDY
    given = None
    with reading():
        if options.study or options.set or options.out is None:
            given = load_study(file, options.set)
        out = options.out or folder_of(options, given)  # type: ignore[arg-type]
    _check(out)
    try:
        saved = _read_saved(out)
        study, facts = Study.model_validate(saved["study"]), saved["facts"]
        place = storage_of(saved["store"]) if saved.get("store") else Folder(out.resolve())
        if given and (options.study or options.set) and _told(given) != _told(study):
            refuse_another(out, given, file)
            known = {name: facts[name] for name in ("engine", "adapters") if given.engine == study.engine}
            changed = differences(_told(study), _told(given))
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            tell(f"not the study as it was run ({'; '.join(changed[:3])}{more}): --out alone shows that", sys.stderr)
            with reading():
                study, facts = given, outside.gather(given, out, online=False) | known
        store = Store(out.resolve(), place)
        now = stage(study, facts, store, failed_searches(study, facts, store))
        return now.study, now.steps, store
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{out} holds no run: start one with run, or name its folder with --out") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{out / STUDY} is damaged or of another version: start the study again with run") from None


def failed_searches(study: Study, facts: dict[str, str], store: Store) -> set[str]:
    """Titles of the searches that failed when last tried: a run went on without them."""
    if study.search is None:
        return set()
    return {step.title for step in searches(make_plan(study, facts)) if store.failure(step) is not None}


def _told(study: Study) -> dict[str, Any]:
    """All of a study that its results and their report hang on."""
    return study.model_dump(mode="json", exclude={"placement", "data"})


def _read_saved(out: Path) -> dict[str, Any]:
    return json.loads((out / STUDY).read_text())


def refuse_another(out: Path, study: Study, file: Path) -> None:
    """``UserError`` where the folder is another study's: one would take the other's report away.

    Another study has another name, or the same one in a file of another name, with other settings. A study that was
    edited is the same one. Without any study a folder ``report`` there is somebody else's.
    """
    page = out / "report"
    if not (out / STUDY).exists() and page.is_dir() and any(page.iterdir()):
        raise UserError(f"{page} is no report of a run: move it away, or name another --out")
    try:
        saved = _read_saved(out)
        name, before = str(saved["study"]["name"]), saved.get("file", file.name)
        same = before == file.name or saved["study"] == study.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # there is none, or none that can be read
    if name != study.name or not same:
        whose = f"{name} of {before}" if name == study.name else name
        place = saved.get("store") or out
        raise UserError(
            f"{out} holds the run of the study {whose}: name another --out (with --store {place} to share its steps)"
        )


def folder_of(options: argparse.Namespace, study: Study) -> Path:
    out = options.out or Path("runs") / study.name
    _check(out)
    return out


def _check(out: Path) -> None:
    try:
        is_file = out.exists() and not out.is_dir()
        out.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--out {str(out)[:200]!r} cannot be a folder: {error}"[:300]) from None
    if is_file or out == Path():
        raise UserError(f"--out {out} is no folder of its own: name one")
