"""The results in types: read, looked up, and given back as they were."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from results import VERSION, Results, dump, load
from tests.report.drawn_study import drawn
from tests.report.example_study import results as example


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return example()


@pytest.fixture(scope="module")
def found(told: dict[str, Any]) -> Results:
    return Results.model_validate(told)


def test_an_example_is_given_back_byte_for_byte(told: dict[str, Any], found: Results) -> None:
    """Nulls stay, absent keys stay absent, whole numbers stay whole."""
    assert canonical(dump(found)) == canonical(told)
    assert Results.model_validate_json(canonical(told)) == found


@pytest.mark.parametrize("seed", range(20))
def test_any_drawn_study_is_given_back(seed: int) -> None:
    told = drawn(seed).results
    assert canonical(dump(Results.model_validate(told))) == canonical(told)


def test_the_least_that_a_file_holds() -> None:
    least = {"version": VERSION, "trainings": []}
    found = Results.model_validate(least)
    assert dump(found) == least
    assert (found.geometry, found.evaluation, found.tasks, found.reference) == (None, None, [], None)
    assert found.accuracy("sums", "sft") is None


def _set(value: Any) -> Callable[[dict[str, Any], str], None]:
    def change(part: dict[str, Any], key: str) -> None:
        part[key] = value

    return change


def _remove(part: dict[str, Any], key: str) -> None:
    del part[key]


WRONG: dict[str, tuple[list[Any], Callable[[dict[str, Any], str], None]]] = {
    "a key that nobody knows": (["geometry", "pairs", 0, "cosinus"], _set(0.5)),
    "a measured number that is not there": (["geometry", "pairs", 0, "cosine"], _remove),
    "null where the key may only be absent": (["sweep"], _set(None)),
    "null where a number always is": (["geometry", "adapters", 0, "norm"], _set(None)),
    "a number as text": (["geometry", "adapters", 0, "norm"], _set("2.84")),
    "a number that is not finite": (["geometry", "gram"], _set([[float("nan")]])),
    "a count that is not whole": (["geometry", "adapters", 0, "modules"], _set(15.5)),
    "a role that is none": (["trainings", 0, "role"], _set("replica")),
    "a failed training with a course": (["trainings", 0, "status"], _set("failed")),
    "a finished training with half a course": (["trainings", 0, "tokens_seen"], _remove),
    "a test with the counts of another": (["evaluation", "tasks", 0, "pairs", 0, "test"], _set("sign flip")),
    "a headline that is matched otherwise": (["headline", 0, "matched"], _set("norm")),
    "another version": (["version"], _set(VERSION + 1)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_no_code_writes_is_refused_and_named(told: dict[str, Any], what: str) -> None:
    (*way, key), change = WRONG[what]
    part = changed = copy.deepcopy(told)
    for name in way:
        part = part[name]
    change(part, key)
    with pytest.raises(ValidationError) as error:
        Results.model_validate(changed)
    where = [part for part in way if isinstance(part, str)] or [key]
    assert all(set(where) <= set(map(str, one["loc"])) for one in error.value.errors())


def test_types_are_frozen(found: Results) -> None:
    assert found.geometry is not None
    with pytest.raises(ValidationError, match="frozen"):
        found.geometry.pairs[0].cosine = 1.0  # type: ignore[misc]


def test_rows_share_the_set_of_their_keys_and_a_copy_has_its_own(found: Results) -> None:
    """What is absent of one row stays absent of it."""
    assert found.activations is not None
    one, other, *_ = found.activations.pairs
    assert one.model_fields_set is other.model_fields_set == {"a", "b", "cosine"}
    more = one.model_copy(update={"plain": 0.5})
    assert more.model_dump(exclude_unset=True) == one.model_dump(exclude_unset=True) | {"plain": 0.5}
    assert other.model_fields_set == {"a", "b", "cosine"}


def test_a_pair_is_found_whichever_way_round(found: Results) -> None:
    for part in (found.geometry, found.activations, found.tasks[0]):
        assert part is not None
        one = part.pair("sft", "rft")
        assert one is not None and one is part.pair("rft", "sft") and {one.a, one.b} == {"sft", "rft"}
        assert part.pair("sft", "sft") is None and part.pair("sft", "nobody") is None


def test_trainings_and_norms_are_looked_up_by_name(told: dict[str, Any], found: Results) -> None:
    assert found.geometry is not None
    for row in told["trainings"]:
        training = found.training(row["name"])
        assert training is not None and (training.name, training.status) == (row["name"], row["status"])
    assert found.training("base") is None and found.training(None) is None
    assert found.geometry.norms == {row["name"]: row["norm"] for row in told["geometry"]["adapters"]}


def test_floors_come_by_kind_and_rounding_last(found: Results) -> None:
    assert found.geometry is not None
    assert [(kind, pair.a, pair.b) for kind, pair in found.geometry.floors.pairs] == [
        ("order", "sft", "sft-order43"), ("init", "sft", "sft-init43"), ("learning_rate", "dpo", "dpo-lr3e-4"),
        ("itself", "sft", "sft"),
    ]  # fmt: skip


def test_the_reference_is_the_headlines_else_sft_else_the_first_measured(told: dict[str, Any]) -> None:
    def reference(**parts: Any) -> str | None:
        return Results.model_validate({"version": VERSION, "trainings": [], **parts}).reference

    trainings, geometry = told["trainings"], told["geometry"]
    headline = [{"name": "x", "compared_to": "y", "matched": None}]
    assert reference(headline=headline, trainings=trainings, geometry=geometry) == "y"
    assert reference(trainings=trainings) == "sft"
    others = [row for row in trainings if row["name"] != "sft"]
    assert reference(trainings=others) is None
    apart = geometry | {"adapters": geometry["adapters"][1:]}
    assert reference(headline=[], trainings=others, geometry=apart) == "rft"


def test_accuracies_are_looked_up_by_task_and_model(told: dict[str, Any], found: Results) -> None:
    for task in told["evaluation"]["tasks"]:
        for model in task["models"]:
            assert found.accuracy(task["task"], model["name"]) == model["accuracy"]
    assert found.accuracy("arithmetic", "dpo-lr3e-3") is None and found.accuracy("nothing", "sft") is None


def test_a_file_is_loaded_or_refused_in_a_line(told: dict[str, Any], found: Results, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    assert load(path) == found
    for text, why in (
        ("{", "is no JSON"),
        ("[]", "of a version that is not told"),
        (json.dumps({key: part for key, part in told.items() if key != "version"}), "of a version that is not told"),
        (json.dumps(told | {"version": 0}), f"of version 0, this reads version {VERSION}: make the report anew"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=why):
            load(path)


def test_the_package_is_light() -> None:
    heavy = ("torch", "numpy", "ray", "transformers", "orchestrator", "methods", "analysis", "evals", "models")
    code = f"import sys, results; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
