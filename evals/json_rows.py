"""Rows of a JSON file: one a line, or a list of them; packed by gzip, bzip2, Zstandard or LZ4, or not.

Read strictly, since a row decides what is trained on: a key that stands twice and a number that JSON does not have
(NaN, Infinity, 1e999) are refused with their line, never resolved in silence.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# How a packed file begins, and what Arrow calls its codec; None: to be unpacked by hand.
PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": None, b"PK\x03\x04": None,
}  # fmt: skip
LONGEST = 1 << 28  # bytes of a line
BOM = b"\xef\xbb\xbf"


def json_rows(path: Path, where: Callable[[int], str], called: str = "a JSON object") -> Iterator[tuple[str, Any]]:
    """Pairs (``where(line)``, the value that begins there). ``ValueError`` names the place of what is not read.

    Lines count from 1 in the unpacked text, blank ones too. ``called`` is what an error says that a row should be.
    """
    with _opened(path) as stream:
        try:
            head = stream.peek(4096)[:4096]
            if head.removeprefix(BOM).lstrip()[:1] == b"[":
                rows = _listed(stream.read())
            else:
                rows = _lines(stream)
            for number, value in rows:
                if isinstance(value, Exception):
                    said = str(value) if isinstance(value, _Refused) else f"not {called} ({value})"
                    raise ValueError(f"{where(number)}: {said}")
                yield where(number), value
        except OSError as error:  # a packed file that is cut short
            raise ValueError(f"{path} cannot be unpacked ({' '.join(str(error).split())[:200]})") from None


def strict(text: str) -> Any:
    """The JSON value in ``text``; ``ValueError`` for what is none, for a key twice and for numbers without end."""
    return _DECODER.decode(text)


def _opened(path: Path) -> io.BufferedReader:
    with path.open("rb") as stream:
        head = stream.read(8)
    for magic, codec in PACKED.items():
        if head.startswith(magic):
            if codec is None:
                raise ValueError(f"{path} is packed: unpack it first, or pack it with gzip")
            import pyarrow

            return io.BufferedReader(pyarrow.input_stream(str(path), compression=codec), 1 << 16)
    return path.open("rb")


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, Any]]:
    """Line numbers and values; an error in a value's place."""
    number = 0
    while line := stream.readline(LONGEST):
        number += 1
        try:
            if len(line) == LONGEST:
                raise _Refused(f"a line of more than {LONGEST >> 20} MiB: write one row a line")
            if (text := line.decode("utf-8-sig")).strip():
                yield number, strict(text)
        except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
            yield number, error


def _listed(data: bytes) -> Iterator[tuple[int, Any]]:
    """The entries of one JSON list, each with the line that it begins in; an error in an entry's place."""
    number, at = 1, 0
    try:
        text = data.decode("utf-8-sig")
        place = _after(text, text.index("["))
        more = text[place : place + 1] != "]"
        while more:
            number, at = number + text.count("\n", at, place), place
            value, place = _DECODER.raw_decode(text, place)
            yield number, value
            place = _after(text, place - 1)
            more = text[place : place + 1] == ","
            if more:
                place = _after(text, place)
            elif text[place : place + 1] != "]":
                raise ValueError("the list goes on without a comma" if place < len(text) else "the list does not end")
        if text[place + 1 :].strip():
            raise ValueError("more stands behind the list of rows")
    except (ValueError, RecursionError) as error:
        yield number, error


def _after(text: str, place: int) -> int:
    """Where the next character that is no space stands, behind ``place``."""
    place += 1
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


class _Refused(ValueError):
    """JSON that could be read, and is not."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON (``object_pairs_hook``) whose keys each stand once; ``ValueError`` names one that does not."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"the key {twice[:80]!r} stands twice in one object: remove one")
    return found


def _constant(text: str) -> Any:
    raise _Refused(f"{text} is no number in JSON: write null, or remove the row")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"{text[:40]} is larger than a number can be: write it as text")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=once, parse_constant=_constant, parse_float=_finite)
