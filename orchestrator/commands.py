"""What each command does, once its words are parsed."""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orchestrator import doctor as doctor_checks
from orchestrator import facts as outside
from orchestrator import plan_view, schedule
from orchestrator.errors import BAD_INPUT, DONE, FAILED, UserError
from orchestrator.plan import Step, make_plan
from orchestrator.preflight import check
from orchestrator.store import Store, open_store, write_json
from orchestrator.study import Study
from orchestrator.study_file import load_study
from orchestrator.threads import set_environment

ROOT = Path(__file__).resolve().parent.parent
STUDY = "study.json"


def refuse_intruders() -> None:
    """The packages' names are generic: refuse to start where one resolves to somebody else's."""
    for package in ("methods", "analysis", "evals"):
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).parent if spec and spec.origin else None
        if found != ROOT / package:
            raise UserError(f"the package {package} is {found or 'not there'}, not {ROOT / package}: start from {ROOT}")


def run(options: argparse.Namespace) -> int:
    """Run a study to its report."""
    begun = time.time()
    set_environment()
    study = load_study(options.study, options.set)
    out = _out(options, study)
    check(study)
    facts = outside.gather(study, out, online=True)  # what is missing is said before anything is made
    store = open_store(out)
    with _alone(out):
        outside.keep_pins(facts, out)
        plan = make_plan(study, facts)
        write_json(out / STUDY, {"study": study.model_dump(mode="json"), "facts": facts}, sort=False)
        return _walk_and_report(study, plan, store, options, begun)


def _walk_and_report(study: Study, plan: list[Step], store: Store, options: argparse.Namespace, begun: float) -> int:
    from orchestrator.runner import Serial, Walk
    from orchestrator.stamp import up_to_date

    startup = 0.0

    def executor():  # type: ignore[no-untyped-def]
        nonlocal startup
        if options.serial:
            return Serial(store)
        first = time.time()
        from orchestrator.cluster import Cluster, join

        join(options.address)
        startup = time.time() - first
        _say(f"Ray is up after {startup:.1f} s")
        return Cluster(store, study.placement)

    _say(f"{study.name}: {len(plan)} steps into {store.root}")
    outcome = Walk(plan, store, _say).run(executor)
    page = store.root / "report" / "report.html"
    if outcome.made or not up_to_date(study, outcome, store):
        from orchestrator.reporting import time_lines, write_report

        seconds = {"begun": begun, "cluster_startup": startup}
        for line in time_lines(write_report(study, outcome, store, seconds)):
            print(line)
    else:
        _say("nothing to do: every step is done")
    print(f"report: {page}")
    if outcome.lost:
        print(f"{len(outcome.failed)} failed, {len(outcome.blocked)} did not run because of it: see the report")
        return FAILED
    return DONE


def plan(options: argparse.Namespace) -> int:
    """Show the steps, what each needs, what is done, and with --gpus who runs when. Touches nothing."""
    gpus = None if options.gpus is None else schedule.gpu_count(options.gpus)
    study = load_study(options.study, options.set)
    out = _out(options, study)
    check(study)
    steps = make_plan(study, outside.gather(study, out, online=False))
    store = Store(out)
    shown = list(plan_view.lines(study, steps, store))
    if gpus is not None:
        shown += ["", *plan_view.schedule_lines(study, schedule.of_study(study, steps, gpus))]
    for line in shown:
        print(line)
    return DONE


def status(options: argparse.Namespace) -> int:
    """How far a run is, from its folder alone."""
    from orchestrator.perform import progress_of

    study, steps, store = _saved(options)
    counts: dict[str, int] = {}
    widest = max(len(step.title) for step in steps)
    for step in steps:
        if store.done(step):
            state, more = "done", f"{store.times(step).get('seconds', 0.0):.1f} s"
        elif (error := store.failure(step)) is not None:
            state, more = "failed", error
        elif store.partial(step).exists():
            state, more = "begun", progress_of(step, store)
        else:
            state, more = "to do", ""
        counts[state] = counts.get(state, 0) + 1
        print(f"{step.title.ljust(widest)}  {state:<8}{more}")
    print(f"{study.name}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    return DONE


def report(options: argparse.Namespace) -> int:
    """Rebuild the report from the store alone."""
    set_environment()
    from orchestrator.reporting import write_report
    from orchestrator.runner import Walk

    study, steps, store = _saved(options)
    outcome = Walk(steps, store, _say).survey()
    write_report(study, outcome, store, None)
    print(f"report: {store.root / 'report' / 'report.html'}")
    return FAILED if outcome.failed else DONE


def doctor(options: argparse.Namespace) -> int:
    """What this machine has and lacks."""
    lacks = 0
    for found in doctor_checks.examine():
        print(f"{'ok' if found.ok else 'LACK' if found.needed else 'note':<6}{found.what:<14}{found.detail}")
        if not found.ok:
            print(f"      {found.mend}")
            lacks += found.needed
    return BAD_INPUT if lacks else DONE


def _saved(options: argparse.Namespace) -> tuple[Study, list[Step], Store]:
    """The study that a run's folder was made for, its plan, and the store."""
    if options.set:
        raise UserError(f"{options.command} shows a run as it was started: leave --set out")
    out = _out(options, load_study(options.study)) if options.out is None else options.out
    _check_out(out)
    try:
        saved = json.loads((out / STUDY).read_text())
        study = Study.model_validate(saved["study"])
        return study, make_plan(study, saved["facts"]), Store(out.resolve())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{out} holds no run: start one with run, or name its folder with --out") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{out / STUDY} is damaged or of another version: start the study again with run") from None


def _out(options: argparse.Namespace, study: Study) -> Path:
    out = options.out or Path("runs") / study.name
    _check_out(out)
    return out


def _check_out(out: Path) -> None:
    try:
        is_file = out.exists() and not out.is_dir()
        out.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--out {str(out)[:200]!r} cannot be a folder: {error}"[:300]) from None
    if is_file or out == Path():
        raise UserError(f"--out {out} is no folder of its own: name one")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run a folder: a second one says who holds it. The kernel gives the lock back when a run dies."""
    with _lock_file(out) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise UserError(f"{out} is in use by process {lock.read().strip()}: wait for it, or use --out") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock_file(out: Path) -> IO[str]:
    try:
        return (out / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{out / '.lock'} cannot be written ({error.strerror}): use another --out") from None


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
