"""Engine settings of the steps that sample from a model: those in their identity, and those of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from evals.engines.settings import EnginePlace, EngineSettings
from execution.context import Context
from execution.settings import keyed
from orchestrator.planning.training_runs import largest_rank
from orchestrator.runtime.device import device

if TYPE_CHECKING:
    from orchestrator.config.study import Study


def engine_config(study: Study, resolved: Mapping[str, str], own: EngineSettings | None = None) -> dict[str, Any]:
    """The engine's settings with ``auto`` resolved for this machine; ``own``: a teacher's instead of the study's."""
    settings = own or study.engine
    kind = resolved["engine"] if settings.kind == "auto" else settings.kind
    config = keyed(settings) | {"kind": kind, "adapters": settings.adapters_in(kind)}
    if kind == "transformers":  # vLLM chooses its own
        config["attention"] = attention_in(study, settings.precision)
    return config


def attention_in(study: Study, precision: str) -> str:
    """The trainings' attention, for serving and measuring; "sdpa" instead of flash in float32."""
    chosen = study.training.attention
    return "sdpa" if chosen == "flash" and precision == "float32" else chosen


def engine_runtime(study: Study, adapters: bool) -> dict[str, Any]:
    """Runtime inputs of the engine. With ``adapters`` it is opened for adapters from the start."""
    placed = {field.name: getattr(study.placement, field.name) for field in fields(EnginePlace)}
    return placed | {"max_lora_rank": largest_rank(study) if adapters else 0}


def engine_placement(context: Context) -> dict[str, Any]:
    """The engine's device and memory settings, which are not part of any identity."""
    return {"device": device(), **context.runtime["engine"]}
