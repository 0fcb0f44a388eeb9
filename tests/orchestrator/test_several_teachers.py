"""Rollouts from several models, and in parts: their steps, their rows, and that the bytes depend on neither."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from execution.errors import UserError
from execution.execute import attempt
from execution.step import Step
from execution.store import open_store
from orchestrator.config.study import Study
from orchestrator.planning.cost import durations
from orchestrator.planning.preflight import check, check_fit
from orchestrator.planning.schedule import make_schedule, needs
from orchestrator.planning.views.plan import lines
from orchestrator.rollouts.dataset import FILE, read_table
from orchestrator.runtime.engines import Engines
from orchestrator.runtime.served_models import check_gpus, undivided
from orchestrator.steps import STEP_KINDS
from orchestrator.steps.rollouts import STATISTICS

Maker = Callable[..., Study]
Planner = Callable[[Study], list[Step]]
MADE_HERE = ("base", "sample", "rollouts")
SHARDS = "rollouts.shard=3"  # of ten problems: four
SHORT = "prompt.overlong=truncate"  # answers of random weights seldom end


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three models as settings: the study's base, another with its tokenizer, one with other tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("twin", "foreign"), 1):
        shutil.copytree(tiny_model, folder / name)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model)).float()
        made.save_pretrained(folder / name)
    file = folder / "foreign" / "tokenizer.json"
    saved = json.loads(file.read_text())
    words = [word for word in saved["model"]["vocab"] if word.isdigit()]
    ids = [saved["model"]["vocab"][word] for word in words]
    saved["model"]["vocab"] |= dict(zip(words, reversed(ids), strict=True))
    file.write_text(json.dumps(saved))
    paths = {"own": tiny_model, "twin": folder / "twin", "foreign": folder / "foreign"}
    return {name: f"{{kind: local, name: {name}, path: {path}}}" for name, path in paths.items()}


def rollouts_of(study: Study, plan: Planner, root: Path, reverse: bool = False) -> Path:
    """The folder of the rollouts, made here; ``reverse``: the last part first, each on its own engine."""
    store = open_store(root)
    steps = [step for step in plan(study) if step.kind.name in MADE_HERE]
    parts = [step for step in steps if step.kind.name == "sample"]
    order = [step for step in steps if step.kind.name == "base"] + (parts[::-1] if reverse else parts) + steps[-1:]
    engines = Engines()
    for step in order:
        if reverse:
            engines.close()
        assert attempt(step, store, engines) is None, store.failure(step)
    engines.close()
    assert steps[-1].title == "rollouts/sampled"
    return store.folder(steps[-1])


def test_parts_give_the_bytes_of_one_engine(
    make_study: Maker, plan_of: Planner, models: dict[str, str], tmp_path: Path
) -> None:
    base = f"base={models['own']}"
    whole = rollouts_of(make_study(base, SHARDS, SHORT), plan_of, tmp_path / "whole")
    assert len(read_table(whole)) == 40
    for parts, reverse in ((2, True), (3, False)):
        study = make_study(base, SHARDS, SHORT, f"rollouts.parts={parts}")
        found = rollouts_of(study, plan_of, tmp_path / str(parts), reverse)
        for file in (FILE, STATISTICS):
            assert (found / file).read_bytes() == (whole / file).read_bytes()


def test_rows_of_each_teacher_are_those_that_it_gives_alone(
    make_study: Maker, plan_of: Planner, models: dict[str, str], tmp_path: Path
) -> None:
    """Problem by problem, in the study's order; the sampled tokens where the tokenizer is the base's, else the text."""
    base = f"base={models['own']}"
    several = (
        f"rollouts.models=[{{model: base, samples: 3}}, {{model: {models['foreign']}}}, {{model: {models['twin']}}}]"
    )
    samples = {"own": 3, "foreign": 2, "twin": 2}
    study = make_study(base, SHARDS, SHORT, "rollouts.samples=2", "rollouts.parts=2", several)
    assert study.rollouts.samples_a_problem == 7
    folder = rollouts_of(study, plan_of, tmp_path / "all")
    rows = read_table(folder)
    statistics = json.loads((folder / STATISTICS).read_text())
    assert [(t["name"], t["rows"]) for t in statistics["teachers"]] == [("foreign", 20), ("own", 30), ("twin", 20)]
    assert [row["teacher"] for row in rows[:7]] == ["own"] * 3 + ["foreign"] * 2 + ["twin"] * 2
    assert [row["group"] for row in rows] == [i for i in range(10) for _ in range(7)]
    for name, number in samples.items():
        model = "base" if name == "own" else models[name]
        alone = make_study(base, SHARDS, SHORT, f"rollouts.samples={number}", f"rollouts.model={model}")
        expected = read_table(rollouts_of(alone, plan_of, tmp_path / name))
        told = ("problem", "completion", "completion_ids", "prompt_ids", "reward", "teacher", "split")
        found = [[row[column] for column in told] for row in rows if row["teacher"] == name]
        assert found == [[row[column] for column in told] for row in expected]


def test_another_teacher_or_setting_of_one_samples_nothing_of_the_others_again(
    make_study: Maker, plan_of: Planner, models: dict[str, str]
) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        steps = plan_of(make_study(f"base={models['own']}", SHARDS, *overrides))
        return {step.title: step.key for step in steps if step.kind.name in MADE_HERE}

    two = f"rollouts.models=[{{model: base}}, {{model: {models['twin']}}}]"
    before = keys(two)
    assert list(before) == ["base/own", "base/twin", "sample/own", "sample/twin", "rollouts/sampled"]
    hotter = keys(two.replace("}}]", "}, engine: {batch_size: 8}}]"))
    assert {title for title in before if before[title] != hotter[title]} == {"sample/twin", "rollouts/sampled"}
    table = keys(two, "rollouts.table.heldout=0.3")
    assert {title for title in before if before[title] != table[title]} == {"rollouts/sampled"}
    more = keys(two.replace("}}]", f"}}}}, {{model: {models['foreign']}}}]"), "rollouts.parts=1")
    assert more["sample/own"] == before["sample/own"] and more["sample/twin"] == before["sample/twin"]
    plain = keys()
    assert list(plain) == ["base/own", "rollouts/sampled"]
    assert plain == keys("rollouts.engine={}", "rollouts.models=[]", "rollouts.parts=1", "engine.tensor_parallel=1")
    own = keys("rollouts.engine={batch_size: 8}")
    assert own["rollouts/sampled"] != plain["rollouts/sampled"] and own["base/own"] == plain["base/own"]


SHAPE = "{layers: 4, hidden: 64, heads: 12, kv_heads: 4, head_dim: 32, intermediate: 96}"


def test_what_vllm_can_share_out(make_study: Maker) -> None:
    """Against vLLM's own rules: heads and width evenly, heads of keys and values evenly or repeated evenly."""
    shape = make_study(f"base={{kind: hub, name: a/b, shape: {SHAPE}}}").base.shape
    assert [n for n in range(1, 13) if undivided(shape, n) is None] == [1, 2, 4, 12]
    assert [undivided(shape, n) for n in (5, 6, 3)] == [
        "12 attention heads", "4 heads of keys and values", "4 heads of keys and values",
    ]  # fmt: skip
    narrow = shape.model_copy(update={"intermediate": 98})
    assert undivided(narrow, 4) == "an MLP of width 98" and undivided(narrow, 2) is None


BIG = f"{{kind: hub, name: big/teacher, shape: {SHAPE}}}"
ENGINE = "{kind: vllm, tensor_parallel: %d}"
VLLM = f"rollouts.engine={ENGINE}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("engine.tensor_parallel=2",), "engine.tensor_parallel: 2 needs engine.kind=vllm: Transformers serves on one"),
        ((VLLM % 3,), "rollouts.engine.tensor_parallel: big/teacher has 4 heads of keys and values, which 3 GPUs "
         "cannot share evenly: set rollouts.engine.tensor_parallel=1 or 2 or 4 or 12"),
        ((VLLM % 0,), "rollouts.engine: tensor_parallel: input should be greater than or equal to 1, not '0'"),
        (("rollouts.engine={tp: 2}",), "rollouts.engine: tp: extra inputs are not permitted, not '2'"),
        (("rollouts.engine={max_model_len: 64}",), "rollouts.engine.max_model_len must exceed prompt."),
        (("rollouts.engine={max_model_len: 70}", "rollouts.max_tokens=48"),
         "rollouts.max_tokens: 48 do not fit into rollouts.engine.max_model_len 70 after a prompt of "),
        (("rollouts.models=[{model: base}]",), "models: takes the place of rollouts.model and rollouts.engine"),
        (("rollouts.parts=5", SHARDS), "rollouts.parts: 5 parts of 4 shards (10 problems by rollouts.shard=3) leave "),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_one_line(make_study: Maker, overrides: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError) as caught:
        study = make_study("rollouts.max_tokens=40", f"rollouts.model={BIG}", *overrides)
        check(study)
        check_fit(study)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_teachers_are_told_apart_by_their_names(make_study: Maker, models: dict[str, str]) -> None:
    def refused(teachers: str) -> str:
        with pytest.raises(UserError) as caught:
            make_study(f"base={models['own']}", f"rollouts.models=[{teachers}]")
        return str(caught.value)

    once = "rollouts.table.pair_rule=same_teacher", "rollouts.samples=1"
    with pytest.raises(
        UserError, match=r"methods\.dpo needs pairs of one teacher: rollouts\.samples must be 2 or more"
    ):
        make_study(f"base={models['own']}", f"rollouts.models=[{{model: base}}, {{model: {models['twin']}}}]", *once)
    assert "models: twin stands there twice" in refused(f"{{model: {models['twin']}}}, {{model: {models['twin']}}}")
    assert "own is the base's name; write model: base" in refused(f"{{model: {models['own']}}}")


def test_a_node_with_too_few_gpus_is_told_at_once(make_study: Maker, plan_of: Planner, tmp_path: Path) -> None:
    """Of steps to do: what was sampled on four GPUs needs no four to go on."""
    study, store = make_study(f"rollouts.model={BIG}", VLLM % 4), open_store(tmp_path / "run")
    plan = plan_of(study)
    check_gpus(study, plan, store, 4, "--gpus 4 gives")
    with pytest.raises(UserError) as caught:
        check_gpus(study, plan, store, 2, "--gpus 2 gives")
    assert str(caught.value) == (
        "rollouts.engine.tensor_parallel: rollouts/sampled needs 4 GPUs of one node, and --gpus 2 gives 2: lower "
        "rollouts.engine.tensor_parallel, or give more GPUs"
    )
    (step,) = [step for step in plan if step.kind.name == "rollouts"]
    with store.writing(step):
        pass
    check_gpus(study, plan, store, 2, "--gpus 2 gives")


def test_a_plan_tells_engines_teachers_and_their_tokenizers(
    make_study: Maker, plan_of: Planner, models: dict[str, str], tmp_path: Path
) -> None:
    two = f"rollouts.models=[{{model: base}}, {{model: {models['foreign']}}}, {{model: {BIG}, engine: {ENGINE % 4}}}]"
    study = make_study(f"base={models['own']}", SHARDS, "rollouts.parts=2", two).shaped()
    page = list(lines(study, plan_of(study), open_store(tmp_path / "none")))
    assert any(
        "4 completions each from the base, 4 completions each from foreign, 4 completions each" in x for x in page
    )
    (engine,) = [line for line in page if line.startswith("engine  ")]
    # 4 layers of 2 x 64 x 384 (q, o), 2 x 64 x 128 (k, v), 3 x 64 x 96: 335 872 weights of 4 bytes, the study's float32
    assert (
        engine
        == "engine     big/teacher on 4 GPUs of one node (tensor parallelism): 0.0 GiB of weights, 0.0 GiB on each"
    )
    told = [line for line in page if line.startswith("teacher ")]
    assert told == [
        "teacher    foreign has another vocabulary than the base: its completions are passed on as text, not as tokens"
    ]
    assert sum("engine on 4 GPUs" in line for line in page) == 2
    assert sum(line.startswith("pairs      by rule one can be of two teachers") for line in page) == 1
    apart = make_study(f"base={models['own']}", two, "rollouts.table.pair_rule=same_teacher")
    assert not any(line.startswith("pairs  ") for line in lines(apart, plan_of(apart), open_store(tmp_path / "none")))


def test_parts_shorten_a_schedule_and_several_gpus_an_engines_time(make_study: Maker, plan_of: Planner) -> None:
    """GPU-seconds stay: two parts on two GPUs halve the time, and so does an engine on two GPUs."""

    def sampling(*overrides: str) -> tuple[float, float]:
        study = make_study(f"rollouts.model={BIG}", SHARDS, f"base.shape={SHAPE}", *overrides).shaped()
        steps = [step for step in plan_of(study) if step.kind.name in MADE_HERE]
        seconds = durations(study, steps)
        assert seconds is not None
        seconds |= {step.title: 0.0 for step in steps if step.kind.name == "base"}
        wanted = needs(study, steps, 4)
        return make_schedule(steps, seconds, wanted, 4).makespan, sum(wanted[t].held * s for t, s in seconds.items())

    whole, work = sampling("rollouts.engine={kind: vllm}")
    assert whole == pytest.approx(work) and whole > 0
    assert sampling("rollouts.engine={kind: vllm}", "rollouts.parts=2") == pytest.approx((whole / 2, work))
    assert sampling(VLLM % 2) == pytest.approx((whole / 2, work))
    assert sampling(VLLM % 2, "rollouts.parts=2") == pytest.approx((whole / 4, work))


def test_the_kind_is_known() -> None:
    assert STEP_KINDS["sample"].gpu == "none" and list(STEP_KINDS)[:3] == ["base", "sample", "rollouts"]
