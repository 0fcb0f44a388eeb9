"""A study's cost, by hand from the reference study's shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from execution.step import Step
from orchestrator.bases.base import Shape
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.cost import durations, estimate, module_shapes, parameters
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolve import gather

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QWEN = Shape(layers=36, hidden=2560, heads=32, kv_heads=8, head_dim=128, intermediate=9728, vocabulary=151936)
# q and o are 2560 x 4096, k and v 2560 x 1024, three matrices of 2560 x 9728 in the MLP, one tied embedding.
QWEN_WEIGHTS = 36 * (2 * 2560 * 4096 + 2 * 2560 * 1024 + 3 * 2560 * 9728) + 151936 * 2560


def test_the_reference_base_has_four_billion_weights() -> None:
    assert parameters(QWEN) == QWEN_WEIGHTS == 4_022_272_000


def test_projections_have_the_shapes_of_the_protocol() -> None:
    assert module_shapes(QWEN) == {
        "q_proj": (4096, 2560), "k_proj": (1024, 2560), "v_proj": (1024, 2560), "o_proj": (2560, 4096),
        "gate_proj": (9728, 2560), "up_proj": (9728, 2560), "down_proj": (2560, 9728),
    }  # fmt: skip


def test_parameters_are_those_of_a_real_model(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    shape = Shape(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=96, vocabulary=64)
    assert parameters(shape) == matrices


def test_the_reference_studys_cost() -> None:
    cost = estimate(load_study(CONFIGS / "qwen3-4b.yaml"))
    assert cost is not None
    assert cost.modules == 144
    assert cost.adapter_parameters == 36 * 32 * (2 * (4096 + 2560) + 2 * (1024 + 2560))
    # 9 trainings see 1 500 x 32 rows and 5 of DPO twice as many, of (1024 + 3072) / 2 tokens, at 6 operations a weight.
    tokens = (9 + 5 * 2) * 1500 * 32 * 2048
    assert cost.trainings == 14
    assert cost.training_gpu_hours == pytest.approx(tokens * 6 * QWEN_WEIGHTS / 1.6e14 / 3600)
    answered = (1 + 14) * (1319 + 30) * 4096 / 2
    assert cost.evaluation_gpu_hours == pytest.approx(answered * 2 * QWEN_WEIGHTS / (1.6e14 / 20) / 3600)
    weights_gib = QWEN_WEIGHTS * 2 / 2**30
    assert weights_gib < cost.training_gib < 80  # it fits one data-centre GPU


def test_every_adapted_module_counts(make_study: Callable[..., Study]) -> None:
    """The small base has 4 layers of hidden 128, q 128, k and v 64, and an MLP of 384."""
    attention = estimate(make_study())
    assert attention is not None and attention.modules == 16
    assert attention.adapter_parameters == 4 * 4 * (2 * (128 + 128) + 2 * (64 + 128))
    more = estimate(make_study("adapter.targets=[q_proj, k_proj, v_proj, o_proj, up_proj]"))
    assert more is not None and more.modules == 20
    assert more.adapter_parameters == attention.adapter_parameters + 4 * 4 * (128 + 384)


def test_a_base_without_a_shape_has_no_estimate(make_study: Callable[..., Study]) -> None:
    assert estimate(make_study("base={kind: hub, name: a/b}")) is None


def test_checkpointing_takes_time_and_gives_memory(make_study: Callable[..., Study]) -> None:
    plain, kept = estimate(make_study()), estimate(make_study("training.gradient_checkpointing=true"))
    assert plain is not None and kept is not None
    assert kept.training_gpu_hours == pytest.approx(1.5 * plain.training_gpu_hours)
    assert kept.training_gib < plain.training_gib


def timed(study: Study) -> tuple[list[Step], dict[str, float]]:
    steps = make_plan(study, gather(study, Path("nowhere"), online=False))
    found = durations(study, steps)
    assert found is not None
    return steps, found


def test_every_step_of_the_reference_study_by_hand() -> None:
    study = load_study(CONFIGS / "qwen3-4b.yaml")
    steps, found = timed(study)
    assert list(found) == [s.title for s in steps]
    forward = 2048 * 2 * QWEN_WEIGHTS  # of a row, of (1024 + 3072) / 2 tokens
    assert found["train/sft"] == pytest.approx(1500 * 32 * 3 * forward / 1.6e14)
    assert found["train/dpo"] == pytest.approx(2 * found["train/sft"])
    assert found["reference/base"] == pytest.approx(2 * 1800 * forward / 1.6e14)
    assert found["evaluate/base"] == pytest.approx(1349 * 2048 * 2 * QWEN_WEIGHTS / 8e12)
    # 256 right and 256 wrong rows, at the model and at the base; 256 right ones at 6 x 9 points between models.
    assert found["losses/base"] == found["losses/dpo"] == pytest.approx(2 * 512 * forward / 2e13)
    assert found["connectivity/paths"] == pytest.approx(54 * 256 * forward / 2e13)
    assert found["features/base"] == found["features/dpo"] == pytest.approx(100 * 512 * 2 * QWEN_WEIGHTS / 2e13)
    assert 0 < found["similarity/cka"] < 300
    assert 0 < found["geometry/weights"] < 60
    # 40 000 x 4 answers of half 3 072 tokens, 512 at once of 50 tokens a second each.
    assert found["rollouts/openai"] == pytest.approx(160_000 * 1536 / (512 * 50))
    # What is downloaded or read has no time.
    for title in ("base/Qwen--Qwen3-4B-Instruct-2507", "problems/evaluation"):
        assert found[title] == 0


@pytest.mark.parametrize("name", ["qwen3-4b", "tiny"])
@pytest.mark.parametrize("share", [1, 0.5, 0.25])
def test_the_steps_add_up_to_the_studys_cost(name: str, share: float) -> None:
    study = load_study(CONFIGS / f"{name}.yaml", [f"placement.gpus_per_training={share}"])
    cost, (steps, found) = estimate(study), timed(study)
    assert cost is not None
    hours = {kind: sum(found[s.title] for s in steps if s.kind.name == kind) / 3600 for kind in ("train", "evaluate")}
    assert hours["train"] * share == pytest.approx(cost.training_gpu_hours)
    assert hours["evaluate"] == pytest.approx(cost.evaluation_gpu_hours)


def test_workers_share_a_trainings_time(make_study: Callable[..., Study]) -> None:
    _, alone = timed(make_study("training.batch_size=4"))
    _, together = timed(make_study("training.batch_size=4", "training.workers=4"))
    assert together["train/dpo"] == pytest.approx(alone["train/dpo"] / 4)
    assert together["evaluate/dpo"] == alone["evaluate/dpo"]


def test_sampling_costs_what_its_model_weighs(make_study: Callable[..., Study]) -> None:
    _, own = timed(make_study())
    weights = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
    assert own["rollouts/sampled"] == pytest.approx(10 * 4 * 1024 * 0.5 * 2 * weights / 8e12)
    shape = "{layers: 8, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, intermediate: 384}"
    _, bigger = timed(make_study(f"rollouts.model={{kind: hub, name: big/teacher, shape: {shape}}}"))
    assert bigger["rollouts/sampled"] == pytest.approx(2 * own["rollouts/sampled"])


def test_the_reference_reads_the_rows_that_stand_in_pairs(make_study: Callable[..., Study]) -> None:
    rows = {
        override: timed(make_study(*override))[1]["reference/base"]
        for override in ((), ("rollouts.table.pairs=3",), ("rollouts.table.pair_rule=all",))
    }
    one, limited, every = rows.values()
    assert limited / one == pytest.approx(6 / (2 * 9))  # 9 of 10 problems are trained on
    assert every / one == pytest.approx(4 / 2)  # all four completions of a problem


def test_no_steps_time_is_known_without_a_shape(make_study: Callable[..., Study]) -> None:
    study = make_study("base={kind: hub, name: a/b}")
    steps = make_plan(study, gather(study, Path("nowhere"), online=False))
    assert durations(study, steps) is None
