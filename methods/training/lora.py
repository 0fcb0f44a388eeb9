"""LoRA factors on a base model: attached by PEFT, initialised from a seed per module, saved in PEFT's format."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from methods.config import Start
from methods.training.start import INITIAL
from models.adapter_config import CONFIG, WEIGHTS
from models.base import targeted

PREFIX = "base_model.model."


def lora_config(model: PreTrainedModel, targets: Sequence[str], rank: int, alpha: int, dropout: float) -> LoraConfig:
    """PEFT's config for these targets; ``ValueError`` with candidates if a target matches no module.

    It lists the targets as given, or every module by full name where PEFT would match modules of a vision tower too.
    """
    matched = targeted(model, targets)
    transposed = {isinstance(module, Conv1D) for module in matched.values()}
    if len(transposed) > 1:
        raise ValueError(f"adapter targets {', '.join(targets)} mix Linear and Conv1D modules: name one kind")
    endings = tuple(f".{target}" for target in targets)
    whole = {name for name, _ in model.named_modules() if name in targets or name.endswith(endings)}
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=sorted(targets if whole == matched.keys() else matched),
        fan_in_fan_out=transposed == {True},
    )


@dataclass(frozen=True)
class Adapter:
    """The factors of a PEFT model by module name: ``a`` r x in, ``b`` out x r.

    ``start`` is the factor that was drawn, ``initial`` its values before the first step; the other one began at zero.
    """

    model: PeftModel
    a: dict[str, nn.Parameter]
    b: dict[str, nn.Parameter]
    start: Start
    initial: dict[str, Tensor]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All factors, named ``<module>/a`` and ``<module>/b``."""
        return {f"{name}/{kind}": part[name] for name in self.a for kind, part in (("a", self.a), ("b", self.b))}

    @torch.no_grad()
    def drift(self) -> Tensor:
        """Three Frobenius norms over all modules: ||A - A0||, ||A0||, ||B||; with start b A and B change places."""
        drawn, other = (self.a, self.b) if self.start == "a" else (self.b, self.a)
        start = list(self.initial.values())
        zero: list[Tensor] = [*other.values()]
        moved = list(torch._foreach_sub([*drawn.values()], start))
        norms = [torch._foreach_norm(part, 2, torch.float64) for part in (moved, start, zero)]
        return torch.stack([torch.stack(part).norm() for part in norms])

    def save(self, folder: Path, base_name: str, base_revision: str | None = None) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` (float32) atomically.

        ``base_name`` and ``base_revision`` tell PEFT's ``AutoPeftModel`` which base to load.
        """
        aside = folder.with_name(folder.name + ".aside")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        weights = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        weights = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in sorted(weights.items())}
        save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
        config = self.model.peft_config["default"].to_dict()
        config |= {"base_model_name_or_path": base_name, "revision": base_revision, "inference_mode": True}
        # PEFT keeps the targets in a set, whose order changes from process to process.
        config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (aside / CONFIG).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def adapter_of(model: PeftModel, init_seed: int, start: Start = "a") -> Adapter:
    """Set the factors of a PEFT model to their initial values, and collect them.

    ``start`` is drawn by :func:`methods.training.start.initial_a` or ``initial_b``, the other factor is zero.
    """
    a: dict[str, nn.Parameter] = {}
    b: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if not module:
            assert not parameter.requires_grad, f"{name} trains, but is no LoRA factor"
            continue
        parameter.data = parameter.data.float()
        if kind[0].lower() == start:
            parameter.data.copy_(INITIAL[start](init_seed, module, *parameter.shape))
        else:
            parameter.data.zero_()
        (a if kind.startswith("A.") else b)[module] = parameter
    assert a.keys() == b.keys(), "every adapted module has both factors"
    drawn = a if start == "a" else b
    return Adapter(model, a, b, start, {name: value.detach().clone() for name, value in drawn.items()})


def attach(
    model: PreTrainedModel,
    targets: Sequence[str],
    rank: int,
    alpha: int,
    dropout: float,
    init_seed: int,
    start: Start = "a",
) -> Adapter:
    """Wrap ``model`` with LoRA on ``targets``, initialised from ``init_seed``; see :func:`adapter_of`."""
    config = lora_config(model, targets, rank, alpha, dropout)
    # PEFT draws initial values from the global generator: its state is restored and they are overwritten.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        wrapped = get_peft_model(model, config)
    return adapter_of(wrapped, init_seed, start)
