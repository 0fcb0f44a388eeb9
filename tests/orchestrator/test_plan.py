"""The plan: order, and keys that change exactly with what decides a result."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from execution.fingerprint import key
from execution.step import Step
from execution.store import open_store
from orchestrator.config.study import Study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolve import gather
from orchestrator.planning.training_runs import rate_name, sweep_points, training_runs
from orchestrator.planning.views.plan import lines
from orchestrator.steps import STEP_KINDS

Planner = Callable[[Study], list[Step]]
Maker = Callable[..., Study]
ROLLOUTS_FILE = "rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}"
# The kinds of a study that searches no learning rate, and whose rollouts are sampled from one model in one part.
WITHOUT_SEARCH = set(STEP_KINDS) - {"search", "validate", "sample"}
GSM8K = "evaluation.tasks=[{task: gsm8k, source: '{data}/gsm8k/train.jsonl', split: train, draw: 5}]"


def keys(steps: list[Step]) -> dict[str, str]:
    return {step.title: step.key for step in steps}


def test_every_step_stands_behind_what_it_reads(make_study: Maker, plan_of: Planner) -> None:
    seen: set[str] = set()
    for step in plan_of(make_study()):
        assert {s.title for s in step.inputs.values()} <= seen, step.title
        assert step.title not in seen
        seen.add(step.title)


def test_the_small_study_has_these_steps(make_study: Maker, plan_of: Planner) -> None:
    trainings = ["sft", "rft", "dpo", "dpo-lr3e-4", "sft-order43", "sft-init43"]
    assert [s.title for s in plan_of(make_study())] == [
        "base/scratch", "rollouts/sampled", "problems/evaluation", "reference/base",
        *(f"train/{name}" for name in trainings),
        "evaluate/base", *(f"evaluate/{name}" for name in trainings),
        "geometry/weights", "activations/rows", "spectra/base",
        "losses/base", *(f"losses/{name}" for name in trainings),
        "features/base", *(f"features/{name}" for name in trainings),
        "connectivity/paths", "similarity/cka",
    ]  # fmt: skip


def test_steps_read_what_they_need(make_study: Maker, plan_of: Planner) -> None:
    reads = {s.title: {s2.title for s2 in s.inputs.values()} for s in plan_of(make_study())}
    everything_trained = {t for t in reads if t.startswith("train/")}
    assert reads["base/scratch"] == set()
    assert reads["train/sft"] == {"base/scratch", "rollouts/sampled"}
    assert reads["train/dpo"] == {"base/scratch", "rollouts/sampled", "reference/base"}
    assert reads["evaluate/base"] == {"base/scratch", "problems/evaluation"}
    assert reads["evaluate/rft"] == {"base/scratch", "problems/evaluation", "train/rft"}
    assert reads["geometry/weights"] == everything_trained
    assert reads["activations/rows"] == everything_trained | {"base/scratch", "rollouts/sampled"}
    assert reads["spectra/base"] == everything_trained | {"base/scratch"}
    assert reads["losses/base"] == {"base/scratch", "rollouts/sampled"}
    assert reads["losses/rft"] == {"base/scratch", "rollouts/sampled", "train/rft"}
    assert reads["features/base"] == {"base/scratch", "problems/evaluation"}
    assert reads["features/rft"] == {"base/scratch", "problems/evaluation", "train/rft"}
    ends = {f"{kind}/{name}" for kind in ("train", "losses") for name in ("sft", "dpo")}
    assert reads["connectivity/paths"] == ends | {"base/scratch", "rollouts/sampled"}
    models = {"base"} | {title.partition("/")[2] for title in everything_trained}
    assert reads["similarity/cka"] == {f"features/{name}" for name in models}


def test_a_path_from_the_base_reads_its_losses(make_study: Maker, plan_of: Planner) -> None:
    steps = {s.title: s for s in plan_of(make_study("analysis.connectivity.pairs=[[sft, base], [dpo, sft]]"))}
    assert list(steps["connectivity/paths"].inputs) == [
        "base", "rollouts", "adapter:sft", "adapter:dpo", "losses:sft", "losses:base", "losses:dpo",
    ]  # fmt: skip


def test_the_page_counts_what_a_comparison_reads_of_the_models(
    make_study: Maker, plan_of: Planner, tmp_path: Path
) -> None:
    study = make_study()
    page = list(lines(study, plan_of(study), open_store(tmp_path / "store")))
    reads = {line.split()[0]: re.split("  +", line)[-1] for line in page if "/" in line.partition(" ")[0]}
    assert reads["geometry/weights"] == "6 adapters"
    assert reads["losses/sft"] == "base, rollouts, train" and reads["features/base"] == "base, problems"
    assert reads["connectivity/paths"] == "base, rollouts, 2 adapters, 2 losses"
    assert reads["similarity/cka"] == "features, 6 features"


def test_no_row_is_held_out_where_none_is_asked_for(make_study: Maker, plan_of: Planner) -> None:
    kinds = {s.kind.name for s in plan_of(make_study("rollouts.table.heldout=0", "norm_matched=true"))}
    assert kinds == WITHOUT_SEARCH - {"losses", "connectivity"}


def test_one_training_more_changes_what_compares_all_and_nothing_else(make_study: Maker, plan_of: Planner) -> None:
    """Its own steps are new; the others' trainings, answers, features, losses and paths are found as they were."""
    before = keys(plan_of(make_study()))
    after = keys(plan_of(make_study("factorial=[{methods: [rft], learning_rate: [1e-3]}]")))
    new = {f"{kind}/rft-lr1e-3" for kind in ("train", "evaluate", "losses", "features")}
    assert after.keys() - before.keys() == new
    assert {title for title in before if before[title] != after[title]} == {
        "geometry/weights", "activations/rows", "spectra/base", "similarity/cka",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "left_out"),
    [("analysis.activations.rows=0", "activations/rows"), ("analysis.spectra.top=0", "spectra/base")],
)
def test_a_measurement_of_nothing_is_left_out(
    make_study: Maker, plan_of: Planner, override: str, left_out: str
) -> None:
    whole, rest = keys(plan_of(make_study())), keys(plan_of(make_study(override)))
    assert left_out in whole
    assert rest == {title: key for title, key in whole.items() if title != left_out}


def test_one_training_has_nothing_to_be_compared_with(make_study: Maker, plan_of: Planner) -> None:
    alone = make_study("methods={sft: }", "replicas=[]", "sweep=null", "analysis.connectivity.pairs=[]")
    collective = [s.title for s in plan_of(alone) if s.collective]
    assert collective == ["spectra/base", "connectivity/paths", "similarity/cka"]


def test_the_geometry_knows_where_each_adapter_started(make_study: Maker, plan_of: Planner) -> None:
    geometry = next(s for s in plan_of(make_study()) if s.kind.name == "geometry")
    trained = {f"adapter:{name}" for name in geometry.runtime["init_seeds"]}
    assert trained == set(geometry.inputs)
    assert {n for n, seed in geometry.runtime["init_seeds"].items() if seed == 43} == {"sft-init43"}


VARIANTS = (
    "methods={sft: , offline_grpo: , offline_grpo_source: {method: offline_grpo, settings: {form: source}}, dpo: "
    "{learning_rate: 3e-5}, ipo: {method: dpo, learning_rate: 3e-5, settings: {loss: ipo}}}"
)


def test_a_method_may_stand_twice_in_two_forms(make_study: Maker, plan_of: Planner) -> None:
    """Under a name of its own: the same objective, other settings, and the reference that its form reads."""
    steps = {s.title: s for s in plan_of(make_study(VARIANTS))}
    source, ipo = steps["train/offline_grpo_source"], steps["train/ipo"]
    assert source.config["method"] == "offline_grpo" and source.config["settings"]["form"] == "source"
    assert ipo.config["method"] == "dpo" and ipo.config["settings"]["loss"] == "ipo"
    assert source.inputs["reference"].title == "reference/all-rows" in steps
    assert ipo.inputs["reference"].title == "reference/base" in steps
    assert "reference" not in steps["train/offline_grpo"].inputs
    alone = {s.title: s.key for s in plan_of(make_study())}
    assert steps["train/dpo"].key == alone["train/dpo"], "a further method changes none that was there"
    replica = make_study(
        VARIANTS, "replicas=[{method: ipo, order_seed: 43}]", "sweep={method: ipo, learning_rates: [1e-4]}"
    )
    names = {cell.name: cell.objective for cell in training_runs(replica)}
    assert names["ipo-order43"] == names["ipo-lr1e-4"] == "dpo"


def test_every_kind_stands_under_its_own_name() -> None:
    assert all(kind.name == name and kind.version > 0 for name, kind in STEP_KINDS.items())


def test_the_key_is_the_hash_of_kind_version_settings_and_inputs() -> None:
    inner = Step(STEP_KINDS["base"], "b", {"x": 1})
    outer = Step(
        STEP_KINDS["train"], "t", {"rate": 0.5, "pair": (1, 2)}, {"base": inner}, {"path": "/a"}, role="method"
    )
    payload = {
        "kind": "train",
        "version": STEP_KINDS["train"].version,
        "config": {"rate": 0.5, "pair": [1, 2]},
        "inputs": {"base": inner.key},
    }
    assert outer.payload() == payload
    assert outer.key == key(payload)
    assert Step(STEP_KINDS["train"], "other", {"rate": 0.5, "pair": (1, 2)}, {"base": inner}).key == outer.key


def test_payloads_survive_json(make_study: Maker, plan_of: Planner) -> None:
    for step in plan_of(make_study()):
        assert json.loads(json.dumps(step.payload())) == step.payload()


def test_the_same_study_gives_the_same_plan(make_study: Maker, plan_of: Planner) -> None:
    assert plan_of(make_study()) == plan_of(make_study())


@pytest.mark.parametrize(
    "override",
    [
        "placement.gpus_per_training=0.25", "placement.cache_gib=7",
        "placement.memory_share=0.5", "title=Another", "name=another", "data=/elsewhere",
        "training.resume_every=1", "training.resume_seconds=0",
    ],
)  # fmt: skip
def test_what_decides_no_result_changes_no_key(make_study: Maker, plan_of: Planner, override: str) -> None:
    assert keys(plan_of(make_study(override))) == keys(plan_of(make_study()))


def test_where_data_lies_changes_no_key(make_study: Maker, plan_of: Planner, data_folder: Path, tmp_path: Path) -> None:
    here = keys(plan_of(make_study(ROLLOUTS_FILE, GSM8K)))
    moved = shutil.move(data_folder, tmp_path / "moved")
    assert keys(plan_of(make_study(ROLLOUTS_FILE, GSM8K, f"data={moved}"))) == here


def test_another_byte_in_a_data_file_changes_its_readers(
    make_study: Maker, plan_of: Planner, data_folder: Path
) -> None:
    before = keys(plan_of(make_study(ROLLOUTS_FILE, GSM8K)))
    with (data_folder / "gsm8k" / "train.jsonl").open("a") as stream:
        stream.write("\n")
    after = keys(plan_of(make_study(ROLLOUTS_FILE, GSM8K)))
    kinds = {title.split("/")[0] for title in before if before[title] != after[title]}
    assert kinds == {"problems", "evaluate", "features", "similarity"}


TRAINED = {
    "train", "scale", "evaluate", "geometry", "activations", "spectra", "losses", "features", "connectivity",
    "similarity",
}  # fmt: skip


@pytest.mark.parametrize(
    ("override", "kinds"),
    [
        ("base.seed=1", WITHOUT_SEARCH),
        ("base.threads=2", WITHOUT_SEARCH),
        ("prompt.max_answer_tokens=47", WITHOUT_SEARCH - {"base"}),
        ("rollouts.temperature=0.9", WITHOUT_SEARCH - {"base"}),
        ("rollouts.shard=3", WITHOUT_SEARCH - {"base"}),
        ("rollouts.table.heldout=0.2", WITHOUT_SEARCH - {"base"}),
        ("engine.threads=2", WITHOUT_SEARCH - {"base"}),
        ("training.precision=bfloat16", TRAINED | {"reference"}),
        ("training.threads=2", TRAINED | {"reference"}),
        ("training.learning_rate=2e-4", TRAINED),
        ("training.steps=5", TRAINED),
        ("training.report_step=3", TRAINED),
        ("training.backend=trl", TRAINED),
        ("adapter.rank=5", TRAINED),
        ("adapter.start=b", TRAINED),
        ("seeds.order=7", TRAINED),
        ("evaluation.tasks.0.seed=2", {"problems", "evaluate", "features", "similarity"}),
        ("evaluation.contamination=exclude", {"problems", "evaluate", "features", "similarity"}),
        ("evaluation.max_tokens=30", {"evaluate"}),
        ("evaluation.canary.tolerance=0.1", {"evaluate"}),
        ("evaluation.temperature=0.5", {"evaluate"}),
        ("evaluation.tasks.0.max_tokens=30", {"evaluate"}),
        ("evaluation.tasks.0.shots={count: 1}", {"problems", "evaluate", "features", "similarity"}),
        ("prompt.template=x", WITHOUT_SEARCH - {"base"}),
        ("analysis.top=3", {"geometry"}),
        ("analysis.seed=1", {"geometry", "similarity"}),
        ("analysis.activations.rows=8", {"activations"}),
        ("analysis.spectra.top=4", {"spectra"}),
        ("analysis.spectra.threshold=0.6", {"spectra"}),
        ("analysis.connectivity.points=7", {"connectivity"}),
        ("analysis.connectivity.rows=7", {"losses", "connectivity"}),
        ("analysis.similarity.position=mean", {"features", "similarity"}),
        ("analysis.similarity.groups=4", {"similarity"}),
        ("analysis.threads=2", TRAINED - {"train", "scale", "evaluate"}),
    ],
)
def test_a_setting_changes_its_steps_and_what_reads_them(
    make_study: Maker, plan_of: Planner, override: str, kinds: set[str]
) -> None:
    methods = "methods={sft: , dpo: {learning_rate: 3e-5}}", "norm_matched=true"  # which the trl backend knows
    before, after = keys(plan_of(make_study(*methods))), keys(plan_of(make_study(*methods, override)))
    changed = {title.split("/")[0] for title in before if before[title] != after.get(title)}
    assert changed == kinds


def test_a_models_evaluation_in_parts_is_a_step_a_part(make_study: Maker, plan_of: Planner) -> None:
    steps = [s for s in plan_of(make_study("evaluation.parts=3")) if s.kind.name == "evaluate"]
    assert [s.name for s in steps[:4]] == ["base-part1of3", "base-part2of3", "base-part3of3", "sft-part1of3"]
    assert [(s.role, s.config["part"]) for s in steps[2:5]] == [("base", 2), ("sft", 0), ("sft", 1)]
    assert len({s.key for s in steps}) == len(steps)
    assert {s.role: s.inputs.get("adapter") and s.inputs["adapter"].name for s in steps}["sft"] == "sft"


def test_one_methods_setting_changes_that_method_alone(make_study: Maker, plan_of: Planner) -> None:
    before, after = (
        keys(plan_of(make_study())),
        keys(plan_of(make_study("methods.dpo.settings={beta: 0.2}"))),
    )
    changed = {title for title in before if before[title] != after[title]}
    assert {t for t in changed if t.startswith("train/")} == {"train/dpo", "train/dpo-lr3e-4"}
    assert "reference/base" not in changed


def test_a_default_that_is_written_out_is_the_same_study(make_study: Maker, plan_of: Planner) -> None:
    written = make_study("methods.dpo.settings={beta: 0.1}", "training.betas=[0.9, 0.999]", "training.report_step=4")
    assert keys(plan_of(written)) == keys(plan_of(make_study()))
    assert keys(plan_of(make_study("adapter.start=a"))) == keys(plan_of(make_study()))


def test_the_engine_at_hand_is_part_of_what_it_made(make_study: Maker) -> None:
    study = make_study("engine.kind=auto")
    facts = {"task:arithmetic:None": "own", "adapters": "lora"}
    one, two = (keys(make_plan(study, facts | {"engine": kind})) for kind in ("vllm", "transformers"))
    assert one["rollouts/sampled"] != two["rollouts/sampled"]
    assert one["base/scratch"] == two["base/scratch"]
    named = keys(make_plan(make_study("engine.kind=vllm"), facts | {"engine": "vllm"}))
    assert named == one


def test_the_commit_of_a_hub_base_decides_not_the_branch_it_was_found_by(make_study: Maker) -> None:
    facts = {"engine": "transformers", "adapters": "lora", "task:arithmetic:None": "own"}
    main, tag = (make_study(f"base={{kind: hub, name: a/b, revision: {r}}}") for r in ("main", "v1"))
    at = [keys(make_plan(s, facts | {s.base.locator: commit})) for s, commit in ((main, "1"), (tag, "1"), (main, "2"))]
    assert at[0] == at[1]
    assert set(at[0].values()).isdisjoint(at[2].values())
    assert "base/a--b" in at[0]


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        (5e-7, "5e-7"),
        (1.5e-4, "1.5e-4"),
        (3e-4, "3e-4"),
        (0.01, "1e-2"),
        (1.0, "1e0"),
        (20.0, "2e1"),
        (1.25e-5, "1.25e-5"),
    ],
)
def test_rates_are_named_as_people_write_them(rate: float, name: str) -> None:
    assert rate_name(rate) == name
    assert float(name) == rate


def test_the_sweeps_point_at_the_methods_own_rate_is_not_trained_twice(make_study: Maker) -> None:
    study = make_study("sweep.learning_rates=[3e-4, 3e-5, 1e-4]")
    assert [c.name for c in training_runs(study) if c.method == "dpo"] == ["dpo", "dpo-lr1e-4", "dpo-lr3e-4"]
    points = sweep_points(study)
    assert [(c.name, c.learning_rate) for c in points] == [
        ("dpo", 3e-5), ("dpo-lr1e-4", 1e-4), ("dpo-lr3e-4", 3e-4),
    ]  # fmt: skip


def test_the_methods_own_run_is_no_point_of_a_sweep_without_its_rate(make_study: Maker) -> None:
    study = make_study("sweep.learning_rates=[1e-4, 3e-4, 1e-4]", "replicas=[{method: dpo, order_seed: 5}]")
    assert [c.name for c in sweep_points(study)] == ["dpo-lr1e-4", "dpo-lr3e-4"]
    assert sweep_points(make_study("sweep=null")) == []


def test_a_replica_changes_one_thing(make_study: Maker, plan_of: Planner) -> None:
    study = make_study(
        "replicas=[{method: sft, order_seed: 7}, {method: sft, init_seed: 7}, {method: sft, learning_rate: 1e-3}]"
    )
    trained = {s.name: s for s in plan_of(study) if s.kind.name == "train"}
    own = trained["sft"].config
    changes = {
        name: {k: v for k, v in trained[name].config.items() if v != own[k]}
        for name in ("sft-order7", "sft-init7", "sft-lr1e-3")
    }
    assert changes == {
        "sft-order7": {"order_seed": 7},
        "sft-init7": {"init_seed": 7},
        "sft-lr1e-3": {"learning_rate": 1e-3},
    }
    assert [trained[name].role for name in changes] == ["order", "init", "rate"]


@pytest.mark.parametrize("same", ["order_seed: 42", "init_seed: 42", "learning_rate: 3e-4"])
def test_no_training_stands_twice_under_two_names(make_study: Maker, same: str) -> None:
    """A replica that changes nothing would be a floor of cosine 1: refused, or not made."""
    try:
        study = make_study(f"replicas=[{{method: sft, {same}}}]")
    except ValueError:
        return
    settings = [(c.method, c.learning_rate, c.init_seed, c.order_seed) for c in training_runs(study)]
    assert len(set(settings)) == len(settings)


def test_a_teacher_that_is_another_model_is_a_step_of_its_own(make_study: Maker) -> None:
    study = make_study("rollouts.model={kind: hub, name: big/teacher}")
    steps = {s.title: s for s in make_plan(study, gather(study, Path("nowhere"), online=False))}
    rollouts = steps["rollouts/sampled"]
    assert rollouts.inputs["model"].title == "base/big--teacher"
    assert rollouts.inputs["base"].title == "base/scratch"
    assert steps["train/sft"].inputs["base"].title == "base/scratch"


@pytest.mark.parametrize(
    "model",
    [
        "{kind: hub, name: a/b, revision: 2222222222222222222222222222222222222222}",
        "{kind: hub, name: a/b, revision: 1111111111111111111111111111111111111111}",
    ],
    ids=["another revision", "the base itself"],
)
def test_a_teacher_under_the_bases_own_name(make_study: Maker, model: str) -> None:
    """Steps are told apart by their titles, so each stands once; the commits must not get mixed up."""
    base = "{kind: hub, name: a/b, revision: 1111111111111111111111111111111111111111}"
    study = make_study(f"base={base}", f"rollouts.model={model}")
    steps = make_plan(study, gather(study, Path("nowhere"), online=False))
    titles = [s.title for s in steps]
    assert len(set(titles)) == len(titles)
    rollouts = next(s for s in steps if s.kind.name == "rollouts")
    assert rollouts.inputs["base"].config["content"] == "1" * 40
    assert rollouts.inputs["model"].config["content"] == model[-41:-1]


def test_without_narrows_a_collective_step(make_study: Maker, plan_of: Planner) -> None:
    geometry = next(s for s in plan_of(make_study()) if s.kind.name == "geometry")
    narrow = geometry.without({"train/dpo", "train/rft"})
    assert set(geometry.inputs) - set(narrow.inputs) == {"adapter:dpo", "adapter:rft"}
    assert narrow.key != geometry.key and narrow.title == geometry.title and narrow.collective
    assert geometry.without(set()).key == geometry.key
    collective = {s.kind.name for s in plan_of(make_study()) if s.collective}
    assert collective == {"geometry", "activations", "spectra", "connectivity", "similarity"}
