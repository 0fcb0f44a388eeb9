"""A study that searches learning rates: its settings, its two stages of planning, its trials' steps, the choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from execution.context import StepFailed
from execution.errors import UserError
from execution.runner import DagRunner
from execution.step import Step
from execution.store import Store, open_store, write_json
from orchestrator.cli import main
from orchestrator.config.search import Search
from orchestrator.config.study import Study
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preflight import check
from orchestrator.planning.resolve import gather
from orchestrator.planning.search import search_lines, searches, stage
from orchestrator.planning.training_runs import training_runs
from orchestrator.search.log import Log
from orchestrator.search.search import best, found, judged
from orchestrator.search.trials import Trials, rates_of
from orchestrator.steps.trials.search import SEARCH
from orchestrator.steps.trials.validate import VALIDATION
from results import dump
from results.search import Search as SearchResult
from results.search import Trial
from tests.orchestrator.conftest import StandIn

Maker = Callable[..., Study]
HELD = "rollouts.table.heldout=0.2"
GRID = "search={learning_rates: [3e-4, 3e-5, 1e-3], methods: [sft, dpo], orders: [42, 44]}"
ASHA = "search={algorithm: asha, learning_rates: [3e-4, 3e-5, 1e-3], reduction: 2, methods: [dpo]}"


TRL = "methods={sft: {}, dpo: {learning_rate: 3e-5}}"


def facts_of(study: Study, tmp_path: Path) -> dict[str, str]:
    return gather(study, tmp_path / "unused", online=False)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("{learning_rates: []}", "search.learning_rates"),
        ("{learning_rates: [0.0]}", "search.learning_rates"),
        ("{learning_rates: [-1e-4]}", "search.learning_rates"),
        ("{learning_rates: [1e-4, 1e-4]}", "0.0001 is given twice"),
        ("{learning_rates: [1e-4], methods: [nosuch]}", "search.methods names 'nosuch', which is not among methods"),
        ("{learning_rates: [1e-4], methods: [sft, sft]}", "sft is given twice"),
        ("{learning_rates: [1e-4], orders: []}", "search.orders"),
        ("{}", "algorithm grid needs learning_rates"),
        ("{algorithm: random, between: [1e-3, 1e-5], trials: 4}", "the lower rate comes first, not 0.001 and 1e-05"),
        ("{algorithm: random, between: [1e-5, 1e-3], trials: 0}", "search.trials"),
        ("{algorithm: random, between: [1e-5, 1e-3]}", "algorithm random needs between and trials"),
        ("{algorithm: tpe, learning_rates: [1e-4]}", "algorithm tpe needs between and trials"),
        ("{algorithm: asha}", "algorithm asha needs between and trials, or learning_rates"),
        ("{learning_rates: [1e-4], between: [1e-5, 1e-3]}", "between and trials draw rates"),
        ("{learning_rates: [1e-4], grace: 2}", "grace: algorithm grid trains every trial to the end"),
        ("{algorithm: asha, learning_rates: [1e-4], grace: 4}", "the first rung, 4 steps, is not before 4"),
        ("{algorithm: asha, learning_rates: [1e-4], grace: 1}", "search.grace"),
        ("{algorithm: asha, learning_rates: [1e-4], reduction: 1}", "search.reduction"),
        ("{algorithm: hyperband, learning_rates: [1e-4]}", "search.algorithm"),
    ],
)
def test_a_wrong_search_is_refused_in_one_line(make_study: Maker, search: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        make_study(HELD, f"search={search}")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_search_needs_problems_to_judge_on(make_study: Maker, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search: no problem is held out .*: set rollouts\.table\.heldout"):
        make_study("rollouts.table.heldout=0.0", GRID)
    with pytest.raises(UserError, match=r"search: 0\.01 of 10 problems hold none out"):
        check(make_study("rollouts.table.heldout=0.01", GRID))


def test_trl_cannot_go_on_from_a_rung(make_study: Maker) -> None:
    with pytest.raises(UserError, match=r"search: asha .* which training\.backend=trl cannot"):
        make_study(HELD, ASHA, TRL, "training.backend=trl")
    assert make_study(HELD, GRID, TRL, "training.backend=trl").search is not None


def test_a_search_counts_among_the_trainings(make_study: Maker) -> None:
    own = len(training_runs(make_study(HELD)))
    with pytest.raises(UserError, match=rf"{own + 2 * (3 + 1)} trainings, more than max_trainings={own + 7}"):
        make_study(HELD, GRID, f"max_trainings={own + 7}")
    make_study(HELD, GRID, f"max_trainings={own + 8}")


@pytest.mark.parametrize("algorithm", ["asha", "tpe"])
def test_what_decides_meanwhile_is_refused_without_ray(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: str
) -> None:
    search = f"search={{algorithm: {algorithm}, between: [1e-5, 1e-3], trials: 4}}"
    words = ["run", str(study_file), "--set", HELD, "--set", search, "--out", str(tmp_path / "o"), "--serial"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "needs Ray: leave --serial, or set search.algorithm=grid" in said[0]


@pytest.mark.parametrize(
    ("given", "steps", "rungs"),
    [
        ({"learning_rates": [1e-4]}, 80, (80,)),
        ({"algorithm": "asha", "learning_rates": [1e-4]}, 80, (5, 20, 80)),
        ({"algorithm": "asha", "learning_rates": [1e-4]}, 75, (5, 20, 75)),
        ({"algorithm": "asha", "learning_rates": [1e-4], "reduction": 2, "grace": 3}, 20, (3, 6, 12, 20)),
        ({"algorithm": "asha", "learning_rates": [1e-4]}, 6, (2, 6)),
    ],
)
def test_rungs(given: dict[str, Any], steps: int, rungs: tuple[int, ...]) -> None:
    assert Search.model_validate(given).rungs(steps) == rungs


def test_drawn_rates_are_seeded_log_uniform_and_distinct() -> None:
    def drawn(**given: Any) -> tuple[float, ...]:
        rates = rates_of(Search.model_validate({"algorithm": "random", "between": [1e-5, 1e-3], **given}))
        assert rates is not None
        return rates

    rates = drawn(trials=200)
    assert rates == drawn(trials=200) != drawn(trials=200, seed=1)
    assert rates[:20] == drawn(trials=20), "more trials add to the ones there are"
    assert len(set(rates)) == 200 and min(rates) >= 1e-5 and max(rates) <= 1e-3
    assert all(float(f"{rate:.2e}") == rate for rate in rates)
    places = np.sort((np.log10(rates) + 5) / 2)  # uniform on 0 to 1
    assert np.abs(places - (np.arange(200) + 0.5) / 200).max() < 1.36 / np.sqrt(200), "Kolmogorov-Smirnov, 5 %"
    with pytest.raises(ValueError, match=r"does not hold 9 rates of 3 digits: widen it"):
        drawn(between=[1.00e-4, 1.05e-4], trials=9)


def test_a_list_is_in_order_and_for_asha_shuffled() -> None:
    listed = [1e-3 * k for k in range(1, 17)]
    assert rates_of(Search.model_validate({"learning_rates": listed[::-1]})) == tuple(listed)
    shuffled = rates_of(Search.model_validate({"algorithm": "asha", "learning_rates": listed}))
    assert shuffled is not None and sorted(shuffled) == listed and list(shuffled) != listed


def test_first_what_needs_no_rate_then_all_of_it(make_study: Maker, tmp_path: Path, stand_in: type[StandIn]) -> None:
    study = make_study(HELD, GRID)
    facts, store = facts_of(study, tmp_path), open_store(tmp_path / "run")
    first = stage(study, facts, store)
    titles = [step.title for step in first.steps]
    assert first.more and first.study is study
    assert {"search/sft", "search/dpo", "train/sft", "evaluate/dpo-lr3e-4"} <= set(titles)
    assert not {"geometry", "activations", "similarity", "connectivity"} & {step.kind.name for step in first.steps}
    without = make_plan(study.model_copy(update={"search": None}), facts)
    keys = {step.title: step.key for step in without}
    assert all(step.key == keys[step.title] for step in first.steps if step.kind.name != "search")

    executor = stand_in(store, write=lambda step, out: chosen(step, out, {"sft": 1e-3, "dpo": 3e-5}))
    seen: list[Any] = []

    def more(settled: set[str]) -> list[Step] | None:
        if not {"search/sft", "search/dpo"} <= settled:
            return None
        seen.append(stage(study, facts, store, settled))
        return seen[-1].steps

    outcome = DagRunner(first.steps, store, lambda line: None, more=more).run(lambda: executor)
    (then,) = seen
    made = {step.title for step in outcome.steps}
    assert made == {step.title for step in then.steps} and not outcome.lost
    assert {"train/sft-lr1e-3", "train/sft-lr1e-3-order44", "train/dpo-order44", "geometry/weights"} <= made
    assert "train/sft-order44" not in made, "only the chosen rate is trained in other orders"
    assert len(executor.titles) == len(set(executor.titles)), "no step ran twice"
    again = stage(study, facts, store)
    assert not again.more and [step.key for step in again.steps] == [step.key for step in then.steps]
    assert DagRunner(again.steps, store, lambda line: None).run(lambda: executor).made == set()


def chosen(step: Step, out: Path, rates: dict[str, float]) -> None:
    """A search's result with this rate; of other steps any file."""
    if step.kind.name != "search":
        (out / "result.txt").write_text(step.title)
        return
    trials = Trials.of(step.config, step.runtime)
    rate = rates[step.name]
    part = SearchResult(
        method=step.name, algorithm="grid", rungs=[4], trials=[], chosen=trials.name(rate), learning_rate=rate,
        steps=4, full_steps=4,
    )  # fmt: skip
    write_json(out / SEARCH, dump(part))


def test_a_search_that_failed_holds_up_no_other(make_study: Maker, tmp_path: Path, stand_in: type[StandIn]) -> None:
    study = make_study(HELD, GRID)
    facts, store = facts_of(study, tmp_path), open_store(tmp_path / "run")
    executor = stand_in(store, ["search/dpo"], lambda step, out: chosen(step, out, {"sft": 1e-3}))

    def more(settled: set[str]) -> list[Step] | None:
        done = {"search/sft", "search/dpo"} <= settled
        return stage(study, facts, store, settled).steps if done else None

    outcome = DagRunner(stage(study, facts, store).steps, store, lambda line: None, more=more).run(lambda: executor)
    assert outcome.failed == {"search/dpo": "planted"} and not outcome.blocked
    assert {"train/sft-lr1e-3-order44", "geometry/weights"} <= outcome.made
    assert stage(study, facts, store).more, "the next run tries it again first"


def test_a_damaged_choice_is_no_choice(make_study: Maker, tmp_path: Path) -> None:
    study = make_study(HELD, "search={learning_rates: [3e-4, 1e-3], methods: [sft]}")
    facts, store = facts_of(study, tmp_path), open_store(tmp_path / "run")
    (step,) = searches(stage(study, facts, store).steps)
    with store.writing(step) as space:
        chosen(step, space.out, {"sft": 1e-3})
    assert not stage(study, facts, store).more
    file = store.folder(step) / SEARCH
    file.write_text(file.read_text().replace("0.001", "0.002"))
    assert stage(study, facts, store).more


def test_the_plan_says_what_the_search_takes(make_study: Maker) -> None:
    told = "\n".join(search_lines(make_study(HELD, GRID), more=True))
    assert "3 trials of each of sft, dpo" in told and "at most 24 steps" in told  # 2 methods x 3 x 4
    assert "in 2 orders of rows" in told and "once the rates are known" in told
    assert "judged after 2, 4 steps" in "\n".join(search_lines(make_study(HELD, ASHA), more=True))
    assert search_lines(make_study(HELD), more=False) == []


def trials_of(study: Study, tmp_path: Path, method: str = "dpo") -> tuple[Trials, Step]:
    steps = make_plan(study, facts_of(study, tmp_path))
    step = next(step for step in searches(steps) if step.name == method)
    return Trials.of(step.config, step.runtime), step


def test_a_whole_trial_is_the_studys_own_training(make_study: Maker, tmp_path: Path) -> None:
    study = make_study(HELD, ASHA)
    trials, _ = trials_of(study, tmp_path)
    factorial = make_study(HELD, "factorial=[{methods: [dpo], learning_rate: [3e-4, 1e-3]}]")
    cells = {step.title: step for step in make_plan(factorial, facts_of(study, tmp_path))}
    for rate, title in ((3e-5, "train/dpo"), (3e-4, "train/dpo-lr3e-4"), (1e-3, "train/dpo-lr1e-3")):
        whole = trials.training(rate, 1)
        assert (whole.title, whole.key) == (title, cells[title].key)
    rung = trials.training(3e-4, 0)
    assert rung.title == "train/dpo-lr3e-4-rung2"
    assert {k: v for k, v in rung.config.items() if cells["train/dpo-lr3e-4"].config.get(k) != v} == {
        "run_steps": 2, "report_step": 2, "keep_state": True,
    }  # fmt: skip
    assert rung.config["steps"] == 4, "the schedule's horizon stays"
    assert trials.validation(3e-4, 0).inputs["adapter"].key == rung.key


def test_the_key_of_a_search_holds_what_decides_it(make_study: Maker, tmp_path: Path) -> None:
    keys = [
        trials_of(make_study(HELD, *changes), tmp_path)[1].key
        for changes in (
            [GRID], [ASHA], [GRID.replace("1e-3", "2e-3")], [GRID, "training.steps=8"], [GRID, "seeds.order=7"],
            [GRID, "methods.dpo.settings.beta=0.3"], [GRID, "evaluation.max_tokens=30"], [ASHA, "search.seed=1"],
            [ASHA, "search.reduction=3"],
        )
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    for free in ("placement.gpus_per_training=0.5", "search.orders=[1, 2]", "training.resume_every=3"):
        assert trials_of(make_study(HELD, GRID, free), tmp_path)[1].key == keys[0]


def trial(rate: float, right: int, status: str = "finished") -> Trial:
    return Trial.model_validate(
        {
            "name": f"lr{rate}",
            "learning_rate": rate,
            "status": status,
            "steps": 4,
            "rungs": [dump(judged(4, right, 20))],
        }
    )


def test_the_best_on_the_held_out_problems_is_chosen_and_of_equals_the_smallest() -> None:
    table = [trial(1e-3, 12), trial(1e-4, 15), trial(3e-4, 15), trial(1e-5, 20, "stopped"), trial(2e-5, 19, "failed")]
    picked = best(table)
    assert picked is not None and picked.learning_rate == 1e-4
    assert best([trial(1e-5, 20, "stopped")]) is None


def test_an_accuracy_comes_with_its_error() -> None:
    rung = judged(4, 15, 20)
    assert (rung.accuracy, rung.right, rung.problems) == (0.75, 15, 20)
    assert rung.standard_error == pytest.approx(0.0968246, abs=1e-6)  # sqrt(.75 x .25 / 20)
    assert (rung.low, rung.high) == (pytest.approx(0.53130, abs=1e-4), pytest.approx(0.88814, abs=1e-4))  # Wilson


def asking(store: Store, right: dict[str, int], fails: dict[str, str]) -> Callable[[Step], Path]:
    """``ask`` of steps that are made up: so many right of 20, or a failure."""

    def ask(step: Step) -> Path:
        if step.title in fails:
            raise StepFailed(fails[step.title])
        if not store.done(step):
            with store.writing(step) as space:
                write_json(space.out / VALIDATION, {"problems": 20, "right": right.get(step.name, 0)})
        return store.folder(step)

    return ask


def test_the_table_tells_what_became_of_every_trial(make_study: Maker, tmp_path: Path) -> None:
    trials, step = trials_of(make_study(HELD, ASHA), tmp_path)
    store, log = open_store(tmp_path / "run"), Log(tmp_path, lambda: None)
    rates = step.config["rates"]
    number = {rate: rates.index(rate) for rate in (3e-5, 3e-4, 1e-3)}
    log.decide({"trial": number[3e-5], "rung": 0, "value": 0.3, "stop": True, "cutoff": 0.5, "values": [0.6, 0.4]})
    right = {"dpo-rung2": 6, "dpo-lr3e-4-rung2": 12, "dpo-lr3e-4": 14, "dpo-lr1e-3-rung2": 8}
    ask = asking(store, right, {"train/dpo-lr1e-3": "loss is nan at step 3"})
    context: Any = SimpleNamespace(ask=ask)
    part = found(trials, step.config, log, context)
    rows = {row.learning_rate: row for row in part.trials}
    assert list(rows) == [3e-5, 3e-4, 1e-3]
    assert [row.status for row in rows.values()] == ["stopped", "finished", "failed"]
    assert [row.steps for row in rows.values()] == [2, 4, 2] and (part.steps, part.full_steps) == (8, 12)
    assert rows[3e-5].stopped is not None and rows[3e-5].stopped.values == [0.6, 0.4]
    assert rows[1e-3].error == "loss is nan at step 3"
    assert (part.chosen, part.learning_rate) == ("dpo-lr3e-4", 3e-4)

    none = asking(open_store(tmp_path / "none"), {}, {f"train/{trials.name(rate)}-rung2": "diverged" for rate in rates})
    with pytest.raises(ValueError, match=r"none of the 3 trials was trained to the end; dpo.*: diverged"):
        found(trials, step.config, Log(tmp_path / "empty", lambda: None), SimpleNamespace(ask=none))  # type: ignore[arg-type]


def test_the_log_outlives_the_process_and_damage_is_no_decision(tmp_path: Path) -> None:
    log = Log(tmp_path, lambda: None)
    log.decide({"trial": 1, "rung": 0, "value": 0.25, "stop": True, "cutoff": 0.5, "values": [0.5]})
    log.suggest(3e-4)
    again = Log(tmp_path, lambda: None)
    assert again.stopped(1) == log.decisions[0] and again.rates == [3e-4] and again.stopped(0) is None
    (path,) = tmp_path.glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rates": [1.0]}))
    with pytest.warns(UserWarning, match="its checksum does not match"):
        assert Log(tmp_path, lambda: None).rates == []


def test_a_seeded_workspace_is_not_seeded_twice(tmp_path: Path, make_study: Maker) -> None:
    trials, _ = trials_of(make_study(HELD, ASHA), tmp_path)
    store, step = open_store(tmp_path / "run"), replace(trials.train, inputs={})
    state = tmp_path / "state"
    (state / "result").mkdir(parents=True)
    (state / "state.json").write_text("1")
    store.seed(step, state)
    (state / "state.json").write_text("2")
    store.seed(step, state)
    with store.writing(step) as space:
        assert (space.work / "state.json").read_text() == "1" and (space.work / "result").is_dir()


def test_what_only_a_searchs_trials_read_does_not_wait_for_a_core(make_study: Maker, tmp_path: Path) -> None:
    """The cores are held by trainers that wait for the trials."""
    from orchestrator.cluster.executor import RayExecutor

    study = make_study(HELD, GRID)
    steps = {step.title: step for step in make_plan(study, facts_of(study, tmp_path))}
    executor = object.__new__(RayExecutor)
    for coming, awaited in (([steps["search/dpo"]], True), ([steps["search/sft"]], False)):
        executor.coming = coming
        assert executor._awaited(steps["reference/base"]) == awaited
