"""Both kinds of place, a folder and a bucket on a real S3 server, hold the store's promises."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from execution.durable import Lost
from execution.errors import UserError
from execution.step import Step, StepKind
from execution.storage import RECORD, Bucket, Folder, Storage, storage_of
from execution.store import Store
from tests.object_store import object_store

TRAIN = StepKind("train", version=1, plan=lambda planned: [], run=lambda context: None)
STEP = Step(TRAIN, "sft", {"learning_rate": 5e-6})


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    before = dict(os.environ)
    with object_store() as environment:
        os.environ.update(environment)
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "folder":
        return Folder(tmp_path / "store")
    request.getfixturevalue("server")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    return Bucket(f"s3://studies/{tmp_path.name}")


@pytest.fixture
def store(place: Storage, tmp_path: Path) -> Store:
    place.open()
    return Store(tmp_path, place)


def commit(store: Store, text: str = "w") -> None:
    with store.writing(STEP) as space:
        (space.out / "adapter").mkdir()
        (space.out / "adapter" / "weights").write_text(text)
        (space.out / "log").write_text("{}")


def test_opening_leaves_nothing(store: Store, place: Storage) -> None:
    assert place.read("anything") is None
    assert not store.done(STEP) and not store.begun(STEP)


def test_a_step_is_there_whole_once_it_is_committed(store: Store) -> None:
    with store.writing(STEP) as space:
        (space.out / "log").write_text("{}")
        assert not store.done(STEP)
    assert store.done(STEP) and store.damage(STEP) is None
    assert (store.folder(STEP) / "log").read_text() == "{}"
    assert not store.begun(STEP)


def test_the_key_before_this_one_is_known_by_what_was_finished_last(store: Store) -> None:
    assert store.earlier(STEP) is None
    for rate, ended in ((1e-6, 2.0), (2e-6, 3.0), (3e-6, 1.0)):
        old = Step(TRAIN, "sft", {"learning_rate": rate})
        with store.writing(old) as space:
            (space.out / "log").write_text("{}")
        store.record_times(old, {"ended": ended})
    commit(store)
    found = store.earlier(STEP)
    assert found is not None and found["config"] == {"learning_rate": 2e-6}
    assert store.earlier(Step(TRAIN, "sft-order43", {})) is None
    store.storage.write(f"train/sft-{'0' * 10}/{RECORD}", b'{"payload": {"config": 1e999}, "files": {}}')
    assert store.earlier(STEP) == found  # a damaged record says nothing


def test_what_was_kept_is_found_by_the_next_attempt(store: Store) -> None:
    with pytest.raises(RuntimeError, match="planted"), store.writing(STEP) as space:
        (space.work / "result").mkdir()
        (space.work / "result" / "state").write_text("at 7")
        assert store.kept(STEP) in (0, 4)  # a folder keeps at once
        space.keep()
        assert store.kept(STEP) == 4
        (space.work / "more").write_text("x")
        space.keep()
        raise RuntimeError("planted")
    assert store.kept(STEP) == 5, "a byte more is told, however a place packs them"
    assert store.begun(STEP) and not store.done(STEP)
    with store.writing(STEP) as space:
        assert list(space.out.iterdir()) == []
        assert (space.work / "result" / "state").read_text() == "at 7"


def test_damage_is_found_and_mended(store: Store, place: Storage) -> None:
    commit(store)
    place.write(f"{STEP.folder}/adapter/weights", b"x")
    assert store.damage(STEP) == "adapter/weights was changed"
    place.remove(f"{STEP.folder}/adapter/weights")
    assert store.damage(STEP) == "adapter/weights is missing"
    store.discard(STEP)
    assert not store.done(STEP)
    commit(store)
    assert store.damage(STEP) is None


def test_small_files_failures_times_and_progress(store: Store) -> None:
    store.progress_writer(STEP)("step 3/4")
    assert store.progress(STEP) == "step 3/4" and store.begun(STEP)
    store.record_failure(STEP, "loss is NaN")
    assert store.failure(STEP) == "loss is NaN"
    store.clear_failure(STEP)
    store.clear_failure(STEP)
    assert store.failure(STEP) is None
    store.record_times(STEP, {"seconds": 1.5})
    assert store.times(STEP) == {"seconds": 1.5}


def test_what_goes_while_it_is_read_is_not_there(place: Storage) -> None:
    """A step's progress goes when the step ends, and the driver may be reading it at that moment."""
    place.open()
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            place.write("partial/progress", b"x" * 10)
            place.remove("partial/progress")

    worker = threading.Thread(target=come_and_go)
    worker.start()
    try:
        found = {place.read("partial/progress") for _ in range(300)}
        sums = {place.checksum("partial/progress") for _ in range(100)}
    finally:
        stop.set()
        worker.join()
    assert found <= {None, b"x" * 10}
    assert len(sums) <= 2


def test_a_claim_holds_against_what_was_not_seen(place: Storage) -> None:
    place.open()
    assert place.claim("lease.json", None, b"one")
    assert not place.claim("lease.json", None, b"two")
    assert place.claim("lease.json", b"one", b"two")
    assert place.read("lease.json") == b"two"


def test_a_bucket_counts_a_step_only_with_its_record(server: None, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Killed between two uploads: the record comes last, so what is there does not count."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path, Bucket("s3://studies/killed"))
    uploaded: list[str] = []
    upload = Bucket._upload

    def killed(self: Bucket, path: Path, name: str) -> None:
        if path.name == RECORD:
            raise KeyboardInterrupt
        uploaded.append(path.name)
        upload(self, path, name)

    monkeypatch.setattr(Bucket, "_upload", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(store)
    assert sorted(uploaded) == ["log", "weights"] and not store.done(STEP)
    monkeypatch.setattr(Bucket, "_upload", upload)
    commit(store, "other")
    assert (store.folder(STEP) / "adapter" / "weights").read_text() == "other"


def test_a_copy_in_the_cache_that_was_changed_is_fetched_again(server: None, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path, Bucket("s3://studies/cached"))
    commit(store)
    copy = store.folder(STEP) / "adapter" / "weights"
    copy.write_text("x")
    assert (store.folder(STEP) / "adapter" / "weights").read_text() == "w"
    store.storage.write(f"{STEP.folder}/log", b"changed")
    (store.folder(STEP) / "log").unlink() if (store.folder(STEP) / "log").exists() else None
    with pytest.raises(OSError, match="does not match its recorded checksum"):
        store.folder(STEP)


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_what_a_bucket_kept_and_cannot_be_unpacked_is_said_and_started_over(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path, Bucket(f"s3://studies/{tmp_path.name}"))
    with pytest.raises(RuntimeError, match="planted"), store.writing(STEP) as space:
        (space.work / "state").write_text("at 7")
        space.keep()
        raise RuntimeError("planted")
    kept = f"partial/{STEP.folder}/work.tar"
    whole = store.storage.read(kept) or b""
    store.storage.write(kept, whole[:300] if damage is None else damage)
    store.storage.write(f"partial/{STEP.folder}/kept", b"4?")
    assert store.kept(STEP) == 0
    with (
        pytest.warns(Lost, match=r"work\.tar cannot be read \(.+\): the step starts over"),
        store.writing(STEP) as space,
    ):
        assert list(space.work.iterdir()) == []
    assert store.done(STEP)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("s3://key:secret@bucket/x", "keys do not belong in the address"),
        ("gs://bucket/x", "name a folder or s3://"),
        ("s3://", "name a folder or s3://"),
        ("s3://bucket?endpoint_override=x", "name a folder or s3://"),
    ],
)
def test_other_places_are_refused(where: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        storage_of(where)
    assert "secret" not in str(error.value)


def test_a_second_process_waits_for_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execution.workspace.ENDING", 0.0)
    place = Folder(tmp_path)
    with (
        place.workspace("train/sft"),
        pytest.raises(BlockingIOError, match="another process still works in"),
        place.workspace("train/sft"),
    ):
        pass
    with place.workspace("train/sft"):
        pass
