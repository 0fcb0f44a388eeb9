"""What ``doctor --measure`` found on this machine: rates by which ``plan`` estimates, and whose they are.

The file is ``calibration.json`` in ``ORCHESTRATOR_CACHE`` (default ``~/.cache/orchestrator``), or the one that
``ORCHESTRATOR_CALIBRATION`` names; if that is set and empty, none is read. It holds one calibration for each kind of
layers and precision that was measured.
Imports none of the heavy libraries.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.store import read_json, write_json
from orchestrator.runtime.device import gpu_names, processor

if TYPE_CHECKING:
    from orchestrator.config.study import Study

FILE = "calibration.json"
SIZES = ("hidden", "heads", "kv_heads", "head_dim", "intermediate")  # of a layer, on which a rate depends


@dataclass(frozen=True)
class Rates:
    """Operations a second, as ``planning/cost.py`` counts them, on one GPU or one core; 0: not measured.

    ``startup``: seconds in which a worker imports its libraries. ``matrix`` and ``memory`` (bytes a second) are shown,
    and no estimate hangs on them.
    """

    training: float = 0.0
    serving: float = 0.0
    measuring: float = 0.0
    pretraining: float = 0.0  # on the cores that a base's pretraining takes
    startup: float = 0.0
    matrix: float = 0.0
    memory: float = 0.0


def machine() -> dict[str, Any]:
    """What a rate hangs on: processor, cores, the first GPU's name and torch's version."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "not at all"
    names = gpu_names()
    return {
        "processor": processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "gpu": names[0] if names else None,
        "torch": torch,
    }


def place() -> Path:
    """The file of this user's calibration."""
    named = os.environ.get("ORCHESTRATOR_CALIBRATION")
    if named:
        return Path(named)
    return Path(os.environ.get("ORCHESTRATOR_CACHE") or Path.home() / ".cache" / "orchestrator") / FILE


def measured_as(study: Study) -> str | None:
    """What a calibration of this study's rates is kept under: its layers and precisions. None without a shape."""
    if study.base.shape is None:
        return None
    shape = study.base.shape.model_dump()
    layers = ",".join(f"{size}={shape[size]}" for size in SIZES)
    return f"{layers},training={study.training.precision},engine={study.engine.precision}"


def save(study: Study, rates: Rates) -> Path:
    """Keep the study's rates; those of another machine in the file are dropped. ``OSError`` if it cannot be written."""
    file, here = place(), machine()
    held = read_json(file)
    entries = held.get("rates", {}) if held.get("machine") == here else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"machine": here, "rates": {**entries, str(measured_as(study)): asdict(rates)}})
    return file


def load(study: Study, gpu: bool = False) -> tuple[Rates | None, str | None]:
    """The rates measured on this machine for such a study, if any, and a line about a calibration that is not used.

    ``gpu``: those of its GPU are asked for, else those of its cores; it is measured on its GPU where it has one.
    """
    file, named = place(), os.environ.get("ORCHESTRATOR_CALIBRATION")
    if named == "" or not file.exists():
        return None, f"calibration {file} is not there: run doctor --measure" if named else None
    held = read_json(file)
    rates, whose = held.get("rates"), held.get("machine")
    if not isinstance(rates, Mapping) or not isinstance(whose, Mapping):
        return None, f"calibration {file} is damaged and not used: run doctor --measure again"
    here = machine()
    other = [f"{name} {whose.get(name)}, here {here[name]}" for name in here if whose.get(name) != here[name]]
    if other:
        return None, f"calibration {file} is another machine's and not used ({'; '.join(other)}): run doctor --measure"
    if (here["gpu"] is not None) != gpu:
        return None, None
    found = rates.get(str(measured_as(study)))
    if found is None:
        return None, f"calibration {file} has no model of this study's layers and precision: run doctor --measure STUDY"
    try:
        read = Rates(**{name: float(value) for name, value in found.items()})
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None, f"calibration {file} is damaged and not used: run doctor --measure again"
    if any(not 0 <= value < float("inf") for value in asdict(read).values()):
        return None, f"calibration {file} is damaged and not used: run doctor --measure again"
    return read, None


def lines(rates: Rates) -> Iterator[str]:
    """What was measured, a line each."""
    where = {"pretraining": "the cores of the base"}
    usual = "this GPU" if machine()["gpu"] else "one core"
    yield f"matrix      {rates.matrix / 1e12:.3g} TFLOP/s of products in the training's precision"
    yield f"memory      {rates.memory / 1e9:.3g} GB/s copied"
    for name in ("training", "serving", "measuring", "pretraining"):
        rate = getattr(rates, name)
        if rate:
            yield f"{name:<12}{rate / 1e12:.3g} TFLOP/s on {where.get(name, usual)}"
    yield f"start-up    {rates.startup:.1f} s of imports"
