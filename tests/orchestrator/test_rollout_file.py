"""Rollouts from a file: read as they stand, or refused by file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from execution.errors import UserError
from orchestrator.rollouts.row import Row
from orchestrator.rollouts.sources.file import read_rollouts

GOOD = {"problem": "1 + 1?", "answer": "2", "completion": "It is 2."}
Writer = Callable[..., Path]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_rollouts(path, **how)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_row_needs_three_fields_and_has_three_more(tmp_path: Path, write_rows: Writer) -> None:
    full = GOOD | {"answer": 2, "problem_id": "p", "teacher": "t", "reward": 1, "more": [1]}
    assert read_rollouts(write_rows(tmp_path / "a.jsonl", [full])) == [Row("p", "1 + 1?", "2", "It is 2.", "t", 1.0)]
    assert read_rollouts(write_rows(tmp_path / "b.jsonl", [GOOD])) == [
        Row("1 + 1?", "1 + 1?", "2", "It is 2.", "unnamed", None)
    ]


def test_parquet_and_jsonl_hold_the_same_rows(tmp_path: Path, write_rows: Writer) -> None:
    rows = [
        GOOD | {"completion": f"é {i}", "reward": i % 2, "teacher": "t", "problem_id": f"p{i // 2}"} for i in range(6)
    ]
    one = read_rollouts(write_rows(tmp_path / "a.jsonl", rows))
    assert one == read_rollouts(parquet(tmp_path / "a.parquet", rows))
    assert [row.completion for row in one] == [f"é {i}" for i in range(6)]
    assert [row.reward for row in one] == [0.0, 1.0] * 3


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"problem": "a", "answer": "b"}, "completion is missing; a row has problem, answer, completion"),
        ({"answer": "b", "completion": "c"}, "problem is missing; a row has problem, answer, completion"),
        (GOOD | {"problem": 3}, "problem must be text, not int"),
        (GOOD | {"completion": None}, "completion must be text, not NoneType"),
        (GOOD | {"answer": True}, "answer must be text, not bool"),
        (GOOD | {"answer": " "}, "answer is empty"),
        (GOOD | {"problem": ""}, "problem is empty"),
        (GOOD | {"reward": "right"}, "reward must be a number (0 or 1 from a verifier), not 'right'"),
        (GOOD | {"reward": "nan"}, "reward must be a number (0 or 1 from a verifier), not 'nan'"),
        (GOOD | {"reward": "1_0"}, "reward must be a number (0 or 1 from a verifier), not '1_0'"),
        (GOOD | {"reward": ""}, "reward must be a number (0 or 1 from a verifier), not ''"),
        (GOOD | {"reward": [1]}, "reward must be a number (0 or 1 from a verifier), not [1]"),
        (GOOD | {"reward": float("nan")}, "NaN is not a number in JSON: write null, or remove the row"),
        (GOOD | {"reward": float("-inf")}, "-Infinity is not a number in JSON: write null, or remove the row"),
        (GOOD | {"answer": float("nan")}, "NaN is not a number in JSON: write null, or remove the row"),
        (GOOD | {"answer": "NaN"}, "answer is nan, a missing value: give the gold answer, or remove the row"),
        ([1, 2], "a row is an object with problem, answer, completion"),
        ("text", "a row is an object with problem, answer, completion"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, write_rows: Writer, row: object, complaint: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, GOOD, row])
    assert refused(path) == f"{path}, line 3: {complaint}"


def test_empty_lines_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n\n{"problem": "a"}\n')
    assert refused(path).startswith(f"{path}, line 3: ")


@pytest.mark.parametrize("line", [b"{'a': 1}", b'{"problem": "a"', b"\xff\xfe\x00", b"PAR1\x15\x04"])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, write_rows: Writer, line: bytes) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD])
    with path.open("ab") as stream:
        stream.write(line + b"\n")
    assert refused(path).startswith(f"{path}, line 2: not a JSON object (")


def test_a_bad_parquet_row_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [GOOD | {"reward": 1.0}, GOOD | {"reward": float("inf")}])
    assert refused(path) == f"{path}, row 2: reward must be a number (0 or 1 from a verifier), not inf"


def test_rewards_may_be_any_finite_number(tmp_path: Path, write_rows: Writer) -> None:
    given = (-0.2, 2, 0.75, True, False, "1", "0.5", " -2e-1 ", "true", "False")
    path = write_rows(tmp_path / "a.jsonl", [GOOD | {"reward": reward} for reward in given])
    assert [row.reward for row in read_rollouts(path)] == [-0.2, 2.0, 0.75, 1.0, 0.0, 1.0, 0.5, -0.2, 1.0, 0.0]
    huge = write_rows(tmp_path / "b.jsonl", [GOOD | {"reward": 10**400}])
    assert "reward must be a number" in refused(huge)


def test_numbers_of_a_table_are_rewards_and_answers_too(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [GOOD | {"answer": Decimal("2.50"), "reward": Decimal("1.0")}])
    assert [(row.answer, row.reward) for row in read_rollouts(path)] == [("2.50", 1.0)]
    for missing in (float("nan"), float("inf")):
        path = parquet(tmp_path / "b.parquet", [GOOD | {"answer": 2.0}, GOOD | {"answer": missing}])
        assert refused(path).startswith(f"{path}, row 2: answer is nan, a missing value")
    path = parquet(tmp_path / "c.parquet", [GOOD | {"reward": "0.5"}])
    assert read_rollouts(path)[0].reward == 0.5


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD])
    with path.open("a") as stream:
        stream.write('{"problem": "a", "answer": "1", "completion": "x", "reward": 0, "reward": 1}\n')
    assert refused(path) == f"{path}, line 2: the key 'reward' appears twice in one object: remove one"


def test_packed_files_and_lists_hold_the_same_rows(tmp_path: Path, write_rows: Writer) -> None:
    rows = [GOOD | {"completion": f"é {i}"} for i in range(3)]
    plain = write_rows(tmp_path / "a.jsonl", rows)
    expected = read_rollouts(plain)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_rollouts(packed) == expected
    listed = tmp_path / "a.json"
    listed.write_text(json.dumps(rows, indent=1))
    assert read_rollouts(listed) == expected
    packed.write_bytes(gzip.compress(listed.read_bytes()))
    assert read_rollouts(packed) == expected
    listed.write_text(json.dumps([*rows, GOOD | {"reward": "?"}], indent=1))
    assert refused(listed).startswith(f"{listed}, line 17: reward must be a number")
    assert "rollouts.source=hub" in refused(write_rows(tmp_path / "a.csv", rows))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text('{"problem": 1}\n')
    assert refused(path).startswith(f"{path} cannot be read as Parquet (")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_missing_empty_and_folders_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "is not there: name a JSONL or Parquet file of rollouts" in refused(path)
    path.mkdir()
    assert "is not there" in refused(path)
    path.rmdir()
    if name.endswith("jsonl"):
        path.write_text("\n")
        assert refused(path) == f"{path} holds no rollouts"


def test_rewards_are_given_for_all_rows_or_none(tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD | {"reward": 1}, GOOD])
    assert "some rows have a reward and some have none" in refused(path)


def test_a_draw_keeps_whole_problems_in_the_files_order(tmp_path: Path, write_rows: Writer) -> None:
    rows = [GOOD | {"problem_id": f"p{i % 10}", "completion": str(i)} for i in range(30)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    drawn = read_rollouts(path, draw=4, seed=1)
    kept = {row.problem_id for row in drawn}
    assert len(kept) == 4 and len(drawn) == 12
    assert [r.completion for r in drawn] == [str(i) for i in range(30) if f"p{i % 10}" in kept]
    assert read_rollouts(path, draw=4, seed=1) == drawn
    assert len({frozenset(r.problem_id for r in read_rollouts(path, 4, seed)) for seed in range(8)}) > 1
    assert len(read_rollouts(path, draw=10)) == 30
    assert refused(path, draw=11) == f"rollouts.draw: 11 problems asked for, {path} holds 10"


def test_a_draw_takes_a_problem_in_all_its_spellings(tmp_path: Path, write_rows: Writer) -> None:
    asked = [text for i in range(6) for text in (f"What is {i}?", f"what  is {i}?")]
    path = write_rows(tmp_path / "a.jsonl", [GOOD | {"problem": text} for text in asked])
    for seed in range(5):
        drawn = read_rollouts(path, 2, seed)
        assert len(drawn) == 4 and len({row.problem.split()[-1] for row in drawn}) == 2
    assert refused(path, draw=7) == f"rollouts.draw: 7 problems asked for, {path} holds 6"


def test_one_gold_may_be_written_in_two_ways(tmp_path: Path, write_rows: Writer) -> None:
    rows = [GOOD | {"answer": answer} for answer in ("1/2", "0.50", "\\frac{1}{2}")]
    assert [r.answer for r in read_rollouts(write_rows(tmp_path / "a.jsonl", rows))] == [r["answer"] for r in rows]
    path = write_rows(tmp_path / "b.jsonl", [*rows, GOOD | {"answer": "1/3"}])
    assert "problem_id 1 + 1? stands for two problems or answers: make ids distinct" in refused(path)


def test_an_id_of_0_is_an_id_and_half_characters_are_named(tmp_path: Path, write_rows: Writer) -> None:
    twice = [GOOD | {"problem_id": 0}, GOOD | {"problem_id": 0, "problem": "another"}]
    assert "problem_id 0 stands for two problems" in refused(write_rows(tmp_path / "a.jsonl", twice))
    for name in ("problem_id", "teacher"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(GOOD | {name: "x\ud800"}) + "\n")
        assert refused(path) == f"{path}, line 1: {name} holds half of a character (a lone surrogate): remove it"


def test_a_date_that_python_lacks_is_no_traceback(tmp_path: Path) -> None:
    column = pyarrow.array([2**60], pyarrow.timestamp("ms"))
    table = pyarrow.Table.from_pylist([GOOD]).append_column("when", column)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet cannot be read as Parquet (" in refused(tmp_path / "a.parquet")
