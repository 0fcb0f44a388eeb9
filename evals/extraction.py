"""The final answer out of a completion, as text: the mark that models were asked for first, the last number last.

A thought is no answer: where a "</think>" stands, only what follows the last one counts. There, in order: the last
closed ``\\boxed{}``; what follows the last ``####``; the last line or sentence that says it is the answer ("A: 26",
"**Answer:** 26", "the final answer is 26"); a last box that the end cut off; the last number. Each is one pass over
the text.
"""

from __future__ import annotations

import re

from evals.exact import DECIMAL, DIGITS, NUMBER, number, plain

THOUGHT = "</think>"
ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's calculator: "16 - 3 = <<16-3=13>>13"
BOX = re.compile(r"\\{1,2}(?:boxed|fbox)(?![a-zA-Z])[ \t]*(?P<brace>\{)?|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"\\boxed[ \t]*([\w.,/+-]+)")  # "\boxed 5", as some of MATH's solutions have it
OPENING = r"[ \t*_]{0,8}(?:\$\$|\\\[)?"
HEADING = re.compile(
    rf"^[ \t>*#_-]{{0,8}}final[ \t]+answer[ \t*_]{{0,4}}[:：]?[ \t*_]{{0,4}}\n\s{{0,8}}{OPENING}\s{{0,4}}"
    r"(?P<answer>[^\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
ANSWER_LINE = re.compile(
    r"^[ \t>*#_-]{0,8}(?:final[ \t]+)?(?:answer|a|ans)[ \t*_]{0,4}[:：][ \t*_]*(?P<answer>[^\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
ANSWER_SENTENCE = re.compile(
    r"\banswer\b[ \t*_]{0,4}(?:to the (?:question|problem)[ \t]+)?(?:is|=|was)"
    rf"(?:[ \t]{{0,4}}[:：]\s{{0,8}})?{OPENING}[ \t*_]*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?;](?:\s|$)")
# A number at the start of a sentence, unless it is the start of a formula: "2\\pi", "3 + x", "1.5x".
LEADING = re.compile(
    rf"[^\w\s+.-]*\s*({NUMBER.pattern}(?:\s*[/:]\s*\d+)?\s*\\?%?)"
    r"(?![\w(]|[.,:]\d|\s*[\^*+/=<>]|\s*-\s*[\d\\(]|\s*\\(?!text|mathrm|mbox|[,; )\]%!]))"
)
LAST_NUMBER = re.compile(
    rf"[+-]?\\[dt]?frac\{{{DIGITS}\}}\{{{DIGITS}\}}|[+-]?{DECIMAL}(?:[eE][+-]?\d+(?!\w)|/\d+(?!\w|\.\d))?(?:\\?%)?"
)


def extract(completion: str) -> str | None:
    """The completion's final answer as it is written there, tidied, or None where no answer is found.

    Args:
        completion: any text; 1 MB or 5 000 nested braces take linear time.
    """
    said = completion.rpartition(THOUGHT)[2]
    boxed, cut_off = _boxes(said)
    if boxed is not None:
        return _tidy(boxed)
    text = ANNOTATION.sub("", said)
    marked = _marked(text)
    if marked is not None:
        return _tidy(marked)
    stated = [found for pattern in (HEADING, ANSWER_LINE, ANSWER_SENTENCE) for found in pattern.finditer(text)]
    if stated:
        return _stated(max(stated, key=lambda found: found.end())["answer"])
    if cut_off is not None:
        return _tidy(cut_off)
    last = max(LAST_NUMBER.finditer(text), key=lambda found: found.end(), default=None)
    return None if last is None else _number_at(text, last)


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{}`` that is closed, the outermost of nested ones; None without one."""
    return _boxes(text)[0]


def _boxes(text: str) -> tuple[str | None, str | None]:
    """(content of the last closed box, else the line in a last box that is never closed)."""
    depth, last = 0, None
    opened: list[tuple[int, int]] = []  # depth and first character of each box that is open
    for found in BOX.finditer(text):
        if found["brace"] or found[0] == "{":
            depth += 1
            if found["brace"]:
                opened.append((depth, found.end()))
        elif found[0] == "}":
            if opened and opened[-1][0] == depth:
                last = text[opened.pop()[1] : found.start()]
            depth = max(depth - 1, 0)
    if last is not None:
        return last, None
    if opened:
        return None, text[opened[-1][1] :].split("\n", 1)[0]
    bare = max(BARE_BOX.finditer(text), key=lambda found: found.end(), default=None)
    return (None if bare is None else bare[1]), None


def _marked(text: str) -> str | None:
    """What stands behind the last "####", unless that is a heading: neither a number nor the text's last line."""
    _, mark, rest = text.rpartition("####")
    line, _, more = rest.strip().partition("\n")
    if not mark or (more and number(line) is None) or ANSWER_LINE.match(line):
        return None
    return line


def _stated(answer: str) -> str | None:
    """What an answer line states: the number it opens with if that is all it says, else its first sentence."""
    if number(answer) is not None:
        return _tidy(answer)
    sentence = SENTENCE_END.split(answer, maxsplit=1)[0]
    if number(sentence) is not None:
        return _tidy(sentence)
    end = sentence.rpartition("=")[2]
    if number(end) is not None:
        return _tidy(end)
    leading = LEADING.match(end)
    return _tidy(sentence if leading is None else leading[1])


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
