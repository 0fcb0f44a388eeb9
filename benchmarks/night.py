"""A night on eight GPUs without one: a study's whole plan, placed by the real executor, with steps that sleep.

    python benchmarks/night.py [STUDY] [--gpus 8] [--hour 60] [--out FOLDER] [disturbed]

A Ray cluster with so many logical GPUs runs every step of the study (configs/qwen3-4b-own-teacher.yaml, whose sampling
takes no planned time, since the study does not have the teacher's shape) through the executor that
``run`` uses. A step sleeps for the time that ``plan --gpus`` plans for it, an hour in ``--hour`` seconds, on the GPUs
that it was given (``CUDA_VISIBLE_DEVICES`` of its worker), and notes when it did. Its time begins when it is placed: a
worker's start costs seconds of this machine, which would be hours of the plan. ``disturbed`` runs it on two nodes of
half the GPUs each: the worker of a training is killed, later the second node is lost, later again one joins.

Printed are

makespan   from the first step's placement to the last step's end, beside that of ``plan --gpus``
busy       from a step's placement to its end, over the time of all GPUs there were, to the very end: also that in
           which only cores work; and how much of it workers took to start
late       steps whose worker took longer to start than their time: with any, ``--hour`` is too short for this machine
twice      GPUs that two steps held at once (none may be)
waits      from a training's end to the start of its evaluation; and the longest time for which a GPU was idle while a
           step that needs one was ready
turns      times that a GPU went to a step while one of a higher rank had been ready for some time

and FOLDER/night.png shows who slept on which GPU, start-up pale. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from execution.context import Context  # noqa: E402
from execution.runner import DagRunner  # noqa: E402
from execution.step import Step  # noqa: E402
from execution.store import Store, open_store  # noqa: E402
from orchestrator.config.study_file import load_study  # noqa: E402
from orchestrator.planning import schedule  # noqa: E402
from orchestrator.planning.cost import durations  # noqa: E402
from orchestrator.planning.resolve import gather  # noqa: E402
from orchestrator.planning.search import stage  # noqa: E402

STUDY = ROOT / "configs" / "qwen3-4b-own-teacher.yaml"
ON_ONE = ("rollouts.engine={}",)  # for nodes that have fewer GPUs than the teacher's engine spans
SAVES = 20  # times that a sleep saves how long it has slept: so much is lost by a kill
STEADY = 2.0  # seconds for which a step has to be ready before it counts as passed over
CPUS = 24  # logical ones, of the whole cluster
COLOURS = {
    "train": "#4c78a8", "evaluate": "#f58518", "losses": "#54a24b", "features": "#b279a2", "reference": "#e45756",
    "connectivity": "#72b7b2", "activations": "#eeca3b", "rollouts": "#9d755d",
}  # fmt: skip


@dataclass(frozen=True)
class Nap:
    """One piece of sleep on a GPU (``node``/``gpu``; none for a step on cores), in seconds of the clock."""

    title: str
    gpu: str
    start: float
    end: float
    whole: bool  # False: killed
    placed: float | None = None  # when its time began; None: with its start

    @property
    def since(self) -> float:
        """When it got its GPU."""
        return self.start if self.placed is None else self.placed


def sleeping(step: Step, seconds: float, pieces: int, log: Path) -> Step:
    """The step with the same key, which sleeps instead, in so many pieces on a GPU each where it maps items."""
    shared = step.kind.gpu == "items"
    runtime = {**step.runtime, "nap": (step.title, seconds / pieces, pieces if shared else 0, str(log))}
    return dataclasses.replace(step, kind=dataclasses.replace(step.kind, run=sleep), runtime=runtime)


def sleep(context: Context) -> None:
    """A step's ``run``."""
    title, seconds, pieces, log = context.runtime["nap"]
    if pieces:
        context.parallel_map(piece, [(title, seconds, log)] * pieces)
    else:
        nap(title, seconds, Path(log), context.work / "slept")
    (context.out / "slept").write_text(f"{seconds}\n")


def piece(item: tuple[str, float, str], inputs: object) -> None:
    """One item of a step that maps them."""
    nap(item[0], item[1], Path(item[2]), None)


def nap(title: str, seconds: float, log: Path, saved: Path | None) -> None:
    """Sleep, noting who, where and until when: so that what was killed is told too. What was slept before counts."""
    import ray

    before = float(saved.read_text()) if saved is not None and saved.exists() else 0.0
    held = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [f"{ray.get_runtime_context().get_node_id()}/{gpu}" for gpu in held.split(",") if gpu]
    note, start, placed = log / f"{uuid4().hex}.json", time.time(), place_note(log, title)
    since = float(placed.read_text()) if placed.exists() and gpus else start
    while True:
        now = time.time()
        left = seconds - before - (now - since)
        told = {"title": title, "gpus": gpus, "pid": os.getpid(), "start": start, "end": now, "whole": left <= 0}
        told["placed"] = since
        note.with_suffix(".part").write_text(json.dumps(told))
        note.with_suffix(".part").replace(note)
        if saved is not None:
            saved.write_text(repr(before + now - since))
        if left <= 0:
            return
        time.sleep(min(max(0.05, seconds / SAVES), left))


def place_note(log: Path, title: str) -> Path:
    """Where the driver notes when it placed a step last."""
    return log / f"{title.replace('/', '--')}.placed"


@dataclass
class Night:
    """What a night was: naps, the ends of steps, and the GPUs there were, in seconds since its start."""

    planned: schedule.Schedule
    ranks: Mapping[str, float]
    hour: float
    naps: list[Nap]
    gpus: dict[str, tuple[float, float]]  # from when to when there was each
    makespan: float
    lines: list[str]

    @property
    def expected(self) -> float:
        """Seconds that the plan takes here."""
        return self.planned.makespan * self.hour / 3600

    @property
    def busy(self) -> float:
        there = sum(end - start for start, end in self.gpus.values())
        return sum(nap.end - nap.since for nap in self.naps if nap.gpu) / there

    @property
    def starting(self) -> float:
        """Seconds between placement and a worker's first act, of all steps together."""
        return sum(nap.start - nap.since for nap in self.naps if nap.gpu)

    def late(self) -> int:
        """Steps whose worker started only when their time was over."""
        return sum(
            nap.whole and nap.gpu != "" and nap.end - nap.start < 1e-3 < nap.start - nap.since for nap in self.naps
        )

    def twice(self) -> int:
        """Pairs of naps that held one GPU at once."""
        found = 0
        for gpu in self.gpus:
            mine = sorted((n for n in self.naps if n.gpu == gpu), key=lambda n: n.start)
            found += sum(later.start < earlier.end for earlier, later in itertools.pairwise(mine))
        return found

    def first(self, title: str) -> float:
        return min(nap.since for nap in self.naps if nap.title == title)

    def last(self, title: str) -> float:
        return max(nap.end for nap in self.naps if nap.title == title)

    def ready(self) -> dict[str, float]:
        """By title, when all that a step reads had ended."""
        steps = [entry.step for entry in self.planned.entries]
        return {s.title: max((self.last(read.title) for read in s.inputs.values()), default=0.0) for s in steps}

    def waits(self) -> list[float]:
        """From each training's end to the start of its evaluation."""
        found = []
        for step in (entry.step for entry in self.planned.entries):
            if step.kind.name == "evaluate" and "adapter" in step.inputs:
                found.append(self.first(step.title) - self.last(step.inputs["adapter"].title))
        return found

    def idle(self) -> float:
        """The longest time for which a GPU had nothing to do while a step that needs one was ready."""
        ready, longest = self.ready(), 0.0
        waiting = [(ready[t], self.first(t)) for t in {nap.title for nap in self.naps if nap.gpu}]
        for gpu, (there, gone) in self.gpus.items():
            mine = sorted((n.since, n.end) for n in self.naps if n.gpu == gpu)
            ends, starts = [there, *(end for _, end in mine)], [*(start for start, _ in mine), gone]
            for end, start in zip(ends, starts, strict=True):
                for since, until in waiting:
                    longest = max(longest, min(start, until) - max(end, since))
        return longest

    def turns(self, steady: float = STEADY) -> list[tuple[str, str]]:
        """Steps that took a GPU, each with a step of a higher rank that had been ready for ``steady`` seconds by then
        and started so much later."""
        ready = self.ready()
        starts = {t: self.first(t) for t in {nap.title for nap in self.naps if nap.gpu}}
        return [
            (low, high)
            for low, at in starts.items()
            for high, later in starts.items()
            if self.ranks[high] > self.ranks[low] * (1 + 1e-6) and ready[high] + steady < at < later - steady
        ]

    def table(self) -> Iterator[str]:
        """The figures."""
        waits = sorted(self.waits())
        plan, over = self.planned, self.makespan / self.expected - 1
        yield f"planned    {plan.makespan / 3600:.2f} h on {plan.gpus} GPUs, {plan.busy:.0%} busy"
        yield f"makespan   {self.makespan:.1f} s, the plan's {self.expected:.1f} s ({over:+.1%})"
        start = self.starting / sum(end - start for start, end in self.gpus.values())
        yield f"busy       {self.busy:.1%} of {len(self.gpus)} GPUs' time to the last step's end, {start:.1%} to start"
        yield f"late       {self.late()} steps"
        yield f"twice      {self.twice()}"
        if waits:
            hours = [w / self.hour for w in (waits[0], waits[len(waits) // 2], waits[-1])]
            yield "waits      evaluations {:.2f}, {:.2f}, {:.2f} h after their trainings (least, median, most)".format(
                *hours
            )
        yield f"idle       at most {self.idle():.1f} s while a step that needs a GPU was ready"
        yield f"turns      {len(self.turns())} out of turn {self.turns()[:3] or ''}"
        killed = [nap for nap in self.naps if not nap.whole]
        if killed:
            yield f"killed     {len(killed)} naps: {', '.join(sorted({nap.title for nap in killed}))}"

    def picture(self, path: Path) -> None:
        """A row for each GPU, a bar for each nap, coloured by kind."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        names = list(self.gpus)
        figure, axes = plt.subplots(figsize=(11, 0.5 * len(names) + 1.6))
        kinds = dict.fromkeys(nap.title.partition("/")[0] for nap in self.naps if nap.gpu)
        for row, gpu in enumerate(names):
            there, gone = (t / self.hour for t in self.gpus[gpu])
            axes.barh(row, gone - there, left=there, height=0.9, color="#eeeeee")
            for nap in (n for n in self.naps if n.gpu == gpu):
                kind = nap.title.partition("/")[0]
                axes.barh(row, (nap.start - nap.since) / self.hour, left=nap.since / self.hour, height=0.7,
                          color=COLOURS.get(kind, "#888888"), alpha=0.35, linewidth=0)  # fmt: skip
                axes.barh(row, (nap.end - nap.start) / self.hour, left=nap.start / self.hour, height=0.7,
                          color=COLOURS.get(kind, "#888888"), edgecolor="white", linewidth=0.4,
                          hatch=None if nap.whole else "///")  # fmt: skip
        axes.axvline(self.expected / self.hour, color="black", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(names)), [f"GPU {i}" for i in range(len(names))])
        axes.invert_yaxis()
        axes.set_xlabel("planned hours (dashed: the plan's end; hatched: killed)")
        handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS.get(kind, "#888888")) for kind in kinds]
        axes.legend(
            handles, list(kinds), ncols=len(kinds), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
        )
        figure.savefig(path, dpi=150, bbox_inches="tight")
        plt.close(figure)


Happening = Callable[["Nodes", list[dict[str, Any]]], bool]  # given what naps there are; True once it has happened


class Nodes:
    """A Ray cluster on this machine of one node or more, each with its own logical GPUs."""

    def __init__(self, folder: Path) -> None:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # read when ray is imported
        from ray.cluster_utils import Cluster

        self.cluster, self.folder = Cluster(), folder
        self.gpus: dict[str, tuple[float, float]] = {}
        self.nodes: list[Any] = []

    def add(self, gpus: int, cpus: int) -> None:
        head = {"include_dashboard": False, "temp_dir": str(self.folder)} if not self.nodes else {}
        node = self.cluster.add_node(num_gpus=gpus, num_cpus=cpus, **head)
        self.nodes.append(node)
        self.gpus |= {f"{node.node_id}/{gpu}": (time.time(), float("inf")) for gpu in range(gpus)}

    def lose(self, node: Any) -> None:
        """It dies with all that runs on it."""
        self.cluster.remove_node(node, allow_graceful=False)
        now = time.time()
        for gpu, (there, _) in self.gpus.items():
            if gpu.startswith(node.node_id):
                self.gpus[gpu] = there, now


@contextmanager
def nodes(*gpus: int) -> Iterator[Nodes]:
    """A cluster of a node for each number of GPUs."""
    with tempfile.TemporaryDirectory(prefix="night-", ignore_cleanup_errors=True) as folder:
        found = Nodes(Path(folder))
        try:
            for count in gpus:
                found.add(count, max(2, CPUS // len(gpus)))
            yield found
        finally:
            found.cluster.shutdown()


def plan_of(study_file: Path, words: Sequence[str], gpus: int) -> tuple[Any, list[Step], schedule.Schedule]:
    """The study, its steps, and the schedule that ``plan --gpus`` prints."""
    study = load_study(study_file, list(words))
    nowhere = Path("nowhere")
    facts = gather(study, nowhere, online=False)
    now = stage(study, facts, Store(nowhere, open_nowhere()))
    study = now.study.shaped()
    return study, now.steps, schedule.of_study(study, now.steps, gpus)


def open_nowhere() -> Any:
    from execution.storage import Folder

    return Folder(Path("nowhere").resolve())


def spend(
    found: Nodes, study: Any, steps: Sequence[Step], planned: schedule.Schedule, hour: float, out: Path,
    happenings: Sequence[Happening] = (),
) -> Night:  # fmt: skip
    """Run the steps, asleep, to their end; each of the happenings takes place when its time has come, in order."""
    from orchestrator.cluster.connection import join
    from orchestrator.cluster.executor import RayExecutor

    log = out / "naps"
    log.mkdir(parents=True)
    needs = schedule.needs(study, steps, planned.gpus)
    seconds = durations(study, steps)
    assert seconds is not None
    asleep = [sleeping(s, seconds[s.title] * hour / 3600, needs[s.title].parts, log) for s in steps]
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    join(found.cluster.address)
    store, lines = open_store(out / "store"), list[str]()
    over = threading.Event()

    def happen() -> None:
        left = list(happenings)
        while left and not over.wait(0.2):
            if left[0](found, read(log)):
                left.pop(0)

    beside = threading.Thread(target=happen, daemon=True)
    begun = time.time()
    beside.start()
    ranks = schedule.placing_ranks(study, steps, seconds, planned.gpus)

    class Noting(RayExecutor):
        """Notes when it places a step; a step that maps items has no time of its own."""

        def _place(self) -> None:
            known = {id(job) for job in self.jobs}
            super()._place()
            for job in self.jobs:
                if id(job) not in known and len(job.steps) == 1 and not job.mark * job.sharing:
                    place_note(log, job.steps[0].title).write_text(repr(time.time()))

    executor = Noting(store, study.placement, lines.append, ranks)
    outcome = DagRunner(asleep, store, lines.append).run(lambda: executor)
    over.set()
    beside.join()
    if outcome.failed or outcome.blocked:
        raise SystemExit(f"{outcome.failed} {outcome.blocked}")
    naps = [
        Nap(told["title"], gpu, told["start"] - begun, told["end"] - begun, told["whole"], told["placed"] - begun)
        for told in read(log)
        for gpu in told["gpus"] or [""]
    ]
    end = max(nap.end for nap in naps)
    there = {gpu: (max(0.0, a - begun), min(end, b - begun)) for gpu, (a, b) in found.gpus.items()}
    return Night(planned, ranks, hour, naps, there, end, lines)


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(log.glob("*.json"))]


def killing(kind: str, after: float = 0.0) -> Happening:
    """Kill the worker of a step of this kind that has slept for ``after`` seconds."""

    def happening(found: Nodes, naps: list[dict[str, Any]]) -> bool:
        for told in naps:
            if told["title"].startswith(f"{kind}/") and not told["whole"] and time.time() - told["start"] > after:
                os.kill(told["pid"], 9)
                return True
        return False

    return happening


def losing(which: int, after: int) -> Happening:
    """Lose a node once so many trainings have ended and it is at work."""

    def happening(found: Nodes, naps: list[dict[str, Any]]) -> bool:
        node = found.nodes[which]
        ended = sum(told["whole"] for told in naps if told["title"].startswith("train/"))
        at_work = any(gpu.startswith(node.node_id) for told in naps if not told["whole"] for gpu in told["gpus"])
        if ended >= after and at_work:
            found.lose(node)
            return True
        return False

    return happening


def joining(gpus: int, cpus: int, after: int) -> Happening:
    """A node joins once so many trainings have ended."""

    def happening(found: Nodes, naps: list[dict[str, Any]]) -> bool:
        if sum(told["whole"] for told in naps if told["title"].startswith("train/")) < after:
            return False
        found.add(gpus, cpus)
        return True

    return happening


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", help="a study's file; disturbed")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--hour", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("night"))
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    disturbed = "disturbed" in options.what
    file = next((Path(word) for word in options.what if word != "disturbed"), STUDY)
    options.set = [*(ON_ONE if file == STUDY and disturbed else ()), *options.set]
    study, steps, planned = plan_of(file, options.set, options.gpus)
    half = options.gpus // 2
    cpus = CPUS // 2
    happenings = [killing("train", options.hour / 2), losing(1, 2), joining(half, cpus, 5)] if disturbed else []
    with nodes(*((half, options.gpus - half) if disturbed else (options.gpus,))) as found:
        night = spend(found, study, steps, planned, options.hour, options.out, happenings)
    for line in night.table():
        print(line)
    for line in night.lines:
        if "placed again" in line:
            print(line)
    night.picture(options.out / "night.png")
    print(f"picture    {options.out / 'night.png'}")


if __name__ == "__main__":
    main()
