"""Direct preference optimisation on (right, wrong) pairs of one problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.objectives.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch


def preference(batch: Batch, *, length_normalised: bool) -> Tensor:
    """``logratio(chosen) - logratio(rejected)``, one value per pair, nats.

    A row's log-ratio to the base is the sum over its tokens, or with ``length_normalised`` the mean. ``ValueError``
    for an odd number of rows.
    """
    logratio = batch.logratio.sum(dim=1)
    if length_normalised:
        logratio = logratio / batch.lengths
    chosen, rejected = batch.paired(logratio)
    return chosen - rejected


def losses(
    batch: Batch,
    *,
    beta: float = 0.1,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
    length_normalised: bool = False,
) -> Tensor:
    """One loss per pair; rows 2i are chosen, rows 2i + 1 rejected; h is their :func:`preference`, z = beta * h.

    ``sigmoid``: ``-log sigmoid(z)``, Rafailov et al. 2023 (arXiv 2305.18290), section 4, equation 7; the reference is
    the base model. With ``label_smoothing`` e: ``-(1 - e) log sigmoid(z) - e log sigmoid(-z)`` (Mitchell 2023,
    "A note on DPO with noisy preferences"). ``ipo``: ``(h - 1 / (2 beta))^2``, Azar et al. 2023
    (arXiv 2310.12036), equation 17. ``hinge``: ``max(0, 1 - z)``, Zhao et al. 2023 (arXiv 2305.10425), here on
    log-ratios.
    """
    h = preference(batch, length_normalised=length_normalised)
    z = beta * h
    if loss == "ipo":
        return (h - 1 / (2 * beta)).square()
    if loss == "hinge":
        return (1 - z).clamp(min=0)
    zero = z.new_zeros(())
    # log(exp(0) + exp(-z)) = -log sigmoid(z), stable for margins of any size.
    right = (-z).logaddexp(zero)
    return (1 - label_smoothing) * right + label_smoothing * z.logaddexp(zero) if label_smoothing else right


def metrics(batch: Batch, *, beta: float, length_normalised: bool, **_: Any) -> dict[str, Tensor]:
    """``margin`` (z) and ``reward_accuracy`` (1 where it is above 0), one value per pair."""
    z = beta * preference(batch, length_normalised=length_normalised).detach()
    return {"margin": z, "reward_accuracy": (z > 0).to(z.dtype)}


def refuse(*, loss: str, label_smoothing: float, **_: Any) -> str | None:
    if not 0 <= label_smoothing < 0.5:
        return f"label_smoothing must be at least 0 and below 0.5, not {label_smoothing:g}"
    if label_smoothing and loss != "sigmoid":
        return f"label_smoothing is defined for loss: sigmoid, not {loss}"
    return None


METHOD = Method(
    title="DPO",
    unit="pair",
    view="pairs",
    losses=losses,
    metrics=metrics,
    reference=True,
    positive=("beta",),
    choices={"loss": ("sigmoid", "ipo", "hinge")},
    refuse=refuse,
)
