"""What all commands do alike: the right packages, input that can be read, a signal that stops, lines with the time."""

from __future__ import annotations

import importlib.util
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from execution.errors import UserError
from report.escape import tell

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_STUDY = ROOT / "configs" / "tiny.yaml"


def refuse_intruders() -> None:
    """The packages' names are generic: refuse to start where one resolves to somebody else's."""
    for package in ("methods", "analysis", "report", "evals", "models", "execution", "results"):
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        if folder != ROOT / package:
            raise UserError(
                f"the package {package} is {folder or 'not there'}, not {ROOT / package}: start from {ROOT}"
            )


@contextmanager
def reading() -> Iterator[None]:
    """While only input is read: a name that the system cannot take (too long, a NUL in it) is bad input too."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"the study names what cannot be read: {error}") from None


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, as a batch system sends it before it kills, ends the run as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def progress(line: str) -> None:
    tell(f"{time.strftime('%H:%M:%S')}  {line}")
