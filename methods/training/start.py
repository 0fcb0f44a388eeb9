"""The initial A of every training. Imports torch only, so that measurements can use it too."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.seeds import derive


def initial_a(init_seed: int, module: str, rank: int, width: int) -> Tensor:
    """A module's A before the first step, rank x width, float32.

    Drawn uniformly with bound 1 / sqrt(width), PEFT's default (Kaiming, a = sqrt(5)), by a generator seeded from
    (``init_seed``, module name), so that it does not depend on method, order or other modules.
    """
    generator = torch.Generator().manual_seed(derive("init", init_seed, module))
    start = torch.empty(rank, width, dtype=torch.float32)
    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
    return start
