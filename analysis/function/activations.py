"""Deltas compared by their effect on the base's inputs to their modules, not by their entries.

The inner product of two deltas at a module is tr(dW_i S dW_j.T), where S = (1/n) sum x x.T is the second moment (not
centred) of the module's inputs x over n tokens on the base: the mean over tokens of <dW_i x, dW_j x>. RegMean merges
linear layers in this inner product (Jin 2023, 2212.09849); it is K-FAC's with the identity as output factor (Martens &
Grosse 2015, 1503.05671, section 3). It is meaningful where entries cannot be compared, as between adapters of
different initial A.

Letters: M adapters, r a rank, R the sum of the M ranks. S (in x in) is never formed. With z = a x (r numbers per token
and adapter), tr(b_i a_i S a_j.T b_j.T) = tr((b_j.T b_i) (a_i S a_j.T)), so a pass over the base only has to keep the
R x R mean of z z.T over all stacked z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# The same checks and padding as in the other passes over a base.
from analysis.function.forward import check_eval, check_prompts, linear_of
from analysis.weights.gram import cosines
from analysis.weights.modules import places
from analysis.weights.summary import grouped
from models.adapter import Factors
from models.head import backbone
from models.logprobs import Row, predicting
from models.padding import by_length, padded

Grams = Mapping[str, list[list[float]]]
MOST_AT_ONCE = 2**24  # numbers in a strip of products of many adapters


def input_products(
    model: PreTrainedModel,
    rows: Sequence[Row],
    adapters: Sequence[Mapping[str, Factors]],
    modules: Sequence[str],
    batch_size: int = 8,
) -> tuple[dict[str, Tensor], int]:
    """One pass over the base: {module: R x R mean of z z.T, float64 on the CPU} and the number of tokens n.

    z stacks a x of every adapter in the given order. Tokens are those that predict a completion token (the prompt's
    last to the last but one), as in ``forward.completion_scores``; rows of similar length share a batch. z has the
    weights' precision, float32 at least; its products are float64. The stacked a (R x in) of all ``modules`` are on
    the model's device: if they do not fit, call this with some modules at a time. A module that does not process every
    token, such as an expert of a mixture, is left out.

    One-line ValueError for a model in training mode, an empty prompt, no completion token, no adapter or module, a
    module that is missing, not linear, the output head, of another shape or missing in an adapter, NaN or inf.
    """
    check_eval(model)
    if not adapters or not modules:
        raise ValueError(f"nothing to compare: {len(adapters)} adapters, {len(modules)} modules")
    check_prompts(rows)
    filled = [row for row in rows if row[1]]
    if not filled:
        raise ValueError(f"no token to count in {len(rows)} rows: every completion is empty")
    counted: list[tuple[Tensor, int]] = []  # read by the hooks: the batch's counted positions, and its padded size
    products: dict[str, Tensor] = {}
    seeing = {name: list[bool]() for name in modules}  # per call: whether it had every token of the batch
    handles = []
    try:
        for name in modules:
            linear, a = _stacked(model, name, adapters)
            products[name] = torch.zeros(len(a), len(a), dtype=torch.float64, device=a.device)
            handles.append(linear.register_forward_pre_hook(_collector(a, products[name], counted, seeing[name])))
        tokens = 0
        for batch in by_length([sum(map(len, row)) for row in filled], batch_size):
            held = [filled[index] for index in batch]
            ids = padded([[*prompt, *completion] for prompt, completion in held])
            at, _ = predicting(held, ids.shape[1])
            tokens += len(at)
            counted[:] = [(torch.from_numpy(at), ids.size)]
            with torch.inference_mode():
                backbone(model)(torch.from_numpy(ids).to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: products[name].cpu() / tokens for name, calls in seeing.items() if calls and all(calls)}
    for name, product in means.items():
        if not torch.isfinite(product).all():
            raise ValueError(f"module {name}: NaN or inf in its inputs or in a factor")
    return means, tokens


def weighted_gram(products: Tensor, factors: Sequence[Factors]) -> list[list[float]]:
    """One module's M x M tr(dW_i S dW_j.T) from its R x R products (or a a.T for S = 1) and the factors in order.

    A diagonal entry is the mean over tokens of |dW x|^2. ValueError if the ranks do not sum to R.
    """
    ranks = [f.a.shape[0] for f in factors]
    if tuple(products.shape) != (sum(ranks), sum(ranks)):
        raise ValueError(f"products of shape {tuple(products.shape)} for factors of ranks {ranks}")
    stacked = torch.cat([f.b.to(products.device, torch.float64) for f in factors], dim=1)
    return _symmetric(_by_adapter((stacked.T @ stacked) * products.double(), ranks, ranks))


def gram_of_moment(moment: Tensor, factors: Sequence[Factors]) -> list[list[float]]:
    """:func:`weighted_gram` from S itself (in x in), some adapters at a time: for so many adapters that their R x R
    products would take more room than S."""
    ranks = [f.a.shape[0] for f in factors]
    a, b = torch.cat([f.a.double() for f in factors]), torch.cat([f.b.double() for f in factors], dim=1)
    by_inputs = moment.double() @ a.T
    some = max(1, MOST_AT_ONCE // (len(a) * max(ranks)))
    strips, done = [], 0
    for start in range(0, len(factors), some):
        own = ranks[start : start + some]
        rows = slice(done, done + sum(own))
        strips.append(_by_adapter((b[:, rows].T @ b) * (a[rows] @ by_inputs), own, ranks))
        done += sum(own)
    return _symmetric(torch.cat(strips))


def _by_adapter(terms: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Sums over the blocks of adapters of these ranks."""
    sums = torch.stack([part.sum(1) for part in terms.split(columns, dim=1)], dim=1)
    return torch.stack([part.sum(0) for part in sums.split(rows)])


def _symmetric(gram: Tensor) -> list[list[float]]:
    gram = (gram + gram.T) / 2
    gram.diagonal().clamp_(min=0.0)
    return gram.tolist()


def every_input(factors: Factors) -> Factors:
    """A zero delta whose a passes a module's inputs on as they are: its products are S, in x in."""
    width = factors.a.shape[1]
    return Factors(factors.b.new_zeros(len(factors.b), width), torch.eye(width, dtype=torch.float64))


def random_rows(factors: Factors, count: int, seed: int) -> list[Factors]:
    """Two zero deltas of the shape of ``factors`` with unrelated Gaussian a, count x in, for :func:`input_moments`."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, count, factors.a.shape[1], generator=generator, dtype=torch.float64)
    return [Factors(factors.b.new_zeros(len(factors.b), count), a) for a in drawn]


def input_moments(products: Tensor) -> tuple[float, float]:
    """Estimates of tr(S) and tr(S^2), S the second moment of a module's inputs, from the products of its
    :func:`random_rows`: for Gaussian G, H of n rows, E tr(G S G.T) = n tr(S) and E |G S H.T|^2 = n^2 tr(S^2)."""
    count = len(products) // 2
    trace = float(torch.trace(products)) / (2 * count)
    return trace, float(products[:count, count:].square().sum()) / count**2


def summarise_activations(
    names: Sequence[str],
    grams: Grams,
    tokens: int,
    pairs: Sequence[tuple[int, int]] | None = None,
    in_detail: Sequence[tuple[int, int]] | None = None,
) -> dict:
    """Summarise the modules' M x M weighted Grams as JSON values; independent of the order of modules.

    Returns tokens; adapters [{name, norm}], norm the root of the mean over tokens of |dW x|^2 summed over modules;
    pairs [{a, b, cosine}] of ``pairs`` (None: all, in itertools.combinations order), and the same of ``in_detail``
    (None: all) per layer and per projection; gram, the sum of the modules' Grams. A cosine is None if a norm is zero.
    ValueError for no module, or Grams of another number of adapters.
    """
    if not grams:
        raise ValueError("activations of no module: the adapters share no target")
    for module, gram in grams.items():
        if len(gram) != len(names):
            raise ValueError(f"module {module} holds {len(gram)} adapters, {len(names)} names are given")
    whole = _total(grams.values())
    every = list(combinations(range(len(names)), 2)) if pairs is None or in_detail is None else []

    def entries(
        groups: Sequence[tuple[dict, list[list[float]]]], among: Sequence[tuple[int, int]] | None
    ) -> list[dict]:
        some = every if among is None else among
        columns = [(label, cosines(gram, some)) for label, gram in groups]
        return [
            {"a": names[i], "b": names[j], **label, "cosine": column[at]}
            for at, (i, j) in enumerate(some)
            for label, column in columns
        ]

    return {
        "tokens": tokens,
        "adapters": [{"name": name, "norm": math.sqrt(whole[m][m])} for m, name in enumerate(names)],
        "pairs": entries([({}, whole)], pairs),
        "layers": entries(_parts(grams, "layer"), in_detail),
        "projections": entries(_parts(grams, "projection"), in_detail),
        "gram": whole,
    }


def _stacked(model: PreTrainedModel, name: str, adapters: Sequence[Mapping[str, Factors]]) -> tuple[nn.Module, Tensor]:
    """The linear module, and every adapter's a stacked as one R x in tensor in the precision of z."""
    for at, adapter in enumerate(adapters):
        if name not in adapter:
            raise ValueError(f"module {name} is not in adapter {at}: compare the modules that all adapters share")
    held = [adapter[name] for adapter in adapters]
    linear, *_ = [linear_of(model, name, factors) for factors in held]
    weight = cast(Tensor, linear.weight)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return linear, torch.cat([factors.a.to(weight.device, dtype) for factors in held])


def _collector(
    a: Tensor, product: Tensor, counted: list[tuple[Tensor, int]], seeing: list[bool]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def collect(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])
        places, whole = counted[-1]
        seeing.append(len(rows) == whole)
        if seeing[-1]:
            z = (rows[places.to(a.device)].to(a.dtype) @ a.T).double()
            product.addmm_(z.T, z)

    return collect


def _parts(grams: Grams, key: str) -> list[tuple[dict, list[list[float]]]]:
    """(label, summed Gram) of each layer or projection, in order; modules that belong to none are left out."""
    held = list(grams.values())
    return [(label, _total([held[row] for row in rows])) for label, rows in grouped(places(grams).values(), key)]


def _total(grams: Iterable[list[list[float]]]) -> list[list[float]]:
    """Sum of Grams with fsum, so that it does not depend on the order of modules."""
    return [[math.fsum(entries) for entries in zip(*rows, strict=True)] for rows in zip(*grams, strict=True)]
