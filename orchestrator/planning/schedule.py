"""Who runs when on how many GPUs: greedy list scheduling, the longest path that is left first. Pure, without ray.

Times are estimates (``cost.py``); the order they give is what an executor places by. A GPU never idles while a step
that is ready fits on what is free; cores are taken to be enough.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from execution.errors import UserError
from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.planning.cost import durations as estimated
from orchestrator.planning.cost import rows_a_unit

UNITS = 10_000  # of one GPU: shares are whole numbers of these, as Ray's are, so that ten tenths are one
MOST_GPUS = 4096
SAME_TIME = 1 + 1e-12  # sums of the same durations in another order end at the same time


@dataclass(frozen=True)
class Need:
    """What a step holds: ``share`` of a GPU (0: none) by each of ``together`` workers at once.

    A step of several ``parts`` is that many equal pieces of work, each placed on its own.
    """

    share: float = 0.0
    together: int = 1
    parts: int = 1

    @property
    def units(self) -> int:
        return max(1, round(self.share * UNITS)) if self.share else 0

    @property
    def held(self) -> float:
        """GPUs held by one piece."""
        return self.together * self.units / UNITS


@dataclass(frozen=True)
class Hold:
    """One GPU, or a share of it, held from ``start`` to ``end`` (seconds)."""

    gpu: int
    share: float
    start: float
    end: float


@dataclass(frozen=True)
class Entry:
    """One step of a schedule, from its first piece's start to its last piece's end (seconds); ``holds``: its GPUs."""

    step: Step
    start: float
    end: float
    holds: tuple[Hold, ...]

    @property
    def gpus(self) -> list[int]:
        return sorted({hold.gpu for hold in self.holds})


@dataclass(frozen=True)
class Schedule:
    """Entries by start. ``chain`` and ``work`` (seconds): no schedule of these durations is shorter than either.

    ``chain`` is the longest chain of steps that read one another, ``work`` all GPU-seconds over all GPUs, and
    ``busy`` the share of the GPUs' time until ``makespan`` that is held.
    """

    gpus: int
    entries: tuple[Entry, ...]
    makespan: float
    chain: float
    work: float
    busy: float


def gpu_count(text: str) -> int:
    """The number of GPUs that ``--gpus`` names. ``UserError`` where it is none from 1 to 4096."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_GPUS):
        raise UserError(f"--gpus {text}: give a whole number of GPUs, 1 to {MOST_GPUS}")
    return int(text)


def of_study(study: Study, steps: Sequence[Step], gpus: int, durations: Mapping[str, float] | None = None) -> Schedule:
    """The whole study on ``gpus`` GPUs, whatever of it is done, by these seconds or else by the assumed ones.

    ``UserError`` where there are none, since its base has no ``shape``.
    """
    durations = durations or estimated(study, steps)
    if durations is None:
        raise UserError("--gpus needs base.shape (layers, hidden, ...): without it no step's time can be estimated")
    return make_schedule(steps, durations, needs(study, steps, gpus), gpus)


def ranks(steps: Sequence[Step], durations: Mapping[str, float] | None) -> dict[str, float]:
    """By title: a step's duration and the longest path of durations behind it. Higher ones are placed first.

    ``durations`` may be None where they are unknown: a training then counts its rows, every other step 1.
    """
    lengths = {s.title: units(s) for s in steps} if durations is None else durations
    behind: dict[str, list[str]] = {step.title: [] for step in steps}
    for step in steps:
        for read in {s.title for s in step.inputs.values()} & behind.keys():
            behind[read].append(step.title)
    remaining: dict[str, float] = {}
    for title in TopologicalSorter(behind).static_order():  # what is behind a step comes before it
        remaining[title] = lengths[title] + max((remaining[t] for t in behind[title]), default=0.0)
    return remaining


def placing_ranks(
    study: Study, steps: Sequence[Step], lengths: Mapping[str, float] | None, gpus: int
) -> dict[str, float]:
    """The ranks by which an executor places, from each step's seconds by title, or None where they are unknown.

    With ``gpus`` those of the schedule there, where a step of parts counts as one of them; 0: of whole steps.
    """
    if gpus and lengths is not None:
        wanted = needs(study, steps, gpus)
        lengths = {title: seconds / wanted[title].parts for title, seconds in lengths.items()}
    return ranks(steps, lengths)


def units(step: Step) -> float:
    """A stand-in for a step's duration, to order by where no seconds are known."""
    if step.runs_as != "training":
        return 1.0
    return float(step.config["run_steps"] * step.config["batch_size"] * rows_a_unit(step.config["method"]))


def needs(study: Study, steps: Sequence[Step], gpus: int) -> dict[str, Need]:
    """What each step holds on ``gpus`` GPUs, by title."""
    return {step.title: _need(study, step, gpus) for step in steps}


def _need(study: Study, step: Step, gpus: int) -> Need:
    if step.runs_as == "training":
        return Need(study.placement.gpus_per_training, together=study.training.workers)
    if step.runs_as == "search":  # it holds nothing, its trials train
        parts = step.kind.parts(step) if step.kind.parts else 1
        return Need(study.placement.gpus_per_training, together=study.training.workers, parts=parts)
    if step.runs_as == "engine":
        return Need(1.0, together=step.config["engine"].get("tensor_parallel", 1))
    if step.kind.gpu == "task":
        return Need(1.0)
    if step.kind.gpu == "items":
        return Need(1.0, parts=min(gpus, step.kind.parts(step) if step.kind.parts else 1))
    return Need()


def make_schedule(
    steps: Sequence[Step], durations: Mapping[str, float], wanted: Mapping[str, Need], gpus: int
) -> Schedule:
    """All ``steps`` on ``gpus`` GPUs, none before what it reads among them.

    ``durations`` are seconds by title, for a step of several parts those of all its parts after one another.
    ``UserError`` where a step can never be placed.
    """
    for step in steps:
        need = wanted[step.title]
        if need.units and need.together > UNITS // need.units * gpus:
            raise UserError(
                f"{step.title} needs {need.together * need.share:g} GPUs at once ({need.together} workers of "
                f"{need.share:g}), which {gpus} cannot hold: give more GPUs or fewer training.workers"
            )
    pieces = {s.title: durations[s.title] / wanted[s.title].parts for s in steps}
    placed = ranks(steps, pieces)
    entries = _Run(steps, pieces, wanted, placed, gpus).entries()
    makespan = max((entry.end for entry in entries), default=0.0)
    held = sum(wanted[s.title].held * durations[s.title] for s in steps)
    return Schedule(
        gpus=gpus,
        entries=tuple(entries),
        makespan=makespan,
        chain=max(placed.values(), default=0.0),
        work=held / gpus,
        busy=held / (gpus * makespan) if makespan else 0.0,
    )


@dataclass
class _Run:
    """A list scheduler at work: time goes from one piece's end to the next, and what is ready is placed in between."""

    steps: Sequence[Step]
    pieces: Mapping[str, float]  # seconds of one piece
    wanted: Mapping[str, Need]
    ranks: Mapping[str, float]
    gpus: int
    now: float = 0.0
    free: list[int] = field(init=False)  # units of each GPU
    running: list[tuple[float, int, str, list[int]]] = field(default_factory=list)  # a heap by end
    holds: dict[str, list[Hold]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = [UNITS] * self.gpus

    def entries(self) -> list[Entry]:
        titles = {step.title for step in self.steps}
        missing = {s.title: {read.title for read in s.inputs.values()} & titles for s in self.steps}
        unplaced = {s.title: self.wanted[s.title].parts for s in self.steps}
        unfinished = dict(unplaced)
        ended: dict[str, float] = {}
        order = sorted(unplaced, key=lambda t: -self.ranks[t])  # a stable sort: equal ones stay in the plan's order
        while len(ended) < len(self.steps):
            for title in order:
                while not missing[title] and unplaced[title] and self._place(title):
                    unplaced[title] -= 1
            order = [title for title in order if unplaced[title]]
            for title in self._advance():
                unfinished[title] -= 1
                if not unfinished[title]:
                    ended[title] = self.now
                    for reads in missing.values():
                        reads.discard(title)
        rows = [Entry(s, self.started[s.title], ended[s.title], tuple(self.holds.get(s.title, ()))) for s in self.steps]
        return sorted(rows, key=lambda e: (e.start, e.end))

    def _place(self, title: str) -> bool:
        """Start one piece of a step now, if what is free holds it."""
        need, end = self.wanted[title], self.now + self.pieces[title]
        gpus = self._pick(need)
        if gpus is None:
            return False
        for gpu in gpus:
            self.free[gpu] -= need.units
            self.holds.setdefault(title, []).append(Hold(gpu, need.units / UNITS, self.now, end))
        self.started.setdefault(title, self.now)
        heapq.heappush(self.running, (end, len(self.running), title, gpus))
        return True

    def _pick(self, need: Need) -> list[int] | None:
        """The GPUs for one piece: those already shared first, so that whole ones stay whole."""
        if not need.units:
            return []
        picked: list[int] = []
        for gpu in sorted(range(self.gpus), key=lambda g: (self.free[g], g)):
            picked += [gpu] * min(self.free[gpu] // need.units, need.together - len(picked))
            if len(picked) == need.together:
                return picked
        return None

    def _advance(self) -> list[str]:
        """Go on to the next end; the steps whose pieces end there, their GPUs given back."""
        until = self.running[0][0] * SAME_TIME
        over = []
        while self.running and self.running[0][0] <= until:
            self.now, _, title, gpus = heapq.heappop(self.running)
            over.append(title)
            for gpu in gpus:
                self.free[gpu] += self.wanted[title].units
        return over
