"""The outputs of a training: a log line per step, adapters at the steps to keep, a summary."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from execution import durable
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.data.view import Unit, equal_pairs
from methods.training.lora import Adapter

LOG = "log.jsonl"
SUMMARY = "training.json"
HELDOUT = ("heldout_nll_right", "heldout_nll_wrong", "heldout_kl")


def units_at(config: TrainConfig, stream: Sequence[Unit], step: int) -> Sequence[Unit]:
    """The units of optimiser step ``step`` (from 1)."""
    return stream[(step - 1) * config.batch_size : step * config.batch_size]


class Kept(TypedDict):
    """Checksums of the outputs at a saved state: SHA-256 of the log's first ``bytes``, and of other files by path."""

    bytes: int
    log: str
    files: dict[str, str]


def verify(folder: Path, kept: Kept) -> None:
    """``ValueError`` names the first file in ``folder`` that does not match ``kept``."""
    with (folder / LOG).open("rb") as stream:
        if hashlib.sha256(stream.read(kept["bytes"])).hexdigest() != kept["log"]:
            raise ValueError(f"{LOG} was cut or changed")
    for name, checksum in kept["files"].items():
        if durable.checksum(folder / name) != checksum:
            raise ValueError(f"{name} was changed")


class Record:
    """Writes a training's outputs into ``folder``, from the start or after the verified outputs ``kept``."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        adapter: Adapter,
        on_step: Callable[[dict[str, Any]], None] | None,
        kept: Kept | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config, self.adapter, self.on_step = folder, config, adapter, on_step
        self._file = (folder / LOG).open("r+b" if kept else "wb")
        begun = self._file.read(kept["bytes"]) if kept else b""
        self.log: list[dict[str, Any]] = [json.loads(line) for line in begun.splitlines()]
        # A killed run may have logged steps after its last saved state: they are run and logged again.
        self._file.truncate()
        self._sum, self._bytes = hashlib.sha256(begun), len(begun)
        self._files = dict(kept["files"]) if kept else {}
        self._saved: list[Path] = []  # adapters since the last sync

    def step(self, values: dict[str, Any]) -> None:
        """Log one finished step, and save its adapter if the config says so."""
        step = values["step"]
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._sum.update(line)
        self._bytes += len(line)
        self.log.append(values)
        if step == self.config.reported_step:
            self._save("adapter")
        if self.config.checkpoint_every and step % self.config.checkpoint_every == 0:
            self.keep(step)
        if self.on_step is not None:
            self.on_step(values)

    def keep(self, step: int) -> None:
        """Save the current adapter as ``checkpoints/step-NNNNNN``."""
        self._save(f"checkpoints/step-{step:06d}")

    def _save(self, name: str) -> None:
        self.adapter.save(self.folder / name, self.config.base_name, self.config.base_revision)
        self._saved.append(self.folder / name)

    def sync(self) -> Kept:
        """fsync everything written so far and return its checksums, for a resume state."""
        durable.sync_tree(self.folder)
        for path in (path for saved in self._saved for path in saved.rglob("*") if path.is_file()):
            self._files[path.relative_to(self.folder).as_posix()] = durable.checksum(path)
        self._saved.clear()
        return {"bytes": self._bytes, "log": self._sum.hexdigest(), "files": dict(self._files)}

    def close(self) -> None:
        self._file.close()

    def finish(
        self,
        rollouts: Sequence[Rollout],
        units: Sequence[Unit],
        stream: Sequence[Unit],
        out_of_memory: Sequence[dict[str, int]] = (),
    ) -> dict[str, Any]:
        """Write ``training.json`` and return its content."""
        summary = summarise(self.config, rollouts, units, stream, self.log) | {"out_of_memory": list(out_of_memory)}
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        (self.folder / SUMMARY).write_text(text, encoding="utf-8")
        return summary


def step_values(config: TrainConfig, step: int, loss: float, grad_norm: float, floor: float | None) -> dict[str, Any]:
    """The first part of a log line, common to both backends.

    ``noise``: whether the gradient norm is at most ``grad_floor``, which rounding alone can explain; None without a
    ``floor``.
    """
    return {
        "step": step,
        "loss": loss,
        "grad_norm": grad_norm,
        "grad_floor": floor,
        "noise": None if floor is None else grad_norm <= floor,
        "clipped": grad_norm > config.clip,
        "learning_rate": config.rate(step),
    }


def drift_values(adapter: Adapter) -> dict[str, float]:
    """||A - A0||, the same over ||A0||, and ||B||, Frobenius norms over all modules.

    With start b, where B is drawn and A begins at zero, A and B change places in all three.
    """
    a_moved, a_start, b_norm = adapter.drift().tolist()
    return {"a_moved": a_moved, "a_moved_rel": a_moved / a_start, "b_norm": b_norm}


def path_ratio(lines: Sequence[dict[str, Any]]) -> float | None:
    """The elements' way over that of a training whose every step moves every element by its learning rate.

    Adam's steps are about that long where the gradient is constant. None where the way is unknown or all
    rates are zero.
    """
    path, rates = lines[-1]["path"], math.fsum(line["learning_rate"] for line in lines)
    return None if path is None or not rates else path / rates


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if all are."""
    held = [value for value in values if value is not None]
    return math.fsum(held) / len(held) if held else None


def summarise(
    config: TrainConfig,
    rollouts: Sequence[Rollout],
    units: Sequence[Unit],
    stream: Sequence[Unit],
    log: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Counts and values up to the reported step, without timings or paths.

    ``units`` counts the units trained on, with repeats; ``tokens_seen`` completion tokens; ``epochs`` passes
    over the method's own view. ``view_rows`` counts the distinct rows of the view, ``equal_pairs`` the pairs left out
    of it because both sides are the same tokens. ``noise_steps`` counts steps whose gradient rounding alone can explain
    (None if unknown); ``noise`` is whether they are at least half of all. ``path_ratio``: see :func:`path_ratio`;
    ``undone`` and ``signal``: see :meth:`methods.training.motion.Motion.end`, at the reported step.
    """
    seen = stream[: config.reported_step * config.batch_size]
    rows = [row for unit in seen for row in unit]
    reported = log[: config.reported_step]
    noise = [line["noise"] for line in reported]
    noise_steps = None if None in noise else sum(noise)
    return {
        "method": config.method,
        "settings": config.settings,
        "learning_rate": config.learning_rate,
        "steps": config.steps,
        "run_steps": config.last_step,
        "report_step": config.reported_step,
        "units": len(seen),
        "rows_seen": len(rows),
        "tokens_seen": sum(len(rollouts[row].completion_ids) for row in rows),
        "epochs": len(seen) / len(units),
        "distinct_problems": len({rollouts[row].group for row in rows}),
        "distinct_rows": len(set(rows)),
        "loss_first": reported[0]["loss"],
        "loss_last": reported[-1]["loss"],
        "gradient_wrong": mean(line["gradient_wrong"] for line in reported),
        "nll_pushed_first": next((x for line in reported if (x := line["nll_pushed"]) is not None), None),
        "nll_pushed_last": next((x for line in reversed(reported) if (x := line["nll_pushed"]) is not None), None),
        **{name: reported[-1].get(name) for name in HELDOUT},
        "clip_rate": sum(line["clipped"] for line in reported) / len(reported),
        "noise_steps": noise_steps,
        "noise": None if noise_steps is None else 2 * noise_steps >= len(reported),
        "a_moved_rel": reported[-1]["a_moved_rel"],
        "b_norm": reported[-1]["b_norm"],
        "path_ratio": path_ratio(reported),
        "undone": reported[-1]["undone"],
        "signal": reported[-1]["signal"],
        "view_rows": len({row for unit in units for row in unit}),
        "view_units": len(units),
        "equal_pairs": equal_pairs(config.method, rollouts, config.pair_rule),
    }
