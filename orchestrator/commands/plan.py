"""plan: a study's steps, what each needs, what is done; nothing is touched."""

from __future__ import annotations

import argparse

from execution.errors import DONE
from execution.storage import Folder, storage_of
from execution.store import Store
from orchestrator.commands.process import reading
from orchestrator.commands.run_folder import folder_of
from orchestrator.config.study_file import load_study
from orchestrator.planning import resolve as outside
from orchestrator.planning import schedule
from orchestrator.planning.memory_fit import check_memory, gpu_memory, memory_lines
from orchestrator.planning.preflight import advice, check, check_fit, check_price
from orchestrator.planning.search import search_lines, stage
from orchestrator.planning.views.plan import lines as plan_lines
from orchestrator.runtime.served_models import check_gpus
from orchestrator.timing.view import lines as time_lines
from report.escape import tell


def main(options: argparse.Namespace) -> int:
    """Show the steps, what each needs, what is done, and with --gpus who runs when. Touches nothing."""
    gpus = None if options.gpus is None else schedule.gpu_count(options.gpus)
    with reading():
        study = load_study(options.study, options.set)
        out = folder_of(options, study)
        check(study)
        check_fit(study)
        memory = gpu_memory(study)
        check_memory(study, memory)
        facts = outside.gather(study, out, online=False)
        store = Store(out, storage_of(options.store) if options.store is not None else Folder(out.resolve()))
        now = stage(study, facts, store)
        check_price(study, now.steps, store)
        if gpus is not None:
            check_gpus(now.study, now.steps, store, gpus, f"--gpus {gpus} gives")
        steps, study = now.steps, now.study.shaped()
        shown = list(plan_lines(study, steps, store, study.rollouts.rows_at_hand()))
        if told := search_lines(study, now.more):
            shown += ["", *told]
    shown += time_lines(study, steps, store, gpus)
    if gpus is None:
        shown += advice(study)
    shown += memory_lines(study, memory, gpus is not None)
    for line in shown:
        tell(line)
    return DONE
