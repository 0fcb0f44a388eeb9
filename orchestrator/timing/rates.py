"""A step's seconds by the best rate there is: measured in the study's folder, calibrated on this machine, or assumed.

``cost.py`` counts a step's work and divides it by an assumed rate. Here that time is scaled: by what finished steps of
the same kind took beside their own assumed time, else by the rates that ``doctor --measure`` found, else not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from execution.step import Step
from execution.store import Store
from orchestrator.config.study import Study
from orchestrator.planning.cost import CPU_FLOPS, FLOAT32_SHARE, SERVING_SHARE, SUSTAINED_FLOPS
from orchestrator.planning.schedule import Need, Schedule, make_schedule
from orchestrator.timing.calibration import Rates, load

Source = Literal["assumed", "calibrated", "measured here"]
Device = Literal["gpu", "cpu"]

# By kind of work the operations a second that are assumed: of the estimates in cost.py, and of one core.
ASSUMED: dict[str, tuple[float, float]] = {
    "training": (SUSTAINED_FLOPS, CPU_FLOPS),
    "serving": (SUSTAINED_FLOPS * SERVING_SHARE, CPU_FLOPS * SERVING_SHARE),
    "measuring": (SUSTAINED_FLOPS * FLOAT32_SHARE, CPU_FLOPS),
    "pretraining": (CPU_FLOPS, CPU_FLOPS),
    "algebra": (CPU_FLOPS, CPU_FLOPS),  # of factors and Grams, always on cores
}


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step and whose rate they are. Of a step of several parts all of them after one another."""

    seconds: float
    source: Source


def work_of(step: Step) -> str:
    """The kind of work, by ``ASSUMED``, whose rate decides the step's time."""
    if step.runs_as == "training" or step.kind.name == "reference":
        return "training"
    if step.runs_as in ("engine", "search"):
        return "serving" if step.runs_as == "engine" else "training"
    if step.kind.name == "base":
        return "pretraining"
    return "algebra" if step.kind.gpu == "none" else "measuring"


def estimates(
    study: Study, steps: Sequence[Step], store: Store, device: Device, rates: Rates | None
) -> dict[str, Estimate] | None:
    """Each step's estimate by title on a GPU, or on one core; None where the base has no ``shape`` to reckon with.

    A finished step's is the time that it took. ``rates`` are those of the device, if it was measured. On cores the
    start of a process is counted where its time is known; on GPUs it is not.
    """
    if study.base.shape is None:
        return None
    shape = study.base.shape
    assumed = {step.title: _scaled(step, step.kind.seconds(study, shape, step), device) for step in steps}
    taken = measured(steps, store, device)
    factors = _factors(steps, assumed, taken)
    found = {}
    for step in steps:
        title, kind = step.title, step.kind.name
        if title in taken:
            found[title] = Estimate(taken[title], "measured here")
        elif kind in factors:
            found[title] = Estimate(assumed[title] * factors[kind], "measured here")
        else:
            found[title] = _calibrated(step, assumed[title], device, rates)
    return found


def here(study: Study, steps: Sequence[Step], store: Store, gpus: int) -> dict[str, Estimate] | None:
    """``estimates`` for a run that has so many GPUs; 0: cores."""
    shaped = study.shaped()
    return estimates(shaped, steps, store, "gpu" if gpus else "cpu", load(shaped, gpu=bool(gpus))[0])


def _scaled(step: Step, seconds: float, device: Device) -> float:
    gpu, core = ASSUMED[work_of(step)]
    return seconds * gpu / core if device == "cpu" else seconds


def _calibrated(step: Step, seconds: float, device: Device, rates: Rates | None) -> Estimate:
    work = work_of(step)
    rate = 0.0 if rates is None else getattr(rates, work, 0.0)
    starts = rates.startup if rates is not None and device == "cpu" and starts_process(step) else 0.0
    if rate:
        return Estimate(seconds * ASSUMED[work][device == "cpu"] / rate + starts, "calibrated")
    return Estimate(seconds + starts, "calibrated" if starts else "assumed")


def starts_process(step: Step) -> bool:
    """Whether on cores a process that imports everything is started for the step, while others wait for it.

    Trainers start beside the base; an engine stays open; passes of models follow one another in one process.
    """
    if step.runs_as == "engine":
        return step.kind.name in ("rollouts", "sample")
    return step.runs_as == "task" and step.kind.gpu != "task"


def measured(steps: Sequence[Step], store: Store, device: Device) -> dict[str, float]:
    """Seconds that finished steps took on such a device, by title; with its start-up on cores, without on GPUs.

    Steps that map their items are left out where GPUs were at work: how many they had is not recorded.
    """
    known: dict[str, set[str]] = {}
    told = {}
    for step in steps:
        kind = step.kind.name
        if kind not in known:
            known[kind] = set(store.storage.names(f"times/{kind}"))
        if f"{step.name}-{step.key}.json" in known[kind] and store.done(step):
            told[step.title] = step, store.times(step)
    on_gpus = {title for title, (_, times) in told.items() if times.get("gpus") or "gpu_peak_gib" in times}
    taken = {}
    for title, (step, times) in told.items():
        seconds, startup = times.get("seconds"), times.get("startup_seconds") or 0.0
        mapped = step.kind.gpu == "items" and (device == "gpu" or bool(on_gpus))
        uses_gpu = step.runs_as in ("training", "engine") or step.kind.gpu != "none"
        if seconds is None or mapped or (uses_gpu and (title in on_gpus) != (device == "gpu")):
            continue
        taken[title] = max(0.0, seconds - (startup if device == "gpu" else 0.0))
    return taken


def _factors(steps: Sequence[Step], assumed: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, float]:
    """By kind, what its finished steps took over what was assumed for them."""
    sums: dict[str, tuple[float, float]] = {}
    for step in steps:
        if step.title in taken and assumed[step.title] > 0:
            took, guess = sums.get(step.kind.name, (0.0, 0.0))
            sums[step.kind.name] = took + taken[step.title], guess + assumed[step.title]
    return {kind: took / guess for kind, (took, guess) in sums.items()}


def seconds_of(found: Mapping[str, Estimate] | None) -> dict[str, float] | None:
    """The seconds alone."""
    return None if found is None else {title: estimate.seconds for title, estimate in found.items()}


def on_cores(steps: Sequence[Step], found: Mapping[str, Estimate], cores: int) -> Schedule:
    """The schedule of the estimates on this machine's cores, each in the place of a GPU."""
    wanted = {step.title: replace(_cores_of(step), parts=1) for step in steps}
    wanted = {title: replace(need, together=min(need.together, cores)) for title, need in wanted.items()}
    return make_schedule(steps, seconds_of(found) or {}, wanted, cores)


def _cores_of(step: Step) -> Need:
    config = step.config
    threads = int(config.get("threads") or config.get("engine", {}).get("threads", 1))
    return Need(1.0, together=threads * (int(config["workers"]) if step.runs_as == "training" else 1))


def kinds(steps: Sequence[Step], found: Mapping[str, Estimate]) -> Iterator[tuple[str, int, float, str]]:
    """By kind in the steps' order: its name, how many, seconds together, and the sources of its estimates."""
    for kind in dict.fromkeys(step.kind.name for step in steps):
        mine = [found[step.title] for step in steps if step.kind.name == kind]
        sources = " and ".join(dict.fromkeys(estimate.source for estimate in mine))
        yield kind, len(mine), sum(estimate.seconds for estimate in mine), sources
