"""Identity: one encoding a value, and refusals of what has none."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.fingerprint import canonical, differences, file_hash, folder_hash, key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_the_canonical_form_is_sorted_and_without_spaces() -> None:
    value = {"b": [1, 2.5, None], "a": {"z": True, "y": "é"}}
    assert canonical(value) == '{"a":{"y":"\\u00e9","z":true},"b":[1,2.5,null]}'


def test_the_key_is_the_start_of_the_sha256_of_the_canonical_form() -> None:
    assert key({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:10]


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert key(dict(reversed(value.items()))) == key(value)


def test_tuples_are_lists() -> None:
    assert canonical((1, (2,))) == canonical([1, [2]]) == "[1,[2]]"


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), (0, None), ("1", 1), ([1, 2], [2, 1]), ({}, []), (5e-6, 5e-7)]
)
def test_different_values_have_different_forms(one: object, other: object) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, {1, 2}, frozenset(), Path("a"), b"bytes", object(), 1j]
)
def test_what_has_no_one_encoding_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"^payload\.a\[1\]"):
        canonical({"a": [0, value]})


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="the key 1 is not a string"):
        canonical({1: "a"})


def test_differences_names_every_field_that_differs() -> None:
    old = {"config": {"learning_rate": 5e-7, "steps": 10, "gone": 1}, "kind": "train"}
    new = {"config": {"learning_rate": 5e-6, "steps": 10, "here": 2}, "kind": "train"}
    assert differences(old, new) == [
        "config.gone: 1 -> (none)",
        "config.here: (none) -> 2",
        "config.learning_rate: 5e-07 -> 5e-06",
    ]
    assert differences(new, new) == []


def test_differences_sees_a_mapping_that_became_a_value() -> None:
    assert differences({"a": {"b": 1}}, {"a": 3}) == ["a: {'b': 1} -> 3"]


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    assert file_hash(tmp_path / "f") == expected


def test_folder_hash_follows_names_and_bytes_of_visible_files(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    first = folder_hash(folder("a", {"x": "1", "sub/y": "2"}))
    assert folder_hash(folder("b", {"sub/y": "2", "x": "1", ".hidden": "3", ".git/z": "4"})) == first
    others = [{"x": "1", "sub/y": "3"}, {"x": "1", "sub/z": "2"}, {"x": "1"}, {"x": "2", "sub/y": "1"}]
    hashes = {folder_hash(folder(f"c{i}", files)) for i, files in enumerate(others)}
    assert len(hashes | {first}) == 5
