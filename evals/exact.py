"""Exact numbers out of the ways people and models write them, and one text for all ways to write one answer.

``number`` reads "1,234.50", "$1 234", "-7/14", "\\frac{3}{4}", "2 1/2", "50%", "1.8 billion", "6.5 \\times 10^{3}",
"0.\\overline{3}", "3:4", "18 eggs per day.", and their LaTeX dress, as a Fraction. Everything else is None, and is the
algebra's business. Text is parsed, never evaluated, and every pattern takes linear time.
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

# Control characters, and marks that are not seen: joiners, directions of writing, byte order.
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_MINUS = re.compile(r"[−–‐‑﹣－]")
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits)(?![a-zA-Z])")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-zA-Z])")
_STARS = re.compile(r"(?<![\w)}])\*\*|\*\*(?![\w({\\])")  # bold marks, but not the power of "2**10"
# A row's end, which must not lose its second backslash to the space "\ "; no space at all; spaces.
_SPACES = re.compile(r"(\\\\)|(\\!)|\\[,;:> ]|~|\\q?quad(?![a-zA-Z])|[\u00a0\u2009\u202f]|\\[()\[\]]")
_WRAPPERS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|normal)|[mhf]box|boxed|operatorname|underline|emph)"
    r"\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_THOUSANDS = re.compile(r"(?<=\d)[ _](?=\d{3}(?![\d/]))|\{,\}")
_CURRENCY = re.compile(r"\\?[$€£¥₹]|\b(?:USD|EUR|GBP)\b")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,20})\.(\d{0,20})\\(?:overline|bar)\s*\{(\d{1,20})\}")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[*x])\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,4})\s*\}|(-?\d{1,4}))")
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
        "mph", "hr", "hrs", "min", "mins", "sec", "yd", "am", "pm",
    )
)  # fmt: skip
NOT_UNITS = frozenset(
    (
        "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "mod", "plus", "minus", "times", "over", "divided",
        "and", "or", "to", "of", "infinity", "alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "sigma",
    )
)  # fmt: skip

_SYMBOLS = str.maketrans(
    {
        "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ",
        "∪": "\\cup ", "√": "\\sqrt ", "±": "\\pm ", "⁄": "/", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "²": "^2",
        "³": "^3", "°": "",
    }
)  # fmt: skip
_ONE_NAME = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\leq?q?(?:slant)?(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\geq?q?(?:slant)?(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\\\\\s*\[-?[\d.]+(?:pt|em|ex|mm|cm)\]"), r"\\\\"),  # a row's end with a skip
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),  # plain text, as some models write it
    (re.compile(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|sqrt)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"\*\*"), "^"),
)
_ONE_SYMBOL = re.compile(r"([_^])\{(\w+)\}")
_BRACKETED = re.compile(r"\(([A-Za-z])\)|([A-Z])\)")
_UNIT = re.compile(r"(?<=[\w)}])\s+((?:[A-Za-z]{2,20}[ /]{0,3}){1,4})(?:\^\s*\{?\s*[23]\s*\}?|[²³])?$")
_NO_SPACE = re.compile(r"(?<!\d) | (?!\d)")
_ROUGHLY = re.compile(
    r"^(?:(?:approximately|approx\.|about|roughly|around)\s+|\\approx(?![a-zA-Z])|≈|~)\s*", re.IGNORECASE
)
_NOON = re.compile(r"\b([ap])\.\s?m\b", re.IGNORECASE)
_AND = re.compile(r"\s*,?\s*\b(?:and|or)\b\s*")
_WORDS = re.compile(r"[^\W\d_]+(?:[ \t.,'’-]+[^\W\d_]+)*")


def plain(text: str) -> str:
    """``text`` without LaTeX dress, bold marks, unseen signs and trailing dots: "\\text{18 eggs}." is "18 eggs"."""
    if text.isascii() and text.isalnum():
        return text  # nearly all whole numbers
    text = _MINUS.sub("-", _UNSEEN.sub("", text)).replace("\\%", "%")
    text = _DEGREES.sub("", _SIZES.sub("", _STARS.sub("", text)))
    text = _SPACES.sub(lambda found: found[1] or ("" if found[2] else " "), text)
    for _ in range(4):  # wrappers in wrappers, as \boxed{\textbf{(A)}}; a bound keeps deep nests linear
        shorter = _WRAPPERS.sub(r" \1 ", text)
        if shorter == text:
            break
        text = shorter
    text = _trimmed(text)
    return _trimmed(text.strip("$")) if text.startswith("$") and text.endswith("$") else text


def number(text: str) -> Fraction | None:
    """The one number that ``text`` states, units, currency and percent signs left out ("50%" is 50), or None.

    A text with an operator, a second number or a name beside the number ("x=5", "10+y", "2^10") is no number, nor is
    one of more than 1 000 characters. A ratio of two is their quotient. Division by zero is None.
    """
    found = _read(text)
    return found if found is None or isinstance(found, Fraction) else _value(found)


def is_percent(text: str) -> bool:
    """Whether the number in ``text`` is written as a percentage."""
    found = _read(text)
    return isinstance(found, re.Match) and found["percent"] is not None


def form(text: str) -> str:
    """``text`` as one of all its ways of writing: plain, with spaces between digits alone, one name for one command.

    "\\dfrac{x}{2} " and "\\frac{x}{2}" are one; so are "52_{8}" and "52_8", "(A)" and "A", "East" and "east".
    """
    text = _NOON.sub(r"\1m", plain(text))
    if words(text):
        return "".join(text.split()).casefold()
    text = _ONE_SYMBOL.sub(r"\1\2", _NO_SPACE.sub("", " ".join(_one_name(text).split())))
    found = _BRACKETED.fullmatch(text)
    return text if found is None else found[1] or found[2]


def formula(text: str) -> str:
    """``text`` as the algebra reads it: plain LaTeX on one line, lists with commas, no currency, whole numbers whole.

    Decimals stay: math-verify compares them rounded, and fractions exactly.
    """
    value = None if is_percent(text) or "." in text else number(text)
    if value is not None:
        top, bottom = str(value.numerator), str(value.denominator)
        return top if bottom == "1" else f"\\frac{{{top}}}{{{bottom}}}"
    text = _CURRENCY.sub(" ", _one_name(plain(text))).replace("%", "\\%")
    return " ".join(_AND.sub(", ", text).split())


def without_unit(text: str) -> str:
    """A formula in plain text without the words behind it that name a unit: "120\\pi cm^2" is "120\\pi"."""
    found = _UNIT.search(text)
    if found is None or not any(c in "\\0123456789" for c in text[: found.start()]):
        return text
    named = re.findall(r"[A-Za-z]+", found[1])
    known = all(word in SHORT_UNITS or (len(word) > 3 and word.lower() not in NOT_UNITS) for word in named)
    return text[: found.start()] if known else text


def words(text: str) -> bool:
    """Whether ``text`` consists of words of a language, so that only the same words equal it: "Evelyn", "no"."""
    text = plain(text)
    if len(text) > LONGEST or not _WORDS.fullmatch(text):
        return False
    parts = re.findall(r"[^\W\d_]+", text.casefold())
    return (max(map(len, parts)) > 2 or parts == ["no"]) and not NOT_UNITS.intersection(parts)


def _trimmed(text: str) -> str:
    return text.rstrip(" \t\r\n.:;,*`\"'“”’").lstrip(" \t\r\n:;,*`\"'“”‘")


def _one_name(text: str) -> str:
    text = text.translate(_SYMBOLS)
    for pattern, name in _ONE_NAME:
        text = pattern.sub(name, text)
    return text


def _read(text: str) -> re.Match[str] | Fraction | None:
    """The parts of a number, or the ratio's value, or None where ``text`` states no number."""
    if len(text) > LONGEST:
        return None
    text = _CURRENCY.sub(" ", _ROUGHLY.sub("", plain(text)).translate(_SYMBOLS))
    text = _REPEATING.sub(_repeated, _THOUSANDS.sub("", text))
    text = _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]} ", text)
    text = _POWER_OF_TEN.sub(lambda m: f"e{m[1] or m[2]}", text).strip(" {}").rstrip(".")
    ratio = _RATIO.fullmatch(text)
    if ratio is not None:
        return None if int(ratio[2]) == 0 else Fraction(int(ratio[1]), int(ratio[2]))
    found = _VALUE.fullmatch(re.sub(r"^([+-])\s+", r"\1", text))
    if found is None or not _is_unit(found["unit"]):
        return None
    if found["whole"] and not found["bottom"]:
        return None  # "3 4" is two numbers; "3 1/4" is one
    return found


def _repeated(found: re.Match[str]) -> str:
    """A repeating decimal as a fraction: the period stands over as many nines as it is long."""
    whole, start, period = found[1] or "0", found[2], found[3]
    value = Fraction(int(whole + start), 10 ** len(start))
    return str(value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(start)))


def _is_unit(text: str) -> bool:
    """Whether what follows a number only names what is counted: " eggs per day", "cm^2", but not "x" or " + 3"."""
    tokens = _UNIT_TOKEN.findall(_UNIT_POWER.sub("", text))
    if not tokens:
        return not text.strip()
    if text[0].isalpha() and tokens[0] not in SHORT_UNITS:
        return False  # "5x" is a term
    if not (tokens[0].isalpha() or tokens[0] in "°/"):
        return False
    named = [token for token in tokens if token.isalpha()]
    return all(token.isalpha() or token in "°/.'’-" for token in tokens) and all(
        word in SHORT_UNITS or (len(word) > 1 and word.lower() not in NOT_UNITS) for word in named
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
