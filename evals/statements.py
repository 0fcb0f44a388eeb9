"""Finds statements of an answer in text: "A: 26", "**Answer:** 26", "the final answer is 26".

The last statement counts, and of nested ones the inner: "Final Answer: The final answer is $720$." Negations and
judgements ("this answer is not possible", "the answer is correct") are not statements of an answer.
"""

from __future__ import annotations

import re

from evals.exact import NUMBER, WRITTEN, clock, number, only_number, plain, roomless

MOST = 50  # statements that are read, from the last
LONGEST_LINE = 20_000  # characters of a statement that are read

_EDGE = r"[ \t*_]{0,8}"
_LINE_START = r"^[ \t>*#_-]{0,8}"
# "Answer:", "**Final Answer (in dollars):**", "A: ", or such words as a heading.
_LINE = re.compile(
    rf"{_LINE_START}(?:(?:my|the|your)[ \t]+)?(?:(?:final|correct|short)[ \t]+)?(?P<label>answer|ans|a){_EDGE}"
    rf"(?:\([^()\n]{{1,40}}\){_EDGE})?(?:[:：]|(?<!\ba)(?<!\ba[*_])(?=\n))",
    re.IGNORECASE | re.MULTILINE,
)
_OTHER_LABEL = re.compile(
    rf"{_LINE_START}\(?B\)?{_EDGE}[:：]", re.IGNORECASE | re.MULTILINE
)  # "A: 3 apples\nB: 4 pears"
_SENTENCE = re.compile(
    r"(?<!\bthis )(?<!\bthat )(?<!\bno )(?<!\bany )(?<!\ban )(?<!\byour )(?<!\bhis )(?<!\bher )(?<!\beach )"
    r"(?<!\bif the )(?<!\bwhether the )(?<!\bthis final )"
    r"\banswers?\b(?:[ \t]{0,4}\([^()\n]{1,40}\))?[^\n.:：;!?=\d\\$]{0,60}?"
    r"(?:\b(?:is|are|was|equals|becomes|(?:should|must|would|will|to) be)\b|=)(?!n['’]t)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<answer>(?!\s{0,8}(?:</answer>|\.\.\.))", re.IGNORECASE)
_TAG_END = re.compile(r"</answer>", re.IGNORECASE)
_BEFORE = re.compile(r"[ \t*_:：]*")
_BEFORE_LINE = re.compile(r"[\s*_:：>#]*")
_FILLERS = re.compile(
    r"(?:(?:therefore|thus|hence|then|so|simply|just|indeed|clearly|exactly|precisely|actually|now|still|also|finally|"
    r"of course|equal to|given by|found to be|as follows|written as|the following|the number|the value|option|choice)\b"
    r"[ \t,:：*_]*)+(?=\S|\Z)",
    re.IGNORECASE,
)
_JUDGED = (
    "not|correct|incorrect|right|wrong|true|clear|obvious|reasonable|unreasonable|possible|valid|invalid|consistent"
)
_DENIED = re.compile(
    rf"(?:{_JUDGED}|n['’]t|never|in|on|at|as|to|that|which|what|because|based|found|given|obtained|expected|supposed"
    r"|required|already|above|below|here|there|this|only|always|usually|often|likely|probably|going|being|rounded"
    r"|expressed|written|determined|calculated|derived|verified|confirmed|too)\b(?![ \t]*$)"
    rf"|(?:{_JUDGED}|as follows|above|below|here)[ \t]*$",
    re.IGNORECASE,
)
_ONLY_JUDGED = re.compile(rf"(?:{_JUDGED})[ \t.!*_]*$", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"[\s.…_*?\"'\[\]<>{}$-]*(?:(?:your |the |final |my |correct ){0,3}(?:answer|result|number|value)(?: here)?)?"
    r"[\s.…_*?\"'\[\]<>{}$-]*",
    re.IGNORECASE,
)
_DISPLAY = re.compile(r"\$\$|\\\[|\\begin\{(?:align|aligned|equation|gather|gathered|displaymath|math)\*?\}")
_DISPLAY_END = re.compile(r"\$\$|\\\]|\\end\{(?:align|aligned|equation|gather|gathered|displaymath|math)\*?\}")
_MATHS = re.compile(r"(?<![\\$])\$(?!\$)((?:\\.|[^$\\\n]){1,400})\$|\\\((.{1,400}?)\\\)")
_CURRENCY_SPAN = re.compile(r"\d[\d,.]*\s.*[a-z]{3}", re.IGNORECASE | re.DOTALL)  # "$5 and gets $": no formula
_SENTENCE_END = re.compile(r"(?<!\b[aApP]\.[mM])(?:(?<!\d)[!](?=\s|$)|!(?=\s+[^\s=+*/^×·-]|\s*$)|[.?;](?=\s|$))")
_CONCLUDES = re.compile(
    r"(?:^|(?<=[.!?;]\s))[*_]{0,3}(?:so|therefore|thus|hence|in total|altogether|this means|the total)\b", re.IGNORECASE
)
_BOLD = re.compile(r"(?<![\w)}*])\*\*([^*\n]{1,60})\*\*(?![\w({\\])")
_BOLD_GOES_ON = re.compile(r"[^*\n]{1,60}\*\*(?![\w({\\*])")  # whose opening mark is before the answer
_MATHY = re.compile(r"[\d\\=^√π∞∅<>]|^\W*[A-Za-z]\W*$|[A-Za-z]\s*[+*/-]\s*[A-Za-z]\b")
# A number at the start of a sentence, unless it starts a formula, a list or a decimal: "2\\pi", "3 + x", "1.5x".
_LEADING = re.compile(
    rf"[^\w\s+.()\[\]{{}}\\√∛∜±∓≤≥<>≠|-]*\s*((?:\d+ (?=\d+/\d))?{NUMBER.pattern}(?:\s*[/:]\s*\d+)?\s*\\?%?)"
    r"(?![\w(!]|[.,:∶]\d|\s*[\^*+/=<>·×⋅÷√∛∜±∓∞⁻≤≥≠|]|\s*-\s*[\d\\(]|\$?(?:,\s*|,?\s+(?:and|or)\s+)[\d\\$-]"
    r"|\s*\\text\s*\{[\s,]*(?:and|or)\b|\s*\\(?!text|mathrm|mbox|[,; )\]%!]))"
)
# A reason given after the answer: ", because 5 * 2 = 10", "(check: 5 * 2 = 10)".
_REASON = re.compile(
    r"(?<![\s,;(])[\s,;(]+(?:because|since|as|which|check|given that|so that)\b(?=[^=]{0,400}=)"
    r"|\s\([^()=]*=[^()]*\)[\s.*]*$",
    re.IGNORECASE,
)
_COMMANDS = re.compile(r"\\[a-zA-Z]+|[A-Za-z]{2,}|_\{?\w+\}?")  # and words, and subscripts
_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=\d)")
_VARIABLE = re.compile(r"[A-Za-z]")
_CHOICE = re.compile(r"\W*[A-H]\W*")
_CHOSEN = re.compile(r"[*_ ]*\(?[A-H][.:)]\s")
_WORD = re.compile(r"[A-Za-z]{2,}")


def is_placeholder(text: str) -> bool:
    """Whether ``text`` is a placeholder: "", "...", "[answer]", "your final answer"."""
    return len(text) <= 100 and _PLACEHOLDER.fullmatch(text) is not None


def stated(text: str) -> str | None:
    """The answer in the last statement in ``text``, as written there; None if there is no statement."""
    marks = [(match.end(), "tag") for match in _TAG.finditer(text)]
    lettered = _OTHER_LABEL.search(text) is not None
    for match in _LINE.finditer(text):
        short = match["label"].lower() == "a"
        if not (short and lettered):
            marks.append((match.end(), "turn" if short else "line"))
    marks += [(match.end(), "sentence") for match in _SENTENCE.finditer(text)]
    weak = None
    for at, kind in sorted(marks, reverse=True)[:MOST]:
        answer = _read(text, at, kind)
        if answer is None:
            continue
        if _MATHY.search(answer):
            return answer
        weak = weak or answer
    return weak


def _read(text: str, at: int, kind: str) -> str | None:
    """The answer after the mark that ends at ``at``, or None."""
    if kind == "tag":
        end = _TAG_END.search(text, at)
        body = text[at : len(text) if end is None else end.start()].strip()[:LONGEST_LINE]
        return line_states(body) if not is_placeholder(body) else None
    begin = _end_of(_BEFORE, text, at)
    begin = _end_of(_FILLERS, text, begin)
    begin = _end_of(_BEFORE, text, begin)
    crossed = begin >= len(text) or text[begin] == "\n"
    if crossed:
        begin = _end_of(_BEFORE_LINE, text, begin)
    display = _DISPLAY.match(text, begin)
    if display:
        return _displayed(text, display.end())
    line, _, rest = text[begin : begin + LONGEST_LINE].partition("\n")
    line = line.strip()
    line = _TAG_END.split(line, maxsplit=1)[0]
    if is_placeholder(line) or (_DENIED if kind == "sentence" else _ONLY_JUDGED).match(line):
        return None
    if crossed and rest.strip() and not _short(line):
        return None  # reasoning begins there
    return line_states(line, turn=kind == "turn", whole=kind != "sentence")


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _short(line: str) -> bool:
    """Whether a line by itself is an answer: a number, one formula, a sentence with one number."""
    bare = line.strip("*_ ")
    return number(bare) is not None or _MATHS.fullmatch(bare.rstrip(".")) is not None or only_number(line) is not None


def _displayed(text: str, at: int) -> str | None:
    end = _DISPLAY_END.search(text, at)
    body = " ".join(text[at : at + LONGEST_LINE if end is None else end.start()].split())
    if "\\begin" not in body:
        body = body.replace("&", "")  # where the lines of an align are aligned
    return _result(body) if body else None


def _result(formula: str) -> str:
    """The number that a formula ends in, as "12" in "x = 12" and "3 \\cdot 4 = 12", but not in "x^2 + y = 12"."""
    left, _, right = formula.rpartition("=")
    names = _TIMES.sub(" ", _COMMANDS.sub(" ", left))
    equation = _VARIABLE.search(names) and re.search(r"[\d+*/^-]", names)
    if not left or equation:
        return formula
    match = _LEADING.match(right.strip())
    return right if number(right) is not None else formula if match is None else match[1]


def line_states(line: str, *, turn: bool = False, whole: bool = True) -> str:
    """The answer within a line: its leading or only number, its only formula, else its first sentence.

    In a ``turn`` ("A: ...") and, if it concludes ("So ..."), in a ``whole`` line, several sentences are reasoning whose
    result is the last number.
    """
    line = roomless(line)
    if _BOLD_GOES_ON.match(line):
        line = f"**{line}"
    if number(line) is not None or clock(line) is not None:
        return line
    sentence, rest = _first_sentence(line)
    if _CHOSEN.match(sentence):
        return sentence
    begins = number(sentence) is None or (turn and len(_WORD.findall(sentence)) > 2)
    concludes = max((match.start() for match in _CONCLUDES.finditer(rest)), default=None)
    if whole and rest and (turn or concludes is not None) and begins:
        end = rest[concludes or 0 :]
        last = list(WRITTEN.finditer(end))
        if last:
            return only_number(end) or last[-1][0]
    if number(sentence) is not None or clock(sentence) is not None:
        return sentence
    bold = [text for text in _BOLD.findall(sentence) if number(text) is not None]
    if len(bold) == 1:
        return bold[0]
    sentence = _without_reason(sentence)
    if number(sentence) is not None:
        return sentence
    formula = _only_formula(sentence)
    if formula is not None:
        return formula
    end = _result(sentence)
    if number(end) is not None:
        return end
    hour = re.match(r"[*_$ ]*(\d{1,2}:[0-5]\d(?:\s?[ap]\.?\s?m\b\.?)?)", end, re.IGNORECASE)
    leading = hour or _LEADING.match(end)
    if leading is not None:
        return leading[1]
    return only_number(sentence) or _last_number(sentence) or sentence


def _without_reason(sentence: str) -> str:
    """A sentence that begins with a number, formula or result, without a reason after it, which has its own numbers."""
    match = _REASON.search(sentence)
    head = sentence[: match.start()] if match else ""
    opens = head.lstrip("*_ ").startswith(("$", "\\(")) or _LEADING.match(head) or number(_result(head)) is not None
    return head if head and opens else sentence


def _first_sentence(line: str) -> tuple[str, str]:
    """(first sentence, rest); a dot within a formula does not end a sentence."""
    formulas = [match.span() for match in _MATHS.finditer(line[:2000])]
    for match in _SENTENCE_END.finditer(line):
        head, rest = line[: match.start()].strip(), line[match.end() :].strip()
        lettered = rest and len(head) < 20 and _CHOICE.fullmatch(head)  # "B. 12"
        if not lettered and not any(start <= match.start() < end for start, end in formulas):
            return head, rest
    return line, ""


def _only_formula(sentence: str) -> str | None:
    """The only formula of a sentence without other numbers, or None."""
    spans = [match for match in _MATHS.finditer(sentence) if not _CURRENCY_SPAN.match(match[1] or "")]
    if len(spans) != 1:
        return None
    (match,) = spans
    rest = sentence[: match.start()] + " " + sentence[match.end() :]
    if re.search(r"[\d\\=<>+^$]", rest):
        return None
    return _result((match[1] or match[2]).strip())


def _last_number(sentence: str) -> str | None:
    """The last number of a sentence of many words with several numbers; None for a formula or a list."""
    text = plain(sentence)
    if len(re.findall(r"(?<![\\\w])[a-z]{2,}", text)) < 4 or re.search(r"[=^\\_{}|<>]", text):
        return None
    numbers = WRITTEN.findall(text)
    return numbers[-1] if len(numbers) > 1 else None
