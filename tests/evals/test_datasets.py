"""Datasets by their real columns, splits and configurations, read by ``datasets`` from local stand-ins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.tasks import TASKS, deepscaler, gsm8k, math
from evals.tasks import rows as reading
from evals.tasks.rows import read_hub

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def dataset(folder: Path, configs: dict[str, dict[str, list[Row]]]) -> Path:
    """A dataset's folder: configuration -> split -> rows, with the card that names them."""
    card = ["---", "configs:"]
    for config, splits in configs.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            file = folder / config / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            card += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that hub names are read from."""
    import datasets

    real = datasets.load_dataset, datasets.get_dataset_config_names, datasets.get_dataset_split_names

    def there(name: str) -> str:
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr(datasets, "load_dataset", lambda n, c=None, **how: real[0](there(n), c, **how))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda n, **how: real[1](there(n), **how))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda n, c=None, **how: real[2](there(n), c, **how))
    return tmp_path / "hub"


def test_each_task_reads_its_datasets_own_columns_splits_and_golds(hub: Path) -> None:
    dataset(hub / deepscaler.HUB, {"default": {"train": [
        {"problem": "P", "answer": "-\\frac{2}{3}", "solution": ""}, {"problem": "Q", "answer": "12", "solution": "S"},
    ]}})  # fmt: skip
    grade = [{"question": "How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 1,005"}]
    other = [{"question": "How many? Sub-questions.", "answer": "#### 1"}]
    splits = {"train": grade * 2, "test": grade}
    dataset(hub / gsm8k.HUB, {"main": splits, "socratic": {"train": other, "test": other}})
    columns = {"problem": "P", "solution": "So $\\boxed{(3,4)}$.", "level": 3, "unique_id": "test/algebra/1.json"}
    dataset(
        hub / "HuggingFaceH4/MATH-500", {"default": {"test": [columns | {"answer": "(3,4)", "subject": "Algebra"}]}}
    )
    contest = [{"problem_idx": i, "problem": f"P{i}", "answer": 70 + i} for i in (1, 2)]
    dataset(hub / "MathArena/aime_2026", {"default": {"train": contest}})
    dataset(hub / "someone/aime26", {"default": {"test": [row | {"answer": "071"} for row in contest]}})

    def golds(task: str, *source: str, **how: Any) -> list[str]:
        return [problem.answer for problem in TASKS[task].load(*source, **how)]

    assert golds("deepscaler") == ["-\\frac{2}{3}", "12"]
    assert golds("gsm8k") == ["1005"] and golds("gsm8k", split="train") == ["1005"] * 2
    assert golds("math", "HuggingFaceH4/MATH-500") == ["(3,4)"]
    assert golds("aime") == ["71", "72"] and golds("aime", "someone/aime26") == ["71", "71"]


def test_a_dataset_with_a_configuration_a_subject_is_read_whole(hub: Path) -> None:
    def rows(answer: str) -> list[Row]:
        return [{"problem": "P", "level": "Level 2", "type": "T", "solution": f"It is $\\boxed{{{answer}}}$."}]

    subjects = {name: {"train": rows("0"), "test": rows(name[0])} for name in ("algebra", "geometry", "prealgebra")}
    dataset(hub / "EleutherAI/hendrycks_math", subjects)
    problems = TASKS["math"].load("EleutherAI/hendrycks_math")
    assert [p.answer for p in problems] == ["a", "g", "p"]
    assert [p.id for p in problems] == ["math-test-0", "math-test-1", "math-test-2"]
    assert {p.stratum for p in problems} == {"level 2"}


def test_what_a_dataset_lacks_is_named_with_what_it_has(hub: Path) -> None:
    dataset(hub / math.HUB, {"default": {split: [{"problem": "P", "gold": "1"}] for split in ("train", "test")}})
    dataset(hub / "owner/other", {"default": {"test": [{"question": "P", "answer": "1"}]}})
    dataset(hub / gsm8k.HUB, {"socratic": {"test": [{"question": "Q", "answer": "#### 1"}]}})
    dataset(hub / "owner/none", {"default": {"validation": [{"problem": "P", "answer": 1}]}})
    lines = {
        ("math", None, "dev"): f"{math.HUB}: cannot load split 'dev' from the hub (it has no such split, but train, "
        "test); give a local file or folder instead",
        ("math", None, "train"): f"{math.HUB}[0]: field 'solution' must be a non-empty text, and the row has problem, "
        "gold",
        ("math", "owner/other", "test"): "owner/other[0]: field 'problem' must be a non-empty text, and the row has "
        "question, answer",
        ("gsm8k", None, "test"): f"{gsm8k.HUB}: cannot load split 'test' from the hub (it has no configuration 'main', "
        "but socratic); give a local file or folder instead",
        ("aime", "owner/none", "test"): "owner/none: cannot load split 'train' from the hub (it has no such split, but "
        "validation); give a local file or folder instead",
    }
    for (task, source, split), line in lines.items():
        with pytest.raises(ValueError) as caught:
            TASKS[task].load(source, split=split)
        assert str(caught.value) == line


def test_a_folder_without_the_split_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"problem": "P", "answer": "1"}\n')
    with pytest.raises(ValueError, match=r"test.jsonl: no such file \(there is train.jsonl\); give a JSONL file"):
        TASKS["math"].load(str(tmp_path))


def test_a_dataset_that_is_as_asked_and_fails_all_the_same_says_why(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "one", {"default": {"train": [{"problem": "P"}]}})
    (folder / "default" / "train.jsonl").write_text("no json\n")
    with pytest.raises(ValueError, match=r"one: cannot load split 'train' from the hub \(.*; give a local file"):
        list(read_hub(str(folder), None, ["train"]))
    assert reading.REFUSE == "refuse"
