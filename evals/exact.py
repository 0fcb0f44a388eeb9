"""Parses numbers exactly from the ways people and models write them, and normalises answers as text.

``number`` reads "1,234.50", "$1 234", "-7/14", "\\frac{3}{4}", "2 1/2", "50%", "1.8 billion", "6.5 \\times 10^{3}",
"0.\\overline{3}", "3:4", "18 eggs per day.", also with LaTeX markup, as a Fraction. Everything else is None and left to
math-verify. Text is parsed, never evaluated, and every pattern takes linear time.
"""

from __future__ import annotations

import re
from fractions import Fraction

from evals.latex import SYMBOLS, bare, one_name

LONGEST = 1000  # characters: longer digit strings are not answers and would cost time to multiply
LARGEST_EXPONENT = 400

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"  # with or without commas between thousands
DECIMAL = rf"(?:{DIGITS}(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(rf"[+-]?{DECIMAL}(?:[eE][+-]?\d+(?![\w]))?")
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# A number within a text: mixed, fraction, power, percentage or time of day, with its scale.
WRITTEN = re.compile(
    rf"[+-]?(?:\d{{1,9}}\s{{0,2}})?\\[dt]?frac\{{{DIGITS}\}}\{{{DIGITS}\}}"
    r"|\d{1,2}:[0-5]\d(?![\d:])(?:\s?[ap](?:m\b|\.\s?m\.))?|\b\d{1,2}\s?[ap](?:m\b|\.\s?m\.)"
    rf"|(?:[+-]\\?\$?)?(?:\d{{1,9}} {{1,2}}(?=\d{{1,9}}/\d))?{DECIMAL}(?:[eE][+-]?\d+(?!\w)|/\d+(?!\w|\.\d))?(?:\\?%)?"
    rf"(?:\s(?:{'|'.join(SCALES)})\b)?",
    re.IGNORECASE,
)

# Control characters and invisible characters: joiners, writing direction, byte order.
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_MINUS = re.compile(r"[−–‐‑﹣－]")
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![a-zA-Z])")
_DEGREES = re.compile(r"\^\s{0,8}\{?\s{0,8}\\circ\s{0,8}\}?|\\degrees?(?![a-zA-Z])")
_STARS = re.compile(r"(?<![\w)}])\*\*|\*\*(?![\w({\\])")  # bold marks, but not the power of "2**10"
# Long white space, reduced to two spaces: two separate numbers, while one can separate thousands.
_ROOM = re.compile(r"\s{3,}")
# A row's end, whose second backslash must not be read as part of the space "\ "; negative space; spaces.
_SPACES = re.compile(r"(\\\\)|(\\!)|\\[,;:> ]|~|\\q?quad(?![a-zA-Z])|[\u00a0\u2009\u202f]|\\[()\[\]]")
_WRAPPERS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|normal)|[mhf]box|boxed|operatorname|underline|emph)"
    r"\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_NO_SPACE_BETWEEN = re.compile(r"(?<=\d)\s*,\s*\\!\s*(?=\d{3}(?!\d))")  # "11,\! 111"
_THOUSANDS = re.compile(r"(?<=\d)[ _](?=\d{3}(?![\d/]))|\{,\}")
_CURRENCY = re.compile(r"\\?[$€£¥₹]|\b(?:USD|EUR|GBP)\b")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar)\s*\{(\d{1,20})\}")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[*x])\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,4})\s*\}|(-?\d{1,4}))")
_STRAY_DOT = re.compile(r"(?<=\d)\.(?=\s*/)")  # "3./2"
_RATIO = re.compile(r"(\d{1,40})\s*:\s*(\d{1,40})")
_VALUE = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>{DECIMAL})(?:\s*/\s*(?P<bottom>{DECIMAL}))?"
    r"(?:[eE](?P<exponent>[+-]?\d{1,4}))?"
    r"(?P<percent>\s*(?:%|percent\b))?(?P<unit>.*)",
    re.DOTALL,
)
_UNIT_TOKEN = re.compile(r"[^\W\d_]+|\S")
_UNIT_POWER = re.compile(r"(?:\^\s*\{?\s*[23]\s*\}?|[²³])$")
SHORT_UNITS = frozenset(
    (
        "m", "s", "h", "g", "l", "L", "km", "cm", "mm", "kg", "mg", "ml", "mL", "ft", "in", "lb", "lbs", "oz", "mi",
        "mph", "hr", "hrs", "min", "mins", "sec", "yd", "am", "pm", "AM", "PM", "dm", "ha", "cc", "dl", "dL", "Hz",
        "yr", "wk", "kW", "kJ", "eV", "sq", "by",
    )
)  # fmt: skip
_ONE_LETTER = frozenset(unit for unit in SHORT_UNITS if len(unit) == 1)
_SHORT_NAMES = {"lbs": "lb", "hr": "h", "hrs": "h", "mins": "min", "sec": "s", "cc": "ml"} | {
    "L": "l", "mL": "ml", "dL": "dl", "AM": "am", "PM": "pm"
}  # fmt: skip
NOT_UNITS = frozenset(
    (
        "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "mod", "plus", "minus", "times", "over", "divided",
        "and", "or", "to", "of", "infinity", "alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "sigma",
    )
)  # fmt: skip

_ONE_SYMBOL = re.compile(r"([_^])\{(\w+)\}|(\\[a-zA-Z]+|[_^])\{(\w|[+*-])\}")
_BRACKETED = re.compile(r"\(([A-Za-z])\)|([A-Z])\)")
_UNIT = re.compile(r"(?<=[\w)}])\s+((?:[A-Za-z]{2,20}(?![A-Za-z])[ /]{0,3}){1,4})(?:\^\s*\{?\s*[23]\s*\}?|[²³])?$")
# Text type after a formula, or a word after its closing dollar, can be a unit of one letter.
_SET_APART = re.compile(
    r"(?:\\(?:text|mathrm|mbox|rm)\s*\{(?P<text>[^{}]*)\}|(?<=\$)\s*(?P<word>[A-Za-z]{1,20}))"
    r"(?:\^\s{0,8}\{?\s{0,8}[23]\s{0,8}\}?|[²³])?[\s.$]*\Z"
)
_LONG_UNIT = re.compile(
    r"(?:(?:kilo|centi|milli|deci)?(?:met(?:er|re)|lit(?:er|re)|gram)|inch(?:es)?|feet|foot|yard|mile|pound|ounce|ton|acre"
    r"|second|minute|hour|day|week|month|year|degree|radian|dollar|cent|unit|square|sq|cubic|cu|per|percent)(?:e?s)?",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"(?<!\d) | (?!\d)")
_ENCLOSED = re.compile(r"\s*<([^<>]{1,60})>[\s.]*")  # "<18>", copied from a prompt's placeholder
_ROUGHLY = re.compile(
    r"^(?:(?:approximately|approx\.|about|roughly|around)\s+|\\approx(?![a-zA-Z])|≈|~)\s*", re.IGNORECASE
)
_NOON = re.compile(r"\b([ap])\.\s?m\b", re.IGNORECASE)
_AND = re.compile(r"\s*,?\s*\b(?:and|or)\b\s*")
_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_ANGLE = r"\s*(-?\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|[°º]|\\degrees?|\s*degrees?)\s*"
_SINE = re.compile(
    r"\\?(?<![a-zA-Z])(sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(\s*\^\s*\{?\s*\d\s*\}?)?\s*"
    rf"(?:(?:\\left)?\({_ANGLE}(?:\\right)?\)|\{{{_ANGLE}\}}|{_ANGLE})"
)
_PRODUCT = re.compile(r"((?<![\w^_.\\}])\d+(?:\.\d+)?|\))\s*(?=\()")  # else read as a mixed number: 2(3) as 5
_LETTERS_GT = re.compile(r"(?<![\\A-Za-z])([gln])([te])(?![A-Za-z])")  # which math-verify reads as relations
_IMAGINARY = re.compile(r"(?<![A-Za-z\\_])i(?![A-Za-z])|(?<=\^\{)i(?=[a-z\\])")
_INDEXED = re.compile(r"\\(?:sum|prod)(?![a-zA-Z])|_\s*\{?\s*i(?![a-zA-Z])")
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z'’]{2,}")
_OPERATOR = re.compile(r"[=≠≤≥≡<>*^_\\|{}\[\]]|(?<=\w)\s*[+/]\s*(?=[\w(])|\s-\s")
_HEDGES = frozenset(
    (
        "no", "not", "none", "never", "cannot", "neither", "than", "least", "most", "between", "except", "if",
        "half", "third", "quarter", "twice", "double", "triple", "times", "more", "less", "fewer", "all",
        "divisible", "multiple", "multiples", "base", "mod", "modulo", "plus", "minus", "form", "factor",
    )
)  # fmt: skip
_WORDS = re.compile(r"[^\W\d_]+(?:[ \t.,'’-]+[^\W\d_]+)*")


def roomless(text: str) -> str:
    """``text`` with at most two spaces in a row, so that patterns with optional spaces take linear time."""
    return _ROOM.sub("  ", text)


def plain(text: str) -> str:
    """``text`` without LaTeX markup, bold marks, invisible characters and trailing dots: "\\text{18 eggs}." becomes
    "18 eggs"."""
    if text.isascii() and text.isalnum():
        return text  # fast path for whole numbers
    text = bare(_MINUS.sub("-", _UNSEEN.sub("", roomless(text)))).replace("\\%", "%")
    text = _NO_SPACE_BETWEEN.sub(",", text)
    text = _DEGREES.sub("°", _SIZES.sub("", _STARS.sub("", text)))
    text = _SPACES.sub(lambda match: match[1] or ("" if match[2] else " "), text)
    for _ in range(4):  # nested wrappers, as \boxed{\textbf{(A)}}; the limit keeps deep nesting linear
        shorter = _WRAPPERS.sub(r" \1 ", text)
        if shorter == text:
            break
        text = shorter
    text = _trimmed(roomless(text))
    return _trimmed(text.strip("$")) if text.startswith("$") and text.endswith("$") else text


def number(text: str) -> Fraction | None:
    """The number that ``text`` consists of, without units, currency and percent signs ("50%" is 50), or None.

    None for a text with an operator, a second number or a name ("x=5", "10+y", "2^10"), for more than 1 000 characters
    and for a division by zero. A ratio is the quotient.
    """
    parts = _read(text)
    return parts if parts is None or isinstance(parts, Fraction) else _value(parts)


def same_unit(extracted: str, gold: str) -> bool:
    """Whether two numbers' units are compatible: not 5s and 5h, nor 3 and the term 3s."""
    one, two = _read(extracted), _read(gold)
    if not isinstance(one, re.Match) or not isinstance(two, re.Match):
        return True
    units = [match["unit"].strip(" .") for match in (one, two)]
    if all(unit in SHORT_UNITS for unit in units):
        return _SHORT_NAMES.get(units[0], units[0]) == _SHORT_NAMES.get(units[1], units[1])
    return bool(units[0]) or two["unit"] not in _ONE_LETTER


def is_percent(text: str) -> bool:
    """Whether the number in ``text`` is written as a percentage."""
    parts = _read(text)
    return isinstance(parts, re.Match) and parts["percent"] is not None


def form(text: str) -> str:
    """Normalised text: plain, with spaces only between digits and one name per LaTeX command.

    "\\dfrac{x}{2} " and "\\frac{x}{2}" are the same; so are "52_{8}" and "52_8", "(A)" and "A", "East" and "east".
    """
    text = _NOON.sub(r"\1m", plain(text))
    if words(text):
        return "".join(text.split()).casefold()
    text = _ONE_SYMBOL.sub(
        lambda m: (m[1] or m[3]) + (m[2] or m[4]), _NO_SPACE.sub("", " ".join(one_name(text).split()))
    )
    letter = _BRACKETED.fullmatch(text)
    return text if letter is None else letter[1] or letter[2]


def formula(text: str) -> str:
    """``text`` prepared for math-verify: plain LaTeX on one line, lists with commas, no currency, exact numbers.

    Products are explicit, "i" is the imaginary unit "(I)" (but "q" as a sum's index), and degrees within trigonometric
    functions become radians. Decimals are kept: math-verify compares them rounded, and fractions exactly.
    """
    value = None if is_percent(text) or "." in text else number(text)
    if value is not None:
        top, bottom = str(value.numerator), str(value.denominator)
        return top if bottom == "1" else f"\\frac{{{top}}}{{{bottom}}}"
    text = _LETTERS_GT.sub(r"\1 \2", _SINE.sub(_in_radians, roomless(text)))
    text = _CURRENCY.sub(" ", one_name(plain(text))).replace("%", "\\%")
    text = " ".join(_AND.sub(", ", " ".join(text.split())).split())
    text = _PRODUCT.sub(r"\1 \\cdot ", text)
    return _IMAGINARY.sub("q" if _INDEXED.search(text) else "(I)", text)


def without_unit(text: str) -> str:
    """A formula without its unit: "120\\pi cm^2" and "120\\pi \\text{ m}" become "120\\pi".

    Letters of a formula are not units ("7+2t", "y + m"): only known units are removed.
    """
    match = _SET_APART.search(text)
    if match is not None and _known_unit(match["text"] or match["word"] or "") and _has_value(text[: match.start()]):
        return plain(text[: match.start()])
    text = plain(text)
    match = _UNIT.search(text)
    known = match is not None and _known_unit(match[1]) and _has_value(text[: match.start()])
    return text[: match.start()] if match is not None and known else text


def tidy(text: str) -> str:
    """``plain`` text without a one-letter unit in text type, which could not be recognised afterwards."""
    enclosed = _ENCLOSED.fullmatch(text)
    if enclosed is not None and number(enclosed[1]) is not None:
        return plain(enclosed[1])
    match = _SET_APART.search(text) if "\\" in text else None
    unit = match and (match["text"] or match["word"] or "").strip(" ~")
    return plain(text[: match.start()] if match and unit in _ONE_LETTER and number(text) is None else text)


def _known_unit(text: str) -> bool:
    parts = re.findall(r"[A-Za-z]+", text)
    return bool(parts) and all(part in SHORT_UNITS or _LONG_UNIT.fullmatch(part) for part in parts)


def _has_value(text: str) -> bool:
    return any(c in "\\0123456789" for c in text) and not text.rstrip(" \\~$,;:").endswith(
        ("=", "+", "-", "*", "/", "^")
    )


def _in_radians(match: re.Match[str]) -> str:
    degrees = match[3] or match[4] or match[5]
    return f"\\{match[1]}{(match[2] or '').strip()}\\left(\\frac{{{degrees}\\pi}}{{180}}\\right) "


def clock(text: str) -> tuple[int, str | None] | None:
    """A time of day as (minutes since twelve, "a" or "p" or None), or None for other text. "15:00" is 3 p.m."""
    match = _CLOCK.fullmatch(plain(text))
    if match is None or not (match[2] or match[3]) or int(match[1]) > 23:
        return None
    hour, half = int(match[1]), match[3] and match[3].lower()
    if hour > 12 or hour == 0:
        half = half or ("a" if hour == 0 else "p")
    return hour % 12 * 60 + int(match[2] or 0), half


def only_number(sentence: str) -> str | None:
    """The only number in a sentence of words, as written: "$18" in "Janet makes $18 every day"; else None.

    None too if words modify or deny the number: "less than 5", "not 5", "all multiples of 5".
    """
    text = plain(sentence[:LONGEST])
    if number(text) is not None or clock(text) is not None:
        return text
    parts = _LETTERS.findall(text)
    numbers = list(WRITTEN.finditer(text))
    hedged = _HEDGES.intersection(part.lower() for part in parts)
    named = not any(part.islower() for part in parts)  # "Monday, June 20"
    if len(parts) < 2 or named or hedged or len(numbers) != 1 or "%" in text[numbers[0].end() :]:
        return None
    match = numbers[0]
    before, after = text[: match.start()].rstrip(" $"), text[match.end() :]
    if before.endswith(tuple("+-*/(")) or after[:1].isalpha() or after.lstrip().startswith(tuple("+-*/(!:")):
        return None
    if _OPERATOR.search(f"{before} {after}") or any(c.isdigit() for c in before + after):
        return None
    currency = text[: match.start()].endswith("$")
    return f"${match[0]}" if currency else match[0]


def words(text: str) -> bool:
    """Whether ``text`` consists of natural-language words, so that only the same words equal it: "Evelyn", "no"."""
    text = plain(text)
    if len(text) > LONGEST or not _WORDS.fullmatch(text):
        return False
    parts = re.findall(r"[^\W\d_]+", text.casefold())
    return (max(map(len, parts)) > 2 or parts == ["no"]) and not NOT_UNITS.intersection(parts)


def _trimmed(text: str) -> str:
    return text.rstrip(" \t\r\n.:;,*`\"'“”’").lstrip(" \t\r\n:;,*`\"'“”‘")


def _read(text: str) -> re.Match[str] | Fraction | None:
    """The parts of a number, or a ratio's value; None if ``text`` is not a number."""
    if len(text) > LONGEST:
        return None
    text = _CURRENCY.sub(" ", _ROUGHLY.sub("", plain(text)).translate(SYMBOLS))
    text = _REPEATING.sub(_repeated, _THOUSANDS.sub("", text))
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)
    text = _POWER_OF_TEN.sub(lambda m: f"e{m[1] or m[2]}", _STRAY_DOT.sub("", text)).strip(" {}").rstrip(".")
    ratio = _RATIO.fullmatch(text)
    if ratio is not None:
        return None if int(ratio[2]) == 0 else Fraction(int(ratio[1]), int(ratio[2]))
    parts = _VALUE.fullmatch(re.sub(r"^([+-])\s+", r"\1", text))
    if parts is None or not _is_unit(parts["unit"]):
        return None
    if parts["whole"] and not parts["bottom"]:
        return None  # "3 4" is two numbers; "3 1/4" is one
    return parts


def _repeated(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction: the period over as many nines as its length."""
    whole, start, period = match[1] or "0", match[2], match[3]
    value = Fraction(int(whole + start), 10 ** len(start))
    return str(value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(start)))


def _is_unit(text: str) -> bool:
    """Whether the text after a number only names a unit: " eggs per day", "cm^2", but not "x" or " + 3"."""
    tokens = _UNIT_TOKEN.findall(_UNIT_POWER.sub("", text))
    if not tokens:
        return not text.strip()
    if text[0].isalpha() and tokens[0] not in SHORT_UNITS:
        return False  # "5x" is a term
    if not (tokens[0].isalpha() or tokens[0] in "°/"):
        return False
    named = [token for token in tokens if token.isalpha()]
    return all(token.isalpha() or token in "°/.'’-" for token in tokens) and all(
        word in SHORT_UNITS or (len(word) > 2 and word.lower() not in NOT_UNITS) for word in named
    )


def _value(match: re.Match[str]) -> Fraction | None:
    exponent = int(match["exponent"] or 0)
    bottom = Fraction((match["bottom"] or "1").replace(",", ""))
    if abs(exponent) > LARGEST_EXPONENT or bottom == 0:
        return None
    value = int(match["whole"] or 0) + Fraction(match["top"].replace(",", "")) / bottom
    value *= Fraction(10) ** exponent
    for word in match["unit"].lower().split()[:1]:
        value *= SCALES.get(word.strip("."), 1)
    return -value if match["sign"] == "-" else value
