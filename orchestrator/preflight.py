"""What can be known to fail before anything starts, said in one line. Reads files; loads no model."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from evals.tasks import TASKS
from orchestrator.errors import UserError
from orchestrator.facts import local_folder
from orchestrator.plan import cells
from orchestrator.rollout_file import Row, read_rollouts
from orchestrator.study import FileRollouts, SampledRollouts, Study


def check(study: Study) -> None:
    """``UserError`` for rollouts that cannot be read, views that are empty, targets that match no module."""
    if isinstance(study.rollouts, FileRollouts):
        rows = read_rollouts(Path(study.rollouts.path), study.rollouts.draw, study.rollouts.table.seed)
        if study.rollouts.rewards == "given" and rows[0].reward is not None:
            _check_views(study, rows)
    _check_targets(study)
    _check_problems(study)
    names = {cell.name for cell in cells(study)} | {"base"}
    for a, b in study.analysis.connectivity.pairs:
        for name in {a, b} - names:
            raise UserError(f"analysis.connectivity.pairs names {name}, which is none of {', '.join(sorted(names))}")


def _check_views(study: Study, rows: list[Row]) -> None:
    """Methods that would find no row: known where the file gives the rewards."""
    rewards: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        rewards[row.problem_id].add(row.reward or 0.0)
    if "rft" in study.methods and not any(1.0 in found for found in rewards.values()):
        raise UserError("methods.rft: no rollout is right, so RFT has nothing to train on; drop rft, or other rollouts")
    if "dpo" in study.methods and not any(len(found) == 2 for found in rewards.values()):
        raise UserError(
            "methods.dpo: no problem has a right and a wrong rollout, so DPO has no pair; drop dpo and its sweep, "
            "or other rollouts"
        )


def _check_targets(study: Study) -> None:
    modules = _modules(study.base)
    if modules is None:
        return
    for target in study.adapter.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            there = sorted({name.rpartition(".")[2] for name in modules})
            raise UserError(
                f"adapter.targets: {target} matches no module of {study.base.name}; it has {', '.join(there)}"
            )


def _modules(base: Any) -> set[str] | None:
    """Names of modules with a weight matrix inside the layers; None where only loading the model would tell."""
    if base.kind == "from_scratch":
        parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        return {f"layers.0.{part}" for part in parts}
    if base.kind != "local":
        return None
    names: set[str] = set()
    for file in sorted(local_folder(base).glob("*.safetensors")):
        shapes = {n: t["shape"] for n, t in _header(file).items() if n != "__metadata__"}
        names |= {n.removesuffix(".weight") for n, s in shapes.items() if len(s) == 2 and ".weight" in n}
    return {name for name in names if any(part.isdigit() for part in name.split("."))}


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: names, types, shapes."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is no mapping")
    except ValueError:
        raise UserError(f"base.path: {file} is damaged or no safetensors file: copy it again") from None
    return header


def _check_problems(study: Study) -> None:
    """Problem sources that lie on this machine are read once, so that a bad row is named before work begins."""
    specs = list(study.evaluation.tasks)
    if isinstance(study.rollouts, SampledRollouts):
        specs.append(study.rollouts.problems)
    for spec in specs:
        if spec.source is None or Path(spec.source).exists():
            try:
                TASKS[spec.task].load(spec.source, split=spec.split, draw=spec.draw, seed=spec.seed, **spec.settings)
            except TypeError as error:
                raise UserError(f"{spec.task}: {error}") from None
