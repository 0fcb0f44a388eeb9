"""Extracts the final answer from a completion, as text.

Reasoning blocks are skipped (``evals/channels.py``). In order of preference: the last closed non-empty ``\\boxed{}``;
the text after the last ``####``; the last statement of an answer (``evals/statements.py``); a last box that was cut
off; the last number. Each is one pass over the text.
"""

from __future__ import annotations

import re

from evals.channels import spoken
from evals.exact import WRITTEN, number, only_number, tidy
from evals.statements import is_placeholder, stated

ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's calculator: "16 - 3 = <<16-3=13>>13"
BOX = re.compile(r"\\{1,2}(?:boxed|fbox)(?![a-zA-Z])[ \t]*(?P<brace>\{)?|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"\\boxed[ \t]*(-?[\d.][\w.,/+-]*|[A-Z](?![\w'’])|\\[dt]?frac\S+)")  # as in MATH: "\boxed 5"
_SIGN = str.maketrans(dict.fromkeys("−–‐‑﹣－", "-"))


def extract(completion: str) -> str | None:
    """The completion's final answer as written there, without markup, or None if there is none.

    Only the last 200 000 characters are read, in linear time.
    """
    said = spoken(completion)
    boxed, cut_off = _boxes(said)
    if boxed is not None:
        return _tidy(boxed)
    text = ANNOTATION.sub("", said).translate(_SIGN)
    marked = _marked(text)
    if marked is not None:
        return _tidy(marked)
    statement = stated(text)
    if statement is not None:
        return _tidy(statement)
    if cut_off is not None:
        return _tidy(cut_off)
    last = max(WRITTEN.finditer(text), key=lambda match: match.end(), default=None)
    return None if last is None else _number_at(text, last)


def last_boxed(text: str) -> str | None:
    """The content of the last closed ``\\boxed{}``, the outermost of nested ones; None without one."""
    return _boxes(text)[0]


def _boxes(text: str) -> tuple[str | None, str | None]:
    """(content of the last closed non-empty box or None, else the line in a last box that is not closed or None)."""
    depth = 0
    last: tuple[int, int] | None = None
    opened: list[tuple[int, int]] = []  # depth and first character of each open box
    for match in BOX.finditer(text):
        if match["brace"] or match[0] == "{":
            depth += 1
            if match["brace"]:
                opened.append((depth, match.end()))
        elif match[0] == "}":
            if opened and opened[-1][0] == depth:
                start, end = opened.pop()[1], match.start()
                last = last if is_placeholder(text[start : min(end, start + 101)]) else (start, end)
            depth = max(depth - 1, 0)
    if last is not None:
        return text[slice(*last)], None
    if opened:
        return None, text[opened[-1][1] :].split("\n", 1)[0]
    bare = max(BARE_BOX.finditer(text), key=lambda match: match.end(), default=None)
    return (None if bare is None else bare[1]), None


def _marked(text: str) -> str | None:
    """The line after the last "####", or None if that is a heading: neither a number nor the text's last line."""
    _, mark, rest = text.rpartition("####")
    line, _, more = rest.strip().partition("\n")
    if not mark or not line or (more and number(line) is None) or stated(line) is not None:
        return None
    return only_number(line) or line


def _number_at(text: str, match: re.Match[str]) -> str | None:
    """The number matched in running text; a sign before it counts only if no operand precedes."""
    start = match.start()
    before = text[max(0, start - 1) : start]
    written = match[0]
    if written[0] in "+-" and (before.isalnum() or before in (")", "]", "}", "%")):
        written = written[1:]
    return _tidy(written)


def _tidy(text: str) -> str | None:
    return tidy(text) or None
