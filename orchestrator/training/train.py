"""The train step: one objective at one learning rate with two seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from execution.context import Context, Inputs
from methods.config import TrainConfig
from methods.data.view import equal_pairs
from orchestrator.rollouts.dataset import heldout_rollouts, training_rollouts
from orchestrator.runtime.device import device
from orchestrator.steps.base import address, model_folder
from orchestrator.training.reference import read_reference


def train(context: Context) -> None:
    """Write ``adapter/`` (PEFT, float32), ``log.jsonl``, ``training.json``, and ``checkpoints/`` if configured."""
    config = train_config(context.config, context.runtime, context.inputs["base"])
    if config.backend == "trl":
        from methods.training.trl_backend import train as train_adapter
    else:
        from methods.training.trainer import train as train_adapter

    def tell(line: Mapping[str, Any]) -> None:
        noise = ", gradient within rounding" if line["noise"] else ""
        context.progress(f"step {line['step']}/{config.last_step}, loss {line['loss']:.4g}{noise}")

    reference = context.inputs.get("reference")
    rollouts = training_rollouts(context.inputs["rollouts"])
    if equal := equal_pairs(config.method, rollouts, config.pair_rule):
        context.progress(f"{equal} pairs are left out: both sides are the same tokens")
    train_adapter(
        config,
        model_folder(context.inputs["base"]),
        rollouts,
        context.out,
        reference=None if reference is None else read_reference(reference),
        heldout=heldout_rollouts(context.inputs["rollouts"]) if config.probe_every else (),
        work=context.work,
        on_step=tell,
        on_save=context.keep,
        device=device(),
    )


def assist(config: Mapping[str, Any], runtime: Mapping[str, Any], inputs: Inputs) -> None:
    """The part of ranks above 0 in a data-parallel training; writes nothing."""
    from methods.training.trainer import assist as assist_training

    reference, own = inputs.get("reference"), train_config(config, runtime, inputs["base"])
    assist_training(
        own,
        model_folder(inputs["base"]),
        training_rollouts(inputs["rollouts"]),
        reference=None if reference is None else read_reference(reference),
        heldout=heldout_rollouts(inputs["rollouts"]) if own.probe_every else (),
        device=device(),
    )


def train_config(config: Mapping[str, Any], runtime: Mapping[str, Any], base: Path) -> TrainConfig:
    """A train step's config for the trainer, with the address of the base from the finished base step ``base``."""
    name, revision = address(base)
    own = {key: value for key, value in config.items() if key != "adapter"}
    return TrainConfig(**own, **config["adapter"], **runtime, base_name=name, base_revision=revision)
