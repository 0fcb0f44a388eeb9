"""DeepScaleR: about 40 000 competition problems with short answers.

Rows are ``{"problem", "answer", "solution"}``; the solution may be empty or missing. Answers are numbers, formulas,
tuples, sets, intervals, units, letters or words; a few cannot be checked: ``unreadable`` "leave_out" loads them marked,
and they are not asked.
"""

from __future__ import annotations

from evals.tasks.problem import Problem, Task
from evals.tasks.rows import REFUSE, drawn, gold_field, read, readable, text_field, worked

HUB = "agentica-org/DeepScaleR-Preview-Dataset"


def load(
    source: str | None = None,
    *,
    split: str = "train",
    draw: int | None = None,
    seed: int = 0,
    unreadable: str = REFUSE,
) -> list[Problem]:
    """The problems of a JSONL file, of a folder with ``train.jsonl``, or of the hub; rows are numbered.

    The dataset has one split, "train". ValueError for another split, or naming file and line of a bad row.
    """
    if split != "train":
        raise ValueError(f"the deepscaler task has no split {split!r}; it is one split, 'train'")
    source = HUB if source is None else source
    problems, places = [], {}
    for index, (where, row) in enumerate(read(source, split=split)):
        question, gold = text_field(row, "problem", where), gold_field(row, "answer", where, unreadable)
        problems.append(Problem(f"deepscaler-{index}", question, gold, solution=worked(row, gold)))
        places[problems[-1].id] = where
    return readable(drawn(problems, draw, seed, source), places, unreadable)


TASK = Task(
    name="deepscaler",
    title="DeepScaleR",
    load=load,
    instruction="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
    hub=HUB,
    splits=("train",),
)
