"""What the processes of ``tests.forked`` find imported: what a serial run needs, under the environment that it sets."""

import importlib

from orchestrator.threads import set_environment

set_environment()
for name in (
    "analysis.report", "evals.engines.transformers", "methods.trainer", "methods.trl_backend", "orchestrator.commands",
    "orchestrator.perform", "orchestrator.reporting", "orchestrator.results", "orchestrator.steps.activations",
    "orchestrator.steps.evaluate", "orchestrator.steps.rollouts", "orchestrator.steps.similarity",
):  # fmt: skip
    importlib.import_module(name)
