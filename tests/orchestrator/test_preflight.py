"""What is known to fail before anything starts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.preflight import DRAWN, check
from orchestrator.study import Study

Maker = Callable[..., Study]
Writer = Callable[..., Path]


def rollout(problem: str, reward: float | None) -> dict[str, Any]:
    given = {} if reward is None else {"reward": reward}
    return {"problem": problem, "answer": "1", "completion": "1", **given}


def refused(study: Study) -> str:
    with pytest.raises(UserError) as caught:
        check(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def from_file(path: Path, rewards: str = "given") -> str:
    return f"rollouts={{source: file, path: {path}, rewards: {rewards}}}"


def test_the_small_study_passes(make_study: Maker) -> None:
    check(make_study())


def test_no_right_rollout_is_an_empty_view_for_rft(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 0), rollout("b", 0)])
    line = refused(make_study(from_file(path), "methods={rft: }", "sweep=null", "replicas=[]", "analysis={}"))
    assert line.startswith("methods.rft: no rollout is right")


@pytest.mark.parametrize("rewards", [[("a", 1), ("a", 1), ("b", 0), ("b", 0)], [("a", 1), ("b", 0)], [("a", 1)]])
def test_no_mixed_problem_is_an_empty_view_for_dpo(
    make_study: Maker, tmp_path: Path, write_rows: Writer, rewards: list[tuple[str, int]]
) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout(p, r) for p, r in rewards])
    line = refused(make_study(from_file(path)))
    assert line.startswith("methods.dpo: no problem has both a right and a wrong rollout")


def test_views_with_rows_pass(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), rollout("a", 0)])
    check(make_study(from_file(path)))


def test_real_rewards_are_refused_for_methods_that_need_0_and_1(
    make_study: Maker, tmp_path: Path, write_rows: Writer
) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), rollout("a", 0), rollout("b", 0.25)])
    line = refused(make_study(from_file(path)))
    assert line == (
        "methods.rft: RFT needs rewards 0 and 1, the rollouts have 0.25; drop rft, or set rollouts.rewards=graded"
    )
    bare = ("replicas=[]", "sweep=null", "analysis={}")
    source = "methods={sft: , bounded: {method: rift, settings: {form: source}}}"
    assert refused(make_study(from_file(path), source, *bare)).startswith("methods.bounded: RIFT needs rewards 0 and 1")
    check(make_study(from_file(path), "methods={sft: , rift: , dft: , offline_grpo: }", *bare))


@pytest.mark.parametrize(("rewards", "reward"), [("graded", 0), ("given", None)])
def test_rewards_that_are_still_to_be_graded_are_not_judged(
    make_study: Maker, tmp_path: Path, write_rows: Writer, rewards: str, reward: int | None
) -> None:
    check(make_study(from_file(write_rows(tmp_path / "r.jsonl", [rollout("a", reward)]), rewards)))


def test_a_bad_row_is_named_before_anything_starts(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), {"problem": "b"}])
    assert refused(make_study(from_file(path))).startswith(f"{path}, line 2: answer is missing")


def test_a_target_that_matches_no_module_of_the_made_base(make_study: Maker) -> None:
    line = refused(make_study("adapter.targets=[q_proj, wq]"))
    assert line.startswith("adapter.targets: wq matches no module of scratch; it has ")
    assert "v_proj" in line
    check(make_study("adapter.targets=[gate_proj, down_proj]"))


def test_a_target_that_matches_no_module_of_a_local_folder(make_study: Maker, tiny_model: Path) -> None:
    local = f"base={{kind: local, name: mine, path: {tiny_model}}}"
    check(make_study(local))
    check(make_study(local, "adapter.targets=[self_attn.q_proj, up_proj]"))
    line = refused(make_study(local, "adapter.targets=[query]"))
    projections = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert line == f"adapter.targets: query matches no module of mine; it has {projections}"
    for no_matrix in ("embed_tokens", "input_layernorm", "roj", "layers"):
        assert "matches no module" in refused(make_study(local, f"adapter.targets=[{no_matrix}]"))


def test_a_local_base_that_is_not_there_is_said_to_be_missing(make_study: Maker, tmp_path: Path) -> None:
    line = refused(make_study(f"base={{kind: local, name: mine, path: {tmp_path / 'gone'}}}"))
    assert line.startswith("base.path: ")


def test_a_local_base_without_safetensors_is_told_so(make_study: Maker, tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(tiny_model / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    line = refused(make_study(f"base={{kind: local, name: mine, path: {folder}}}"))
    assert line.startswith("base.path: ") and "safetensors" in line


@pytest.mark.parametrize(
    "content",
    [b"", b"\x10", b"version https://git-lfs.github.com/spec/v1\n", b"\x05" + b"\x00" * 7 + b"hello", b"\x00" * 64],
    ids=["empty", "a byte", "a pointer", "no header", "zeros"],
)
def test_a_damaged_weight_file_is_named(make_study: Maker, tmp_path: Path, tiny_model: Path, content: bytes) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").write_bytes(content)
    line = refused(make_study(f"base={{kind: local, name: mine, path: {folder}}}"))
    assert line.startswith("base.path: ") and "model.safetensors" in line


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("evaluation.tasks.0.settings={hard: 1}", "hard"),
        ("evaluation.tasks.0.split=dev", "no split 'dev'"),
        ("rollouts.problems.split=dev", "no split 'dev'"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_refused(make_study: Maker, override: str, part: str) -> None:
    if "source" in override:
        from orchestrator.facts import gather

        with pytest.raises(UserError, match="neither a file, a folder nor a hub name"):
            gather(make_study(override), Path("nowhere"), online=False)
    else:
        with pytest.raises(ValueError, match=part):
            check(make_study(override))


def test_a_bad_problem_row_is_named_before_anything_starts(
    make_study: Maker, tmp_path: Path, write_rows: Writer
) -> None:
    path = write_rows(
        tmp_path / "test.jsonl", [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "2"}]
    )
    with pytest.raises(ValueError, match=r"test\.jsonl:2: the answer must end in a line '#### n'"):
        check(make_study(f"evaluation.tasks=[{{task: gsm8k, source: {path}}}]"))


def test_a_path_between_models_that_are_not_trained_is_refused(make_study: Maker) -> None:
    line = refused(make_study("analysis.connectivity.pairs=[[sft, ppo]]"))
    assert line.startswith("analysis.connectivity.pairs names ppo")
    check(make_study("analysis.connectivity.pairs=[[sft, base]]"))


@pytest.mark.parametrize("name", ["sft-order43", "sft-init43", "dpo-lr3e-4"])
def test_a_path_to_a_replica_or_a_point_of_the_sweep_is_one(make_study: Maker, name: str) -> None:
    """They are models of the study too: whether a barrier stands between two seeds is asked of them."""
    check(make_study(f"analysis.connectivity.pairs=[[sft, {name}]]"))


def test_a_problem_of_the_rollouts_is_refused_before_anything_starts(
    make_study: Callable[..., Study], data_folder: Path
) -> None:
    """The rollouts' own problems, asked again in another spelling."""
    rows = [json.loads(line) for line in (data_folder / "gsm8k" / "rollouts.jsonl").read_text().splitlines()]
    asked = data_folder / "again.jsonl"
    asked.write_text(json.dumps({"question": f"  {rows[0]['problem'].upper()} ", "answer": "#### 1"}) + "\n")
    source = "rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}"
    task = f"evaluation.tasks=[{{task: gsm8k, source: {asked}}}]"
    with pytest.raises(UserError, match="1 problems of the task gsm8k stand in the rollouts too"):
        check(make_study(source, task))
    check(make_study(source, task, "evaluation.contamination=exclude"))


MET = "problems of the task {} stand in the rollouts too: draw others, or set evaluation.contamination=exclude"
TEACHERS = {
    "vllm": "rollouts={{source: vllm, problems: {}}}",
    "openai": "rollouts={{source: openai, base_url: 'http://127.0.0.1:9/v1', model: m, problems: {}}}",
}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_problems_that_a_teacher_is_to_be_asked_are_known_beforehand(
    make_study: Maker, tmp_path: Path, write_rows: Writer, teacher: str
) -> None:
    """Before money is spent. From a file, a folder, or made on the spot; a hub's are not fetched."""
    rows = [{"question": f"{i} and 1?", "answer": "#### 1"} for i in range(3)]
    file = write_rows(tmp_path / "asked" / "train.jsonl", rows)
    other = write_rows(tmp_path / "test.jsonl", [{"question": " 2 AND 1?", "answer": "#### 1"}])
    task = f"evaluation.tasks=[{{task: gsm8k, source: {other}}}]"
    for source in (file, file.parent):
        asked = TEACHERS[teacher].format(f"{{task: gsm8k, split: train, source: {source}}}")
        assert refused(make_study(asked, task)) == "1 " + MET.format("gsm8k")
        check(make_study(asked, task, "evaluation.contamination=exclude"))
        check(make_study(asked))
    check(make_study(TEACHERS[teacher].format("{task: gsm8k, split: train, source: openai/gsm8k}"), task))


@pytest.mark.parametrize("teacher", TEACHERS)
def test_problems_made_on_the_spot_are_compared_in_full(make_study: Maker, teacher: str) -> None:
    """Also beyond those few that show that a task can make some: the first problem of both is the 29th and the 47th."""
    problems = "{{task: arithmetic, split: test, draw: {}, seed: {}, settings: {{largest: 4}}}}"

    def study(asked: int, evaluated: int, *more: str) -> Study:
        task = f"evaluation.tasks=[{problems.format(evaluated, 4)}]"
        return make_study(TEACHERS[teacher].format(problems.format(asked, 0)), task, *more)

    assert refused(study(29, 47)) == "1 " + MET.format("arithmetic")
    check(study(28, 47))
    check(study(29, 46))
    check(study(29, 47, "evaluation.contamination=exclude"))


def test_many_problems_made_on_the_spot_are_not_all_made_here(make_study: Maker) -> None:
    many = "{task: word_problems, split: train, draw: 40000}"
    began = time.monotonic()
    check(make_study(TEACHERS["vllm"].format(many)))
    assert time.monotonic() - began < 5 and DRAWN < 40_000
