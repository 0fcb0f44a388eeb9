"""A finished step's file, read in its type of the results. Light: what a file holds is imported where it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from execution.errors import LONGEST, UserError, first_line

T = TypeVar("T")


def read_part(kind: type[T], path: Path) -> T:
    """The ``kind`` that a file of a finished step holds as JSON; see ``fitting``."""
    with fitting(path):
        return TypeAdapter(kind).validate_json(path.read_bytes())


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """While the file at ``path``, ``.../KIND/NAME-KEY/FILE``, is read.

    Where it does not hold what is looked for, ``UserError`` names the step, its file and the field. Checksums of the
    store hold damage off, so such a file was written by another version of the step's code, or by somebody else.
    """
    try:
        yield
    except UserError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _misfit(path, f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    except (ValueError, TypeError, LookupError) as error:
        raise _misfit(path, f"{type(error).__name__}: {first_line(error)}") from None


def _misfit(path: Path, why: str) -> UserError:
    step = "/".join(path.parts[-3:-1])
    return UserError(
        f"{step}: {path.name} is not what this version of the step writes ({why[:LONGEST]}): remove {step} from the "
        "store, and run makes it again"
    )
