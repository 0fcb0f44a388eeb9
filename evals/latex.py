"""Normalises LaTeX: arguments in braces, one name per command, no layout commands."""

from __future__ import annotations

import re

DEEPEST = 40  # nesting depth of arguments beyond which text is left as it is

_ARITY = {"frac": 2, "binom": 2, "sqrt": 1}
_COMMAND = re.compile(r"\\(frac|binom|sqrt)(?![a-zA-Z])")
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\S", re.DOTALL)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_BRACKET = re.compile(r"\\.|[{}()\[\]]", re.DOTALL)
_SPACE = re.compile(r"\s*")

SYMBOLS = str.maketrans(
    {
        "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "/", "∕": "/", "⁄": "/", "π": "\\pi ",
        "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ",
        "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "√": "\\sqrt ", "±": "\\pm ", "½": " 1/2",
        "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3", "⁴": "^4",
        "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9", "°": "", "º": "",
    }
)  # fmt: skip
_RAISED = re.compile(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_ONE_NAME = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\leq?q?(?:slant)?(?![a-zA-Z])", r"\\le "),
        (r"\\geq?q?(?:slant)?(?![a-zA-Z])", r"\\ge "),
        (r"\\neq?(?![a-zA-Z])", r"\\ne "),
        (r"\\(?:varnothing|O)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(?:i|j)math(?![a-zA-Z])", "i"),
        (r"\\(?:langle|lparen)(?![a-zA-Z])", "("),
        (r"\\(?:rangle|rparen)(?![a-zA-Z])", ")"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\[lr]brack(?![a-zA-Z])", lambda match: "[" if match[0][1] == "l" else "]"),
        (r"\\[lr]?vert(?![a-zA-Z])|\\mid(?![a-zA-Z])", "|"),
        (r"\\to(?![a-zA-Z])", r"\\rightarrow "),
        (r"\\(?:ldots|cdots|dotsc|dotsb)(?![a-zA-Z])|…|\.\.\.", r"\\dots "),
        (r"\\\\\s*\[-?[\d.]+(?:pt|em|ex|mm|cm)\]", r"\\\\"),  # a row's end with a skip
        (r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|sqrt)(?![a-zA-Z])", r"\\\1 "),  # plain text, as some models write it
        (r"\*\*", "^"),
        (r"(?<=\d)\.(?=\s*[/*+^)}\]-])", ""),  # "3./2"
    )
)
# Commands for spacing and fonts only.
_SHAPES = re.compile(
    r"\\(?:[hv]?phantom|[hv]space\*?|label|tag\*?|color)\s*\{[^{}]*\}"
    r"|\\(?:textstyle|scriptstyle|nolimits|limits|mathstrut|strut|newline|hfill|noindent|centering|rm|bf|it|sf)(?![a-zA-Z])"
    r"|\\(?:math|text)(?:rm|bf|it|sf)(?![a-zA-Z])(?!\s*\{)"
)

_LAST_ROWS = re.compile(r"(?:\s*\\\\)*")  # trailing row ends, matched on the reversed text


def bare(text: str) -> str:
    """``text`` without layout commands: phantoms, spacing, fonts, trailing row ends."""
    if "\\" not in text:
        return text
    rows = _LAST_ROWS.match(text[::-1])
    return _SHAPES.sub(" ", text[: len(text) - rows.end()] if rows else text)


def one_name(text: str) -> str:
    """``text`` with one name per symbol and command, and the arguments of fractions and roots in braces."""
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_LOWERED)}}}", text).translate(SYMBOLS)
    for pattern, name in _ONE_NAME:
        text = pattern.sub(name, text)
    return _Braces(text).written() if _COMMAND.search(text) else text


class _Braces:
    """Puts arguments in braces, as TeX takes them: the next group or token, as in "\\frac\\pi2" and "\\sqrt 2".

    A root takes all digits that follow ("\\sqrt 10") and parentheses ("\\sqrt(2)").
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.closing: dict[int, int] = {}
        opened: dict[str, list[int]] = {"}": [], ")": [], "]": []}
        for match in _BRACKET.finditer(text):
            sign = match[0]
            if sign in "{([":
                opened["})]"["{([".index(sign)]].append(match.start())
            elif opened.get(sign):
                self.closing[opened[sign].pop()] = match.start()

    def written(self) -> str:
        return self._span(0, len(self.text), 0)

    def _span(self, start: int, end: int, depth: int) -> str:
        parts, at = [], start
        while depth < DEEPEST and (match := _COMMAND.search(self.text, at, end)):
            parts.append(self.text[at : match.start()])
            command, at = self._command(match, end, depth)
            parts.append(command)
        return "".join(parts) + self.text[at:end]

    def _command(self, match: re.Match[str], end: int, depth: int) -> tuple[str, int]:
        """The command with its arguments in braces, and where it ends."""
        name, at = match[1], match.end()
        written = match[0]
        if name == "sqrt":
            start = self._skip(at)
            close = self.closing.get(start, end)
            if start < end and self.text[start] == "[" and close < end:
                written, at = f"{written}[{self.text[start + 1 : close].strip()}]", close + 1
        for _ in range(_ARITY[name]):
            argument, at = self._argument(at, end, name == "sqrt", depth + 1)
            if argument is None:
                return written + (" " if written.endswith(name) else ""), at
            written += f"{{{argument}}}"
        return written, at

    def _argument(self, at: int, end: int, root: bool, depth: int) -> tuple[str | None, int]:
        start = self._skip(at)
        if start >= end:
            return None, at
        sign = self.text[start]
        close = self.closing.get(start, end)
        if sign == "{" or (root and sign == "("):
            return (None, at) if close >= end else (self._span(start + 1, close, depth).strip(), close + 1)
        match = _COMMAND.match(self.text, start, end)
        if match and depth < DEEPEST:
            return self._command(match, end, depth)
        token = (root and _DIGITS.match(self.text, start, end)) or _TOKEN.match(self.text, start, end)
        return (None, at) if not token or token[0] in "}])" else (token[0], token.end())

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return at if match is None else match.end()
