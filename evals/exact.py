"""Exact numbers out of the ways people and models write them. Text is parsed, never evaluated.

``number`` reads "1,234.50", "$1 234", "-7/14", "\\frac{3}{4}", "2 1/2", "50%", "1.8 billion", "3.2e5",
"18 eggs per day.", and their LaTeX dress, as a Fraction. Everything else is None, and is the algebra's business.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 1000  # characters: longer digit strings are no answer, and would cost time to multiply
LARGEST_EXPONENT = 400

DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"  # with or without commas between thousands
DECIMAL = rf"(?:{DIGITS}(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(rf"[+-]?{DECIMAL}(?:[eE][+-]?\d+(?![\w]))?")
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_WRAPPERS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|mbox|boxed|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,;:! ]|~|\\q?quad\b|[\u00a0\u2009\u202f]")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")
_THOUSANDS = re.compile(r"(?<=\d)[ _](?=\d{3}(?!\d))|\{,\}")
_CURRENCY = re.compile(r"\\?[$€£¥]|\b(?:USD|EUR|GBP)\b")
_VALUE = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<whole>\d+)\s+)?(?P<top>{DECIMAL})(?:\s*/\s*(?P<bottom>{DECIMAL}))?"
    r"(?:[eE](?P<exponent>[+-]?\d{1,4}))?"
    r"(?P<percent>\s*(?:%|percent\b))?(?P<unit>.*)",
    re.DOTALL,
)
_UNIT_TOKEN = re.compile(r"[^\W\d_]+|\S")
_UNIT_POWER = re.compile(r"(?:\^?\{?[23]\}?|[²³])$")
SHORT_UNITS = frozenset(
    (
        "m",
        "s",
        "h",
        "g",
        "l",
        "L",
        "km",
        "cm",
        "mm",
        "kg",
        "mg",
        "ml",
        "mL",
        "ft",
        "in",
        "lb",
        "lbs",
        "oz",
        "mi",
        "mph",
        "hr",
        "hrs",
        "min",
        "mins",
        "sec",
        "yd",
        "am",
        "pm",
    )
)
NOT_UNITS = frozenset(
    (
        "pi",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "log",
        "ln",
        "exp",
        "mod",
        "plus",
        "minus",
        "times",
        "over",
        "divided",
        "and",
        "or",
        "to",
        "of",
        "infinity",
    )
)


def plain(text: str) -> str:
    """``text`` without LaTeX dress, markdown stars and trailing dots: "\\text{18 eggs}." is "18 eggs"."""
    text = text.replace("−", "-").replace("–", "-").replace("\\%", "%").replace("**", "")
    text = text.replace("\\left", "").replace("\\right", "").replace("^{\\circ}", "").replace("^\\circ", "")
    text = _SPACES.sub(" ", text)
    text = _WRAPPERS.sub(r" \1 ", text)
    for mark in ("\\(", "\\)", "\\[", "\\]"):
        text = text.replace(mark, " ")
    text = text.strip()
    while text.startswith("$") and text.endswith("$") and len(text) > 1:
        text = text[1:-1].strip()
    return text.rstrip(" \t\r\n.:;,*`\"'").lstrip(" \t\r\n:;,*`\"'")


def number(text: str) -> Fraction | None:
    """The one number that ``text`` states, units, currency and percent signs left out ("50%" is 50), or None.

    A text with an operator, a second number or a name beside the number ("x=5", "10+y", "2^10") is no number, nor is
    one of more than 1 000 characters. Division by zero is None.
    """
    if len(text) > LONGEST:
        return None
    text = _CURRENCY.sub(" ", plain(text))
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]} ", text)
    text = _THOUSANDS.sub("", text).strip(" {}").rstrip(".")
    text = re.sub(r"^([+-])\s+", r"\1", text)
    found = _VALUE.fullmatch(text)
    if found is None or not _is_unit(found["unit"]):
        return None
    if found["whole"] and not found["bottom"]:
        return None  # "3 4" is two numbers; "3 1/4" is one
    return _value(found)


def _is_unit(text: str) -> bool:
    """Whether what follows a number only names what is counted: " eggs per day", "cm^2", but not "x" or " + 3"."""
    tokens = _UNIT_TOKEN.findall(_UNIT_POWER.sub("", text))
    if not tokens:
        return not text.strip()
    if text[0].isalpha() and tokens[0] not in SHORT_UNITS:
        return False  # "5x" is a term
    if not (tokens[0].isalpha() or tokens[0] in "°/"):
        return False
    words = [token for token in tokens if token.isalpha()]
    return all(token.isalpha() or token in "°/.'’-" for token in tokens) and all(
        word in SHORT_UNITS or (len(word) > 1 and word.lower() not in NOT_UNITS) for word in words
    )


def _value(found: re.Match[str]) -> Fraction | None:
    exponent = int(found["exponent"] or 0)
    bottom = Fraction((found["bottom"] or "1").replace(",", ""))
    if abs(exponent) > LARGEST_EXPONENT or bottom == 0:
        return None
    value = int(found["whole"] or 0) + Fraction(found["top"].replace(",", "")) / bottom
    value *= Fraction(10) ** exponent
    for word in found["unit"].lower().split()[:1]:
        value *= SCALES.get(word.strip("."), 1)
    return -value if found["sign"] == "-" else value


def is_percent(text: str) -> bool:
    """Whether the number in ``text`` is written as a percentage."""
    return bool(re.search(r"\d\s*(\\?%|percent\b)", text[:LONGEST]))
