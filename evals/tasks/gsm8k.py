"""GSM8K: grade-school word problems with whole-number answers (Cobbe et al. 2021, arXiv 2110.14168).

Rows are ``{"question", "answer"}``; the answer is a worked solution whose last line is "#### n".
"""

from __future__ import annotations

from evals.tasks.problem import Problem, Task
from evals.tasks.rows import drawn, read, text_field

HUB = "openai/gsm8k"


def load(source: str | None = None, *, split: str = "test", draw: int | None = None, seed: int = 0) -> list[Problem]:
    """Problems of ``split`` from a JSONL file, a folder with ``<split>.jsonl``, or the hub.

    ``draw`` takes a fixed sample of that many. Ids are "gsm8k-<split>-<row>". Raises ValueError naming file and line.
    """
    source = HUB if source is None else str(source)
    problems = []
    for index, (where, row) in enumerate(read(source, split=split, config="main")):
        question = text_field(row, "question", where)
        _, mark, gold = text_field(row, "answer", where).rpartition("####")
        gold = gold.strip().replace(",", "")
        if not mark or not gold:
            raise ValueError(f"{where}: the answer must end in a line '#### n'")
        problems.append(Problem(f"gsm8k-{split}-{index}", question, gold))
    return drawn(problems, draw, seed, source)


TASK = Task(
    name="gsm8k",
    title="GSM8K",
    load=load,
    instruction="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
    hub=HUB,
)
