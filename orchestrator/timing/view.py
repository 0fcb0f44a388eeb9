"""How long a study takes, for a plan: a schedule on GPUs or the time on this machine's cores, and by whose rates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from execution.step import Step
from execution.store import Store
from orchestrator.config.study import Study
from orchestrator.planning.cost import CPU_FLOPS, FLOAT32_SHARE, SERVING_SHARE, SUSTAINED_FLOPS
from orchestrator.planning.schedule import Entry, Schedule, of_study
from orchestrator.planning.views.plan import table
from orchestrator.runtime.device import cards
from orchestrator.timing import rates
from orchestrator.timing.calibration import load
from orchestrator.timing.rates import Estimate

WIDEST = 16  # characters of a list of GPUs


def lines(study: Study, steps: Sequence[Step], store: Store, gpus: int | None) -> Iterator[str]:
    """With ``gpus`` the schedule there; else the time on this machine's cores, where it has no GPU and its rates are
    known. ``UserError`` if a schedule is asked for and the base has no ``shape``."""
    device: rates.Device = "cpu" if gpus is None else "gpu"
    if gpus is None and cards():
        return
    calibrated, unused = load(study, gpu=device == "gpu")
    found = rates.estimates(study, steps, store, device, calibrated)
    if gpus is not None:
        schedule = of_study(study, steps, gpus, rates.seconds_of(found))
        assert found is not None  # else there is no schedule
        yield ""
        yield from schedule_lines(study, schedule, found)
        yield ""
        yield from _kinds(steps, found, "hours", 3600)
    elif found is not None and any(estimate.source != "assumed" for estimate in found.values()):
        yield ""
        yield from _kinds(steps, found, "seconds", 1)
        yield _on_cores(steps, found, calibrated.startup if calibrated else 0.0)
    if unused:
        yield unused


def _on_cores(steps: Sequence[Step], found: Mapping[str, Estimate], startup: float) -> str:
    cores = os.cpu_count() or 1
    seconds = rates.on_cores(steps, found, cores).makespan + startup
    return (
        f"about {_span(seconds)} on this machine's {cores} core{'s' if cores > 1 else ''}, whatever of it is done; "
        "downloads and grading are not counted"
    )


def _kinds(steps: Sequence[Step], found: Mapping[str, Estimate], unit: str, size: float) -> Iterator[str]:
    """A table of each kind's steps, their time together, and whose rates it is by."""
    rows = rates.kinds(steps, found)
    yield from table(("kind", "steps", unit, "rate"), ((k, str(n), f"{s / size:.3g}", of) for k, n, s, of in rows))


def schedule_lines(study: Study, schedule: Schedule, found: Mapping[str, Estimate]) -> Iterator[str]:
    """A schedule as a table by start, its makespan beside the two bounds, and what the estimate assumes."""
    hours = schedule.makespan >= 3600
    yield f"schedule on {_gpus(schedule.gpus)}, times in {'h:mm' if hours else 'seconds'}"
    rows = (
        (_clock(e.start, hours), _clock(e.end, hours), _held(e), found[e.step.title].source, e.step.title)
        for e in schedule.entries
    )
    yield from table(("start", "end", "GPUs", "rate", "step"), rows)
    yield ""
    yield (
        f"makespan {_span(schedule.makespan)} on {_gpus(schedule.gpus)}, {schedule.busy:.0%} busy; no schedule is "
        f"shorter than {_span(schedule.chain)} (longest chain) or {_span(schedule.work)} (work)"
    )
    flops = SUSTAINED_FLOPS / 1e12
    yield (
        f"(an estimate of the whole study: {flops:g} TFLOP/s sustained in training, {flops * SERVING_SHARE:g} in an "
        f"engine, {flops * FLOAT32_SHARE:g} in measurements, {CPU_FLOPS / 1e12:g} on a core; rows half as long as "
        "their limits; start-up, loading, downloads and grading are not counted)"
    )
    for model in study.rollouts.served(study):
        if model.base.shape is None:
            yield f"(the teacher's sampling is not counted: give {model.model_at}.shape)"


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"


def _clock(seconds: float, hours: bool) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}" if hours else f"{seconds:.3f}"


def _span(seconds: float) -> str:
    """A length of time to three digits in the unit that suits it."""
    size, unit = next(((s, u) for s, u in ((3600, "h"), (60, "min")) if seconds >= s), (1, "s"))
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _held(entry: Entry) -> str:
    """GPUs by number, neighbours as ranges: 0-3,7; a count where that grows long, and the share where it is below 1."""
    ranges: list[list[int]] = []
    for gpu in entry.gpus:
        if ranges and gpu == ranges[-1][1] + 1:
            ranges[-1][1] = gpu
        else:
            ranges.append([gpu, gpu])
    numbers = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges) or "-"
    if len(numbers) > WIDEST:
        numbers = f"{len(entry.gpus)} GPUs"
    share = entry.holds[0].share if entry.holds else 1.0
    return numbers if share == 1 else f"{numbers} x{share:.3g}"
