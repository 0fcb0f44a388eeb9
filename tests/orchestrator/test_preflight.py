"""What is known to fail before anything starts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.planning.cost import estimate, units
from orchestrator.planning.preflight import DRAWN, check, check_fit
from orchestrator.prompts.templates import why_not

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


def test_paired_examples_without_a_pair_are_refused(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), rollout("b", 0)])
    more = ("methods={sft: }", "sweep=null", "replicas=[]", "analysis={}", "training.examples=paired")
    line = refused(make_study(from_file(path), *more))
    assert line.startswith("training.examples=paired: no problem has both a right and a wrong rollout")


def test_views_with_rows_pass(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), rollout("a", 0)])
    check(make_study(from_file(path)))


def test_real_rewards_are_refused_for_methods_that_need_0_and_1(
    make_study: Maker, tmp_path: Path, write_rows: Writer
) -> None:
    path = write_rows(tmp_path / "r.jsonl", [rollout("a", 1), rollout("a", 0), rollout("b", 0.25)])
    line = refused(make_study(from_file(path)))
    assert line == (
        "methods.rft: RFT needs rewards 0 and 1, the rollouts have 0.25; remove rft, or set rollouts.rewards=graded"
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


@pytest.mark.parametrize("base", ["{kind: hub, name: someone/model}", "{kind: from_scratch, name: made}"])
@pytest.mark.parametrize("target", ["lm_head", "embed_out"])
def test_the_output_head_is_no_target_of_any_base(make_study: Maker, base: str, target: str) -> None:
    """Of a hub's base too, whose modules are not known yet."""
    line = refused(make_study(f"base={base}", f"adapter.targets=[q_proj, {target}]"))
    assert line == f"adapter.targets: {target} is the output head, which is not adapted here: leave it out"


def test_a_step_at_rate_0_is_not_reported(make_study: Maker) -> None:
    """One step in all has the full rate; the first of several is the warm-up's, at rate 0."""
    check(make_study("training.steps=1", "training.run_steps=1", "training.report_step=1"))
    line = refused(make_study("training.steps=5", "training.run_steps=5", "training.report_step=1"))
    assert line.startswith(
        "training.report_step: with a warm-up the first of 5 steps has rate 0, so its adapter equals"
    )
    check(make_study("training.steps=5", "training.run_steps=5", "training.report_step=1", "training.warmup=0"))


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
        from orchestrator.planning.resolve import gather

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
    with pytest.raises(UserError, match="1 problems of the task gsm8k are also in the rollouts"):
        check(make_study(source, task))
    check(make_study(source, task, "evaluation.contamination=exclude"))


MET = "problems of the task {} are also in the rollouts: draw others, or set evaluation.contamination=exclude"
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


def misfit(study: Study) -> str:
    with pytest.raises(UserError) as caught:
        check_fit(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SHAPE = "{layers: 2, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, intermediate: 96}"


def test_heads_that_vllm_does_not_serve_are_known_before_any_step(
    make_study: Maker, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a base made on the spot, of a local one, of a hub's with its shape, and of a teacher's."""
    monkeypatch.setattr("orchestrator.planning.preflight.vllm_on_cpu", lambda: True)
    local, hub = f"{{kind: local, name: mine, path: {tiny_model}}}", f"{{kind: hub, name: a/b, shape: {SHAPE}}}"
    for base in (f"base.shape={SHAPE}", f"base={local}", f"base={hub}", f"rollouts.model={local}"):
        line = misfit(make_study(base, "engine.kind=vllm"))
        assert "has heads of 16, and vLLM on a CPU serves 32, 64, " in line and line.endswith(
            "engine.kind=transformers"
        )
        check_fit(make_study(base))  # which Transformers serves
    check_fit(make_study("engine.kind=vllm"))
    monkeypatch.setattr("orchestrator.planning.preflight.vllm_on_cpu", lambda: False)
    check_fit(make_study(f"base={hub}", "engine.kind=vllm"))


def test_a_rank_above_the_modules_own_is_refused(make_study: Maker, tiny_model: Path) -> None:
    """k_proj of the made base is 64 x 128, of the local one 32 x 64."""
    check_fit(make_study("adapter.rank=64"))
    assert "k_proj of scratch (64 x 128): set adapter.rank=64" in misfit(make_study("adapter.rank=999"))
    assert "adapter.rank: 65 exceeds the size of model.layers.0.self_attn.k_proj of scratch (64 x 128): set " in misfit(
        make_study("adapter.rank=65")
    )
    local = f"base={{kind: local, name: mine, path: {tiny_model}}}"
    check_fit(make_study(local, "adapter.rank=32"))
    assert "k_proj of mine (32 x 64): set adapter.rank=32" in misfit(make_study(local, "adapter.rank=33"))
    check_fit(make_study(local, "adapter.rank=64", "adapter.targets=[q_proj]"))
    hub = f"base={{kind: hub, name: a/b, shape: {SHAPE}}}"
    assert "k_proj of a/b (32 x 64)" in misfit(make_study(hub, "adapter.rank=33"))


def test_answers_that_do_not_fit_behind_their_prompts_are_refused(make_study: Maker) -> None:
    limits = "engine.max_model_len=200"
    fits = ("evaluation.max_tokens=136", "rollouts.max_tokens=136", limits)
    check_fit(make_study(*fits))  # 64 of a prompt and 136
    said = "137 do not fit into engine.max_model_len 200 after a prompt of prompt.max_prompt_tokens 64: set "
    for name in ("evaluation.max_tokens", "evaluation.tasks.0.max_tokens", "rollouts.max_tokens"):
        assert misfit(make_study(*fits, f"{name}=137")) == f"{name}: {said}{name}=136, or less"


GOOD = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("Answer the question.", "prompt.template gives two problems the same prompt"),
        ("{{ messages[-1].content }}{{ range(9999) | random }}", "prompt.template writes one conversation in several"),
        ("{{ messages[-1].content[:80] }}", "prompt.template gives two problems the same prompt"),
        ("{{ messages[-1].content[-80:] }}", "prompt.template gives two problems the same prompt"),
        ("{{ raise_exception('no system turn') }}", "prompt.template cannot render a problem (no system turn)"),
        ("{{ messages[9].content }}", "prompt.template cannot render a problem"),
        ("{{ 'x' * 10 ** 11 }}", "prompt.template takes more than 1 GiB of memory to render a problem"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "prompt.template calls itself without end"),
        (GOOD + "{{ messages | nofilter }}", "No filter named 'nofilter'"),
    ],
)
def test_a_template_is_tried_before_anything_starts(make_study: Maker, template: str, part: str) -> None:
    assert part in misfit(make_study(f"prompt.template={json.dumps(template)}"))


def test_a_template_that_does_not_end_is_ended() -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert why_not(loop, [[]], {}, seconds=1) == "takes more than 1 s to render a problem"


def test_templates_that_hold_pass_and_a_local_bases_own_is_tried_too(
    make_study: Maker, tmp_path: Path, tiny_model: Path
) -> None:
    check_fit(make_study(f"prompt.template={json.dumps(GOOD + '{{ eos_token }}{{ strftime_now(0 ~ 1) }}')}"))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    local = f"base={{kind: local, name: mine, path: {folder}}}"
    check_fit(make_study(local, "evaluation.tasks.0.shots={count: 1}"))
    (folder / "chat_template.jinja").write_text("one prompt for all")
    assert misfit(make_study(local)).startswith("the chat template of mine gives two problems the same prompt")
    check_fit(make_study(local, f"prompt.template={json.dumps(GOOD)}"))


def test_what_needs_a_template_in_time_does_not_run_it_while_it_is_read(make_study: Maker) -> None:
    """Compiled, Jinja evaluates what is constant in it: this power has ten billion digits."""
    assert make_study("prompt.template='{{ 10 ** (10 ** 10) }}'").prompt.template
    with pytest.raises(UserError, match="nested too deeply"):
        make_study(f"prompt.template='{{{{ {'(' * 9000}1{')' * 9000} }}}}'")


def test_a_local_bases_shape_is_read_from_its_config(make_study: Maker, tiny_model: Path) -> None:
    local = f"{{kind: local, name: mine, path: {tiny_model}}}"
    found = make_study(f"base={local}", f"rollouts.model={local}").shaped()
    told = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 96, "vocabulary": 64}
    assert found.base.shape is not None and found.base.shape.model_dump() == told
    assert found.rollouts.model.shape == found.base.shape
    assert estimate(found) is not None


def test_a_hub_bases_config_is_read_where_it_was_fetched(
    make_study: Maker, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    study = make_study("base={kind: hub, name: a/b}")
    assert study.shaped().base.shape is None
    folder = tmp_path / "models--a--b"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(tiny_model / "config.json", folder / "snapshots" / ("0" * 40))
    shape = study.shaped().base.shape
    assert shape is not None and (shape.layers, shape.head_dim) == (2, 16)
    assert "k_proj of a/b (32 x 64)" in misfit(make_study("base={kind: hub, name: a/b}", "adapter.rank=33"))


def test_epochs_are_counted_where_the_rows_are_at_hand(make_study: Maker, tmp_path: Path, write_rows: Writer) -> None:
    """20 problems of a right, a wrong and an empty completion, a fifth held out: 32 rows, 16 right, 16 pairs."""
    rows = [rollout(f"p{i}", r) | {"completion": c} for i in range(20) for r, c in ((1, "a"), (0, "b"), (0, " "))]
    study = make_study(from_file(write_rows(tmp_path / "r.jsonl", rows)), "rollouts.table.heldout=0.2")
    given = study.rollouts.rows_at_hand()
    assert [units(study, given, name) for name in ("sft", "rft", "dpo")] == [32, 16, 16]
    limited = make_study(from_file(tmp_path / "r.jsonl"), "rollouts.table={heldout: 0.2, rows: 10, pairs: 3}")
    assert [units(limited, given, name) for name in ("sft", "rft", "dpo")] == [10, 5, 3]
    assert [units(limited, [], name) for name in ("sft", "rft", "dpo")] == [10, None, 3]


def test_a_gguf_bases_shape_modules_and_template_are_read(make_study: Maker, tmp_path: Path) -> None:
    """The file of a Llama of one layer: k of 32 x 64."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_feed_forward_length(96)
    writer.add_token_list(["a", "b", "c"])
    writer.add_chat_template("one prompt for all")
    for name, sides in {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(sides, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    study = make_study(f"base={{kind: gguf, name: g, path: {tmp_path}/m.gguf}}")
    told = {"layers": 1, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 96, "vocabulary": 3}
    shape = study.shaped().base.shape
    assert shape is not None and shape.model_dump() == told
    assert misfit(study).startswith("the chat template of g gives two problems the same prompt")
    line = misfit(make_study(f"base={{kind: gguf, name: g, path: {tmp_path}/m.gguf}}", "adapter.rank=33"))
    assert "layers.0.k_proj of g (64 x 32): set adapter.rank=32" in line
