"""What each command does, once its words are parsed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execution.clock import Began
from execution.errors import BAD_INPUT, DONE, FAILED, ClusterLost, UserError
from execution.fingerprint import differences
from execution.lease import Lease, hold, left_behind
from execution.step import Step
from execution.storage import Folder, storage_of
from execution.store import Store, check_names, open_store, write_json
from orchestrator.cluster.session import sweep
from orchestrator.commands import doctor as doctor_checks
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning import plan_view, schedule
from orchestrator.planning import resolve as outside
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preflight import advice, check, check_fit, check_key
from orchestrator.runtime.threads import set_environment
from orchestrator.steps import STEP_KINDS
from report.escape import tell

if TYPE_CHECKING:
    from execution.runner import Executor

ROOT = Path(__file__).resolve().parents[2]
STUDY = "study.json"
DEFAULT_STUDY = ROOT / "configs" / "tiny.yaml"
RESTARTS = 2  # of a cluster that was started here and died


def refuse_intruders() -> None:
    """The packages' names are generic: refuse to start where one resolves to somebody else's."""
    for package in ("methods", "analysis", "report", "evals", "models", "execution", "results"):
        spec = importlib.util.find_spec(package)
        found = Path(spec.origin).parent if spec and spec.origin else None
        if found != ROOT / package:
            raise UserError(f"the package {package} is {found or 'not there'}, not {ROOT / package}: start from {ROOT}")


def run(options: argparse.Namespace) -> int:
    """Run a study to its report."""
    begun = Began.now()
    set_environment()
    with _reading():
        study = load_study(options.study, options.set)
        out = _out(options, study)
        _refuse_another(out, study, options.study)
        check(study)
        check_fit(study)
        facts = outside.gather(study, out, online=True)  # what is missing is said before anything is made
    if options.serial and options.address:
        raise UserError("--serial runs in this process and --address on a cluster: choose one")
    if options.serial and study.training.workers > 1:
        raise UserError("training.workers: --serial has one worker; leave --serial, or set training.workers=1")
    if options.address is not None:
        from orchestrator.cluster.connection import knock

        knock(options.address)
    else:
        for line in advice(study):
            _say(line)
    store = open_store(out, options.store, STEP_KINDS)
    plan = make_plan(study, facts)
    check_key(study, plan, store)
    with _stoppable(), hold(store.storage, _say) as lease:
        sweep(store.root / "partial", _say)
        outside.keep_pins(facts, out)
        told = {
            "study": study.model_dump(mode="json"),
            "facts": facts,
            "store": None if options.store is None else str(store.storage),
        }
        told["file"] = options.study.name
        write_json(out / STUDY, told, sort=False)
        return _walk_and_report(study, plan, store, options, begun, lease)


def _walk_and_report(
    study: Study, plan: list[Step], store: Store, options: argparse.Namespace, begun: Began, lease: Lease
) -> int:
    from execution.runner import DagRunner
    from orchestrator.results.report_fingerprint import outdated

    startup = 0.0

    def executor() -> Executor:
        nonlocal startup
        first = time.monotonic()
        opened = _executor(study, store, options)
        startup += time.monotonic() - first
        return opened

    _say(f"{study.name}: {len(plan)} steps into {store.storage}")
    made: set[str] = set()
    for again in range(RESTARTS, -1, -1):
        walk = DagRunner(plan, store, _say, lease.check)
        try:
            outcome = walk.run(executor)
            break
        except ClusterLost as error:
            if options.address or not again:
                raise
            _say(f"{error}; starting it again")
            made |= walk.outcome.made
    outcome.made |= made
    outcome.cached -= made
    page = store.root / "report" / "report.html"
    old = outdated(study, outcome, store)
    if outcome.made or old is not None:
        from orchestrator.results.write_report import time_lines, write_report

        if old:
            _say(f"{old} since the report was made: it is made again")
        for line in time_lines(write_report(study, outcome, store, (begun, startup))):
            tell(line)
    else:
        _say("nothing to do: every step is done")
    tell(f"report: {page}")
    if outcome.lost:
        tell(f"{len(outcome.failed)} failed, {len(outcome.blocked)} did not run because of it: see the report")
        return FAILED
    return DONE


def _executor(study: Study, store: Store, options: argparse.Namespace) -> Executor:
    """What runs the steps: this process, or the Ray cluster that is started or joined here."""
    if options.serial:
        from execution.runner import SerialExecutor
        from orchestrator.runtime.engines import Engines

        return SerialExecutor(store, Engines())
    from orchestrator.cluster.connection import join, leave

    first = time.monotonic()
    guarded = join(options.address, _say)
    try:
        _say(f"Ray is up after {time.monotonic() - first:.1f} s")
        if not guarded:
            _say("this cluster asks for no token, and runs what anyone sends it: see On a cluster in README.md")
        return _cluster(study, store, options)
    except BaseException:  # from here on the walk closes what it was given
        leave()
        raise


def _cluster(study: Study, store: Store, options: argparse.Namespace) -> Executor:
    from orchestrator.cluster.connection import prove_nodes
    from orchestrator.cluster.executor import RayExecutor

    if options.address:
        nodes = prove_nodes(store, study, _say)
        _say(f"{len(nodes)} {'node reads and writes' if len(nodes) == 1 else 'nodes read and write'} {store.storage}")
    cluster = RayExecutor(store, study.placement, _say)
    if study.training.workers > cluster.slots:
        raise UserError(f"training.workers: {study.training.workers} do not fit the cluster's {cluster.slots} slots")
    return cluster


@contextmanager
def _reading() -> Iterator[None]:
    """While only input is read: a name that the system cannot take (too long, a NUL in it) is bad input too."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"the study names what cannot be read: {error}") from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, as a batch system sends it before it kills, ends the run as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def plan(options: argparse.Namespace) -> int:
    """Show the steps, what each needs, what is done, and with --gpus who runs when. Touches nothing."""
    gpus = None if options.gpus is None else schedule.gpu_count(options.gpus)
    with _reading():
        study = load_study(options.study, options.set)
        out = _out(options, study)
        check(study)
        check_fit(study)
        steps = make_plan(study, outside.gather(study, out, online=False))
        store = Store(out, storage_of(options.store) if options.store is not None else Folder(out.resolve()))
        study = study.shaped()
        shown = list(plan_view.lines(study, steps, store, study.rollouts.rows_at_hand()))
    if gpus is None:
        shown += advice(study)
    else:
        shown += ["", *plan_view.schedule_lines(study, schedule.of_study(study, steps, gpus))]
    for line in shown:
        tell(line)
    return DONE


def compare(options: argparse.Namespace) -> int:
    """The geometry of any adapters, without a study."""
    set_environment()
    from orchestrator.compare.compare import compare

    with _stoppable():
        return compare(options, _say)


def grade(options: argparse.Namespace) -> int:
    """Anyone's rows graded, without a study. Rows alone go to stdout."""
    from orchestrator.commands.grade import grade

    with _stoppable():
        grade(options.rows, options.out, lambda line: tell(line, sys.stderr))
    return DONE


def status(options: argparse.Namespace) -> int:
    """How far a run is, from its folder alone."""
    study, steps, store = _saved(options)
    counts: dict[str, int] = {}
    dead = left_behind(store.storage)
    widest = max(len(step.title) for step in steps)
    for step in steps:
        if store.done(step):
            seconds = store.times(step).get("seconds")
            state, more = "done", f"{seconds:.1f} s" if isinstance(seconds, int | float) else "-"
        elif store.spoilt(step):
            state, more = "damaged", "its record was changed: run makes it again"
        elif (error := store.failure(step)) is not None:
            state, more = "failed", error
        elif store.begun(step):
            state, more = "begun", store.progress(step)
            more = f"stopped at {more}" if dead and more else more
        else:
            state, more = "to do", ""
        counts[state] = counts.get(state, 0) + 1
        tell(f"{step.title.ljust(widest)}  {state:<8}{more}")
    tell(f"{study.name}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    return DONE


def report(options: argparse.Namespace) -> int:
    """Rebuild the report from the store alone: at any time, with the geometry of the adapters that are there."""
    set_environment()
    study, steps, store = _saved(options)  # a refusal comes before the heavy imports
    check_names(store.root, STEP_KINDS)
    from execution.runner import DagRunner
    from orchestrator.results.interim import early_geometry
    from orchestrator.results.write_report import write_report

    outcome = DagRunner(steps, store, _say).survey()
    with early_geometry(steps, outcome, store) as early:
        write_report(study, outcome, store, None, early)
    tell(f"report: {store.root / 'report' / 'report.html'}")
    return FAILED if outcome.failed else DONE


def export(options: argparse.Namespace) -> int:
    """Every completion that is finished, for other tools to read."""
    study, steps, store = _saved(options)  # a refusal comes before the heavy imports
    from execution.runner import DagRunner
    from orchestrator.results.export import export

    export(study, DagRunner(steps, store, _say).survey().steps, store, options.to, tell)
    return DONE


def doctor(options: argparse.Namespace) -> int:
    """What this machine has and lacks."""
    lacks = 0
    for found in doctor_checks.examine():
        tell(f"{'ok' if found.ok else 'LACK' if found.needed else 'note':<6}{found.what:<14}{found.detail}")
        if not found.ok:
            tell(f"      {found.mend}")
            lacks += found.needed
    return BAD_INPUT if lacks else DONE


def _saved(options: argparse.Namespace) -> tuple[Study, list[Step], Store]:
    """The study of a run's folder as it was started, or as the given file and ``--set`` say; its plan, the store."""
    file = options.study or DEFAULT_STUDY
    given = None
    with _reading():
        if options.study or options.set or options.out is None:
            given = load_study(file, options.set)
        out = options.out or _out(options, given)  # type: ignore[arg-type]
    _check_out(out)
    try:
        saved = _read_saved(out)
        study, facts = Study.model_validate(saved["study"]), saved["facts"]
        place = storage_of(saved["store"]) if saved.get("store") else Folder(out.resolve())
        if given and (options.study or options.set) and _told(given) != _told(study):
            _refuse_another(out, given, file)
            known = {name: facts[name] for name in ("engine", "adapters") if given.engine == study.engine}
            changed = differences(_told(study), _told(given))
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            tell(f"not the study as it was run ({'; '.join(changed[:3])}{more}): --out alone shows that", sys.stderr)
            with _reading():
                study, facts = given, outside.gather(given, out, online=False) | known
        return study, make_plan(study, facts), Store(out.resolve(), place)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{out} holds no run: start one with run, or name its folder with --out") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{out / STUDY} is damaged or of another version: start the study again with run") from None


def _told(study: Study) -> dict[str, Any]:
    """All of a study that its results and their report hang on."""
    return study.model_dump(mode="json", exclude={"placement", "data"})


def _read_saved(out: Path) -> dict[str, Any]:
    return json.loads((out / STUDY).read_text())


def _refuse_another(out: Path, study: Study, file: Path) -> None:
    """``UserError`` where the folder is another study's: one would take the other's report away.

    Another study has another name, or the same one in a file of another name, with other settings. A study that was
    edited is the same one. Without any study a folder ``report`` there is somebody else's.
    """
    page = out / "report"
    if not (out / STUDY).exists() and page.is_dir() and any(page.iterdir()):
        raise UserError(f"{page} is no report of a run: move it away, or name another --out")
    try:
        saved = _read_saved(out)
        name, before = str(saved["study"]["name"]), saved.get("file", file.name)
        same = before == file.name or saved["study"] == study.model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # there is none, or none that can be read
    if name != study.name or not same:
        whose = f"{name} of {before}" if name == study.name else name
        place = saved.get("store") or out
        raise UserError(
            f"{out} holds the run of the study {whose}: name another --out (with --store {place} to share its steps)"
        )


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


def _say(line: str) -> None:
    tell(f"{time.strftime('%H:%M:%S')}  {line}")
