"""A step of work, its kind, and its key.

A step's key is the hash of its payload: kind, version, settings, and the keys of the steps that it reads. Paths and
placement are in ``runtime``, outside the payload. A *collective* step reads many steps of one kind (fan-in): when some
of these have failed it runs with the others, as another step with another key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from execution.context import Context
from execution.fingerprint import canonical, digest

RunsAs = Literal["task", "training", "engine", "search"]


def _as_task(step: Step) -> RunsAs:
    return "task"


def _no_time(*_: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class StepKind:
    """Everything specific to one kind of step.

    ``version`` goes up when the code changes what it writes: the step and all that read it then run again.
    ``plan(planned)`` returns the steps of this kind, given those planned before. ``run`` writes the result into
    ``context.out``; ``assist(config, where, inputs)`` is run by the further workers of a step that several compute
    together.

    ``runs_as(step)`` is how the step is placed: a ``task``, a ``training`` (slots of a trainer), an ``engine`` (an
    actor that keeps a served model open) or a ``search`` (it asks for further steps and holds nothing itself). ``gpu``
    says what needs a GPU: nothing, the task itself, or the ``items`` that it maps in parallel, at most ``parts(step)``
    of them.

    ``seconds(study, shape, step)`` estimates its time on one GPU, all parts in sequence; ``words`` is how a plan
    describes the task; ``read(folder)`` returns what a finished step contributes to the results, in the project's own
    type (lists of several steps are joined); ``settings`` is the schema of the kind's own settings, if any.
    """

    name: str
    version: int
    plan: Callable[[Any], Sequence[Step]]
    run: Callable[[Context], None]
    assist: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], None] | None = None
    runs_as: Callable[[Step], RunsAs] = _as_task
    gpu: Literal["none", "task", "items"] = "none"
    parts: Callable[[Step], int] | None = None
    seconds: Callable[[Any, Any, Step], float] = _no_time
    words: str = "task"
    read: Callable[[Path], Any] | None = None
    settings: type | None = None


@dataclass(frozen=True)
class Step:
    """One unit of work with one result folder.

    ``config`` decides the result; ``inputs`` are the steps it reads, by role; ``runtime`` holds runtime inputs (paths,
    sources) that are not part of its identity; ``role`` is its purpose in the plan. ``collective`` is the role prefix
    of the optional inputs, or several: the step can run without some of them, but not without all.
    """

    kind: StepKind
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    collective: str | tuple[str, ...] = ""
    role: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind.name}/{self.name}"

    @property
    def runs_as(self) -> RunsAs:
        return self.kind.runs_as(self)

    @cached_property
    def key(self) -> str:
        return digest(self._canonical())

    @property
    def spare_roles(self) -> list[str]:
        """Roles of the optional inputs."""
        return [role for role in self.inputs if self.collective and role.startswith(self.collective)]

    @property
    def spare(self) -> set[str]:
        """Titles of the optional inputs."""
        return {self.inputs[role].title for role in self.spare_roles}

    @property
    def folder(self) -> str:
        """The step's folder, relative to the store."""
        return f"{self.title}-{self.key}"

    def payload(self) -> dict[str, Any]:
        """What the key is a hash of, as plain JSON values."""
        return json.loads(self._canonical())

    def _canonical(self) -> str:
        payload: dict[str, Any] = {
            "kind": self.kind.name,
            "version": self.kind.version,
            "config": dict(self.config),
            "inputs": {role: step.key for role, step in self.inputs.items()},
        }
        if self.collective:
            payload["order"] = list(self.inputs)  # results are listed in this order
        return canonical(payload)

    def without(self, lost: Collection[str]) -> Step:
        """The collective step without the inputs titled ``lost``."""
        return replace(self, inputs={r: s for r, s in self.inputs.items() if s.title not in lost})
