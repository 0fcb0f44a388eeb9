"""What the findings rest on, and what must not be relied on: the rollouts, the canaries, what did not finish."""

from __future__ import annotations

from report import formats, matched
from report.findings.claim import Claim
from report.model_index import BASE, ModelIndex
from results import Results
from results.evaluation import Evaluation

# From this share of groups on that are right in all rollouts, methods see nearly the same rows.
NEARLY_ALL = 0.9


def learning(results: Results) -> list[Claim]:
    """What there was to learn from: shares of right rollouts and of mixed groups."""
    if results.rollouts is None:
        return []
    right, groups = results.rollouts.share_right, results.rollouts.groups
    total = groups.mixed + groups.all_right + groups.all_wrong
    if not total:
        return []
    mixed = groups.mixed / total
    text = (
        f"What there was to learn: {formats.percent(right)} of the rollouts are right and "
        f"{formats.percent(mixed)} of the groups hold both right and wrong."
    )
    claim = Claim("learning", "learning", text, (), {"right": (right, right), "mixed": (mixed, mixed)})
    share = groups.all_right / total
    if share < NEARLY_ALL:
        return [claim]
    text = (
        f"With {formats.percent(share)} of the groups all right the methods see nearly the same rows: likeness is by "
        "construction."
    )
    return [claim, Claim("by construction", "learning", text, (), {"all_right": (share, share)})]


def warnings(results: Results, index: ModelIndex) -> list[str]:
    """What keeps parts of the results from being used."""
    lines = _of_evaluation(results.evaluation, index) if results.evaluation else []
    broken = [model for model in index.models.values() if model.error]
    if broken:
        labels = formats.listing([model.label for model in broken])
        lines.append(f"Training failed: {labels}. The reasons stand in the tables.")
    steps = [failure.step for failure in results.failures or ()]
    others = [step for step in steps if not any(model.name in step for model in broken)]
    lines += [
        f"No trainings of {formats.listing([index.label(name) for name in names])} agree with "
        f"{index.label(index.reference)}’s in {quantity} at one learning rate, as the study’s matches ask."
        for quantity, names in matched.missing(results).items()
        if index.reference
    ]
    if others:
        lines.append(f"Did not finish: {formats.listing(others)}. See “What failed, and why”.")
    return lines


def _of_evaluation(evaluation: Evaluation, index: ModelIndex) -> list[str]:
    lines = []
    canary = evaluation.canary or ()
    failed = [index.label(row.name) for row in canary if not row.passed]
    if failed:
        lines.append(
            f"The canary failed for {formats.listing(failed)}: the engine did not serve these weights, "
            "and their accuracy must not be used."
        )
    for row in evaluation.controls or ():
        if not row.passed:
            what = "the base" if row.name == BASE else "an adapter of zeros"
            lines.append(f"The canary failed for {what}: no accuracy here can be relied on.")
    for part in evaluation.incomplete or ():
        lines.append(
            f"Left out of the accuracies: {index.label(part.name)}, of whose evaluation {part.parts} of {part.of} "
            "parts are finished."
        )
    blind = [index.label(row.name) for row in canary if row.passed and not row.told_apart and row.name != BASE]
    if blind:
        lines.append(
            f"The canary cannot tell {formats.listing(blind)} from the base: the update moves the "
            "log-probabilities less than the tolerance."
        )
    return lines
