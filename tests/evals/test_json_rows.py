"""Rows of JSON: lines and lists, packed or not, read strictly and refused by line."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from evals.json_rows import json_rows, strict


def rows(path: Path) -> list[tuple[str, object]]:
    return list(json_rows(path, lambda line: f"{line}"))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "rows"
    path.write_bytes(data)
    return path


LINES = b'{"a": 1}\n\n{"a": [2.5, null]}\n'
LIST = b'\n[\n {"a": 1},\n\n {"a": [2.5, null]}\n]\n'


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lambda data: b"\xef\xbb\xbf" + data])
def test_lines_and_lists_give_their_rows_with_their_lines(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    expected = [{"a": 1}, {"a": [2.5, None]}]
    assert rows(written(tmp_path, pack(LINES))) == [("1", expected[0]), ("3", expected[1])]
    assert rows(written(tmp_path, pack(LIST))) == [("3", expected[0]), ("5", expected[1])]
    assert rows(written(tmp_path, pack(b" [ ] "))) == rows(written(tmp_path, pack(b""))) == []


def test_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    data = gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    assert [row for _, row in rows(written(tmp_path, data))] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}', "2: the key 'c' appears twice in one object: remove one"),
        (b'[{"a": 1},\n {"a": NaN}]', "2: NaN is not a number in JSON: write null, or remove the row"),
        (b'{"a": 1e999}', "1: 1e999 is larger than a number can be: write it as text"),
        (b'{"a": 1}\n{"a": ', "2: not a JSON object ("),
        (b'{"a": "\xff"}', "1: not a JSON object ("),
        (b'[{"a": 1}\n {"a": 2}]', "1: not a JSON object (the list has no comma there)"),
        (b'[{"a": 1},\n', "2: not a JSON object ("),
        (b'[{"a": 1}', "1: not a JSON object (the list does not end)"),
        (b'[{"a": 1}, ]', "1: not a JSON object ("),
        (b'[{"a": 1}]\n{"a": 2}', "1: not a JSON object (there is text after the list of rows)"),
        (b"[" * 100_000, "1: not a JSON object ("),
    ],
)
def test_what_is_refused_is_named_by_its_line(tmp_path: Path, data: bytes, line: str) -> None:
    with pytest.raises(ValueError) as caught:
        rows(written(tmp_path, data))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_a_packed_file_that_is_cut_or_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be unpacked"):
        rows(written(tmp_path, gzip.compress(LINES * 1000)[:-20]))
    with pytest.raises(ValueError, match="is packed: unpack it first, or pack it with gzip"):
        rows(written(tmp_path, lzma.compress(LINES)))


def test_a_value_is_read_strictly() -> None:
    assert strict('{"a": 1e5}') == {"a": 1e5}
    with pytest.raises(ValueError, match="appears twice"):
        strict('{"a": 1, "a": 1}')
