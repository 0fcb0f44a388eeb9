"""The base step: prepares a folder that Transformers and vLLM can load, or records where the model is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.context import Context
from execution.step import Step, StepKind
from execution.store import write_json
from orchestrator.bases import BASES
from orchestrator.bases.base import BaseSpec, Shape

if TYPE_CHECKING:
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned

NOTE = "base.json"


def plan(planned: Planned) -> list[Step]:
    """The study's base, and the other models that rollouts are sampled from."""
    base = _step(planned.study.base, planned.resolved)
    steps = [base]
    for teacher in (_step(spec, planned.resolved) for spec in planned.study.rollouts.teachers):
        if teacher.title == base.title and teacher.key != base.key:  # another revision of the same model
            teacher = replace(teacher, name=f"{teacher.name}-teacher")
        if teacher.key != base.key:
            steps.append(teacher)
    return steps


def prepared(base: BaseSpec, planned: Planned) -> Step:
    """The planned step that prepares this model."""
    key = _step(base, planned.resolved).key
    return next(step for step in planned.of(KIND.name) if step.key == key)


def _step(base: BaseSpec, resolved: Mapping[str, str]) -> Step:
    """The step that prepares a model; its identity is the content, the commit, or the settings that create it."""
    return Step(KIND, base.name.replace("/", "--"), base.step_config(resolved), {}, base.step_where())


def run(context: Context) -> None:
    """Write ``model/`` (from_scratch, GGUF), and ``base.json`` with the model's location and sizes."""
    config = context.config
    kind = BASES[config["kind"]]
    model, facts = kind.make(config, context.runtime, context.out / "model", context.progress)
    note = {"name": config["name"], "kind": config["kind"], **facts}
    note["revision"] = config.get("content", "made by this study")
    write_json(context.out / NOTE, note | sizes(model))


def model_folder(base: Path) -> Path:
    """The model's folder on this node, from a finished base step; a hub model is fetched if needed."""
    kind, note = _noted(base)
    return kind.folder(note, base)


def address(base: Path) -> tuple[str, str | None]:
    """Where PEFT can load a finished base step's model from: hub name and commit, else its folder and None.

    It is the only part of an adapter that depends on the run's location, and enters no key and no result.
    """
    kind, note = _noted(base)
    return kind.address(note, base)


def _noted(base: Path) -> tuple[type[BaseSpec], dict[str, Any]]:
    note = json.loads((base / NOTE).read_text())
    return BASES.get(note.get("kind"), BaseSpec), note


def sizes(model: Path) -> dict[str, int]:
    """Parameters, layers and hidden size of a model folder, without loading its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    with torch.device("meta"):
        meta = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    return {
        "parameters": sum(p.numel() for p in meta.parameters()),
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
    }


def seconds(study: Study, shape: Shape, step: Step) -> float:
    """Seconds to create the base; reading and downloading are not counted."""
    return BASES[step.config["kind"]].seconds(step.config)


KIND = StepKind("base", version=2, plan=plan, run=run, seconds=seconds)
