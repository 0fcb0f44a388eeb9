"""What the findings rest on, and what must not be relied on: the rollouts, the canaries, what did not finish."""

from __future__ import annotations

from collections.abc import Mapping

from report import formats
from report.findings.claim import Claim
from report.model_index import BASE, ModelIndex

# From this share of groups on that are right in all rollouts, methods see nearly the same rows.
NEARLY_ALL = 0.9


def learning(results: Mapping) -> list[Claim]:
    """What there was to learn from: shares of right rollouts and of mixed groups."""
    rollouts = results.get("rollouts") or {}
    groups = rollouts.get("groups") or {}
    counts = {key: groups.get(key) or 0 for key in ("mixed", "all_right", "all_wrong")}
    right, total = rollouts.get("share_right"), sum(counts.values())
    if right is None or not total:
        return []
    mixed = counts["mixed"] / total
    text = (
        f"What there was to learn: {formats.percent(right)} of the rollouts are right and "
        f"{formats.percent(mixed)} of the groups hold both right and wrong."
    )
    claim = Claim("learning", "learning", text, (), {"right": (right, right), "mixed": (mixed, mixed)})
    share = counts["all_right"] / total
    if share < NEARLY_ALL:
        return [claim]
    text = (
        f"With {formats.percent(share)} of the groups all right the methods see nearly the same rows: likeness is by "
        "construction."
    )
    return [claim, Claim("by construction", "learning", text, (), {"all_right": (share, share)})]


def warnings(results: Mapping, index: ModelIndex) -> list[str]:
    """What keeps parts of the results from being used."""
    found = []
    canary = (results.get("evaluation") or {}).get("canary") or []
    failed = [index.label(row.get("name")) for row in canary if row.get("passed") is False]
    if failed:
        found.append(
            f"The canary failed for {formats.listing(failed)}: the engine did not serve these weights, "
            "and their accuracy must not be used."
        )
    for row in (results.get("evaluation") or {}).get("controls") or []:
        if row.get("passed") is False:
            what = "the base" if row.get("name") == BASE else "an adapter of zeros"
            found.append(f"The canary failed for {what}: no accuracy here can be relied on.")
    for row in (results.get("evaluation") or {}).get("incomplete") or []:
        found.append(
            f"Left out of the accuracies: {index.label(row.get('name'))}, of whose evaluation {row.get('parts')} of "
            f"{row.get('of')} parts are finished."
        )
    blind = [
        index.label(row.get("name"))
        for row in canary
        if row.get("told_apart") is False and row.get("name") != BASE and row.get("passed") is not False
    ]
    if blind:
        found.append(
            f"The canary cannot tell {formats.listing(blind)} from the base: the update moves the "
            "log-probabilities less than the tolerance."
        )
    broken = [model.label for model in index.models.values() if model.error]
    if broken:
        found.append(f"Training failed: {formats.listing(broken)}. The reasons stand in the tables.")
    steps = [str(row["step"]) for row in results.get("failures") or [] if row.get("step")]
    known = [model.name for model in index.models.values() if model.error]
    others = [step for step in steps if not any(name in step for name in known)]
    if others:
        found.append(f"Did not finish: {formats.listing(others)}. See “What failed, and why”.")
    return found
