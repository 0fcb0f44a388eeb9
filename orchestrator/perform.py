"""One step, performed: folders opened, threads set, the function called, the result committed. Knows no Ray."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.clock import Began
from orchestrator.context import Context, Inputs, Share
from orchestrator.errors import UserError
from orchestrator.plan import Step
from orchestrator.steps import function_of, helper_of
from orchestrator.store import Store
from orchestrator.threads import pin

if TYPE_CHECKING:
    from evals.engines import Engine


class Engines:
    """The open engine of this process: one at a time, reopened when another model or setting is asked for."""

    def __init__(self) -> None:
        self._open: tuple[Any, Engine] | None = None
        self.seconds = 0.0  # spent opening engines: start-up, not work

    def __call__(self, config: Mapping[str, Any], model: Path) -> Engine:
        from evals.engines import open_engine

        wanted = (dict(config), model)
        if self._open is None or self._open[0] != wanted:
            self.close()
            begun = time.monotonic()
            self._open = (wanted, open_engine(model=model, **config))
            self.seconds += time.monotonic() - begun
        return self._open[1]

    def close(self) -> None:
        if self._open is not None:
            engine, self._open = self._open[1], None
            engine.close()


def inputs_of(step: Step, store: Store) -> dict[str, Path]:
    """The finished folders that the step reads, on this node, by role."""
    return {role: store.folder(other) for role, other in step.inputs.items()}


def in_turn(inputs: Inputs) -> Share:
    """The serial ``share``."""

    def share(function: Callable[[Any, Inputs], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item, inputs) for item in items]

    return share


def perform(step: Step, store: Store, engines: Engines, share: Share | None = None, slots: int = 1) -> None:
    """Run one step to its commit in the store. Whatever it raises leaves the store without the step."""
    begun, opening = Began.now(), engines.seconds
    prepare(step)
    inputs = inputs_of(step, store)
    with doubts() as lost, store.writing(step) as space:
        say = store.teller(step)
        context = Context(step.config, step.where, inputs, *space, say, share or in_turn(inputs), engines, slots)
        function_of(step.kind)(context)
        startup, ended = engines.seconds - opening, begun.date + begun.seconds()  # start-up is part of the seconds
        times = {"started": begun.date, "ended": ended, "seconds": ended - begun.date, "startup_seconds": startup}
        # Before the commit: who sees the step finds its times.
        store.record_times(step, where() | times | {"lost": lost})


@contextmanager
def doubts() -> Iterator[list[str]]:
    """Collects warnings that bytes may be others: of saved states that were lost, of operations without an order."""
    from methods.determinism import Unordered
    from methods.durable import Lost

    lines: list[str] = []
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, (Lost, Unordered)):
            lines.append(str(message))
        else:
            shown(message, category, *where, **more)

    with warnings.catch_warnings():
        for kind in (Lost, Unordered):
            warnings.simplefilter("always", kind)
        warnings.showwarning = show
        yield lines


def assist(step: Step, store: Store) -> None:
    """A further worker's part in a data-parallel training: it computes its share, and writes nothing."""
    prepare(step)
    helper_of(step.kind)(step.config, step.where, inputs_of(step, store))


def prepare(step: Step) -> None:
    """This process as the step wants it: its threads, and no chatter."""
    pin(step.config.get("threads") or step.config.get("engine", {}).get("threads", 1))
    _quiet()


def where() -> dict[str, str]:
    """On which machine, and on which GPUs of it, this process computes."""
    return {"node": socket.gethostname(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def _quiet() -> None:
    """No progress bars of other libraries between the lines of ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def explain(error: BaseException) -> str:
    """An error as one line for the report: its message, with the type where the message alone says too little."""
    lines = str(error).strip().splitlines()
    message = lines[-1] if lines else ""
    if isinstance(error, (UserError, ValueError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
