"""What a user can cause, in one line: what is wrong, where, how to mend it. And the exit codes.

``UserError`` is bad input before anything was started: exit code 2. What breaks inside a step is the step's result.
"""

from __future__ import annotations

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130  # exit codes


class UserError(ValueError):
    """Bad input, in one line that names the mend."""
