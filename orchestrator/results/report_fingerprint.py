"""What a report was made from, so that one that still holds is not made again. Light: no heavy import."""

from __future__ import annotations

from pathlib import Path

from execution import durable
from execution.fingerprint import key
from execution.runner import Outcome
from execution.store import Store
from orchestrator.config.study import Study

FILE = "stamp.json"


def fingerprint(study: Study, outcome: Outcome) -> str:
    """The study, its finished steps, its failures, as one key."""
    steps = {step.title: step.key for step in outcome.steps}
    settings = study.model_dump(mode="json", exclude={"placement", "data"})
    return key([settings, list(study.methods), steps, outcome.failed, outcome.blocked])


def write_fingerprint(page: Path, of: str) -> None:
    """Beside a report's files: the stamp of what they were made from, and the checksum of each."""
    files = {path.relative_to(page).as_posix(): durable.checksum(path) for path in _files(page)}
    durable.keep(page / FILE, {"of": of, "files": files})


def outdated(study: Study, outcome: Outcome, store: Store) -> str | None:
    """None where the report that stands there is whole, and of this study and these steps.

    Empty where it is of others or not there; else what was changed in it.
    """
    page = store.root / "report"
    try:
        sealed = durable.unseal((page / FILE).read_bytes())
        if sealed["of"] != fingerprint(study, outcome):
            return ""
        for name, checksum in sealed["files"].items():
            if durable.checksum(page / name) != checksum:
                return f"report/{name} was changed"
    except FileNotFoundError as error:
        name = Path(error.filename).relative_to(page).as_posix()
        return "" if name == FILE else f"report/{name} is missing"
    except (OSError, ValueError):
        return "a file of the report was changed"
    return None


def _files(page: Path) -> list[Path]:
    return sorted(path for path in page.rglob("*") if path.is_file() and path != page / FILE)
