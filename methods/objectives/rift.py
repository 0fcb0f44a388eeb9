"""RIFT: likelihood with signed weights, in the reference study's form and in its source's bounded form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.objectives.method import Method, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from methods.data.batch import Batch

# The study leaves lambda open; 0.2 is the size of the negative reward in Liu et al. 2026 (arXiv 2601.09253).
LAMBDA = 0.2


def weights(reward: Any, group_mean: Any, *, form: str, lambda_: float, right: float, wrong: float, **_: Any) -> Any:
    """Signed weight of each row, of the shape of ``reward``: ``1 - r * lambda``, or the source's reward."""
    return 1.0 - reward * lambda_ if form == "study" else right * reward + wrong * (1.0 - reward)


def losses(
    batch: Batch,
    *,
    form: str = "study",
    lambda_: float = LAMBDA,
    probability: str = "token",
    right: float = 1.0,
    wrong: float = -0.2,
    divide_by: str = "count",
) -> Tensor:
    """``study``: ``(1 - r * lambda) * nll_t``, n x t, with the row's reward r.

    arXiv 2606.23740, objective "RIFT", taken literally: with r in {0, 1} and lambda > 0 a wrong row has weight 1
    and a right one the smaller weight 1 - lambda.

    ``source``: Liu et al. 2026 (arXiv 2601.09253), the stabilized loss. Rows of positive reward w keep ``w * nll``,
    rows of negative reward get ``-w * pi(y)``, linear in the probability, so that the loss has a lower bound.
    ``probability`` selects pi: ``token``, each token's (n x t); ``normalised``, ``pi(y)^(1/|y|)`` with the mean nll
    (n); ``sequence``, the whole sequence's with the summed nll (n), which underflows on long completions.
    """
    weight = weights(batch.reward, batch.group_mean, form=form, lambda_=lambda_, right=right, wrong=wrong)
    if form == "study":
        return weight[:, None] * batch.nll
    pull, push = weight.clamp(min=0), (-weight).clamp(min=0)
    if probability == "token":
        return pull[:, None] * batch.nll + push[:, None] * batch.probability
    nll = batch.nll.sum(dim=1)
    if probability == "normalised":
        nll = nll / batch.lengths
    return pull * nll + push * (-nll).exp()


def unit(*, form: str, probability: str, **_: Any) -> Unit:
    """``sequence`` where the source's form takes the probability of a sequence, else ``token``."""
    return "token" if form == "study" or probability == "token" else "sequence"


def real(*, form: str, **_: Any) -> bool:
    """The study's form is linear in the reward; the source's only distinguishes right from wrong."""
    return form == "study"


def refuse(*, right: float, wrong: float, **_: Any) -> str | None:
    return None if right > 0 >= wrong else f"right must be above 0 and wrong at most 0, not {right:g} and {wrong:g}"


METHOD = Method(
    title="RIFT",
    unit=unit,
    view="all",
    losses=losses,
    weights=weights,
    real=real,
    choices={
        "form": ("study", "source"),
        "probability": ("token", "normalised", "sequence"),
        "divide_by": ("count", "weights"),
    },
    forms={"study": ("lambda_",), "source": ("probability", "right", "wrong")},
    refuse=refuse,
)
