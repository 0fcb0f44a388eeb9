"""The engine of the steps that let a model answer: how it will run, and what it needs to know of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from evals.engines.settings import EnginePlace
from execution.context import Context
from execution.settings import keyed
from orchestrator.runtime.device import device

if TYPE_CHECKING:
    from orchestrator.config.study import Study


def engine_config(study: Study, resolved: Mapping[str, str]) -> dict[str, Any]:
    """The engine as it will run: ``auto`` replaced by what this machine has."""
    config = keyed(study.engine) | {"kind": resolved["engine"], "adapters": resolved["adapters"]}
    if resolved["engine"] == "transformers":  # vLLM has its own
        config["attention"] = attention_in(study, study.engine.precision)
    return config


def attention_in(study: Study, precision: str) -> str:
    """The trainings' attention where the base is served or measured too; flash serves half precision alone."""
    chosen = study.training.attention
    return "sdpa" if chosen == "flash" and precision == "float32" else chosen


def engine_where(study: Study, adapters: bool) -> dict[str, Any]:
    """How the engine uses the machine. An engine that may meet adapters later is opened for them at once."""
    placed = {field.name: getattr(study.placement, field.name) for field in fields(EnginePlace)}
    return placed | {"max_lora_rank": study.adapter.rank if adapters else 0}


def engine_placement(context: Context) -> dict[str, Any]:
    """What an engine needs to know of this machine; never part of an identity."""
    return {"device": device(), **context.where["engine"]}
