"""The engine that a process keeps open between steps, and the preparation of the process for each step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.step import Step
from orchestrator.runtime.device import device
from orchestrator.runtime.threads import pin

if TYPE_CHECKING:
    from evals.engines import Engine


class Engines:
    """A step's ``resources``: at most one open engine, replaced when another model or setting is requested."""

    def __init__(self) -> None:
        self._open: tuple[Any, Engine] | None = None
        self.seconds = 0.0

    def __call__(self, config: Mapping[str, Any], model: Path) -> Engine:
        """The open engine of this model with these settings, opened if needed."""
        from evals.engines import open_engine

        wanted = (dict(config), model)
        if self._open is None or self._open[0] != wanted:
            self.close()
            begun = time.monotonic()
            self._open = (wanted, open_engine(model=model, **config))
            self.seconds += time.monotonic() - begun
        return self._open[1]

    def prepare(self, step: Step) -> None:
        """Set the step's number of threads, disable progress bars, close an engine that would occupy a GPU."""
        from transformers.utils import logging

        pin(step.config.get("threads") or step.config.get("engine", {}).get("threads", 1))
        logging.disable_progress_bar()
        if step.runs_as != "engine" and self._open is not None and device() == "cuda":
            self.close()  # an engine takes most of a GPU's memory

    def failed(self, step: Step) -> None:
        """Close the engine after an error of an engine step, as its state is undefined."""
        if step.runs_as == "engine":
            with contextlib.suppress(Exception):
                self.close()

    def close(self) -> None:
        if self._open is not None:
            engine, self._open = self._open[1], None
            engine.close()
