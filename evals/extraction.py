"""The final answer out of a completion, as text: the mark that models were asked for first, the last number last.

In order: the last closed ``\\boxed{}``; what follows the last ``####``; the last line or sentence that says it is the
answer ("A: 26", "**Answer:** 26", "the final answer is 26"); the last number. All in one pass over the text.
"""

from __future__ import annotations

import re

from evals.exact import NUMBER, number, plain

ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's calculator: "16 - 3 = <<16-3=13>>13"
BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\.|[{}]", re.DOTALL)
ANSWER_LINE = re.compile(
    r"^[ \t>*#_-]{0,8}(?:final[ \t]+)?(?:answer|a|ans)[ \t*_]{0,4}[:：][ \t*_]*(?P<answer>[^\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
ANSWER_SENTENCE = re.compile(
    r"\banswer\b[ \t*_]{0,4}(?:to the (?:question|problem)[ \t]+)?(?:is|=|was)[ \t]*[:：]?[ \t*_]*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?;](?:\s|$)")
LEADING = re.compile(rf"[^\w\s+.-]*\s*({NUMBER.pattern}(?:\s*/\s*\d+)?\s*%?)(?![\w^*+/=(])")


def extract(completion: str) -> str | None:
    """The completion's final answer as it is written there, tidied, or None where no answer is found.

    Args:
        completion: any text; 1 MB or 5 000 nested braces take linear time.
    """
    boxed = _last_boxed(completion)
    if boxed is not None:
        return _tidy(boxed)
    text = ANNOTATION.sub("", completion)
    _, mark, rest = text.rpartition("####")
    if mark:
        return _tidy(rest.strip().split("\n")[0])
    stated = [*ANSWER_LINE.finditer(text), *ANSWER_SENTENCE.finditer(text)]
    if stated:
        return _stated(max(stated, key=lambda found: found.end())["answer"])
    last = max(NUMBER.finditer(text), key=lambda found: found.end(), default=None)
    return None if last is None else _number_at(text, last)


def _last_boxed(text: str) -> str | None:
    """The content of the last outermost ``\\boxed{}`` that is closed."""
    depth, start, opened_at, last, previous = 0, 0, -1, None, None
    for found in BOXED.finditer(text):
        token = found[0]
        if token == "{":
            depth += 1
            if opened_at < 0 and previous is not None and previous.end() == found.start():
                opened_at, start = depth, found.end()
        elif token == "}":
            if depth == opened_at:
                last, opened_at = text[start : found.start()], -1
            depth = max(depth - 1, 0)
        previous = found if token.startswith(("\\boxed", "\\fbox")) else None
    return last


def _stated(answer: str) -> str | None:
    """What an answer line states: the number it opens with if that is all it says, else its first sentence."""
    if number(answer) is None:
        answer = SENTENCE_END.split(answer, maxsplit=1)[0]
    if number(answer) is None:
        answer = answer.rpartition("=")[2] or answer
    if number(answer) is None:
        leading = LEADING.match(answer)
        if leading:
            return _tidy(leading[1])
    return _tidy(answer)


def _number_at(text: str, found: re.Match[str]) -> str | None:
    """The number matched in running text; a minus there is a sign only if no operand stands before it."""
    start = found.start()
    before = text[max(0, start - 1) : start]
    written = found[0]
    if written[0] in "+-" and (before.isalnum() or before in (")", "]")):
        written = written[1:]
    return _tidy(written)


def _tidy(text: str) -> str | None:
    return plain(text) or None
