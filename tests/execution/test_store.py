"""The store: whole or not there; what it holds is what it says it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from execution import durable
from execution.errors import UserError
from execution.step import Step, StepKind
from execution.storage import RECORD
from execution.store import Store, open_store, write_json

TRAIN = StepKind("train", version=1, plan=lambda planned: [], run=lambda context: None)
STEP = Step(TRAIN, "sft", {"learning_rate": 5e-6, "targets": ("q", "v")})


def committed(store: Store, step: Step = STEP) -> Path:
    with store.writing(step) as (out, *_):
        (out / "adapter").mkdir()
        (out / "adapter" / "weights").write_text("w")
        (out / "log.jsonl").write_text("{}\n")
    return store.folder(step)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_nothing_is_visible_before_the_commit(store: Store) -> None:
    with store.writing(STEP) as (out, *_):
        (out / "half").write_text("h")
        assert not store.done(STEP)
        assert not (store.root / STEP.folder).exists()
    assert store.done(STEP)
    assert (store.folder(STEP) / "half").read_text() == "h"
    assert not store.begun(STEP)


def test_the_folder_is_readable_and_the_record_beside_the_files(store: Store) -> None:
    folder = committed(store)
    assert folder == store.root / "train" / f"sft-{STEP.key}"
    record = json.loads((folder / RECORD).read_text())
    assert record["payload"] == STEP.payload()
    assert list(record["files"]) == ["adapter/weights", "log.jsonl"]


def test_an_error_leaves_no_result_and_keeps_the_work(store: Store) -> None:
    with pytest.raises(RuntimeError, match="planted"), store.writing(STEP) as (out, work, _):
        (out / "half").write_text("h")
        (work / "state").write_text("at 7")
        raise RuntimeError("planted")
    assert not store.done(STEP)
    assert not (store.root / STEP.folder).exists()
    with pytest.raises(FileNotFoundError, match="train/sft is not in"):
        store.folder(STEP)
    with store.writing(STEP) as (out, work, _):
        assert list(out.iterdir()) == []
        assert (work / "state").read_text() == "at 7"
    assert store.done(STEP)


def test_a_whole_result_has_no_damage(store: Store) -> None:
    committed(store)
    assert store.damage(STEP) is None


def test_a_changed_file_is_damage(store: Store) -> None:
    (committed(store) / "adapter" / "weights").write_text("x")
    assert store.damage(STEP) == "adapter/weights was changed"


def test_a_missing_file_is_damage(store: Store) -> None:
    (committed(store) / "log.jsonl").unlink()
    assert store.damage(STEP) == "log.jsonl is missing"


def test_a_discarded_step_can_be_made_again(store: Store) -> None:
    committed(store)
    store.discard(STEP)
    assert not store.done(STEP)
    committed(store)
    assert store.done(STEP) and store.damage(STEP) is None


@pytest.mark.parametrize("record", [None, "", '{"payload": {'])
def test_a_folder_whose_record_is_lost_is_not_done_and_can_be_made_again(store: Store, record: str | None) -> None:
    path = committed(store) / RECORD
    path.unlink()
    if record is not None:
        path.write_text(record)
    assert not store.done(STEP)
    committed(store)
    assert store.done(STEP) and store.damage(STEP) is None


def test_another_payload_under_the_same_key_is_refused_with_its_fields(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = committed(store) / RECORD
    held = json.loads(record.read_text())
    held["payload"]["config"]["learning_rate"] = 5e-7
    record.write_text(json.dumps(held))
    monkeypatch.setattr("execution.store.key_of", lambda payload: STEP.key)  # nobody has met such a payload yet
    with pytest.raises(UserError, match=r"another step under the same key: config\.learning_rate: 5e-07 -> 5e-06$"):
        store.done(STEP)


def test_any_byte_changed_in_a_record_is_damage_that_is_made_again(store: Store) -> None:
    path = committed(store) / RECORD
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            meant = json.loads(path.read_bytes()) == json.loads(whole)  # one kind of space became another
        except ValueError:
            meant = False
        assert meant or store.damage(STEP) is not None, (at, whole[at : at + 9])
    store.discard(STEP)
    assert store.damage(STEP) is None and not store.done(STEP)
    committed(store)
    assert store.damage(STEP) is None and store.done(STEP)


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        '{"payload": NaN, "files": {}}',
        '{"payload": 1}',
        "[]",
        '{"payload": {"kind": "train"}, "files": {}}',
    ],
)
def test_a_record_of_something_else_is_damage(store: Store, record: str) -> None:
    (committed(store) / RECORD).write_text(record)
    assert not store.done(STEP) and store.spoilt(STEP)
    assert store.damage(STEP) == "step.json was changed"


def test_a_record_that_names_files_elsewhere_is_damage(store: Store) -> None:
    path = committed(store) / RECORD
    for name in ("/dev/zero", "../../secret", "adapter/../../x"):
        path.write_text(json.dumps({"payload": STEP.payload(), "files": {name: ""}}))
        assert store.damage(STEP) == "step.json was changed"


def folder_at(path: Path) -> None:
    durable.discard(path)
    (path / "x").mkdir(parents=True)


def file_at(path: Path) -> None:
    durable.discard(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


SWAPPED = {
    "record": lambda root: folder_at(root / STEP.folder / RECORD),
    "file": lambda root: folder_at(root / STEP.folder / "log.jsonl"),
    "folder": lambda root: file_at(root / STEP.folder / "adapter"),
    "step": lambda root: file_at(root / STEP.folder),
    "times": lambda root: folder_at(root / "times" / f"{STEP.folder}.json"),
    "times of the kind": lambda root: file_at(root / "times" / "train"),
    "failure": lambda root: folder_at(root / "failed" / f"{STEP.folder}.json"),
    "partial": lambda root: file_at(root / "partial" / "train"),
    "workspace": lambda root: file_at(root / "partial" / STEP.folder),
    "lock": lambda root: folder_at(root / "partial" / STEP.folder / "lock"),
    "out": lambda root: file_at(root / "partial" / STEP.folder / "out"),
    "work": lambda root: file_at(root / "partial" / STEP.folder / "work"),
    "progress": lambda root: folder_at(root / "partial" / STEP.folder / "progress"),
}


@pytest.mark.parametrize("what", SWAPPED)
def test_a_folder_where_a_file_belongs_and_the_other_way_round_is_made_again(store: Store, what: str) -> None:
    committed(store)
    SWAPPED[what](store.root)
    damaged = what in ("record", "file", "folder", "step")
    assert (store.damage(STEP) is not None) == damaged
    store.times(STEP), store.failure(STEP), store.progress(STEP), store.kept(STEP)
    store.progress_writer(STEP)("step 1/2")
    store.record_failure(STEP, "x")
    store.clear_failure(STEP)
    store.discard(STEP)
    committed(store)
    store.record_times(STEP, {"seconds": 1.5})
    assert store.done(STEP) and store.damage(STEP) is None and store.times(STEP) == {"seconds": 1.5}
    assert not store.begun(STEP)


@pytest.mark.parametrize("name", ["partial", "times", "train", "rollouts"])
def test_a_file_at_a_runs_folder_is_said_with_its_mend(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=f"{name} is a file where a run keeps a folder: move it away"):
        open_store(tmp_path, kinds=["train", "rollouts"])


@pytest.mark.parametrize("name", ["lease.json", "study.json", "run.json", "pins.json"])
def test_a_folder_at_a_runs_file_is_said_with_its_mend(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is a folder where a run keeps a file: move it away"):
        open_store(tmp_path, kinds=["train", "rollouts"])


def test_a_failure_is_kept_until_it_is_mended(store: Store) -> None:
    assert store.failure(STEP) is None
    store.record_failure(STEP, "loss is NaN at step 3")
    assert store.failure(STEP) == "loss is NaN at step 3"
    store.clear_failure(STEP)
    store.clear_failure(STEP)
    assert store.failure(STEP) is None
    store.record_failure(STEP, "again")
    committed(store)
    assert store.failure(STEP) is None


def test_what_has_ended_is_listed_by_kind(store: Store) -> None:
    assert store.ended("train") == set()
    lost, other = Step(TRAIN, "dpo", {}), Step(StepKind("losses", 1, TRAIN.plan, TRAIN.run), "sft", {})
    committed(store)
    committed(store, other)
    store.record_failure(lost, "loss is NaN at step 3")
    with store.writing(Step(TRAIN, "rft", {})):
        assert store.ended("train") == {STEP.folder, lost.folder}, "one that is at work has not"
    assert store.ended("losses") == {other.folder}


def test_times_are_kept_outside_the_result(store: Store) -> None:
    folder = committed(store)
    before = sorted(p.name for p in folder.rglob("*"))
    assert store.times(STEP) == {}
    store.record_times(STEP, {"seconds": 1.5})
    assert store.times(STEP) == {"seconds": 1.5}
    assert sorted(p.name for p in folder.rglob("*")) == before
    assert store.damage(STEP) is None


@pytest.mark.parametrize("text", ["[", '{"seconds": "x"}', '{"started": NaN}', '{"ended": 1e999}', '{"seconds": null}'])
def test_times_that_are_damaged_are_unknown(store: Store, text: str) -> None:
    committed(store)
    store.storage.write(f"times/{STEP.folder}.json", text.encode())
    assert store.times(STEP) == {}


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"--out .* cannot be written \(.*\): name a folder that can"):
            open_store(root, kinds=["train", "rollouts"])


def test_opening_a_store_leaves_nothing_in_it(store: Store) -> None:
    assert list(store.root.iterdir()) == []


def test_written_json_is_sorted_whole_and_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [0.1]})
    assert path.read_text() == '{\n "a": [\n  0.1\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text()) == {"a": [0.1], "b": 1}


def test_names_of_a_store_elsewhere_are_looked_at_too(tmp_path: Path) -> None:
    """What stands in the way there is somebody's, and stays."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "times").write_text("mine")
    with pytest.raises(UserError, match="store/times is a file where a run keeps a folder: move it away"):
        open_store(tmp_path / "out", str(tmp_path / "store"))
    assert (tmp_path / "store" / "times").read_text() == "mine"
