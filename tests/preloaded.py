"""What the processes of ``tests.forked`` find imported: what a serial run needs, under the environment that it sets."""

import importlib

from orchestrator.runtime.threads import set_environment

set_environment()
for name in (
    "report.render", "evals.engines.transformers", "methods.trainer", "methods.trl_backend",
    "orchestrator.commands.study", "execution.execute", "orchestrator.results.write_report", "orchestrator.results.gather",
    "orchestrator.measurements.activations", "orchestrator.measurements.geometry", "orchestrator.training.train",
    "orchestrator.evaluation.answer", "orchestrator.rollouts.build", "orchestrator.measurements.similarity",
):  # fmt: skip
    importlib.import_module(name)
