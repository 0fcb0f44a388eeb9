"""Exit codes, and errors whose one-line message says what is wrong, where, and how to fix it.

``UserError`` is bad input, found before anything was started: exit code 2. ``Interrupted`` ends a run that cannot
continue for now and loses nothing: exit code 1, with a line on how to resume. An error inside a step is that step's
result.
"""

from __future__ import annotations

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130  # exit codes
LONGEST = 200  # characters of a library's message quoted in one of ours


def first_line(error: BaseException, most: int | None = LONGEST) -> str:
    """The first line of an error's message, cut to ``most`` characters; the error's type if the message is empty."""
    return next(iter(_lines(error)), type(error).__name__)[:most]


def last_line(error: BaseException, most: int | None = LONGEST) -> str:
    """The last line of an error's message, which in an error relayed from a worker is the cause; see ``first_line``."""
    return next(reversed(_lines(error)), type(error).__name__)[:most]


def joined(error: BaseException, most: int | None = LONGEST) -> str:
    """The whole message on one line; see ``first_line``."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).strip().splitlines()]


class UserError(ValueError):
    """Bad input; the message is one line that says how to fix it."""


class Interrupted(RuntimeError):
    """The run cannot continue: its cluster is gone, or another run took over its store. Finished steps are kept."""


class WorkerLost(RuntimeError):
    """A process that computes a part of a step has died: no error of the step, which can be tried again."""


class ReproducibilityWarning(UserWarning):
    """A rerun of the step may give other bytes: a saved state was lost, or an operation is nondeterministic."""


class ClusterLost(Interrupted):
    """The cluster, or the driver's own node, has died."""
