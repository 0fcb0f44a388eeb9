"""GSM8K: grade-school word problems with whole-number answers (Cobbe et al. 2021, arXiv 2110.14168).

Rows are ``{"question", "answer"}``; the answer is a worked solution whose last line is "#### n". Its calculator
annotations, "16 - 3 = <<16-3=13>>13", are removed from solutions shown to a model.
"""

from __future__ import annotations

from evals.extraction import ANNOTATION
from evals.tasks.problem import Problem, Task
from evals.tasks.rows import boxed, drawn, read, readable, text_field

HUB = "openai/gsm8k"


def load(source: str | None = None, *, split: str = "test", draw: int | None = None, seed: int = 0) -> list[Problem]:
    """Problems of ``split`` from a JSONL file, a folder with ``<split>.jsonl``, or the hub.

    ``draw`` takes a fixed sample of that many. Ids are "gsm8k-<split>-<row>". Raises ValueError naming file and line.
    """
    source = HUB if source is None else str(source)
    problems, places = [], {}
    for index, (where, row) in enumerate(read(source, split=split, config="main")):
        question = text_field(row, "question", where)
        solution, mark, gold = text_field(row, "answer", where).rpartition("####")
        gold = gold.strip().replace(",", "")
        if not mark or not gold:
            raise ValueError(f"{where}: the answer must end in a line '#### n'")
        shown = f"{ANNOTATION.sub('', solution).strip()}\n{boxed(gold)}".strip()
        problems.append(Problem(f"gsm8k-{split}-{index}", question, gold, solution=shown))
        places[problems[-1].id] = where
    return readable(drawn(problems, draw, seed, source), places)


TASK = Task(
    name="gsm8k",
    title="GSM8K",
    load=load,
    instruction="{problem}\n\nReason step by step, and put your final answer within \\boxed{}.",
    hub=HUB,
    splits=("train", "test"),
)
