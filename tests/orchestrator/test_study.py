"""Every study that ships: it loads, it plans, and the reference study holds its protocol's values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.training_runs import sweep_points, training_runs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
METHODS = ["sft", "rft", "dft", "rift", "offline_grpo", "dpo"]
DPO = "dpo"


def test_the_shipped_studies_are_found() -> None:
    assert {"tiny.yaml", "smollm2.yaml", "smollm2-small.yaml", "qwen3-4b.yaml"} <= {p.name for p in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
@pytest.mark.usefixtures("data_folder")
def test_a_shipped_study_loads_and_plans(path: Path, plan_of: Callable[[Study], list[Step]]) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert list(study.methods)[: len(METHODS)] == METHODS
    steps = plan_of(study)
    kinds = Counter(step.kind.name for step in steps)
    trainings = len(training_runs(study))
    assert kinds["train"] == trainings and kinds["evaluate"] == trainings + kinds["scale"] + 1
    assert {kinds[k] for k in ("rollouts", "problems", "geometry", "connectivity")} == {1}
    assert kinds["scale"] == {"lr-matched": 30, "mini": 6, "qwen3-4b-matched": 31}.get(path.stem, 0)
    assert kinds["similarity"] == (2 if kinds["scale"] else 1)  # of the scaled copies to base alone
    assert kinds["reference"] == (2 if path.stem == "forms" else 1)  # of all rows too, for a KL term
    assert len({step.title for step in steps}) == len(steps)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
@pytest.mark.usefixtures("data_folder")
def test_a_shipped_study_keeps_the_ten_to_one_ratio_and_sweeps_through_the_common_rate(path: Path) -> None:
    study = load_study(path)
    common = study.training.learning_rate
    assert study.learning_rate(DPO) == pytest.approx(common / 10, rel=1e-12)
    assert {study.learning_rate(m) for m in METHODS if m != DPO} == {common}
    if path.stem == "forms":
        return  # no sweep: it compares forms
    points = [c.learning_rate for c in sweep_points(study)]
    assert points == sorted(points) and {common, study.learning_rate(DPO)} <= set(points)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
@pytest.mark.usefixtures("data_folder")
def test_a_study_survives_json(path: Path) -> None:
    study = load_study(path)
    assert Study.model_validate(json.loads(json.dumps(study.model_dump(mode="json")))) == study


def test_a_study_is_frozen(make_study: Callable[..., Study]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_study().name = "other"  # type: ignore[misc]


def test_the_default_study_is_whole_and_downloads_nothing() -> None:
    study = load_study(CONFIGS / "tiny.yaml")
    assert study.base.kind == "from_scratch"
    assert study.adapter.rank >= 16
    assert study.rollouts.source == "vllm" and study.rollouts.problems.source is None
    assert all(task.source is None for task in study.evaluation.tasks)
    runs = training_runs(study)
    assert {run.role for run in runs} == {"method", "sweep", "order", "init", "cell"}
    rate, orders = study.learning_rate("sft"), {study.seeds.order, 43}
    for method in ("sft", "dpo"):  # an interval of their difference at one rate needs two trainings of each
        at = {
            r.order_seed for r in runs if (r.method, r.learning_rate, r.init_seed) == (method, rate, study.seeds.init)
        }
        assert at == orders


@pytest.fixture
def reference() -> Study:
    return load_study(CONFIGS / "qwen3-4b.yaml")


def test_the_reference_study_has_the_protocol_base_and_adapter(reference: Study) -> None:
    assert (reference.base.kind, reference.base.name) == ("hub", "Qwen/Qwen3-4B-Instruct-2507")
    shape = reference.base.shape
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (36, 2560, 32, 8, 128)
    adapter = reference.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (32, 64, 0.0)
    assert adapter.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert len(adapter.targets) * shape.layers == 144


def test_the_reference_study_has_the_protocol_rollouts(reference: Study) -> None:
    rollouts = reference.rollouts
    assert rollouts.source == "openai" and rollouts.samples == 4
    assert rollouts.model == "deepseek/deepseek-v4-flash"
    assert any(rollouts.prices) and rollouts.max_cost  # it is paid for, up to a limit
    assert (rollouts.problems.task, rollouts.problems.draw) == ("deepscaler", 40_000)
    assert (rollouts.table.rows, rollouts.table.pairs) == (75_000, 1_800)


def test_the_reference_study_has_the_protocol_optimiser(reference: Study) -> None:
    training = reference.training
    assert training.batch_size == 32 and training.batch_size % training.micro_batch == 0
    assert (training.warmup, training.weight_decay, training.clip) == (0.05, 0.01, 1.0)
    assert training.precision == "bfloat16"
    assert (training.steps, training.last_step, training.report_step) == (1500, 1500, 1000)
    assert training.learning_rate == 5e-6
    assert {m: reference.learning_rate(m) for m in METHODS} == {m: 5e-7 if m == DPO else 5e-6 for m in METHODS}
    assert (reference.seeds.init, reference.seeds.order) == (42, 42)


def test_the_reference_study_has_the_protocol_objectives(
    reference: Study, plan_of: Callable[[Study], list[Step]]
) -> None:
    trained = {s.name: s.config["settings"] for s in plan_of(reference) if s.kind.name == "train"}
    assert trained["dpo"]["beta"] == 0.1
    assert trained["offline_grpo"]["bias"] == 0.1
    assert all(step.config["adapter"]["rank"] == 32 for step in plan_of(reference) if step.kind.name == "train")


def test_the_reference_study_has_the_protocol_evaluation(reference: Study) -> None:
    tasks = reference.evaluation.tasks
    assert [(t.task, t.split, t.draw) for t in tasks] == [("gsm8k", "test", None), ("aime", "test", None)]
    assert "26" in tasks[1].source
    assert reference.analysis.top == 10
    assert reference.analysis.similarity.prompts == 100


def test_the_reference_study_has_the_protocol_sensitivity(reference: Study) -> None:
    found = {(c.method, c.learning_rate, c.init_seed, c.order_seed) for c in training_runs(reference)}
    assert {(m, reference.learning_rate(m), 42, 42) for m in METHODS} <= found
    assert {("dpo", rate, 42, 42) for rate in (5e-7, 5e-6, 5e-5)} <= found
    assert {("sft", rate, 42, 42) for rate in (5e-7, 5e-6, 5e-5)} <= found
    assert {("sft", 5e-6, 123, 42), ("sft", 5e-6, 42, 123)} <= found
    assert {("dpo", 5e-7, 123, 42), ("dpo", 5e-7, 42, 123)} <= found


def test_the_own_teachers_study_differs_in_where_its_teacher_is_alone(reference: Study) -> None:
    own = load_study(CONFIGS / "qwen3-4b-own-teacher.yaml")
    assert own.rollouts.source == "vllm" and own.rollouts.engine["tensor_parallel"] == 8
    assert own.rollouts.model.name == "deepseek-ai/DeepSeek-V4-Flash"
    same = ("problems", "samples", "temperature", "top_p", "max_tokens", "seed", "instruction", "table")
    assert all(getattr(own.rollouts, name) == getattr(reference.rollouts, name) for name in same)
    rest = {"name", "title", "rollouts"}
    assert own.model_dump(exclude=rest) == reference.model_dump(exclude=rest)
