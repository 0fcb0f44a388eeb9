"""What a user can cause, in one line: what is wrong, where, how to mend it. And the exit codes.

``UserError`` is bad input before anything was started: exit code 2. ``Interrupted`` ends a run that cannot go on for
now and loses nothing: exit code 1, with the words to go on. What breaks inside a step is the step's result.
"""

from __future__ import annotations

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130  # exit codes
LONGEST = 200  # characters of what a library says, in a message of ours


def first_line(error: BaseException, most: int | None = LONGEST) -> str:
    """What another library's error says first, in so many characters of a line; its type where it says nothing."""
    return next(iter(_lines(error)), type(error).__name__)[:most]


def last_line(error: BaseException, most: int | None = LONGEST) -> str:
    """What it says last, as the error of an error that was raised elsewhere has its cause; see ``first_line``."""
    return next(reversed(_lines(error)), type(error).__name__)[:most]


def joined(error: BaseException, most: int | None = LONGEST) -> str:
    """All that it says, its lines joined; see ``first_line``."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).strip().splitlines()]


class UserError(ValueError):
    """Bad input, in one line that names the mend."""


class Interrupted(RuntimeError):
    """The run cannot go on: its cluster is gone, its store was taken over. What is finished stays."""


class ReproducibilityWarning(UserWarning):
    """A step's bytes may differ from those of another run of it: a saved state was lost, an operation has no order."""


class ClusterLost(Interrupted):
    """The cluster, or the driver's own node of it, has died."""
