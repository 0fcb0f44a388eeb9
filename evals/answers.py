"""Grading of mathematics: whether a completion's answer equals the gold answer.

Numbers are compared exactly, as fractions, and equal texts are equal. Everything else ("x+1", "\\sqrt{2}", "(3, 4)")
goes to math-verify in separate processes, which are started at the first such row. See
``docs/measurements/grading.md``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evals.exact import clock, form, formula, is_percent, number, only_number, same_unit, without_unit, words
from evals.extraction import extract
from evals.grader import TaskGrader, Verdict
from evals.pool import Pool

__all__ = ["Grader", "Verdict", "as_text", "canonical", "compare", "equal", "extract", "unreadable"]

LONGEST_FORMULA = 1000  # characters of a normalised answer; a longer one is wrong
LONGEST_TEXT = 10 * LONGEST_FORMULA  # of one with its spaces and LaTeX markup
ROW_SECONDS = 5.0

NAMED = re.compile(r"(?P<name>\\?[A-Za-z][\w{}\\ ]{0,40}(?:\([\w,]{1,9}\))?)\s*(?:=|\\in\b)\s*(?P<value>[^=]+)")
CHOICE = re.compile(r"(?:\(?(?P<letter>[A-H])\)|(?P<bare>[A-H])[.:](?=\s))\s*(?P<value>\S.*)", re.DOTALL)
LETTER = re.compile(r"\(?[A-Z]\)?")
BASED = re.compile(r"(?P<digits>[A-F]*\d[0-9A-F]*)_(?P<base>\d{1,2}|[a-z]{3,})")
CLOCK = re.compile(r"\d+(?::\d+)+")
ELLIPSIS = re.compile(r"\\[lcv]?dots|…|\.\.\.")
GEOMETRY = re.compile(
    r"\\(?:angle|measuredangle|triangle|sim|cong|parallel|perp|(?:overline|widehat|overrightarrow)\s*\{?[A-Z])"
)
BRACKETS = {"(": ")", "[": "]"}
SIGN = re.compile(r"\w|[^\x00-\x7f]|\\[a-zA-Z{]")
BRACE = re.compile(r"\\.|[{}]")
DANGLING = re.compile(r"\d.*(?<![\^_{])[+*/^_=-]\Z", re.DOTALL)  # "x^2+", but not "\mathbb{R}^+"
TEXT = re.compile(r"[\w\s.,:;'’()&/-]*")


def compare(extracted: str, gold: str) -> bool | None:
    """Verdict by exact numbers or text; None if math-verify has to decide.

    A percentage equals both its number and its hundredth: "50%" equals "50" and "0.5".
    """
    if max(len(extracted), len(gold)) > LONGEST_TEXT:
        return extracted == gold
    decided = _exactly(extracted, gold)
    if decided is None:
        bare = _without_names(extracted, gold)
        decided = _exactly(*bare)
        if decided is None:
            decided = _by_told(extracted, gold)
        if decided is None:
            decided = _by_text(*bare)
    return decided


def _exactly(extracted: str, gold: str) -> bool | None:
    """The verdict on two numbers, two times of day or equal texts; None for any other pair."""
    hour, wanted = clock(extracted), clock(gold)
    if hour and wanted:  # as a ratio 2:40 would equal 1:20; 7 am is not 7 pm
        return hour[0] == wanted[0] and (hour[1] == wanted[1] or None in (hour[1], wanted[1]))
    a, b = number(extracted), number(gold)
    if a is None or b is None:
        return form(extracted) == form(gold) or None
    if a == b or is_percent(extracted) == is_percent(gold):
        return a == b and same_unit(extracted, gold)
    return a == b * 100 if is_percent(extracted) else a * 100 == b


def _by_told(extracted: str, gold: str) -> bool | None:
    """If the gold is a number or a time: the verdict on the only number in the answer's sentence; else None."""
    if number(gold) is None and clock(gold) is None:
        return None
    one = only_number(extracted)
    return None if one is None else _exactly(one, gold)


def _without_names(extracted: str, gold: str) -> tuple[str, str]:
    """The pair without choice letters and left-hand sides: "(C) 12" becomes 12, or C if the gold is a letter; "x = 5"
    becomes 5. If both have a name and the names differ, both are unchanged.
    """
    extracted, gold = (without_unit(text) for text in (extracted, gold))
    one, two = CHOICE.fullmatch(extracted), CHOICE.fullmatch(gold)
    if one:
        extracted = (one["letter"] or one["bare"]) if two or LETTER.fullmatch(gold) else one["value"]
    if two:
        gold = (two["letter"] or two["bare"]) if one or LETTER.fullmatch(extracted) else two["value"]
    one, two = (None if _within(text) else NAMED.fullmatch(text) for text in (extracted, gold))
    if one and two and form(one["name"]) != form(two["name"]):
        return extracted, gold
    if (one and not two and "=" in gold) or (two and not one and "=" in extracted):
        return extracted, gold  # two equations, as "y = 2x" and "2x - y = 0": neither is the other's value
    return one["value"] if one else extracted, two["value"] if two else gold


def _by_text(extracted: str, gold: str) -> bool | None:
    """The verdict on two unequal texts that math-verify cannot read or misreads; None if it has to be asked."""
    left, right = form(extracted), form(gold)
    if max(len(left), len(right)) > LONGEST_FORMULA or not left or not right or words(extracted) or words(gold):
        return False
    one, two = BASED.fullmatch(left), BASED.fullmatch(right)
    if two:  # a gold in some base: the base may be omitted, but a value in another base is wrong
        return left == two["digits"]
    if one:
        return one["base"] == "10" and _exactly(one["digits"], right) is True
    if any(pattern.search(text) for pattern in (CLOCK, ELLIPSIS, GEOMETRY) for text in (left, right)):
        return False  # angle ABC is not a product of letters
    if {_brackets(left), _brackets(right)} in ({"{", "("}, {"{", "["}):
        return False  # a set is neither a tuple nor an interval
    if number(gold) is not None and not any(c.isdigit() or c == "\\" for c in left):
        return False  # letters alone are not a number
    return None


def _within(text: str) -> bool:
    """Whether the first equals sign is within braces, as in "\\sum_{k=1}^n k", so that it does not define a name."""
    name = text.partition("=")[0]
    return name.count("{") != name.count("}")


def _brackets(text: str) -> str | None:
    """The opening bracket that encloses a whole list, "{", "(" or "["; None for a bare list."""
    if text.startswith("\\{") and text.endswith("\\}"):
        return "{" if text.count("\\{") == 1 or text.find("\\}") > text.rfind("\\{") else None
    if text[:1] not in BRACKETS or text[-1:] not in BRACKETS.values() or "," not in text:
        return None
    depth = 0
    for at, sign in enumerate(text):
        depth += (sign in "([") - (sign in ")]")
        if depth == 0:
            return ("(" if text[0] == "(" else "[") if at == len(text) - 1 else None
    return None


def _formulas(extracted: str, gold: str) -> tuple[str, str]:
    """(gold, answer) as sent to math-verify."""
    extracted, gold = _without_names(extracted, gold)
    return formula(gold), formula(extracted)


def canonical(extracted: str | None) -> str | None:
    """A normalised answer for majority votes; None if there is no answer.

    An exact number becomes its Fraction ("1/2" for "0.50", "\\frac12" and "x = 1/2"; "50" for "50%"), everything else
    its text without spaces. Formulas that only algebra can prove equal stay different.
    """
    if extracted is None:
        return None
    text, _ = _without_names(extracted[:LONGEST_TEXT], "")
    value = number(text)
    return form(text) or None if value is None else str(value)


def equal(extracted: str, gold: str) -> bool:
    """Whether two answers are equal, by exact numbers first, then by math-verify (up to 5 s, plus its start)."""
    with Grader() as grader:
        return grader.equal(extracted, gold)


def unreadable(golds: Sequence[str]) -> list[int]:
    """Indices of invalid gold answers: empty, too long, or a truncated formula such as "\\frac{"."""
    with Grader() as grader:
        return grader.unreadable(golds)


def as_text(golds: Sequence[str]) -> list[int]:
    """Indices of gold answers that only equal text can match: not a number, words, or parsed by math-verify."""
    with Grader() as grader:
        return grader.as_text(golds)


class Grader(TaskGrader):
    """Grades mathematics: exact numbers and texts in this process, formulas in up to ``workers`` others.

    Use it in a ``with`` statement. A formula that takes more than ``seconds`` of processor time, or that kills its
    process, is wrong. Equal pairs of answer and gold are graded once. The number of workers (by default the cores
    that this process may use, 8 at most) does not change verdicts.
    """

    def __init__(self, seconds: float = ROW_SECONDS, workers: int | None = None) -> None:
        self.pool = Pool(seconds, workers)
        self._known: dict[tuple[str, str], bool] = {}
        self._read: dict[str, bool] = {}

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Verdict]:
        answers = [extract(completion) for completion, _ in rows]
        correct = self._decide([(text or "", gold) for text, (_, gold) in zip(answers, rows, strict=True)])
        return [Verdict(text, text is not None and right) for text, right in zip(answers, correct, strict=True)]

    def canonical(self, extracted: str | None) -> str | None:
        return canonical(extracted)

    def equal(self, extracted: str, gold: str) -> bool:
        """As ``answers.equal``, with this grader's processes."""
        return self._decide([(extracted, gold)])[0]

    def unreadable(self, golds: Sequence[str]) -> list[int]:
        """As ``answers.unreadable``, with this grader's processes."""
        return [index for index in self._unread(golds) if _breaks_off(golds[index])]

    def as_text(self, golds: Sequence[str]) -> list[int]:
        """As ``answers.as_text``, with this grader's processes."""
        return [index for index in self._unread(golds) if not _breaks_off(golds[index])]

    def _unread(self, golds: Sequence[str]) -> list[int]:
        unknown = [index for index, gold in enumerate(golds) if number(gold) is None and not _is_text(gold)]
        formulas = [i for i in unknown if not _breaks_off(golds[i]) and not GEOMETRY.search(golds[i])]
        asked = {index: formula(golds[index]) for index in formulas}
        new = [text for text in dict.fromkeys(asked.values()) if text not in self._read]
        self._read.update(zip(new, self.pool.ask([(text, None) for text in new]), strict=True))
        return [index for index in unknown if index not in asked or not self._read[asked[index]]]

    def close(self) -> None:
        """End the processes, if any. The grader may be used again."""
        self.pool.close()

    def _decide(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """The pairs' verdicts; distinct pairs that need math-verify are sent to it together."""
        decided = [compare(*pair) for pair in pairs]
        keys = {index: _formulas(*pairs[index]) for index, known in enumerate(decided) if known is None}
        asked = [key for key in dict.fromkeys(keys.values()) if key not in self._known]
        self._known.update(zip(asked, self.pool.ask(asked), strict=True))
        return [self._known[keys[i]] if known is None else known for i, known in enumerate(decided)]


def _breaks_off(gold: str) -> bool:
    """Whether a gold is empty, too long, without a meaningful character, or truncated within a formula."""
    text = form(gold)[: LONGEST_FORMULA + 1]
    if not 0 < len(text) <= LONGEST_FORMULA or len(gold) > LONGEST_TEXT or not SIGN.search(text):
        return True
    braces = BRACE.findall(text)
    return braces.count("{") != braces.count("}") or DANGLING.search(text) is not None


def _is_text(gold: str) -> bool:
    """Whether it is graded as text: words, a choice, a date, digits in a base, a time of day."""
    text = form(gold)[: LONGEST_FORMULA + 1]
    if not 0 < len(text) <= LONGEST_FORMULA:
        return False
    named = any(c.isalpha() for c in text) and TEXT.fullmatch(text) is not None
    return named or any(pattern.fullmatch(text) for pattern in (CLOCK, BASED))
