"""Reads rows of a JSON Lines file or a JSON list, optionally compressed by gzip, bzip2, Zstandard or LZ4.

Reading is strict, since rows decide what is trained on: duplicate keys and numbers that JSON does not have (NaN,
Infinity, 1e999) are refused with their line.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# First bytes of a compressed file -> Arrow's name of the codec; None: not supported.
PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": None, b"PK\x03\x04": None,
}  # fmt: skip
LONGEST = 1 << 28  # bytes of a line
BOM = b"\xef\xbb\xbf"


def json_rows(path: Path, where: Callable[[int], str], called: str = "a JSON object") -> Iterator[tuple[str, Any]]:
    """Yield (``where(line)``, value) pairs. ``ValueError`` names the line of a value that cannot be read.

    ``line`` is the value's first line in the uncompressed text, from 1, including blank ones. ``called`` describes a
    valid row in error messages.
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
        except OSError as error:  # a truncated compressed file
            raise ValueError(f"{path} cannot be unpacked ({' '.join(str(error).split())[:200]})") from None


def strict(text: str) -> Any:
    """The JSON value in ``text``; ``ValueError`` for invalid JSON, duplicate keys and numbers that are not finite."""
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
    """Yield (line number, value); an unreadable value is replaced by its error."""
    number = 0
    while line := stream.readline(LONGEST):
        number += 1
        try:
            if len(line) == LONGEST:
                raise _Refused(f"a line of more than {LONGEST >> 20} MiB: write one row per line")
            if (text := line.decode("utf-8-sig")).strip():
                yield number, strict(text)
        except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
            yield number, error


def _listed(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (first line, entry) of one JSON list; an unreadable entry is replaced by its error."""
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
                raise ValueError("the list has no comma there" if place < len(text) else "the list does not end")
        if text[place + 1 :].strip():
            raise ValueError("there is text after the list of rows")
    except (ValueError, RecursionError) as error:
        yield number, error


def _after(text: str, place: int) -> int:
    """Index of the next character after ``place`` that is not white space."""
    place += 1
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


class _Refused(ValueError):
    """Valid syntax that is refused."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs (``object_pairs_hook``); ``ValueError`` names a duplicate key."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"the key {twice[:80]!r} appears twice in one object: remove one")
    return value


def _constant(text: str) -> Any:
    raise _Refused(f"{text} is not a number in JSON: write null, or remove the row")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"{text[:40]} is larger than a number can be: write it as text")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=once, parse_constant=_constant, parse_float=_finite)
