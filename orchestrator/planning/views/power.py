"""Before a run: the smallest difference between two methods' accuracies that a study's trainings can tell from a seed.

Nothing is seen yet, so the variances are assumed, and stated with the result; a report has them from the trainings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from evals.tasks import TASKS
from orchestrator.config.evaluation import EvaluatedTask
from orchestrator.config.study import Study
from orchestrator.planning.cost import KNOWN_PROBLEMS
from orchestrator.planning.training_runs import training_runs

SPREADS = 0.005, 0.01, 0.02, 0.05  # standard deviations between trainings of one method, in accuracy
MORE = 3, 5, 10  # trainings of each method beside the study's own number
APART, AGAIN = 0.10, 0.05  # shares of problems on which two methods, and two trainings of one, answer differently
LEVEL = 0.05


def power_lines(study: Study) -> Iterator[str]:
    """A table: smallest differences told with 80 % power, by trainings of each method and how these vary.

    Power is that of ``analysis.statistics.trainings.method_difference`` at the first step of Holm's procedure over the
    matched comparisons, as in a report. Nothing for one method.
    """
    from analysis.statistics.power import detectable

    trainings_at, comparisons = _trainings(study)
    own = min(trainings_at.values())
    known = [(task.known_as, size) for task in study.evaluation.tasks if (size := _size(task)) is not None and size > 1]
    if not comparisons:
        return
    if own == 1:
        yield (
            f"power      one training of {', '.join(m for m, n in trainings_at.items() if n == 1)} at the rate of "
            "comparison: a difference between two methods is not told from one between two trainings; replicas or "
            "factorial add trainings"
        )
    if not known:
        return
    yield (
        "power      smallest difference of two methods' accuracies told with 80 % power, in points, "
        f"p < {LEVEL:g} over {comparisons} comparison{'s' if comparisons > 1 else ''}"
    )
    varies = [f"SD {100 * spread:g}" for spread in SPREADS]
    yield _row(("trainings of each", "task", *varies))
    for trainings in sorted({own, *MORE} - {1}):
        for name, size in known:
            interaction, residual = (APART - AGAIN) / 2, AGAIN / 2
            told = [
                detectable(trainings, spread**2, interaction, residual, size, alpha=LEVEL / comparisons)
                for spread in SPREADS
            ]
            number = f"{trainings} (this study)" if trainings == own else str(trainings)
            yield _row((number, f"{name} ({size})", *(f"{100 * d:.1f}" if d < 1 else "-" for d in told)))
    yield (
        "(SD: assumed between trainings of one method, in points; two methods assumed to differ on "
        f"{APART:.0%} of the problems, two trainings of one on {AGAIN:.0%}; a report has both from what was trained)"
    )


def _size(task: EvaluatedTask) -> int | None:
    """The number of a task's problems, where it is known before they are loaded."""
    known = KNOWN_PROBLEMS.get((task.task, task.split)) if task.source == TASKS[task.task].hub else None
    return min(task.draw, known or task.draw) if task.draw else known


def _trainings(study: Study) -> tuple[dict[str, int], int]:
    """The number of trainings of each method at the reference's own rate, and the number of matched comparisons.

    A method is compared with the reference at every rate that both are trained at, from the same initial factor.
    """
    reference = study.reference
    runs = [run for run in training_runs(study) if run.init_seed == study.seeds.init and not run.varied]
    each = Counter((run.method, run.learning_rate) for run in runs)
    compared = [name for name, rate in each if name != reference and (reference, rate) in each]
    usual = study.learning_rate(reference)
    return {m: each[m, usual] for m in study.methods if (m, usual) in each}, len(compared)


def _row(cells: tuple[str, ...]) -> str:
    widths = (19, 24, *(8 for _ in cells[2:]))
    return "           " + "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
