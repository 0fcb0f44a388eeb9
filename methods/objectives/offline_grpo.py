"""Offline GRPO: likelihood or probability weighted by the centred reward, in the study's and the source's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch

# kl_loss_coef of KRAFTON's published training script.
KL = 0.2


def weights(reward: Any, group_mean: Any, *, form: str, bias: float, **_: Any) -> Any:
    """Advantage of each row, of the shape of ``reward``: ``r - mean_g(r)``, plus the bias where the form adds it."""
    centred = reward - group_mean
    return centred + bias if form == "study" else centred + bias * (group_mean * (group_mean == 1))


def losses(batch: Batch, *, form: str = "study", bias: float = 0.1, kl: float = KL, divide_by: str = "count") -> Tensor:
    """``study``: ``A * nll_t`` with ``A = r - mean_g(r) + bias``, n x t; g are all rollouts of the row's problem.

    arXiv 2606.23740, objective "Offline GRPO": no division by the group's standard deviation, no probability
    weight, no KL term. Rows with A < 0 make the loss unbounded below; rows of a group without a right one
    still have the weight ``bias``.

    ``source``: ``-A * pi(y_t) + kl * k3_t`` with the bias only where the whole group is right (KRAFTON 2025,
    "Continual Post-Training of LLMs via Offline GRPO"). k3 is the estimate of KL(pi || base) of Schulman (2020),
    ``exp(-d) + d - 1`` with ``d = log pi(y_t) - log pi_base(y_t)``, here taken on the given rollouts.
    """
    advantage = weights(batch.reward, batch.group_mean, form=form, bias=bias)[:, None]
    if form == "study":
        return advantage * batch.nll
    policy = -advantage * batch.probability
    return policy + kl * divergence(batch) if kl else policy


def divergence(batch: Batch) -> Tensor:
    """k3, n x t, nats: never negative, zero where policy and base agree and outside the mask."""
    d = batch.logratio
    return (-d).exp() + d - 1.0


def reference(*, form: str, kl: float, **_: Any) -> bool:
    """Whether the form has a KL term, which reads the base's log-probabilities."""
    return form == "source" and kl > 0


def refuse(*, form: str, kl: float, divide_by: str, **_: Any) -> str | None:
    if kl < 0:
        return f"kl must be at least 0, not {kl:g}"
    if form == "source" and kl and divide_by == "weights":
        return "divide_by: weights would divide the KL term by the advantages too: set kl to 0, or divide by count"
    return None


def real(*, form: str, **_: Any) -> bool:
    """False for the source's form: whether a whole group is right is defined for rewards 0 and 1 only."""
    return form == "study"


def metrics(batch: Batch, **settings: Any) -> dict[str, Tensor]:
    """``kl``: k3 summed over each row's tokens, n; empty if the form has no KL term."""
    if not reference(**settings):
        return {}
    return {"kl": divergence(batch).detach().sum(dim=1)}


METHOD = Method(
    title="Offline GRPO",
    unit="token",
    view="all",
    losses=losses,
    weights=weights,
    metrics=metrics,
    reference=reference,
    real=real,
    choices={"form": ("study", "source"), "divide_by": ("count", "weights")},
    forms={"source": ("kl",)},
    refuse=refuse,
)
