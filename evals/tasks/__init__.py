"""The tasks a study can use: one module each, listed here by name."""

from __future__ import annotations

from evals.tasks import aime, arithmetic, deepscaler, gsm8k, math, word_problems
from evals.tasks.problem import Problem, Task

TASKS: dict[str, Task] = {
    "gsm8k": gsm8k.TASK,
    "aime": aime.TASK,
    "arithmetic": arithmetic.TASK,
    "deepscaler": deepscaler.TASK,
    "math": math.TASK,
    "word_problems": word_problems.TASK,
}

__all__ = ["TASKS", "Problem", "Task"]
