"""Maps each method to TRL's ``loss_type`` without importing TRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN = {"sft": "nll", "dft": "dft"}
# (our loss, length_normalised) -> TRL's name. TRL has no label smoothing for these.
DPO = {
    ("sigmoid", False): "sigmoid",
    ("sigmoid", True): "sigmoid_norm",
    ("hinge", False): "hinge",
    ("ipo", True): "ipo",
}


def trl_loss(method: str, settings: Mapping[str, Any]) -> str:
    """TRL's ``loss_type`` for a method under its complete settings; ``ValueError`` if there is none."""
    if method in PLAIN:
        return PLAIN[method]
    if method != "dpo":
        raise ValueError(f"TRL has no trainer for {method}, only for sft, dft, dpo: set training.backend to native")
    name = DPO.get((settings["loss"], settings["length_normalised"]))
    if name is None or settings["label_smoothing"]:
        raise ValueError(
            f"TRL has no DPO loss {settings['loss']} with length_normalised "
            f"{str(settings['length_normalised']).lower()} and label_smoothing {settings['label_smoothing']:g}: set "
            "training.backend to native"
        )
    return name
