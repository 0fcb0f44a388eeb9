from __future__ import annotations

import pytest

from execution.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("\n no such file \nmore"), "no such file"),
        (NotImplementedError(), "NotImplementedError"),
        (ValueError(" \n"), "ValueError"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_the_first_line_of_what_a_library_says(error: Exception, line: str) -> None:
    assert first_line(error) == line
