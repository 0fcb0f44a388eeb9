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

from methods.training.start import initial_a
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
    """The factors of a PEFT model by module name: ``a`` r x in, ``b`` out x r, and the initial A ``a0``."""

    model: PeftModel
    a: dict[str, nn.Parameter]
    b: dict[str, nn.Parameter]
    a0: dict[str, Tensor]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All factors, named ``<module>/a`` and ``<module>/b``."""
        return {f"{name}/{kind}": part[name] for name in self.a for kind, part in (("a", self.a), ("b", self.b))}

    @torch.no_grad()
    def drift(self) -> Tensor:
        """Three Frobenius norms over all modules: ||A - A0||, ||A0||, ||B||."""
        start = list(self.a0.values())
        b: list[Tensor] = [*self.b.values()]
        moved = list(torch._foreach_sub([*self.a.values()], start))
        norms = [torch._foreach_norm(part, 2, torch.float64) for part in (moved, start, b)]
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


def adapter_of(model: PeftModel, init_seed: int) -> Adapter:
    """Set the factors of a PEFT model to their initial values, :func:`initial_a` and B = 0, and collect them."""
    a: dict[str, nn.Parameter] = {}
    b: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if not module:
            assert not parameter.requires_grad, f"{name} trains, but is no LoRA factor"
            continue
        parameter.data = parameter.data.float()
        if kind.startswith("A."):
            parameter.data.copy_(initial_a(init_seed, module, *parameter.shape))
            a[module] = parameter
        else:
            parameter.data.zero_()
            b[module] = parameter
    assert a.keys() == b.keys(), "every adapted module has both factors"
    return Adapter(model, a, b, {name: value.detach().clone() for name, value in a.items()})


def attach(
    model: PreTrainedModel, targets: Sequence[str], rank: int, alpha: int, dropout: float, init_seed: int
) -> Adapter:
    """Wrap ``model`` with LoRA on ``targets``, initialised from ``init_seed``; see :func:`adapter_of`."""
    config = lora_config(model, targets, rank, alpha, dropout)
    # PEFT draws initial values from the global generator: its state is restored and they are overwritten.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        wrapped = get_peft_model(model, config)
    return adapter_of(wrapped, init_seed)
