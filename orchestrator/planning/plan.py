"""From a study to its steps, purely: the same study and the same resolved inputs give the same plan.

Each kind of step plans its own, from the study and from the steps of the kinds before it (``orchestrator/steps``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.steps import STEP_KINDS


@dataclass(frozen=True)
class Planned:
    """What a kind plans from: the study, what names outside it were resolved to, and the steps planned so far.

    ``resolved`` maps what lies outside the study (a path, a hub name, the engine's choice) to its identity: a content
    hash, a commit, a name. See ``resolve.py``.
    """

    study: Study
    resolved: Mapping[str, str]
    steps: list[Step] = field(default_factory=list)

    def of(self, kind: str) -> list[Step]:
        """The steps of one kind that are planned already."""
        return [step for step in self.steps if step.kind.name == kind]

    def first(self, kind: str) -> Step:
        return self.of(kind)[0]


def make_plan(study: Study, resolved: Mapping[str, str]) -> list[Step]:
    """All steps in an order in which each stands behind what it reads."""
    planned = Planned(study, resolved)
    for kind in STEP_KINDS.values():
        planned.steps.extend(kind.plan(planned))
    assert len({step.title for step in planned.steps}) == len(planned.steps), "a step is known by its title"
    return planned.steps
