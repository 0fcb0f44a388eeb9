"""Tasks: what is loaded, what is refused, and draws that stay fixed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evals.answers import compare, extract
from evals.tasks import TASKS
from evals.tasks.rows import drawn


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def gsm8k_file(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1:,}"} for i in range(2000)]
    return write_rows(tmp_path / "test.jsonl", rows)


def test_gsm8k_reads_the_gold_after_the_mark(gsm8k_file: Path) -> None:
    problems = TASKS["gsm8k"].load(str(gsm8k_file))
    assert len(problems) == 2000
    assert problems[1233].answer == "1234"  # "#### 1,234"
    assert problems[1233].id == "gsm8k-test-1233"
    assert TASKS["gsm8k"].load(str(gsm8k_file.parent), split="test") == problems


def test_a_draw_is_fixed_nested_and_without_replacement(gsm8k_file: Path) -> None:
    load = TASKS["gsm8k"].load
    small, large = (load(str(gsm8k_file), draw=n, seed=3) for n in (20, 50))
    assert small == load(str(gsm8k_file), draw=20, seed=3)
    assert {p.id for p in small} < {p.id for p in large}
    assert len({p.id for p in large}) == 50
    assert small != load(str(gsm8k_file), draw=20, seed=4)
    assert [int(p.id.split("-")[-1]) for p in large] == sorted(int(p.id.split("-")[-1]) for p in large)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q", "answer": "no mark"}, "test.jsonl:2: the answer must end in a line '#### n'"),
        ({"question": "", "answer": "#### 1"}, "test.jsonl:2: field 'question' must be a non-empty text"),
        ({"answer": "#### 1"}, "test.jsonl:2: field 'question' must be a non-empty text"),
        ([1, 2], "test.jsonl:2: expected a JSON object, found list"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, message: str) -> None:
    path = write_rows(tmp_path / "test.jsonl", [{"question": "Q", "answer": "#### 1"}, row])
    with pytest.raises(ValueError, match=re.escape(message)):
        TASKS["gsm8k"].load(str(path))


def test_binary_missing_and_empty_sources_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00\x01\n")
    with pytest.raises(ValueError, match=r"binary.jsonl:1: not a JSON object in UTF-8"):
        TASKS["gsm8k"].load(str(binary))
    with pytest.raises(ValueError, match=r"nowhere.jsonl: no such file; give a JSONL file"):
        TASKS["gsm8k"].load(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(ValueError, match="holds no problem"):
        TASKS["gsm8k"].load(str(write_rows(tmp_path / "empty.jsonl", [])))
    with pytest.raises(ValueError, match="cannot draw 5 of 1 problems"):
        TASKS["gsm8k"].load(str(write_rows(tmp_path / "one.jsonl", [{"question": "Q", "answer": "#### 1"}])), draw=5)


def test_a_hub_name_goes_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def fake(name: str, config: str | None, split: str, revision: str | None) -> list[dict[str, str]]:
        asked.append((name, config, split))
        if split == "absent":
            raise ConnectionError("Couldn't reach the hub")
        return [{"question": "Q", "answer": "work\n#### 7"}]

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert [p.answer for p in TASKS["gsm8k"].load(None, split="train")] == ["7"]
    assert asked == [("openai/gsm8k", "main", "train")]
    with pytest.raises(ValueError, match=r"openai/gsm8k: cannot load split 'absent' .*give a local file or folder"):
        TASKS["gsm8k"].load(None, split="absent")


def test_aime_takes_the_year_of_a_folder(tmp_path: Path) -> None:
    write_rows(tmp_path / "aime2024.jsonl", [{"id": "a", "problem": "P", "answer": "025"}])
    write_rows(tmp_path / "aime2026.jsonl", [{"problem": "P", "answer": 7}])
    load = TASKS["aime"].load
    assert [(p.id, p.answer) for p in load(str(tmp_path), year=2024)] == [("a", "25")]
    assert [(p.id, p.answer) for p in load(str(tmp_path))] == [("aime2026-1", "7")]
    bad = write_rows(tmp_path / "bad.jsonl", [{"problem": "P", "answer": "1000"}])
    with pytest.raises(ValueError, match=r"bad.jsonl:1: the answer must be a whole number from 0 to 999"):
        load(str(bad))
    twice = write_rows(tmp_path / "twice.jsonl", [{"id": "a", "problem": "P", "answer": "1"}] * 2)
    with pytest.raises(ValueError, match="problem id 'a' appears twice"):
        load(str(twice))
    with pytest.raises(ValueError, match="no split 'train'"):
        load(str(tmp_path), split="train")


ONE_STEP = {  # pattern of the two numbers -> how the answer follows from them
    r"has (\d+) .* (\d+) more.*now\?": lambda a, b: a + b,
    r"has (\d+) .*(?:away|loses|sells|donates) (\d+).*left\?": lambda a, b: a - b,
    r"has (\d+) .*There are (\d+) .*in total\?": lambda a, b: a * b,
    r"has (\d+) .*among (\d+) ": lambda a, b: a / b,
}


def test_word_problems_are_distinct_and_their_answers_follow_from_their_text() -> None:
    problems = TASKS["word_problems"].load(None, draw=2000, seed=5)
    assert len({p.problem for p in problems}) == len({p.id for p in problems}) == 2000
    used = set()
    for problem in problems:
        (pattern,) = [p for p in ONE_STEP if re.search(p, problem.problem)]
        a, b = map(int, re.search(pattern, problem.problem).groups())
        assert int(problem.answer) == ONE_STEP[pattern](a, b) > 0, problem.problem
        used.add((pattern, problem.stratum))
    assert len(used) == 4  # each kind came up, in one stratum each


def test_word_problem_splits_never_meet_and_the_seed_decides() -> None:
    load = TASKS["word_problems"].load
    assert len(load(None)) == 200
    assert load(None, draw=50, seed=1) == load(None, draw=50, seed=1) == load(None, draw=80, seed=1)[:50]
    assert load(None, draw=50, seed=1) != load(None, draw=50, seed=2)
    test, train = ({p.problem for p in load(None, split=split, draw=3000)} for split in ("test", "train"))
    assert not test & train
    with pytest.raises(ValueError, match="no split 'dev'"):
        load(None, split="dev")
    with pytest.raises(ValueError, match="remove source"):
        load("x.jsonl")


def test_every_instruction_holds_the_problem_once() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert task.instruction.count("{problem}") == 1
    assert TASKS["gsm8k"].instruction.replace("{problem}", "Q").endswith("within \\boxed{}.")


def test_drawn_refuses_nothing_to_draw_from() -> None:
    with pytest.raises(ValueError, match="here: holds no problem"):
        drawn([], None, 0, "here")


def test_a_gold_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    rows = [{"problem": "P", "answer": answer} for answer in ("3", "\\sqrt{2}", "Evelyn", "\\frac{", "???")]
    path = write_rows(tmp_path / "train.jsonl", rows)
    told = r"train.jsonl:4: the answer '\\\\frac\{' can be read neither as a number nor as a formula \(and 1 more\)"
    with pytest.raises(ValueError, match=told):
        TASKS["deepscaler"].load(str(path))
    assert [p.answer for p in TASKS["deepscaler"].load(str(write_rows(tmp_path / "good.jsonl", rows[:3])))] == [
        "3", "\\sqrt{2}", "Evelyn",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"gsm8k.jsonl:1: the answer '\?\?' can be read neither"):
        TASKS["gsm8k"].load(str(write_rows(tmp_path / "gsm8k.jsonl", [{"question": "Q", "answer": "a\n#### ??"}])))


def test_only_what_is_drawn_is_checked(tmp_path: Path) -> None:
    rows = [{"problem": "P", "answer": answer} for answer in ("3", "9" * 2000)]
    path = str(write_rows(tmp_path / "train.jsonl", rows))
    load, answers = TASKS["deepscaler"].load, set()
    for seed in range(20):
        try:
            answers |= {p.answer for p in load(path, draw=1, seed=seed)}
        except ValueError as error:
            answers.add(str(error).split(":")[1])  # the line
    assert answers == {"3", "2"}


def test_math_takes_the_gold_from_the_solution_or_the_answer(tmp_path: Path) -> None:
    rows = [
        {
            "problem": "P",
            "solution": "It is $\\boxed{1}$, no, $\\boxed{\\frac{1}{2}}$.",
            "level": "Level 5",
            "type": "Algebra",
        },
        {"problem": "P", "solution": "So $\\boxed 2$.", "level": 3},
        {"problem": "P", "solution": "So it is.", "answer": "\\text{Evelyn}"},
        {"problem": "P", "answer": 4},
    ]
    problems = TASKS["math"].load(str(write_rows(tmp_path / "test.jsonl", rows).parent))
    assert [(p.id, p.answer, p.stratum) for p in problems] == [
        ("math-test-0", "\\frac{1}{2}", "level 5"), ("math-test-1", "2", "level 3"),
        ("math-test-2", "\\text{Evelyn}", None), ("math-test-3", "4", None),
    ]  # fmt: skip
    assert [p.solution for p in problems] == [
        rows[0]["solution"], "So $\\boxed 2$.", "So it is.\nThe final answer is \\boxed{\\text{Evelyn}}.", None,
    ]  # fmt: skip
    for row in ({"problem": "P", "solution": "no box"}, {"problem": "P", "solution": "\\boxed{}"}):
        with pytest.raises(ValueError, match=r"bad.jsonl:1: the solution must have its answer in"):
            TASKS["math"].load(str(write_rows(tmp_path / "bad.jsonl", [row])))
    with pytest.raises(ValueError, match=r"empty.jsonl: holds no problem"):
        TASKS["math"].load(str(write_rows(tmp_path / "empty.jsonl", [])))


def test_solutions_end_in_the_form_that_is_asked_for(tmp_path: Path) -> None:
    """What an example shows, the grader must find, and take for the gold."""
    gsm8k = [
        {"question": "Q", "answer": "16 - 3 = <<16-3=13>>13 eggs\nTwice: 2 * 1,000 = <<2*1000=2000>>2,000\n#### 2,000"}
    ]
    aime = [
        {"id": "a", "problem": "P", "answer": "025", "solution": "Add them: 25."},
        {"id": "b", "problem": "P", "answer": 7},
    ]
    deep = [
        {"problem": "P", "answer": "x+1", "solution": "So $\\boxed{x+1}$."},
        {"problem": "P", "answer": "2", "solution": " "},
    ]
    loaded = {
        "gsm8k": TASKS["gsm8k"].load(str(write_rows(tmp_path / "gsm8k.jsonl", gsm8k))),
        "aime": TASKS["aime"].load(str(write_rows(tmp_path / "aime.jsonl", aime))),
        "deepscaler": TASKS["deepscaler"].load(str(write_rows(tmp_path / "deep.jsonl", deep)), split="train"),
        "arithmetic": TASKS["arithmetic"].load(None, draw=50),
        "word_problems": TASKS["word_problems"].load(None, draw=50),
    }
    assert loaded["gsm8k"][0].solution == (
        "16 - 3 = 13 eggs\nTwice: 2 * 1,000 = 2,000\nThe final answer is \\boxed{2000}."
    )
    assert [p.solution for p in loaded["aime"]] == ["Add them: 25.\nThe final answer is \\boxed{25}.", None]
    assert [p.solution for p in loaded["deepscaler"]] == ["So $\\boxed{x+1}$.", None]
    for name, problems in loaded.items():
        shown = [p for p in problems if p.solution is not None]
        assert shown, name
        for problem in shown:
            found = extract(problem.solution or "")
            assert found is not None and compare(found, problem.answer), (name, problem)
            assert name == "arithmetic" or "\\boxed{" in (problem.solution or "")
