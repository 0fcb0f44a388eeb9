from __future__ import annotations

import pytest

from execution.errors import first_line, joined, last_line


@pytest.mark.parametrize(
    ("error", "first", "last", "whole"),
    [
        (OSError("\n no such file \nmore "), "no such file", "more", "no such file more"),
        (NotImplementedError(), *["NotImplementedError"] * 3),
        (ValueError(" \n"), *["ValueError"] * 3),
        (ValueError("x" * 999), *["x" * 200] * 3),
    ],
)
def test_a_line_of_what_a_library_says(error: Exception, first: str, last: str, whole: str) -> None:
    assert (first_line(error), last_line(error), joined(error)) == (first, last, whole)


def test_as_long_as_it_is_asked_for() -> None:
    assert first_line(ValueError("x" * 999), most=None) == "x" * 999 and joined(ValueError("x y"), 2) == "x "
