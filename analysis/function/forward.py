"""Forward passes of a base model with a delta attached by hooks, never merged into its weights.

Letters: n rows, t tokens, d hidden width, V vocabulary. Another batch size changes results by rounding only; the same
batch size gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from models.adapter import Factors
from models.head import backbone, head_of
from models.logprobs import Row, completion_states, token_scores
from models.module_names import matching_names
from models.padding import by_length, padded

TOKENS_A_CHUNK = 256  # head and KL: 256 x 151 k float32 logits are 155 MB


@dataclass(frozen=True)
class RowScore:
    """One completion: nll and KL(reference || model) in nats, each summed over ``tokens`` tokens."""

    nll: float
    tokens: int
    kl: float | None = None


@contextmanager
def attached(model: PreTrainedModel, modules: Mapping[str, Factors]) -> Iterator[PreTrainedModel]:
    """Within the block, every delta is added to its module's output in float32.

    With a bfloat16 base the sum is rounded to bfloat16 like every activation: measure on a float32 base.
    ValueError names a module that is missing, not linear, of another shape, or the output head.
    """
    handles = []
    try:
        for name, factors in modules.items():
            linear = linear_of(model, name, factors)
            handles.append(linear.register_forward_hook(_adder(factors, cast(Tensor, linear.weight).device)))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def features(
    model: PreTrainedModel,
    token_ids: Sequence[Sequence[int]],
    position: Literal["last", "mean"] = "last",
    modules: Sequence[str] = (),
    batch_size: int = 8,
) -> dict[str, dict]:
    """Activations of n prompts at the last token or averaged over the tokens, float32 on the CPU.

    Returns {"hidden": {layer: n x d}, "modules": {name: n x out}}. Layer 0 is the embeddings' output, layer l
    the output of block l - 1; the last one is after the final norm, as Transformers returns it. "modules"
    holds the outputs of the named modules, attached deltas included.
    """
    check_eval(model)
    if position not in ("last", "mean"):
        raise ValueError(f"position is 'last' or 'mean', got {position!r}")
    if not token_ids or not all(token_ids):
        raise ValueError("features need one prompt or more, none of them empty")
    lengths: list[Tensor] = []  # of the current batch, read by the hooks
    outputs: dict[str, list[Tensor]] = {name: [] for name in modules}
    hidden: dict[int, list[Tensor]] = {}
    handles = [
        _submodule(model, name).register_forward_hook(
            lambda _m, _i, out, kept=outputs[name]: kept.append(_pooled(out, lengths[-1], position))
        )
        for name in modules
    ]
    try:
        for start in range(0, len(token_ids), batch_size):
            batch = token_ids[start : start + batch_size]
            ids = torch.from_numpy(padded(batch)).to(model.device)
            lengths.append(torch.tensor([len(tokens) for tokens in batch], device=model.device))
            with torch.inference_mode():
                states = backbone(model)(ids, use_cache=False, output_hidden_states=True)
            for layer, state in enumerate(states.hidden_states):
                hidden.setdefault(layer, []).append(_pooled(state, lengths[-1], position))
    finally:
        for handle in handles:
            handle.remove()
    return {
        "hidden": {layer: torch.cat(parts) for layer, parts in hidden.items()},
        "modules": {name: torch.cat(parts) for name, parts in outputs.items()},
    }


def completion_hidden(model: PreTrainedModel, rows: Sequence[Row], batch_size: int = 8) -> list[Tensor]:
    """Per row, in order, the t x d final hidden states that predict its t completion tokens.

    Those of the base are the ``reference`` of :func:`completion_scores` on the same rows.
    """
    hidden: list[Tensor] = [torch.empty(0)] * len(rows)
    for index, states, _ in _by_row(model, rows, batch_size):
        hidden[index] = states.cpu()
    return hidden


def completion_scores(
    model: PreTrainedModel,
    rows: Sequence[Row],
    batch_size: int = 8,
    reference: Sequence[Tensor] | None = None,
) -> list[RowScore]:
    """Summed nll of each completion and, with ``reference``, the exact KL(reference || model) over V.

    ``reference``: the base's :func:`completion_hidden` of the same rows. KL is taken at the positions that predict the
    completion's tokens, on the given text (teacher forcing). The head runs on TOKENS_A_CHUNK positions at a
    time, so logits of a whole batch are never held; :func:`models.head.check` compares them with the model's own. An
    empty completion scores 0 over 0 tokens.
    """
    if reference is not None and len(reference) != len(rows):
        raise ValueError(f"reference states of {len(reference)} rows for {len(rows)} rows")
    head = head_of(model)
    scores = [RowScore(0.0, 0, None if reference is None else 0.0)] * len(rows)
    for index, states, targets in _by_row(model, rows, batch_size):
        base = None if reference is None else reference[index].to(states.device)
        nll, kl = 0.0, 0.0
        with torch.inference_mode():
            for nlls, kls in token_scores(head, states, targets, TOKENS_A_CHUNK, base):
                nll += nlls.sum().item()
                kl += kls.sum().item()
        # Rounding can make the KL of nearly equal distributions negative.
        scores[index] = RowScore(nll, len(targets), None if base is None else kl if kl > 0 or kl != kl else 0.0)
    return scores


def completion_nll(model: PreTrainedModel, rows: Sequence[Row], batch_size: int = 8) -> list[tuple[float, int]]:
    """Per row (summed nll in nats, completion tokens), in row order."""
    return [(score.nll, score.tokens) for score in completion_scores(model, rows, batch_size)]


def _by_row(model: PreTrainedModel, rows: Sequence[Row], batch_size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (row, t x d states that predict its completion, its t tokens); rows of similar length share a batch."""
    check_eval(model)
    check_prompts(rows)
    filled = [index for index, (_, completion) in enumerate(rows) if completion]
    for batch in by_length([sum(map(len, rows[index])) for index in filled], batch_size):
        held = [filled[place] for place in batch]
        with torch.inference_mode():
            states, targets, _ = completion_states(model, [rows[index] for index in held])
        sizes = [len(rows[index][1]) for index in held]
        yield from zip(held, states.split(sizes), targets.split(sizes), strict=True)


def check_prompts(rows: Sequence[Row]) -> None:
    """``ValueError`` names the first row without a prompt."""
    for index, (prompt, _) in enumerate(rows):
        if not prompt:
            raise ValueError(f"row {index}: the prompt is empty, so nothing predicts the first completion token")


def check_eval(model: PreTrainedModel) -> None:
    """``ValueError`` in training mode."""
    if model.training:
        raise ValueError("the model is in training mode, where dropout makes measurements random: call model.eval()")


def _submodule(model: PreTrainedModel, name: str) -> nn.Module:
    """The module of that name, or the only one whose name differs by a prefix. ``ValueError`` if there is none."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        matches = matching_names(name, (other for other, _ in model.named_modules() if other))
        if len(matches) == 1:
            return model.get_submodule(matches[0])
        raise ValueError(f"module {name} is not in {type(model).__name__}: is the adapter of this base?") from None


def unattachable(model: PreTrainedModel, name: str) -> str | None:
    """Why no delta can be attached at the module, in a few words; None for an inner linear module, where it can."""
    try:
        module = _submodule(model, name)
    except ValueError:
        return f"not in {type(model).__name__}"
    if module is model.get_output_embeddings():
        return "the output head"
    return None if isinstance(module, (nn.Linear, Conv1D)) else f"a {type(module).__name__}"


def linear_of(model: PreTrainedModel, name: str, factors: Factors) -> nn.Module:
    """The linear module of that name; one-line ``ValueError`` if there is none or the delta has another shape."""
    linear = _submodule(model, name)
    if unattachable(model, name) is not None:
        raise ValueError(f"module {name} is a {type(linear).__name__}; deltas attach to inner linear modules")
    weight = cast(Tensor, linear.weight)
    weight_shape = tuple(weight.T.shape) if isinstance(linear, Conv1D) else tuple(weight.shape)
    shape = (factors.b.shape[0], factors.a.shape[1])
    if weight_shape != shape:
        raise ValueError(f"module {name}: the delta is {shape}, the weight {weight_shape} (out, in)")
    return linear


def _adder(factors: Factors, device: torch.device) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    b, a = factors.b.to(device, torch.float32), factors.a.to(device, torch.float32)

    def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return (output.float() + inputs[0].float() @ a.T @ b.T).to(output.dtype)

    return add


def _pooled(state: Tensor, lengths: Tensor, position: str) -> Tensor:
    """n x t x d -> n x d, float32 on the CPU."""
    state = state.float()
    if position == "last":
        return state[torch.arange(len(lengths), device=state.device), lengths - 1].cpu()
    keep = torch.arange(state.shape[1], device=state.device)[None, :, None] < lengths[:, None, None]
    return ((state * keep).sum(1) / lengths[:, None]).cpu()
