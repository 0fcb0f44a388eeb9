"""The errors that a user can cause, each one line: what is wrong, where, how to mend it.

* ``UserError`` - bad input; nothing was started. Exit code 2.
* ``StepFailed`` - one step broke while others went on. Exit code 1.
"""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, in one line that names the mend."""


class StepFailed(RuntimeError):
    """A step that ended in an error; its message is the error's one line."""
