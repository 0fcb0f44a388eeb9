"""What the processes of ``tests.forked`` find imported: what a serial run needs, under the environment that it sets."""

import importlib

from orchestrator.runtime.threads import set_environment

set_environment()
for name in (
    "evals.engines.transformers", "execution.execute", "methods.training.trainer", "methods.training.trl_backend",
    "orchestrator.commands.run", "orchestrator.evaluation.answer", "orchestrator.measurements.activations",
    "orchestrator.measurements.geometry", "orchestrator.measurements.similarity", "orchestrator.results.gather",
    "orchestrator.results.write_report", "orchestrator.rollouts.build", "orchestrator.training.train", "report.render",
):  # fmt: skip
    importlib.import_module(name)
