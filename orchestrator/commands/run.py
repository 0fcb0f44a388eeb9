"""run: a study to its report, taking up where the last run stopped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from execution.clock import Began
from execution.errors import DONE, FAILED, ClusterLost, UserError
from execution.lease import Lease, hold
from execution.step import Step
from execution.store import Store, open_store, write_json
from orchestrator.cluster.session import sweep
from orchestrator.commands.process import progress, reading, stoppable
from orchestrator.commands.run_folder import STUDY, folder_of, refuse_another
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning import resolve as outside
from orchestrator.planning.cost import estimate
from orchestrator.planning.memory import seen_line
from orchestrator.planning.preflight import advice, check, check_fit, check_key
from orchestrator.planning.search import Stage, searches, stage
from orchestrator.runtime.threads import set_environment
from orchestrator.steps import STEP_KINDS
from report.escape import tell

if TYPE_CHECKING:
    from execution.runner import Executor

DECIDES = ("asha", "tpe")  # search algorithms whose trials depend on one another
RESTARTS = 2  # of a cluster that was started here and died


def main(options: argparse.Namespace) -> int:
    """Run a study to its report."""
    begun = Began.now()
    set_environment()
    with reading():
        study = load_study(options.study, options.set)
        out = folder_of(options, study)
        refuse_another(out, study, options.study)
        check(study)
        check_fit(study)
        facts = outside.gather(study, out, online=True)  # what is missing is said before anything is made
    if options.serial and options.address:
        raise UserError("--serial runs in this process and --address on a cluster: choose one")
    if options.serial and study.training.workers > 1:
        raise UserError("training.workers: --serial has one worker; leave --serial, or set training.workers=1")
    if options.serial and study.search is not None and study.search.algorithm in DECIDES:
        raise UserError(
            f"search.algorithm: {study.search.algorithm} decides while trials run side by side, and needs Ray: leave "
            "--serial, or set search.algorithm=grid"
        )
    if options.address is not None:
        from orchestrator.cluster.connection import knock

        knock(options.address)
    else:
        for line in advice(study):
            progress(line)
    store = open_store(out, options.store, STEP_KINDS)
    first = stage(study, facts, store)
    check_key(study, first.steps, store)
    with stoppable(), hold(store.storage, progress) as lease:
        sweep(store.root / "partial", progress)
        outside.keep_pins(facts, out)
        record = {
            "study": study.model_dump(mode="json"),
            "facts": facts,
            "store": None if options.store is None else str(store.storage),
        }
        record["file"] = options.study.name
        write_json(out / STUDY, record, sort=False)
        return _walk_and_report(study, facts, first, store, options, begun, lease)


def _walk_and_report(
    study: Study,
    facts: Mapping[str, str],
    first: Stage,
    store: Store,
    options: argparse.Namespace,
    begun: Began,
    lease: Lease,
) -> int:
    from execution.runner import DagRunner
    from orchestrator.results.report_fingerprint import outdated

    startup, now = 0.0, first
    searched = {step.title for step in searches(first.steps)}

    def more(settled: set[str]) -> list[Step] | None:
        """The whole plan, once every search has ended."""
        nonlocal now
        if not first.more or not searched <= settled:
            return None
        now = stage(study, facts, store, settled)
        progress(f"{study.name}: rates are chosen, {len(now.steps)} steps in all")
        return now.steps

    def executor() -> Executor:
        nonlocal startup
        started = time.monotonic()
        opened = _executor(study, first.steps, store, options)
        startup += time.monotonic() - started
        return opened

    then = ", and more once the learning rates are chosen," if first.more else ""
    progress(f"{study.name}: {len(first.steps)} steps{then} into {store.storage}")
    made: set[str] = set()
    for again in range(RESTARTS, -1, -1):
        walk = DagRunner(first.steps, store, progress, lease.check, more)
        try:
            outcome = walk.run(executor)
            break
        except ClusterLost as error:
            if options.address or not again:
                raise
            progress(f"{error}; starting it again")
            made |= walk.outcome.made
    outcome.made |= made
    outcome.cached -= made
    page = store.root / "report" / "report.html"
    old = outdated(now.study, outcome, store)
    if outcome.made or old is not None:
        from orchestrator.results.write_report import time_lines, write_report

        if old:
            progress(f"{old} since the report was made: it is made again")
        times = write_report(now.study, outcome, store, (begun, startup))
        for line in time_lines(times):
            tell(line)
        estimated = estimate(now.study.shaped())
        if estimated is not None and (seen := seen_line(estimated.memory, times)) is not None:
            tell(seen)
    else:
        progress("nothing to do: every step is done")
    tell(f"report: {page}")
    if outcome.lost:
        tell(f"{len(outcome.failed)} failed, {len(outcome.blocked)} did not run because of it: see the report")
        return FAILED
    return DONE


def _executor(study: Study, plan: list[Step], store: Store, options: argparse.Namespace) -> Executor:
    """What runs the steps: this process, or the Ray cluster that is started or joined here."""
    if options.serial:
        from execution.runner import SerialExecutor
        from orchestrator.runtime.engines import Engines

        return SerialExecutor(store, Engines())
    from orchestrator.cluster.connection import join, leave

    first = time.monotonic()
    guarded = join(options.address, progress)
    try:
        progress(f"Ray is up after {time.monotonic() - first:.1f} s")
        if not guarded:
            progress("this cluster asks for no token, and runs what anyone sends it: see On a cluster in README.md")
        return _cluster(study, plan, store, options)
    except BaseException:  # from here on the walk closes what it was given
        leave()
        raise


def _cluster(study: Study, plan: list[Step], store: Store, options: argparse.Namespace) -> Executor:
    from orchestrator.cluster.connection import prove_nodes
    from orchestrator.cluster.executor import RayExecutor
    from orchestrator.planning.cost import durations
    from orchestrator.planning.schedule import ranks

    if options.address:
        nodes = prove_nodes(store, study, progress)
        progress(
            f"{len(nodes)} {'node reads and writes' if len(nodes) == 1 else 'nodes read and write'} {store.storage}"
        )
    cluster = RayExecutor(store, study.placement, progress, ranks(plan, durations(study, plan)))
    if study.training.workers > cluster.slots:
        raise UserError(f"training.workers: {study.training.workers} do not fit the cluster's {cluster.slots} slots")
    return cluster
