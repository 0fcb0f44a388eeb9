"""What is kept is read as it was written, or thrown away and said."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution import durable
from execution.durable import Lost

VALUE: dict[str, Any] = {"answers": [["é\n\x85", 3, "stop"], ["", 0, "length"]], "loss": 0.1, "of": None, "b": {"a": 1}}


def test_what_was_sealed_is_read_back() -> None:
    assert durable.unseal(durable.seal(VALUE)) == VALUE
    assert list(durable.unseal(durable.seal(VALUE))) == list(VALUE), "in its order"
    assert json.loads(durable.seal(VALUE)) == VALUE | {"sha256": durable._sum(VALUE)}, "as JSON that anyone reads"


def test_no_bit_can_be_changed_unseen() -> None:
    whole = durable.seal(VALUE).encode()
    for at in range(len(whole) * 8):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        try:
            found = durable.unseal(bytes(data))
        except ValueError:
            continue
        assert found == VALUE, "but one kind of space for another"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"), ("{", "it was cut or changed"), ("[" * 100_000, "it was cut or changed"),
        ("[]", "it has no checksum"), ("{}", "it has no checksum"), ('{"a": 1}', "it has no checksum"),
        ('{"a": NaN, "sha256": "0"}', "its checksum does not match"), (b"\xff\xfe", "it was cut or changed"),
    ],
)  # fmt: skip
def test_what_holds_no_seal_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        durable.unseal(text)


def test_nothing_kept_is_nothing_said(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert durable.recall(tmp_path / "shard.json") is None
        assert durable.keep(tmp_path / "shard.json", VALUE) == VALUE == durable.recall(tmp_path / "shard.json")
    assert [p.name for p in tmp_path.iterdir()] == ["shard.json"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "of an older version": lambda path: path.write_text(json.dumps([[["a", 1, "stop"]]])),
    "a folder": lambda path: (path.unlink(), (path / "x").mkdir(parents=True)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_hold_is_named_once_and_gone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "shard.json"
    durable.keep(path, VALUE)
    DAMAGE[damage](path)
    with pytest.warns(Lost, match=r"shard\.json cannot be read \(.+\): it is made again$"):
        assert durable.recall(path) is None
    assert not path.exists()
