"""Trainings that agree in steps, rows, tokens or problems: which pair is taken, what a row holds, what is refused."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.matches import Family, agree, equal, nearest
from orchestrator.planning.training_runs import training_runs
from orchestrator.results.gather import settings_of
from orchestrator.results.matched import matched
from report.findings.limits import warnings
from report.matched import covered
from report.model_index import label, model_index
from results.document import Results
from results.function import Connectivity, Losses, Path, Similarity
from results.matched import MatchedRow
from results.study import StudyFacts
from results.trainings import Trained
from tests.report.drawn_study import COURSE, drawn

Maker = Callable[..., Study]
START = (42, "a")
BATCH, STEPS, PAIRED = "training.batch_size", "training.steps", "training.examples"


def family(method: str, amounts: dict[str, float], *varied: str, rate: float = 1e-3) -> Family:
    name = "-".join([method, *(key.rpartition(".")[2] for key in varied)])
    return Family(method, frozenset(varied), rate, START, (name,), amounts)


def test_amounts_agree_within_2_percent_of_the_larger_one() -> None:
    assert agree(98, 100) and agree(100, 98) and not agree(97.9, 100)
    assert not agree(None, 100) and not agree(None, None)


@pytest.mark.parametrize("amount", ["steps", "rows", "tokens", "problems"])
def test_of_several_that_agree_the_one_with_the_fewest_settings_then_the_first_is_taken(amount: Any) -> None:
    sft = family("sft", {amount: 100})
    own, two, one = (
        family("dpo", {amount: n}, *keys) for n, keys in ((200, ()), (100, (BATCH, STEPS)), (99, (BATCH,)))
    )
    assert nearest([sft, own], ("dpo", "sft"), 1e-3, START, amount) is None
    assert nearest([sft, own, two, one], ("dpo", "sft"), 1e-3, START, amount) == (one, sft)
    paired = family("sft", {amount: 200}, PAIRED)
    assert nearest([sft, own, two, one, paired], ("dpo", "sft"), 1e-3, START, amount) == (own, paired)
    assert nearest([sft, own, one, paired], ("dpo", "sft"), 1e-4, START, amount) is None
    of_loss, of_start = family("dpo", {amount: 100}, "settings.beta"), replace(one, start=(42, "b"))
    assert nearest([sft, of_loss, of_start], ("dpo", "sft"), 1e-3, START, amount) is None


def test_in_what_two_agree_is_listed() -> None:
    one = family("dpo", {"steps": 100, "rows": 4800, "tokens": 900, "problems": 300})
    two = family("sft", {"steps": 100, "rows": 2400, "tokens": 910, "problems": 400}, rate=1e-4)
    assert equal(one, two) == ["steps", "tokens"]
    assert equal(one, replace(two, learning_rate=1e-3)) == ["learning_rate", "steps", "tokens"]


SEEN = {  # rows, tokens, problems by method and what it varies
    ("sft", ()): (2400, 50_000, 300),
    ("sft", (PAIRED,)): (2400, 41_000, 200),
    ("dpo", ()): (4800, 100_000, 200),
    ("dpo", (BATCH,)): (2400, 60_000, 190),
}  # fmt: skip


def trainings(*left_out: tuple[str, tuple[str, ...]]) -> list[Trained]:
    rows = []
    for (method, keys), (seen, tokens, problems) in SEEN.items():
        if (method, keys) in left_out:
            continue
        varied = {key: "paired" if key == PAIRED else 12 for key in keys}
        name = method + "".join(f"-{key.rpartition('.')[2]}{level}" for key, level in varied.items())
        for order in (42, 43):
            told = {"name": name if order == 42 else f"{name}-order43", "method": method, "objective": method,
                    "role": ("variant" if keys else "method") if order == 42 else "order", "init_seed": 42,
                    "of": None if order == 42 else name, "learning_rate": 1e-3, "order_seed": order,
                    "rows_seen": seen, "tokens_seen": tokens + order, "distinct_problems": problems,
                    "undone": 0.25 if method == "sft" else 0.75, "signal": 0.5}  # fmt: skip
            told |= {"varied": varied} if varied else {}
            rows.append(Trained.model_validate(COURSE | told | {"status": "done", "error": None}))
    return rows


def rows_of(**more: Any) -> dict[tuple[str, str], MatchedRow]:
    given = more.pop("trainings", None) or trainings()
    found = matched(given, "sft", None, None, more.pop("losses", []), {}, **more)
    assert len({(row.method, row.to, row.learning_rate) for row in found}) == len(found)
    return {(row.method, row.to): row for row in found}


def test_what_the_methods_own_trainings_do_not_agree_in_has_a_row_of_trainings_that_do() -> None:
    """DPO beside SFT: steps agree; rows with half the batch; problems with SFT on DPO's rows; no tokens agree."""
    found = rows_of()
    assert {pair: row.matched for pair, row in found.items()} == {
        ("sft-examplespaired", "sft"): "learning rate",
        ("dpo", "sft"): "learning rate",
        ("dpo-batch_size12", "sft"): "learning rate",
        ("dpo", "sft-examplespaired"): "problems",
    }
    assert found["dpo", "sft"].equal == ["learning rate", "steps"]
    assert found["dpo-batch_size12", "sft"].equal == ["learning rate", "steps", "rows"]
    assert found["dpo", "sft-examplespaired"].equal == ["learning rate", "steps", "problems"]
    assert found["dpo", "sft-examplespaired"].reference_trainings == [
        "sft-examplespaired", "sft-examplespaired-order43",
    ]  # fmt: skip


def test_a_variant_without_a_training_at_its_own_rate_is_found_by_amount() -> None:
    """DPO's own rate is another: its half batch was trained at SFT's rate alone, where it is no method's own."""
    given = [
        row.model_copy(update={"learning_rate": 1e-4} if not row.varied and row.method == "dpo" else
                       {"role": "sweep" if row.order_seed == 42 else "cell", "of": "dpo-batch_size12",
                        "name": row.name.replace("dpo", "dpo-lr1e-3")} if row.method == "dpo" else {})
        for row in trainings(("sft", (PAIRED,)))
    ]  # fmt: skip
    found = rows_of(trainings=given)
    assert {pair: row.matched for pair, row in found.items()} == {
        ("dpo", "sft"): "as published", ("dpo-batch_size12", "sft"): "steps",
    }  # fmt: skip
    assert found["dpo-batch_size12", "sft"].equal == ["learning rate", "steps", "rows"]
    assert found["dpo-batch_size12", "sft"].trainings == [
        "dpo-lr1e-3-batch_size12", "dpo-lr1e-3-batch_size12-order43",
    ]  # fmt: skip


def test_a_study_that_names_its_matches_has_these_alone() -> None:
    assert {pair: row.matched for pair, row in rows_of(wanted=("rows",)).items()} == {
        ("dpo-batch_size12", "sft"): "rows",
    }  # fmt: skip
    assert {pair: row.matched for pair, row in rows_of(wanted=("steps", "problems")).items()} == {
        ("dpo", "sft"): "steps", ("dpo", "sft-examplespaired"): "problems",
    }  # fmt: skip
    assert rows_of(wanted=("tokens",)) == {}


def test_the_columns_are_means_over_the_trainings_of_each() -> None:
    losses = [
        Losses(name=row.name, nll_right=1.0 + i, nll_wrong=3.0 + 2 * i, kl_to_base=None)
        for i, row in enumerate(trainings())
    ]  # sft 0 and 1, its variant 2 and 3, dpo 4 and 5
    hidden = [
        {"a": "base", "b": row.name, "layer": layer, "cka": 1.0 if layer < 0 else 0.1 * (i + layer), "low": None,
         "high": None, "shuffled": None, "biased": None}
        for i, row in enumerate(trainings())
        for layer in (-1, 0, 1)
    ]  # fmt: skip
    similarity = Similarity.model_validate(
        {"estimator": "e", "position": "last", "prompts": 9, "hidden": hidden, "modules": []}
    )
    measured = ("sft", "dpo", 0.25), ("dpo-order43", "sft", 0.75), ("sft", "sft-order43", 9.0), ("base", "dpo", 9.0)
    paths = [Path(a=a, b=b, weights=[], loss=[], barrier=barrier) for a, b, barrier in measured]
    connectivity = Connectivity(loss="l", rows=3, paths=paths)
    row = rows_of(losses=losses, similarity=similarity, connectivity=connectivity)["dpo", "sft"]
    assert (row.nll_right.its, row.nll_right.reference) == (5.5, 1.5)
    assert (row.margin.its, row.margin.reference) == (6.5, 2.5)  # 2 + i
    assert row.cka_to_base.its == pytest.approx(0.5) and row.cka_to_base.reference == pytest.approx(0.1)
    assert row.barrier is not None and (row.barrier.mean, row.barrier.high, row.barrier.pairs) == (0.5, 0.75, 2)
    assert (row.undone.its, row.undone.reference, row.signal.its) == (0.75, 0.25, 0.5)
    assert (row.norm.its, row.norm.reference) == (None, None)


def test_rows_of_amounts_are_not_taken_for_ones_at_equal_rate() -> None:
    """What findings and headline read as compared at one rate is told by these rows alone."""
    study = drawn(1).typed
    rows = [row for row in rows_of().values() if row.matched == "problems"]
    assert covered(study.model_copy(update={"matched": rows})) == set()


def test_what_was_asked_for_and_no_trainings_give_is_said() -> None:
    given = trainings()
    settings: dict[str, Any] = {"matches": ["rows", "tokens", "problems"]}
    told = StudyFacts(name="s", title="", question="?", settings=settings)
    found = matched(given, "sft", None, None, [], {}, wanted=("rows", "tokens", "problems"))
    results = Results(version=1, study=told, trainings=list(given), matched=found)
    line = "No trainings of DPO agree with SFT’s in tokens at one learning rate, as the study’s matches ask."
    assert line in warnings(results, model_index(results))
    unasked = results.model_copy(update={"study": told.model_copy(update={"settings": {}})})
    assert not [words for words in warnings(unasked, model_index(unasked)) if "matches" in words]


ALONE = ("methods={sft: , rift: , dpo: {learning_rate: 1e-4}}", "replicas=[]", "sweep=null", "training.batch_size=24",
         "analysis.connectivity.pairs=[]", "training.learning_rate=1e-3")  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "matches", "line"),
    [
        ("", "[learning_rate]", "learning_rate: dpo has no training at a rate of sft: add one of its rates to "
                                "factorial.learning_rate"),
        ("{learning_rate: [1e-3]}", "[rows]",
         "rows: no training of dpo has as many as one of sft at one learning rate (dpo 288 at 0.0001, sft 144 "
         "at 0.001): vary training.batch_size or training.steps in the factorial, at a common learning_rate"),
        ("{learning_rate: [1e-3], methods: [dpo], vary: {training.report_step: [3]}}, {methods: [dpo], "
         "learning_rate: [1e-3]}", "[learning_rate, steps, tokens, problems, as_published]", None),
        ("{learning_rate: [1e-3], methods: [dpo], vary: {training.report_step: [3]}}", "[steps]",
         "steps: no training of dpo has as many as one of sft at one learning rate (dpo 6 at 0.0001, sft 6 at "
         "0.001): vary training.steps in the factorial, at a common learning_rate"),
        ("{learning_rate: [1e-3], methods: [dpo], vary: {training.batch_size: [12]}}", "[rows, steps]", None),
    ],
)  # fmt: skip
def test_a_match_that_no_cell_gives_is_refused(make_study: Maker, cells: str, matches: str, line: str | None) -> None:
    more = ("training.steps=6", "training.report_step=null", "training.run_steps=null")
    given = (*ALONE, *more, f"factorial=[{cells}]", f"matches={matches}")
    if line is None:
        assert make_study(*given).matches
        return
    with pytest.raises(Exception, match="matches") as caught:
        make_study(*given)
    assert line in str(caught.value)


def test_an_unknown_kind_of_match_is_refused_and_none_stated_is_no_setting(make_study: Maker) -> None:
    with pytest.raises(Exception, match=r"matches\.0"):
        make_study(*ALONE, "matches=[row]")
    assert "matches" not in settings_of(make_study(*ALONE))
    assert settings_of(make_study(*ALONE, "matches=[as_published]"))["matches"] == ["as_published"]


def test_a_method_on_pairs_has_no_variant_of_its_own_on_them(make_study: Maker) -> None:
    study = make_study(*ALONE, "factorial=[{vary: {training.examples: [paired]}}]")
    assert [run.name for run in training_runs(study)] == [
        "sft",
        "rift",
        "dpo",
        "sft-examplespaired",
        "rift-examplespaired",
    ]
    everywhere = {
        run.name: run.training.examples for run in training_runs(make_study(*ALONE, "training.examples=paired"))
    }
    assert everywhere == {"sft": "paired", "rift": "paired", "dpo": "all"}


def test_one_sample_a_problem_has_no_pairs_to_take_rows_from(make_study: Maker) -> None:
    given = ("methods={sft: }", "replicas=[]", "sweep=null", "analysis.connectivity.pairs=[]", "rollouts.samples=1")
    with pytest.raises(Exception, match=r"training\.examples=paired needs pairs: rollouts\.samples must be 2 or more"):
        make_study(*given, "training.examples=paired")


def test_the_page_calls_them_in_words() -> None:
    assert label("sft-examplespaired") == "SFT on DPO’s rows"
    assert label("rift-lr5e-4-examplespaired-order43") == "RIFT lr5e-4 on DPO’s rows, order43"


SEARCH = "search={learning_rates: [1e-4, 1e-3], methods: %s}"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["matches=[norm]"], "matches: norm: no update is scaled: set norm_matched=true"),
        (["matches=[norm]", "norm_matched=true"], None),
        (["matches=[best_rate]"], "matches: best_rate: needs a search of sft's rate and of another method's"),
        (["matches=[best_rate]", SEARCH % "[dpo]"], "matches: best_rate: needs a search of sft's rate"),
        (["matches=[best_rate]", SEARCH % "[sft]"], "matches: best_rate: needs a search of sft's rate"),
        (["matches=[best_rate]", SEARCH % "[sft, dpo]"], None),
        (["matches=[as_published]", "methods={sft: , rft: }"], "matches: as_published: all methods have one learning"),
        (["matches=[as_published]"], None),
    ],
)
def test_a_match_that_a_setting_of_its_own_makes_needs_it(settings: list[str], line: str | None) -> None:
    """On the default study, whose DPO has a rate of its own."""
    bare = ["sweep=null", "replicas=[]", "factorial=[]", "analysis.connectivity.pairs=[]"]
    path = pathlib.Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml"
    if line is None:
        load_study(path, [*bare, *settings])
        return
    with pytest.raises(UserError, match=re.escape(line)) as error:
        load_study(path, [*bare, *settings])
    assert "\n" not in str(error.value)
