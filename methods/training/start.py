"""What an adapter starts from: one factor drawn at random, the other one zero. Imports torch only, so that measurements
can use it too.
"""

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


def initial_b(init_seed: int, module: str, out: int, rank: int) -> Tensor:
    """A module's B before the first step where A starts at zero, out x rank, float32; a stream of its own.

    The same rule as A's, for B's own input width: uniform with bound 1 / sqrt(rank). Its variance, 1 / (3 rank), is of
    the order 1 / rank as in Init[B] of Hayou, Ghosh & Yu 2024 (2406.08447), and sqrt(width / rank) times A's in
    standard deviation: so much larger is the first update at the same learning rate.
    """
    generator = torch.Generator().manual_seed(derive("init b", init_seed, module))
    start = torch.empty(out, rank, dtype=torch.float32)
    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
    return start


INITIAL = {"a": initial_a, "b": initial_b}  # by the factor that is drawn; each takes that factor's shape
