"""A factorial of trainings: which there are, what they are called, what distinguishes their keys, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from execution.errors import UserError
from execution.step import Step
from orchestrator.config.study import Study
from orchestrator.planning.training_runs import TrainingRun, training_runs

Maker = Callable[..., Study]
Planner = Callable[[Study], list[Step]]
ALONE = ("methods={sft: , dpo: {learning_rate: 1e-4}}", "replicas=[]", "sweep=null", "analysis.connectivity.pairs=[]")


def _runs(make_study: Maker, *cells: str, more: tuple[str, ...] = ()) -> dict[str, TrainingRun]:
    study = make_study(*ALONE, "training.learning_rate=1e-3", f"factorial=[{', '.join(cells)}]", *more)
    return {run.name: run for run in training_runs(study)}


def test_crossed_factors_give_every_combination_once(make_study: Maker) -> None:
    found = _runs(make_study, "{learning_rate: [1e-4, 1e-3], order_seed: [42, 43]}")
    assert {name: run.role for name, run in found.items()} == {
        "sft": "method", "dpo": "method", "sft-lr1e-4": "sweep", "sft-lr1e-4-order43": "cell", "sft-order43": "order",
        "dpo-order43": "order", "dpo-lr1e-3": "sweep", "dpo-lr1e-3-order43": "cell",
    }  # fmt: skip
    levels = {(run.method, run.learning_rate, run.order_seed) for run in found.values()}
    assert len(levels) == len(found) == 8


def test_a_setting_of_method_training_or_adapter_is_a_factor(make_study: Maker, plan_of: Planner) -> None:
    cells = "{methods: [dpo], vary: {settings.beta: [0.1, 0.5], adapter.rank: [2, 4], training.steps: [5]}}"
    more = ("adapter.rank=4", "training.steps=5", "training.report_step=null", "training.run_steps=null")
    found = _runs(make_study, cells, more=more)
    assert list(found) == ["sft", "dpo", "dpo-rank2", "dpo-beta0.5-rank2", "dpo-beta0.5"]
    one = found["dpo-beta0.5-rank2"]
    assert (one.role, one.of, dict(one.varied)) == ("variant", None, {"settings.beta": 0.5, "adapter.rank": 2})
    assert (one.settings["beta"], one.adapter.rank, one.training.steps) == (0.5, 2, 5)
    steps = {s.name: s for s in plan_of(make_study(*ALONE, *more, f"factorial=[{cells}]")) if s.kind.name == "train"}
    assert steps["dpo-beta0.5-rank2"].config["adapter"]["rank"] == 2
    assert len({step.key for step in steps.values()}) == len(steps)


def test_what_is_varied_is_served_and_has_its_own_reference(make_study: Maker, plan_of: Planner) -> None:
    study = make_study(
        *ALONE, "adapter.rank=4", "training.micro_batch=8",
        "factorial=[{vary: {adapter.rank: [16]}}, {methods: [dpo], vary: {training.micro_batch: [4]}}]",
    )  # fmt: skip
    steps = plan_of(study)
    served = {s.runtime["engine"]["max_lora_rank"] for s in steps if s.kind.name == "evaluate"}
    assert served == {16}
    references = {s.name: s.config["micro_batch"] for s in steps if s.kind.name == "reference"}
    assert references == {"base": 8, "base-micro_batch4": 4}
    read = {s.name: s.inputs["reference"].name for s in steps if "reference" in s.inputs}
    assert read == {"dpo": "base", "dpo-rank16": "base", "dpo-micro_batch4": "base-micro_batch4"}


def test_cells_beside_the_short_forms_leave_their_keys_and_names(make_study: Maker, plan_of: Planner) -> None:
    before = {step.title: step.key for step in plan_of(make_study()) if step.kind.name == "train"}
    study = make_study("factorial=[{methods: [dpo], order_seed: [42, 5, 6]}, {learning_rate: [2e-3]}]")
    after = {step.title: step.key for step in plan_of(study) if step.kind.name == "train"}
    assert before.items() < after.items()


def test_an_exclusion_takes_out_what_it_matches(make_study: Maker) -> None:
    rates = "learning_rate: [1e-4, 1e-3, 1e-2]"
    found = _runs(make_study, f"{{{rates}, exclude: [{{method: dpo, learning_rate: 1e-2}}]}}")
    assert "sft-lr1e-2" in found and "dpo-lr1e-2" not in found and len(found) == 5


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ("{learning_rate: [1e-4, 1e-4]}", "factorial.0.learning_rate: 0.0001 is given twice"),
        ("{vary: {settings.beta: [1, 1]}}", "settings.beta: 1 is given twice"),
        ("{learning_rate: []}", "factorial.0.learning_rate: must hold at least 1"),
        ("{methods: []}", "factorial.0.methods: must hold at least 1"),
        ("{vary: {settings.beta: []}}", "factorial.0.vary.settings.beta: must hold at least 1"),
        ("{learning_rate: [0]}", "greater than 0"),
        ("{learning_rate: [-1e-3]}", "greater than 0"),
        ("{vary: {beta: [0.5]}}", "beta is no factor: name a setting as adapter.X, training.X or settings.X"),
        ("{vary: {training.stepz: [5]}}", "training.stepz is no setting of training"),
        ("{vary: {training.learning_rate: [1e-5]}}", "give its levels as learning_rate"),
        ("{vary: {training.resume_every: [5, 6]}}", "training.resume_every changes no result"),
        ("{vary: {adapter.targets: [[q_proj]]}}", "adapter.targets must be the same for all trainings"),
        ("{vary: {training.steps: [0]}}", "factorial.0: steps: input should be greater than or equal to 1, not '0'"),
        ("{vary: {adapter.rank: ['16']}}", "factorial.0: rank: input should be a valid integer"),
        ("{vary: {adapter.rank: [8.5]}}", "factorial.0: rank: input should be a valid integer"),
        ("{vary: {training.steps: [true]}}", "factorial.0: steps: input should be a valid integer"),
        (
            "{vary: {training.gradient_checkpointing: ['no']}}",
            "gradient_checkpointing: input should be a valid boolean",
        ),
        ("{vary: {training.betas: [0.9]}}", "factorial.0: betas"),
        ("{vary: {training.probe_every: [2]}}", "training.probe_every must be the same for all trainings"),
        ("{methods: [sft], vary: {settings.beta: [0.5]}}", "factorial.0: "),
        ("{methods: [dpo], vary: {settings.beta: [-1]}}", "factorial.0: "),
        ("{methods: [ppo]}", "factorial.0.methods names 'ppo', which is not among methods"),
        ("{order_seed: [1, 2], exclude: [{order_seed: 3}]}", "factorial.0: exclude: no cell has order_seed 3"),
        ("{order_seed: [1, 2], exclude: [{beta: 3}]}", "exclude: beta is no factor of these cells"),
        ("{order_seed: [1], exclude: [{order_seed: 1}]}", "factorial.0: exclude leaves no cell"),
        ("{rate: [1e-4]}", "unknown key"),
    ],
)
def test_a_bad_factorial_is_refused_in_one_line(make_study: Maker, cells: str, complaint: str) -> None:
    with pytest.raises(UserError) as refused:
        _runs(make_study, cells)
    assert complaint in str(refused.value) and "\n" not in str(refused.value)


def test_more_trainings_than_the_cap_need_a_word_of_consent(make_study: Maker) -> None:
    seeds = "{order_seed: [" + ", ".join(map(str, range(100, 160))) + "]}"
    with pytest.raises(UserError, match=r"122 trainings, more than max_trainings=100: .* max_trainings=122"):
        _runs(make_study, seeds)
    assert len(_runs(make_study, seeds, more=("max_trainings=122",))) == 122


def test_what_repeats_a_variant_names_it(make_study: Maker) -> None:
    cells = "{methods: [dpo], learning_rate: [1e-4, 1e-3], order_seed: [42, 7], vary: {settings.beta: [0.5]}}"
    found = _runs(make_study, cells)
    assert {name: (run.role, run.of) for name, run in found.items() if "beta" in name} == {
        "dpo-beta0.5": ("variant", None), "dpo-beta0.5-order7": ("order", "dpo-beta0.5"),
        "dpo-lr1e-3-beta0.5": ("sweep", "dpo-beta0.5"), "dpo-lr1e-3-beta0.5-order7": ("cell", "dpo-beta0.5"),
    }  # fmt: skip


def test_one_training_has_one_name_however_its_level_is_written(make_study: Maker) -> None:
    more = ("training.steps=5", "training.report_step=null", "training.run_steps=null")
    levels = (
        "settings.beta: [1]",
        "settings.beta: [1.0]",
        "training.report_step: [5]",
        "training.betas: [[0.9, 0.999]]",
    )
    cells = [f"{{methods: [dpo], vary: {{{level}}}}}" for level in levels]
    assert list(_runs(make_study, *cells, more=more)) == ["sft", "dpo", "dpo-beta1"]


def test_levels_that_would_share_a_name_are_refused_or_told_apart(make_study: Maker) -> None:
    found = _runs(make_study, "{methods: [dpo], vary: {settings.beta: [1e16, 1e-16]}}")
    assert list(found) == ["sft", "dpo", "dpo-beta1e16", "dpo-beta1e-16"]


def test_what_is_excluded_does_not_count(make_study: Maker) -> None:
    seeds = ", ".join(map(str, range(100, 160)))
    cells = f"{{order_seed: [{seeds}], exclude: [{{method: dpo}}]}}"
    assert len(_runs(make_study, cells)) == 62
