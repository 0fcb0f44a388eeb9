"""MATH: 12 500 competition problems in seven subjects and five levels (Hendrycks et al. 2021, arXiv 2103.03874).

Rows are ``{"problem", "solution"}``; the gold answer is the row's "answer", else the solution's last ``\\boxed{}``.
If rows have a "level", results are also reported by level.

On the hub the task reads a copy with the paper's splits (7 500 train, 5 000 test) and all subjects in one
configuration; of one with a configuration per subject, such as EleutherAI/hendrycks_math, all are read. The common
subset of 500 test problems (Lightman et
al. 2023, arXiv 2305.20050) is ``source: HuggingFaceH4/MATH-500``.
"""

from __future__ import annotations

from typing import Any

from evals.extraction import last_boxed
from evals.tasks.problem import Problem, Task
from evals.tasks.rows import REFUSE, drawn, gold_field, read, readable, text_field, worked

HUB = "DigitalLearningGmbH/MATH-lighteval"


def load(
    source: str | None = None,
    *,
    split: str = "test",
    draw: int | None = None,
    seed: int = 0,
    unreadable: str = REFUSE,
) -> list[Problem]:
    """Problems of ``split`` from a JSONL file, a folder with ``<split>.jsonl``, or the hub.

    ``draw`` takes a fixed sample of that many. Ids are "math-<split>-<row>". Raises ValueError naming file and line.
    """
    source = HUB if source is None else str(source)
    problems, places = [], {}
    for index, (where, row) in enumerate(read(source, split=split)):
        question, gold = text_field(row, "problem", where), _gold(row, where, unreadable)
        identity = f"math-{split}-{index}"
        problems.append(Problem(identity, question, gold, _level(row), worked(row, gold)))
        places[identity] = where
    return readable(drawn(problems, draw, seed, source), places, unreadable)


def _gold(row: dict[str, Any], where: str, unreadable: str) -> str:
    if row.get("answer") is not None:
        return gold_field(row, "answer", where, unreadable)
    gold = (last_boxed(text_field(row, "solution", where)) or "").strip()
    if not gold:
        raise ValueError(f"{where}: the solution must have its answer in \\boxed{{}}, or the row an 'answer'")
    return gold


def _level(row: dict[str, Any]) -> str | None:
    """ "level 5" for 5, "5" and "Level 5"."""
    level = str(row.get("level") or "").strip()
    return f"level {level.removeprefix('Level').strip()}" if level else None


TASK = Task(
    name="math",
    title="MATH",
    load=load,
    instruction="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
    hub=HUB,
    splits=("train", "test"),
)
