from __future__ import annotations

from methods.training.determinism import ENVIRONMENT as ORDERED
from orchestrator.runtime.threads import ENVIRONMENT


def test_a_run_sets_what_a_training_on_a_gpu_would_set_too_late() -> None:
    """Stated twice, because the one is read before torch is imported and the other imports it."""
    assert ORDERED.items() <= ENVIRONMENT.items()
