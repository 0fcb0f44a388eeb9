"""Ray Tune over the learning rates of one method: which trial runs when, which is stopped, which rate is next.

A trial holds nothing: it asks for its steps and waits for them (``asked.py``). Decisions are kept in the search's log
before they take effect, so that an interrupted search, which finds its trials' steps in the store, takes them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ray.tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from execution.context import StepFailed
from execution.workspace import own
from methods.config import HANDED_ON
from orchestrator.cluster.asked import Ask
from orchestrator.cluster.jobs import MARK
from orchestrator.cluster.tuning import TRIAL_CPUS
from orchestrator.search.log import Decision, Log
from orchestrator.search.trials import Trials, rounded

TRIAL, RATE, ACCURACY = "trial", "rate", "accuracy"
RESOURCE = "resource"  # of a rung, as Ray's milestones have it: reduction^rung
ATTEMPTS = 3  # at trials whose own process died


@dataclass(frozen=True)
class Tune:
    """A search's ``tuner`` on a cluster: at most ``at_once`` trials side by side."""

    ask: Ask
    at_once: int
    mark: int

    def __call__(self, trials: Trials, config: Mapping[str, Any], log: Log) -> None:
        """Run all trials that are not stopped by the log. ``RuntimeError`` if their processes die again and again."""
        for _ in range(ATTEMPTS):
            if not self._fit(trials, config, log):
                return
        raise RuntimeError(f"processes of the trials died {ATTEMPTS} times")

    def _fit(self, trials: Trials, config: Mapping[str, Any], log: Log) -> int:
        """One run of Ray Tune; returns how many trials were lost with their process."""
        rates, reduction = config["rates"], config.get("reduction", 1)
        how: dict[str, Any] = {"max_concurrent_trials": self.at_once, "reuse_actors": True}
        space: dict[str, Any] = {}
        if rates is None:
            how |= {"search_alg": suggester(config, log), "num_samples": config["trials"]}
        else:
            left = [number for number in range(len(rates)) if log.stopped(number) is None]
            if not left:
                return 0
            space = {TRIAL: ray.tune.grid_search(left)}
        if len(trials.rungs) > 1:
            how["scheduler"] = LoggedASHA(log, reduction, len(trials.rungs))
        ask = self.ask

        def trial(given: dict[str, Any]) -> None:
            run_trial(trials, given[RATE] if rates is None else rates[given[TRIAL]], reduction, ask)

        trial.__name__ = f"search_{trials.method}"  # Ray has one function of a name: without it methods share trials
        with own("orchestrator-job-") as folder:
            tuner = ray.tune.Tuner(
                ray.tune.with_resources(trial, {"CPU": TRIAL_CPUS, MARK: self.mark}),
                param_space=space,
                tune_config=ray.tune.TuneConfig(**how),
                run_config=ray.tune.RunConfig(name=trials.method, storage_path=str(folder), verbose=0),
            )
            return len(tuner.fit().errors)


def run_trial(trials: Trials, rate: float, reduction: int, ask: Ask) -> None:
    """One trial in its own process: from rung to rung, each going on from the state of the one before.

    A step that fails ends it without a report; the search reads what failed from the step.
    """
    for rung in range(len(trials.rungs)):
        training = trials.training(rate, rung)
        try:
            if rung and not ask.store.done(training):
                ask.store.seed(training, ask(trials.training(rate, rung - 1)) / HANDED_ON)
            right, problems = trials.counts(rate, rung, ask)
        except StepFailed:
            return
        ray.tune.report({ACCURACY: right / problems, RESOURCE: reduction**rung})


class LoggedASHA(ASHAScheduler):
    """Ray's ASHA, which logs every decision, and begins with those that the log holds already.

    Trials are known by their numbers in the search, as Ray's own ids differ from run to run.
    """

    def __init__(self, log: Log, reduction: int, rungs: int) -> None:
        super().__init__(
            time_attr=RESOURCE,
            metric=ACCURACY,
            mode="max",
            max_t=reduction ** (rungs - 1),
            grace_period=1,
            reduction_factor=reduction,
        )
        self.log, self.reduction = log, reduction
        for decision in log.decisions:
            known: Any = SimpleNamespace(trial_id=decision["trial"])
            nobody: Any = None  # the controller, which is not asked
            super().on_trial_add(nobody, known)
            result = {RESOURCE: reduction ** decision["rung"], ACCURACY: decision["value"]}
            super().on_trial_result(nobody, known, result)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _numbered(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        if RESOURCE not in result or result[RESOURCE] >= self._max_t:
            return super().on_trial_result(tune_controller, _numbered(trial), result)
        rung = next(rung for rung in range(100) if self.reduction**rung == result[RESOURCE])
        decision = self.log.decision(_number(trial), rung)
        if decision is None:
            decision = self._decide(tune_controller, trial, rung, result)
        return TrialScheduler.STOP if decision["stop"] else TrialScheduler.CONTINUE

    def _decide(self, tune_controller: Any, trial: Any, rung: int, result: dict) -> Decision:
        values = self.log.values(rung)
        cutoff: Any = self._brackets[0].cutoff(dict(enumerate(values)))
        action = super().on_trial_result(tune_controller, _numbered(trial), result)
        decision = Decision(
            trial=_number(trial),
            rung=rung,
            value=result[ACCURACY],
            stop=action == TrialScheduler.STOP,
            cutoff=None if cutoff is None else float(cutoff),
            values=values,
        )
        self.log.decide(decision)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        super().on_trial_complete(tune_controller, _numbered(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, _numbered(trial))


def _number(trial: Any) -> int:
    return trial.config[TRIAL]


def _numbered(trial: Any) -> Any:
    return SimpleNamespace(trial_id=_number(trial))


def suggester(config: Mapping[str, Any], log: Log) -> Any:
    """Ray's OptunaSearch with TPE, which logs every rate, and suggests those that the log holds already first."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    low, high = config["between"]

    class LoggedTPE(OptunaSearch):
        def suggest(self, trial_id: str) -> dict | None:
            number = numbers.setdefault(trial_id, len(numbers))
            suggested = super().suggest(trial_id)
            assert suggested is not None
            if number >= len(log.rates):
                log.suggest(rounded(suggested[RATE], low, high))
            return {TRIAL: number, RATE: log.rates[number]}

    numbers: dict[str, int] = {}
    return LoggedTPE(
        {RATE: optuna.distributions.FloatDistribution(low, high, log=True)},
        metric=ACCURACY,
        mode="max",
        seed=config["seed"],
        points_to_evaluate=[{RATE: rate} for rate in log.rates] or None,
    )
