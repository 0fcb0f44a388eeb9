"""What a step writes is frozen: who changes it raises the step's version, or old results pass for new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.steps import STEP_KINDS
from tests.golden.freeze import numbers

FROZEN = json.loads((Path(__file__).parents[1] / "golden" / "mini.json").read_text())
# Wide enough for another processor's rounding, which turns a sampled word here and there into another: shares and
# cosines by difference, the rest by ratio. Where nothing is sampled, nearly exact.
SHARES = ("rollouts", "evaluate", "geometry", "activations", "similarity")
EXACT = ("problems", "reference")
# The small study has no search and no rollouts in parts: test_search.py and test_several_teachers.py hold these.
ABSENT = {"validate", "search", "sample"}


def test_versions_are_those_of_the_frozen_numbers() -> None:
    assert FROZEN["versions"] == {name: kind.version for name, kind in STEP_KINDS.items()}, (
        "freeze the outputs again: python tests/golden/freeze.py RESULTS.json"
    )


@pytest.mark.parametrize("kind", sorted(STEP_KINDS.keys() - ABSENT))
def test_outputs_are_the_frozen_ones(serial: Path, kind: str) -> None:
    found = numbers(json.loads((serial / "report" / "results.json").read_text()))[kind]
    relative, absolute = (1e-4, 0.0) if kind in EXACT else (0.3, 0.15 if kind in SHARES else 0.0)
    assert found == pytest.approx(FROZEN["numbers"][kind], rel=relative, abs=absolute), (
        f"the output of {kind} changed: raise its version in orchestrator/steps/{kind}.py and freeze again"
    )
