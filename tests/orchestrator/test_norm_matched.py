"""Updates at the reference's norm: which are planned, what the steps write and refuse, the rows that come of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.function.cka import gram, linear_cka
from analysis.statistics.trainings import method_difference
from execution.context import Context, NoResources
from execution.errors import UserError
from execution.runner import DagRunner
from execution.step import Step
from execution.store import open_store
from orchestrator.config.study import Study
from orchestrator.measurements.features import write_grams
from orchestrator.planning.cost import durations, estimate
from orchestrator.planning.scaled_copies import scaled_copies
from orchestrator.planning.training_runs import training_runs
from orchestrator.planning.views.plan import lines
from orchestrator.results.matched import matched
from orchestrator.steps import STEP_KINDS
from results.function import Losses
from results.matched import MatchedRow
from results.scaled import Scaled
from tests.orchestrator.test_attribution import _geometry, _trainings
from tests.orchestrator.test_plan import keys

Maker = Callable[..., Study]
Planner = Callable[[Study], list[Step]]
ON = "norm_matched=true"
CROSSED = "factorial=[{learning_rate: [3e-5, 1e-4, 3e-4], order_seed: [42, 43]}, {vary: {adapter.start: [b]}}]"


def _context(kind: str, inputs: dict[str, Path], out: Path, config: dict[str, Any], **runtime: Any) -> Context:
    out.mkdir()
    return Context(
        config=config, runtime=runtime, inputs=inputs, out=out, work=out, keep=lambda: None,
        progress=lambda line: None, parallel_map=lambda function, items: [], resources=NoResources(),
    )  # fmt: skip


# which are planned


def test_other_methods_at_their_own_rate_and_at_the_references_rates_are_scaled(make_study: Maker) -> None:
    """In all orders; not from another initial A, not a variant, and at no rate that says nothing of the reference."""
    study = make_study(ON, CROSSED, "replicas=[{method: sft, init_seed: 43}, {method: dpo, init_seed: 44}]")
    copies = scaled_copies(study, training_runs(study))
    rates = {"rft": ("", "-lr3e-5", "-lr1e-4"), "dpo": ("", "-lr3e-4", "-lr1e-4")}
    wanted = {f"{m}{rate}{order}" for m, of in rates.items() for rate in of for order in ("", "-order43")}
    assert {copy.of for copy in copies} == wanted and len(copies) == 12
    assert {copy.to for copy in copies} == {"sft"} and all(copy.name == f"{copy.of}-norm" for copy in copies)
    alone = make_study(ON, "factorial=[{methods: [rft], learning_rate: [1e-3]}]")
    assert {copy.of for copy in scaled_copies(alone, training_runs(alone))} == {"rft", "dpo", "dpo-lr3e-4"}


def test_a_copy_is_a_further_model_and_moves_no_other_step(make_study: Maker, plan_of: Planner) -> None:
    plain, steps = keys(plan_of(make_study())), plan_of(make_study(ON))
    assert {title: key for title, key in keys(steps).items() if title in plain} == plain
    copies = ("rft-norm", "dpo-norm", "dpo-lr3e-4-norm")
    kinds = ("scale", "evaluate", "losses", "features")
    assert [step.title for step in steps if step.title not in plain] == [
        *(f"{kind}/{name}" for kind in kinds for name in copies), "similarity/scaled",
    ]  # fmt: skip
    by = {step.title: step for step in steps}
    reads = {role: step.title for role, step in by["scale/dpo-norm"].inputs.items()}
    assert reads == {"training": "train/dpo", "reference": "train/sft"}
    for kind in kinds[1:]:
        assert by[f"{kind}/dpo-norm"].inputs["adapter"].title == "scale/dpo-norm"
    assert {step.title for step in by["similarity/scaled"].inputs.values()} == {
        "features/base", *(f"features/{name}" for name in copies),
    }  # fmt: skip


def test_the_plan_counts_and_estimates_the_copies(make_study: Maker, plan_of: Planner, tmp_path: Path) -> None:
    study, plain = make_study(ON), make_study()
    steps = plan_of(study)
    text = list(lines(study, steps, open_store(tmp_path / "store")))
    assert "norm       3 trainings also scaled to the norm of sft's update, and evaluated so" in text
    assert not any(line.startswith("norm ") for line in lines(plain, [], open_store(tmp_path / "store")))
    known = durations(study.shaped(), steps)
    assert known is not None
    assert 0 < known["scale/dpo-norm"] < known["train/dpo"] and known["evaluate/dpo-norm"] == known["evaluate/dpo"]
    one, two = estimate(plain.shaped()), estimate(study.shaped())
    assert one is not None and two is not None
    assert two.evaluation_gpu_hours / one.evaluation_gpu_hours == pytest.approx(10 / 7), "6 trainings, base, 3 copies"


def test_a_study_with_nothing_to_scale_is_refused(make_study: Maker) -> None:
    with pytest.raises(UserError, match="norm_matched: no method beside sft has an update to scale") as error:
        make_study(ON, "methods={sft: }", "sweep=null", "replicas=[]", "analysis.connectivity.pairs=[]")
    assert "\n" not in str(error.value)


def test_a_training_of_a_copys_name_is_refused(make_study: Maker) -> None:
    study = make_study(ON)
    first, *rest = training_runs(study)
    with pytest.raises(ValueError, match="a training has the name of the scaled copy dpo-norm"):
        scaled_copies(study, [first, *rest, replace(first, name="dpo-norm")])


def test_a_failed_training_takes_its_copy_with_it_alone(
    make_study: Maker, plan_of: Planner, stand_in: Any, tmp_path: Path
) -> None:
    steps, store = plan_of(make_study(ON)), open_store(tmp_path / "store")
    outcome = DagRunner(steps, store, lambda line: None).run(lambda: stand_in(store, fails=["train/dpo"]))
    lost = {"train/dpo"} | {f"{kind}/dpo" for kind in ("evaluate", "losses", "features")}
    lost |= {f"{kind}/dpo-norm" for kind in ("scale", "evaluate", "losses", "features")}
    assert outcome.lost == lost
    (scaled,) = (step for step in outcome.steps if step.title == "similarity/scaled")
    assert list(scaled.inputs) == ["base", "features:rft-norm", "features:dpo-lr3e-4-norm"]


# what the steps write and refuse


@pytest.fixture
def trainings(tmp_path: Path, tiny_model: Path, write_adapter: Callable[..., Path]) -> dict[str, Path]:
    """Two finished trainings as their steps leave them: random adapters of different sizes."""
    folders = {role: tmp_path / role for role in ("training", "reference")}
    for seed, folder in enumerate(folders.values()):
        write_adapter(folder / "adapter", tiny_model, seed, scale=0.5 + seed)
        (folder / "training.json").write_text('{"noise": false}')
    return folders


def _scale(trainings: dict[str, Path], out: Path) -> dict[str, Any]:
    config = {"name": "dpo-norm", "of": "dpo", "to": "sft"}
    context = _context("scale", trainings, out, config, start="a")
    STEP_KINDS["scale"].run(context)
    assert STEP_KINDS["scale"].read is not None
    (found,) = STEP_KINDS["scale"].read(out).scaled
    return {**vars(found)}


def test_the_step_reaches_the_references_norm(trainings: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftConfig

    found = _scale(trainings, tmp_path / "out")
    # Both factors of the reference are drawn three times as large, so that its update is some nine times the other.
    assert 6 < found["factor"] < 12 and found["factor"] == found["reference_norm"] / found["norm_before"]
    assert found["norm"] == pytest.approx(found["reference_norm"], rel=1e-6)
    assert (found["name"], found["of"], found["to"]) == ("dpo-norm", "dpo", "sft")
    assert PeftConfig.from_pretrained(tmp_path / "out" / "adapter").r == 8


@pytest.mark.parametrize(("role", "name"), [("training", "dpo"), ("reference", "sft")])
@pytest.mark.parametrize("why", ["zero", "noise"])
def test_an_update_without_a_norm_or_a_direction_is_left_out_with_its_reason(
    trainings: dict[str, Path], tmp_path: Path, role: str, name: str, why: str
) -> None:
    from safetensors.torch import load_file, save_file

    if why == "noise":
        (trainings[role] / "training.json").write_text('{"noise": true}')
    else:
        path = trainings[role] / "adapter" / "adapter_model.safetensors"
        saved = load_file(path)
        save_file({key: x * 0 if "lora_B" in key else x for key, x in saved.items()}, path)
    words = f"the update of {name} " + ("is zero" if why == "zero" else "was made of rounding")
    with pytest.raises(ValueError, match=words):
        _scale(trainings, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()), "nothing is left that could be taken for an adapter"


def test_copies_are_held_against_base_at_every_layer(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, states = {}, {}
    for role in ("base", "features:dpo-norm", "features:rft-norm"):
        inputs[role] = tmp_path / role
        inputs[role].mkdir()
        states[role] = [gram(torch.randn(12, 5, generator=generator)) for _ in range(3)]
        write_grams(inputs[role], dict(enumerate(states[role])), {"model.layers.0.self_attn.q_proj": torch.eye(12)})
    STEP_KINDS["similarity"].run(_context("similarity", inputs, tmp_path / "out", {"to": "base"}))
    assert STEP_KINDS["similarity"].read is not None
    found = STEP_KINDS["similarity"].read(tmp_path / "out")
    assert found.similarity is None, "no part of the table of all pairs"
    assert [(row.name, row.layer, row.cka) for row in found.scaled_cka] == [
        (name, layer - 1, linear_cka(states["base"][layer], states[f"features:{name}"][layer]))
        for name in ("dpo-norm", "rft-norm")
        for layer in range(3)
    ]


# the rows


PROBLEMS = 300


def _copies() -> list[Scaled]:
    geometry = _geometry(_trainings())
    to = geometry.norms["sft"]
    return [
        Scaled(name=f"{row.name}-norm", of=row.name, to="sft", factor=to / geometry.norms[row.name],
               norm_before=geometry.norms[row.name], norm=to, reference_norm=to)
        for row in _trainings()
        if row.method != "sft"
    ]  # fmt: skip


def _rows(copies: list[Scaled]) -> tuple[list[MatchedRow], dict[str, np.ndarray], dict[str, float]]:
    """With verdicts planted so that DPO scaled is worse by .25 than SFT, and unscaled as good."""
    trainings, generator = _trainings(), np.random.default_rng(1)
    latent = generator.random(PROBLEMS)
    names = [row.name for row in trainings] + [copy.name for copy in copies]
    level = {name: 0.35 if name.startswith("dpo") and name.endswith("-norm") else 0.6 for name in names}
    shares = {name: (latent + generator.normal(0, 0.02, PROBLEMS) < level[name]).astype(float) for name in names}
    nll = {name: float(i + 1) for i, name in enumerate(names)}
    losses = [Losses(name=name, nll_right=value, nll_wrong=1.0, kl_to_base=10 * value) for name, value in nll.items()]
    rows = matched(trainings, "sft", _geometry(trainings), None, losses, {"sums": shares}, scaled=copies)
    return rows, shares, nll


def test_a_row_has_the_copies_verdicts_and_losses_and_the_trainings_directions() -> None:
    copies = _copies()
    rows, shares, nll = _rows(copies)
    by = {(row.matched, row.method, row.learning_rate): row for row in rows}
    assert [row.matched for row in rows] == ["learning rate"] * 4 + ["norm"] * 4
    row, plain = by["norm", "dpo", 1e-3], by["learning rate", "dpo", 1e-3]
    assert (row.trainings, row.reference_trainings) == (["dpo-norm", "dpo-order43-norm"], ["sft", "sft-order43"])
    assert (row.cosine, row.angle_min, row.floor) == (plain.cosine, plain.angle_min, plain.floor)
    assert row.factor is not None and plain.factor is None
    assert row.factor.mean == pytest.approx(np.mean([c.factor for c in copies if c.name in row.trainings]))
    assert row.norm_ratio is not None and row.norm_ratio.pairs == 4
    assert row.norm_ratio.low <= 1 <= row.norm_ratio.high and row.norm_ratio.mean == pytest.approx(1, abs=0.01)
    assert row.nll_right.its == np.mean([nll[name] for name in row.trainings])
    assert row.nll_right.reference == np.mean([nll["sft"], nll["sft-order43"]]) == plain.nll_right.reference
    assert row.kl_to_base == 10 * row.nll_right.its
    (found,) = row.accuracy
    expected = method_difference(
        np.stack([shares["sft"], shares["sft-order43"]]), np.stack([shares[name] for name in row.trainings])
    )
    assert (found.difference, found.p) == (expected.difference, expected.p) and (found.low, found.high) == (
        expected.interval or ()
    )
    assert found.high is not None and found.high < 0 and found.difference == pytest.approx(-0.25, abs=0.06)
    assert found.p_holm is not None and found.p_holm < 0.05, "told"
    assert plain.accuracy[0].low is not None and plain.accuracy[0].low < 0 < (plain.accuracy[0].high or 0)


def test_a_row_has_the_norm_of_the_copies() -> None:
    copies = [copy.model_copy(update={"norm": 2 * copy.norm}) for copy in _copies()]
    row = next(row for row in _rows(copies)[0] if row.matched == "norm")
    assert row.norm.its == pytest.approx(2 * copies[0].reference_norm) and row.norm_ratio is not None
    assert row.norm_ratio.mean == pytest.approx(2, rel=0.02)


def test_a_slower_rate_stands_beside_the_reference_at_its_own() -> None:
    rows, _, _ = _rows(_copies())
    slow = next(row for row in rows if row.matched == "norm" and (row.method, row.learning_rate) == ("dpo", 1e-4))
    assert (slow.reference_rate, slow.reference_trainings) == (1e-3, ["sft", "sft-order43"])
    assert slow.trainings == ["dpo-lr0.0001-norm", "dpo-lr0.0001-order43-norm"]


def test_what_was_not_scaled_has_no_row_and_is_in_none() -> None:
    copies = [copy for copy in _copies() if copy.name != "dpo-order43-norm" and copy.of.startswith("dpo")]
    rows, _, _ = _rows(copies)
    found = {row.learning_rate: row for row in rows if row.matched == "norm"}
    assert {rate: row.trainings for rate, row in found.items()} == {
        1e-4: ["dpo-lr0.0001-norm", "dpo-lr0.0001-order43-norm"], 1e-3: ["dpo-norm"],
    }  # fmt: skip
    assert found[1e-3].accuracy[0].trainings == 1 and found[1e-3].accuracy[0].pooled
    assert not [row for row in _rows([])[0] if row.matched == "norm"]


def test_holm_counts_the_rows_of_copies_too() -> None:
    """Adjusted over all rows of the table: the smallest p is multiplied by their number."""
    rows, _, _ = _rows(_copies())
    tested = [row.accuracy[0] for row in rows if row.accuracy[0].p is not None]
    smallest = min(tested, key=lambda found: found.p or 1)
    assert len(tested) == 8 and smallest.p is not None
    assert smallest.p_holm == pytest.approx(min(1.0, 8 * smallest.p))
