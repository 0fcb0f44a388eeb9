"""What a user can cause, in one line: what is wrong, where, how to mend it. And the exit codes.

``UserError`` is bad input before anything was started: exit code 2. ``Interrupted`` ends a run that cannot go on for
now and loses nothing: exit code 1, with the words to go on. What breaks inside a step is the step's result.
"""

from __future__ import annotations

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130  # exit codes


def first_line(error: BaseException) -> str:
    """What another library's error says, cut to a line of a message; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:200] if lines else type(error).__name__


class UserError(ValueError):
    """Bad input, in one line that names the mend."""


class Interrupted(RuntimeError):
    """The run cannot go on: its cluster is gone, its store was taken over. What is finished stays."""


class ReproducibilityWarning(UserWarning):
    """A step's bytes may differ from those of another run of it: a saved state was lost, an operation has no order."""


class ClusterLost(Interrupted):
    """The cluster, or the driver's own node of it, has died."""
