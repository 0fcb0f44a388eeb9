"""run: a study to its report, taking up where the last run stopped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
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
from orchestrator.planning.memory_fit import check_memory, gpu_memory
from orchestrator.planning.preflight import advice, check, check_fit, check_key, check_price
from orchestrator.planning.search import Stage, searches, stage
from orchestrator.runtime.device import cards
from orchestrator.runtime.served_models import check_gpus
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
        check_memory(study, gpu_memory(study, here=not options.address))
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
    check_price(study, first.steps, store)
    check_key(study, first.steps, store)
    if options.serial and cards():
        check_gpus(study, first.steps, store, cards(), "this machine has")
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
    estimate_all: Callable[[Study, list[Step]], None] | None = None  # once there is an executor
    searched = {step.title for step in searches(first.steps)}

    def more(settled: set[str]) -> list[Step] | None:
        """The whole plan, once every search has ended."""
        nonlocal now
        if not first.more or not searched <= settled:
            return None
        now = stage(study, facts, store, settled)
        if estimate_all is not None:
            estimate_all(now.study, now.steps)
        progress(f"{study.name}: rates are chosen, {len(now.steps)} steps in all")
        return now.steps

    def executor() -> Executor:
        nonlocal startup, estimate_all
        started = time.monotonic()
        opened, estimate_all = _executor(study, first.steps, store, options)
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


def _executor(
    study: Study, plan: list[Step], store: Store, options: argparse.Namespace
) -> tuple[Executor, Callable[[Study, list[Step]], None]]:
    """What runs the steps, this process or the Ray cluster that is started or joined here, and what estimates a plan's
    steps: for the report, and on a cluster for the order in which they are placed."""
    if options.serial:
        from execution.runner import SerialExecutor
        from orchestrator.runtime.device import cards
        from orchestrator.runtime.engines import Engines

        def note(study: Study, plan: list[Step]) -> None:
            _estimated(study, plan, store, min(1, cards()))

        note(study, plan)
        return SerialExecutor(store, Engines()), note
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


def _cluster(
    study: Study, plan: list[Step], store: Store, options: argparse.Namespace
) -> tuple[Executor, Callable[[Study, list[Step]], None]]:
    from orchestrator.cluster.connection import prove_nodes
    from orchestrator.cluster.executor import RayExecutor
    from orchestrator.planning.schedule import placing_ranks

    if options.address:
        nodes = prove_nodes(store, study, progress)
        progress(
            f"{len(nodes)} {'node reads and writes' if len(nodes) == 1 else 'nodes read and write'} {store.storage}"
        )
    cluster = RayExecutor(store, study.placement, progress)

    def rank(study: Study, plan: list[Step]) -> None:
        gpus = int(cluster.total) if cluster.gpus else 0
        cluster.rank(placing_ranks(study, plan, _estimated(study, plan, store, gpus), gpus))

    rank(study, plan)
    if study.training.workers > cluster.slots:
        raise UserError(f"training.workers: {study.training.workers} do not fit the cluster's {cluster.slots} slots")
    if cluster.gpus:
        check_gpus(study, plan, store, cluster.largest, "the cluster's largest node has")
    return cluster, rank


def _estimated(study: Study, plan: list[Step], store: Store, gpus: int) -> dict[str, float] | None:
    """Seconds of each step, which are kept for the report too; None where the base has no shape."""
    from orchestrator.timing import rates
    from orchestrator.timing.estimated import keep

    found = rates.here(study, plan, store, gpus)
    keep(study, plan, store, found, gpus)
    return rates.seconds_of(found)
