"""Foreign text as it is shown: on a terminal, on a page, in a drawing, in a spreadsheet.

Names, identifiers and texts come from files, settings and models. What would not show, or would turn or hide the text
around it (control characters, directional marks, lone surrogates), is put in signs that do show; data files keep the
text as it is.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

_PICTURES = 0x2400  # Unicode's pictures of the control characters begin here
_LAYOUT = "\n\t"
# How a cell begins that a spreadsheet would evaluate, the wide forms of Asian keyboards too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def shown(text: object, layout: str = _LAYOUT) -> str:
    """``text`` with a sign for every character that does not show, those of ``layout`` excepted.

    A control character becomes its picture (ESC is ``\\u241b``), half of a surrogate pair U+FFFD, what else has no
    glyph of its own (directional marks, joiners, private and unassigned code points) its number: ``[U+202E]``.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in layout else _sign(c) for c in text)


def line(text: object) -> str:
    """``text`` as ``shown``, on one line: line breaks and tabs have signs too."""
    return shown(text, layout="")


def cell(text: str) -> str:
    """``text`` as a spreadsheet's cell: what would be evaluated as a formula has a ' before it; a number stays one."""
    return f"'{shown(text)}" if text.startswith(_FORMULA) and not _is_number(text) else shown(text)


def tell(text: object = "", file: TextIO | None = None) -> None:
    """Print one line to the terminal: no foreign text in it begins another one."""
    print(line(text), file=sys.stdout if file is None else file, flush=True)


def _sign(character: str) -> str:
    code, category = ord(character), unicodedata.category(character)
    if category == "Zs":  # spaces of other widths, our own between thousands among them
        return character
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if category == "Cs" else f"[U+{code:04X}]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
