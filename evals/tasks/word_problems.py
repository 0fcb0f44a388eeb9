"""Generated one-step word problems in plain English with whole-number answers, for a small real language model.

"Nora has 14 pencils. She buys 9 more. How many pencils does Nora have now?" A stable hash of the text assigns
problems to splits, so that "train" and "test" never share one. Addition and subtraction are *easy*, multiplication
and division *hard*.
"""

from __future__ import annotations

import random
import zlib

from evals.tasks.problem import Problem, Task

WOMEN = ("Nora", "Lily", "Maria", "Grace", "Hannah", "Olivia", "Zoe", "Amina", "Priya", "Rosa")
MEN = ("Tom", "Ben", "Omar", "Lucas", "Peter", "Daniel", "Hugo", "Ivan", "Kenji", "Oscar")
PEOPLE = (*((name, "She") for name in WOMEN), *((name, "He") for name in MEN))
OBJECTS = (
    "apples", "pencils", "marbles", "books", "stickers", "cookies", "balloons", "shells", "stamps", "cards", "coins",
    "flowers", "oranges", "toys", "buttons", "eggs",
)  # fmt: skip
HOLDERS = ("boxes", "bags", "baskets", "jars", "drawers", "shelves")
GAINS = (
    "buys {n} more",
    "finds {n} more",
    "gets {n} more from a friend",
    "wins {n} more",
    "collects {n} more",
)
LOSSES = ("gives away {n}", "loses {n}", "sells {n}", "trades away {n}", "donates {n}")
SPLITS = {"test": range(5), "train": range(5, 10)}  # tenths of the hash
DEFAULT_DRAW = 200


def _add(rng: random.Random) -> tuple[str, str, int]:
    (name, she), item = rng.choice(PEOPLE), rng.choice(OBJECTS)
    a, b = rng.randint(3, 60), rng.randint(2, 40)
    step = rng.choice(GAINS).format(n=b)
    text = f"{name} has {a} {item}. {she} {step}. How many {item} does {name} have now?"
    return text, f"{name} has {a} + {b} = \\boxed{{{a + b}}} {item} now.", a + b


def _subtract(rng: random.Random) -> tuple[str, str, int]:
    (name, she), item = rng.choice(PEOPLE), rng.choice(OBJECTS)
    b = rng.randint(2, 40)
    a = b + rng.randint(1, 40)
    step = rng.choice(LOSSES).format(n=b)
    text = f"{name} has {a} {item}. {she} {step}. How many {item} does {name} have left?"
    return text, f"{name} has {a} - {b} = \\boxed{{{a - b}}} {item} left.", a - b


def _multiply(rng: random.Random) -> tuple[str, str, int]:
    (name, _), item, holder = rng.choice(PEOPLE), rng.choice(OBJECTS), rng.choice(HOLDERS)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    text = (
        f"{name} has {a} {holder}. There are {b} {item} in each of the {holder}. "
        f"How many {item} does {name} have in total?"
    )
    return text, f"{name} has {a} * {b} = \\boxed{{{a * b}}} {item} in total.", a * b


def _divide(rng: random.Random) -> tuple[str, str, int]:
    (name, she), item, holder = rng.choice(PEOPLE), rng.choice(OBJECTS), rng.choice(HOLDERS)
    a, b = rng.randint(2, 12), rng.randint(2, 12)
    text = (
        f"{name} has {a * b} {item}. {she} shares them equally among {a} {holder}. "
        f"How many {item} are in each of the {holder}?"
    )
    return text, f"There are {a * b} / {a} = \\boxed{{{b}}} {item} in each.", b


KINDS = ((_add, "easy"), (_subtract, "easy"), (_multiply, "hard"), (_divide, "hard"))


PATIENCE = 100  # problems generated per distinct one wanted, at most


def load(source: str | None = None, *, split: str = "test", draw: int | None = None, seed: int = 0) -> list[Problem]:
    """``draw`` distinct problems (default 200) of ``split`` ("test" or "train"), the same for the same ``seed``.

    ValueError for a ``source``, which the task does not read, an unknown split, a draw below 1 or too many.
    """
    if source is not None:
        raise ValueError(f"the word_problems task makes its own problems: remove source: {source}")
    if split not in SPLITS:
        raise ValueError(f"the word_problems task has no split {split!r}; it has {', '.join(SPLITS)}")
    wanted = DEFAULT_DRAW if draw is None else draw
    if wanted < 1:
        raise ValueError(f"cannot draw {draw} word problems; set draw to 1 or more")
    rng = random.Random(f"word_problems {split} {seed}")
    problems: dict[str, Problem] = {}
    for _ in range(PATIENCE * wanted):
        if len(problems) == wanted:
            return list(problems.values())
        make, stratum = rng.choice(KINDS)
        text, solution, answer = make(rng)
        if text not in problems and zlib.crc32(text.encode()) % 10 in SPLITS[split]:
            identity = f"word_problems-{split}-{seed}-{len(problems)}"
            problems[text] = Problem(identity, text, str(answer), stratum, solution)
    raise ValueError(f"word_problems: there are not {wanted} distinct problems; draw fewer")


TASK = Task(
    name="word_problems",
    title="One-step word problems",
    load=load,
    instruction="{problem} Reason step by step, and put your final answer within \\boxed{}.",
)
