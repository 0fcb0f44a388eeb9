"""``compare``: anyone's adapters in, a report out, and one line for whatever is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from execution.errors import UserError
from orchestrator import cli
from orchestrator.compare import adapter_names
from orchestrator.compare import compare as comparison
from orchestrator.measurements import geometry
from orchestrator.runtime.threads import ENVIRONMENT

MODULES = 8  # of the tiny model


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, write_adapter: Callable[..., Path]) -> Path:
    """A folder with the adapters one, two and three; three is of another rank."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, (name, rank) in enumerate({"one": 8, "two": 8, "three": 5}.items()):
        write_adapter(root / name, tiny_model, seed=seed, rank=rank)
    return root


def compare(*words: object, capsys: pytest.CaptureFixture[str] | None = None) -> tuple[int, str]:
    code = cli.main(["compare", *map(str, words)])
    told = capsys.readouterr() if capsys else None
    return code, (told.out + told.err) if told else ""


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def dense(folder: Path) -> np.ndarray:
    """All deltas as one long vector, multiplied out by numpy."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    names = sorted(key.removesuffix(".lora_A.weight") for key in tensors if key.endswith("lora_A.weight"))
    parts = [scale * (tensors[f"{n}.lora_B.weight"].double() @ tensors[f"{n}.lora_A.weight"].double()) for n in names]
    return np.concatenate([part.numpy().ravel() for part in parts])


def test_a_comparison_from_end_to_end(three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, said = compare(three / "one", three / "two", f"<b>3=</b>={three / 'three'}", "--out", out, capsys=capsys)
    assert code == 2 and "names no folder" not in said, "only the first = parts a name from its folder"
    code, said = compare(three / "one", three / "two", f"a<b>/3={three / 'three'}", "--out", out, capsys=capsys)
    assert code == 2, "a name with a separator is part of a path"
    code, said = compare(three / "one", three / "two", f"<b>3</b>={three / 'three'}", "--out", out, capsys=capsys)
    assert code == 2 and not out.exists()
    code, said = compare(three / "one", three / "two", f"<i>3={three / 'three'}", "--out", out, capsys=capsys)
    assert code == 0, said
    assert said.splitlines()[-1] == f"report: {out / 'report.html'}"
    found = results(out)
    names = [entry["name"] for entry in found["geometry"]["adapters"]]
    assert names == ["one", "two", "<i>3"]
    vectors = [dense(three / name) for name in ("one", "two", "three")]
    for entry in found["geometry"]["pairs"]:
        x, y = (vectors[names.index(entry[side])] for side in ("a", "b"))
        assert entry["cosine"] == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-12)
    np.testing.assert_allclose(
        found["geometry"]["gram"], np.array(vectors) @ np.array(vectors).T, rtol=1e-10, atol=1e-12
    )
    assert found["geometry"]["floors"]["itself"]["cosine"] == pytest.approx(1, abs=1e-12)
    assert {"shared_a", "ambient"} <= found["geometry"]["chance"].keys()
    assert len(found["geometry"]["modules"]) == 3 * MODULES
    assert len(found["geometry"]["modules"][0]["angles_deg"]) == 8
    page = (out / "report.html").read_text()
    assert "&lt;i&gt;3" in page and "<i>3" not in page
    assert "Not in these results" not in page, "what a comparison never meant to measure is not missing"
    assert (out / "csv" / "pairs.csv").read_text().count("\n") == 4
    assert (out / "figures" / "angles.png").is_file()


def test_the_base_its_activations_and_the_start(
    three: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"problem": "1 + 2", "answer": "3", "completion": f"= {i}", "reward": 1} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = shutil.copytree(three / "one", tmp_path / "start")
    edit_weights(start, lambda t: t.update({k: torch.zeros_like(v) for k, v in t.items() if "lora_B" in k}))
    words = [three / "one", three / "two", "--base", tiny_model, "--rollouts", "rows.jsonl", "--rows", 4]
    code, said = compare(*words, "--start", start, "--out", "out", capsys=capsys)
    assert code == 0, said
    found = results(tmp_path / "out")
    one, two = found["geometry"]["adapters"]
    assert one["a_moved_rel"] == 0 and one["start_share"] == pytest.approx(1, abs=1e-12)
    assert two["a_moved_rel"] > 1 and two["start_share"] < 0.5
    assert found["activations"]["rows"] == 4 and found["activations"]["tokens"] > 4
    assert -1 <= found["activations"]["pairs"][0]["cosine"] <= 1
    assert 0 < found["activations"]["chance"] < 1
    assert [row["name"] for row in found["spectra"]["adapters"]] == ["one", "two"]
    assert found["spectra"]["adapters"][0]["modules"] == MODULES
    code, said = compare(three / "one", three / "two", "--rollouts", "rows.jsonl", "--out", "other", capsys=capsys)
    assert code == 2 and "--rollouts needs --base" in said


def test_a_start_whose_b_was_drawn(
    three: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--start with A = 0: how far B moved, in which the scale of 2 cancels; chance is random A on the first one's B."""
    rows = [{"problem": "1 + 2", "answer": "3", "completion": f"= {i}", "reward": 1} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = shutil.copytree(three / "one", tmp_path / "start")
    edit_weights(start, lambda t: t.update({k: torch.zeros_like(v) for k, v in t.items() if "lora_A" in k}))
    half = shutil.copytree(three / "one", tmp_path / "half")
    edit_weights(half, lambda t: t.update({k: v * 1.5 for k, v in t.items() if "lora_B" in k}))
    words = [three / "one", three / "two", half, "--base", tiny_model, "--rollouts", "rows.jsonl"]
    code, said = compare(*words, "--start", start, "--out", "out", capsys=capsys)
    assert code == 0, said
    found = results(tmp_path / "out")
    one, two, moved = found["geometry"]["adapters"]
    assert {row["start"] for row in found["geometry"]["adapters"] + found["geometry"]["adapter_modules"]} == {"b"}
    assert one["a_moved_rel"] == 0 and one["start_share"] == pytest.approx(1, abs=1e-12)
    assert two["a_moved_rel"] > 1 and two["start_share"] < 0.5
    assert moved["a_moved_rel"] == pytest.approx(0.5, rel=1e-6), "B is half as large again, in the same columns"
    assert moved["start_share"] == pytest.approx(1, abs=1e-9)
    chance = found["geometry"]["chance"]
    assert chance["start"] == "b" and chance["shared_a"]["u1"] > 2 * chance["ambient"]["u1"]
    assert chance["shared_a"]["v1"] < 2 * chance["ambient"]["v1"]
    weighed = found["activations"]
    assert 0 < weighed["chance"] < 1
    assert compare(*words, "--out", "other")[0] == 0
    pairs = results(tmp_path / "other")["activations"]["pairs"]
    assert [row["cosine"] for row in weighed["pairs"]] == pytest.approx([row["cosine"] for row in pairs], rel=1e-5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Chance, same initial B" in page and "initial A" not in page and "B moved" in page


def test_checkpoints_of_two_trainings_are_two_courses(three: Path, tmp_path: Path) -> None:
    for run, last in (("a", "one"), ("b", "two")):
        for step in (100, 200, 300):
            folder = shutil.copytree(three / last, tmp_path / run / f"checkpoint-{step}")
            edit_weights(folder, lambda t, s=step: t.update({k: v * s / 300 for k, v in t.items() if "lora_B" in k}))
    shutil.rmtree(tmp_path / "a" / "checkpoint-300")
    assert compare(*sorted(tmp_path.glob("[ab]/*")), "--out", "out")[0] == 0
    found = results(tmp_path / "out")["geometry"]
    assert [entry["name"] for entry in found["adapters"]] == ["a", "b"]
    assert "Compared at step 200" in (tmp_path / "out" / "report.html").read_text(), "the last that both have"
    assert [entry["step"] for entry in found["along"]["pairs"]] == [100, 200]
    assert [entry["cosine"] for entry in found["along"]["pairs"]] == pytest.approx([found["pairs"][0]["cosine"]] * 2)
    for entry in found["along"]["adapters"]:
        end = next(a["norm"] for a in found["adapters"] if a["name"] == entry["name"])
        assert entry["norm"] == pytest.approx(end * entry["step"] / 200)
        assert entry["to_end"] == pytest.approx(1, abs=1e-12), "along a ray"


def stored(three: Path, root: Path, name: str, **changes: object) -> Path:
    """An adapter as a store holds it: beside the record of the step that trained it."""
    inputs = changes.pop("inputs", {"base": "b", "rollouts": "r"})
    config = {"method": "sft", "settings": {}, "learning_rate": 1e-4, "init_seed": 1, "order_seed": 1, "report_step": 9}
    folder = shutil.copytree(three / "one", root / f"{name}-01234abcde" / "adapter")
    shift = 0.01 * len(list(root.iterdir()))
    edit_weights(
        folder,
        lambda t: t.update({k: v + shift * torch.arange(v.numel()).view_as(v) / v.numel() for k, v in t.items()}),
    )
    payload = {"kind": "train", "version": 3, "config": config | changes, "inputs": inputs}
    (folder.parent / "step.json").write_text(json.dumps({"files": {}, "payload": payload}))
    return folder


def test_trainings_of_this_tool_bring_their_floors(three: Path, tmp_path: Path) -> None:
    """The reference's come first, wherever it stands."""
    given = [
        stored(three, tmp_path, "dpo", method="dpo"), stored(three, tmp_path, "dpo-order2", method="dpo", order_seed=2),
        stored(three, tmp_path, "sft"), stored(three, tmp_path, "sft-order2", order_seed=2),
        stored(three, tmp_path, "sft-init2", init_seed=2), stored(three, tmp_path, "sft-lr2", learning_rate=2e-4),
        stored(three, tmp_path, "dpo-lr2", method="dpo", learning_rate=2e-4),
    ]  # fmt: skip
    assert compare(*given, "--out", "out")[0] == 0
    found = results(tmp_path / "out")
    roles = {row["name"]: row["role"] for row in found["trainings"]}
    assert roles == {
        "dpo": "method", "dpo-order2": "order", "sft": "method", "sft-order2": "order", "sft-init2": "init",
        "sft-lr2": "rate", "dpo-lr2": "sweep",
    }  # fmt: skip
    assert [(row["name"], row["matched"]) for row in found["headline"]] == [
        ("dpo", "as published"), ("sft", "as published"), ("dpo-lr2", "sweep"),
    ]  # fmt: skip
    floors = found["geometry"]["floors"]
    for kind, name in {"order": "-order2", "init": "-init2", "learning_rate": "-lr2"}.items():
        pairs = [sorted((pair["a"], pair["b"])) for pair in floors[kind]]
        assert pairs == [[method, method + name] for method in ("sft", "dpo") if (method, kind) != ("dpo", "init")]
    sizes = {entry["name"]: entry for entry in found["geometry"]["adapters"]}
    assert sizes["sft"]["a_moved_rel"] > 0, "against the A0 of the noted seed"
    assert found["directions"]["variance"]["deltas"] == 4, "those of one initial A, each method at its own rate"
    assert {row["name"]: row["span_of"] for row in found["directions"]["adapters"]}["sft-order2"] == 1


def test_a_training_of_the_other_start_is_another_method(three: Path, tmp_path: Path) -> None:
    """No replica, whatever it has in common; measured against the B that its seed gives."""
    given = [
        stored(three, tmp_path, "sft"), stored(three, tmp_path, "sft-b", adapter={"start": "b"}),
        stored(three, tmp_path, "sft-b-order2", adapter={"start": "b"}, order_seed=2),
    ]  # fmt: skip
    assert compare(*given, "--out", "out")[0] == 0
    found = results(tmp_path / "out")
    assert {row["name"]: (row["role"], row["start"]) for row in found["trainings"]} == {
        "sft": ("method", "a"), "sft-b": ("method", "b"), "sft-b-order2": ("order", "b"),
    }  # fmt: skip
    assert found["geometry"]["floors"].keys() == {"order", "itself"}
    one, other, _ = found["geometry"]["adapters"]
    assert "start" not in one and other["start"] == "b" and other["a_moved_rel"] != one["a_moved_rel"]
    assert "Between a random A (SFT) and a random B (" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "change",
    [{"inputs": {"base": "b", "rollouts": "others"}}, {"report_step": 8}, {"batch_size": 4}, {"learning_rate": 1e-5}],
)
def test_a_training_that_differs_in_more_is_no_replica(three: Path, tmp_path: Path, change: dict) -> None:
    given = [stored(three, tmp_path, "sft"), stored(three, tmp_path, "sft-order2", order_seed=2, **change)]
    assert compare(*given, "--out", "out")[0] == 0
    found = results(tmp_path / "out")
    assert [row["role"] for row in found["trainings"]] == ["method", "method"]
    assert list(found["geometry"]["floors"]) == ["itself"]


def test_a_start_that_does_not_fit_one_adapter_is_said(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = compare(three / "one", three / "three", "--start", three / "two", "--out", "out", capsys=capsys)
    assert code == 0
    assert "three: --start has other modules or ranks" in said and "The ranks differ (one: 8, three: 5)" in said
    one, other = results(tmp_path / "out")["geometry"]["adapters"]
    assert one["a_moved_rel"] > 1 and other["a_moved_rel"] is None


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a/checkpoint-1000", "x/b/checkpoint-1000"], ["a", "b"]),
        (["x/a/checkpoint-500", "x/a/checkpoint-1000"], ["checkpoint-500", "checkpoint-1000"]),
        (["a/c-1", "a/c-2", "b/c-2"], ["c-1", "a/c-2", "b/c-2"]),
        (["x/1/y/last", "x/2/y/last"], ["1", "2"]),
        (["sft-01234abcde/adapter", "dpo-01234abcde/adapter"], ["sft", "dpo"]),
        (["sft-01234abcde/adapter", "sft-98765fedcb/adapter"], ["sft-01234abcde", "sft-98765fedcb"]),
        (["a", "x/a"], ["0", "x"]),
        (["a/checkpoint-40", "b/checkpoint-20"], ["a/checkpoint-40", "b/checkpoint-20"]),
        (["a/checkpoint-40", "a/checkpoint-20", "b"], ["a/checkpoint-40", "a/checkpoint-20", "b"]),
        (
            ["sft-01234abcde/checkpoints/step-40", "dpo-01234abcde/checkpoints/step-20"],
            ["sft/step-40", "dpo/step-20"],
        ),
        (["models--me--lora-dpo/snapshots/0123456789abcdef", "sft"], ["lora-dpo", "sft"]),
        (
            ["models--me--lora/snapshots/0123456789abcdef", "models--you--lora/snapshots/fedcba9876543210"],
            ["me", "you"],
        ),
        (["models--me--run/snapshots/0123456789abcdef/checkpoint-40"], ["run/checkpoint-40"]),
    ],
)
def test_the_shortest_names_that_are_distinct(tmp_path: Path, paths: list[str], names: list[str]) -> None:
    root = tmp_path / "0"
    assert adapter_names.distinct_names([root / path for path in paths]) == names


def test_a_link_goes_by_its_own_name(three: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(three / "one")
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "dpo").symlink_to(three / "two")
    assert [one.name for one in adapter_names.resolve(["mine", "final/dpo"])] == ["mine", "dpo"]
    with pytest.raises(UserError, match="is given twice"):
        adapter_names.resolve([str(three / "one"), "mine"])


def test_bases_are_told_apart_by_key_and_by_hub_name(three: Path, tmp_path: Path) -> None:
    """Trainings of this tool by their base's key, wherever the base lies; others by the name in their config."""

    def told(*given: adapter_names.Given, bases: tuple[str, str]) -> list[str]:
        files = {one.name: SimpleNamespace(base=base) for one, base in zip(given, bases, strict=True)}
        return comparison._base_notes(given, files)

    foreign = [adapter_names.Given(three / name, name) for name in ("one", "two")]
    ours = [
        adapter_names.Given(three / name, name, {"inputs": {"base": key}})
        for name, key in (("one", "k1"), ("two", "k1"), ("three", "k2"))
    ]
    cached = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen3-4B/snapshots/0123456789abcdef"
    assert told(*foreign, bases=("Qwen/Qwen3-4B", cached)) == []
    assert told(*ours[:2], bases=("/runs/a/base", "/runs/b/base")) == []
    (line,) = told(*foreign, bases=("/runs/a/base", "/runs/b/base"))
    assert "name different bases (one: /runs/a/base; two: /runs/b/base)" in line
    (line,) = told(ours[0], ours[2], bases=("/base", "/base"))
    assert "name different bases" in line


def test_one_folder_twice_and_one_name_twice(three: Path) -> None:
    with pytest.raises(UserError, match="is given twice"):
        adapter_names.resolve([str(three / "one"), str(three / "two" / ".." / "one")])
    with pytest.raises(UserError, match="two adapters are called 'one'"):
        adapter_names.resolve([str(three / "one"), f"one={three / 'two'}"])
    with pytest.raises(UserError, match="'base' is what the base model is called"):
        adapter_names.resolve([str(three / "one"), f"base={three / 'two'}"])
    assert [given.name for given in adapter_names.resolve([str(three / "one"), f"again={three / 'one'}"])] == [
        "one",
        "again",
    ]


def test_pieces_threads_and_one_after_another_give_the_same_bytes(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {name: three / name for name in ("one", "two", "three")}
    subjects = [geometry.Subject(name, geometry.Place(name, ".")) for name in inputs]

    def survey(share: object) -> str:
        found = geometry.survey(subjects, inputs, comparison.ANALYSIS, share, lambda line: None)  # type: ignore[arg-type]
        return json.dumps(found)

    whole = survey(lambda function, items: [function(item, inputs) for item in items])
    assert survey(comparison.threads(inputs)) == whole
    monkeypatch.setattr(geometry, "MODULES_A_TASK", 3)
    assert survey(lambda function, items: [function(item, inputs) for item in reversed(items)][::-1]) == whole


def test_what_is_not_shared_is_left_out_and_said(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = shutil.copytree(three / "two", tmp_path / "part")
    edit_weights(part, lambda t: [t.pop(key) for key in list(t) if "o_proj" in key or "layers.1" in key])
    edit(part, base_model_name_or_path="another/base")
    code, said = compare(three / "one", part, "--out", "out", capsys=capsys)
    assert code == 0
    assert "one: 5 of its 8 modules are left out, not in all adapters in one shape" in said
    assert "The configs name different bases" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "5 of its 8 modules are left out" in page and "another/base" in page
    assert len(results(tmp_path / "out")["geometry"]["modules"]) == 3


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def poisoned(folder: Path) -> None:
    key = "base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight"
    edit_weights(folder, lambda t: t[key].__setitem__((0, 0), float("nan")))


def elsewhere(folder: Path) -> None:
    edit_weights(folder, lambda t: [t.update({f"other.{key}": t.pop(key)}) for key in list(t)])


def widened(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({k: torch.cat([v, v], 1) for k, v in t.items() if "lora_A" in k}))


BAD: list[tuple[Callable[[Path], object], str]] = [
    (pickled, "adapter_model.bin is a pickle and is not opened; convert it"),
    (emptied, "no adapter_model.safetensors; give the folder"),
    (cut, "adapter_model.safetensors: damaged or truncated safetensors"),
    (poisoned, "module model.layers.1.self_attn.k_proj: NaN or inf in its factors"),
    (elsewhere, "the adapters share no module"),
    (widened, "the adapters agree on no module's shape"),
    (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json, so the scale"),
    (
        lambda folder: ((folder / "adapter_config.json").unlink(), os.mkfifo(folder / "adapter_config.json")),
        "no adapter_co",
    ),
    (lambda folder: edit(folder, rank_pattern={"([\\w.]+)+!": 4}), "repeats what repeats, or is too long"),
    (lambda folder: edit(folder, lora_alpha=10**400), "lora_alpha is 1000"),
    (lambda folder: edit(folder, base_model_name_or_path=["x"]), "base_model_name_or_path is ['x'], no name"),
    (lambda folder: edit_weights(folder, lambda t: t.update({k: torch.tensor(1.0) for k in t})), "are no matrices"),
    (
        lambda folder: edit_weights(folder, lambda t: t.update({k: v * 1e18 for k, v in t.items()})),
        "its update is beyond",
    ),
    (lambda folder: edit(folder, r=3), "rank 3 by the config, 8 by the weights"),
    (lambda folder: edit(folder, use_dora=True), "use_dora is set, and only plain LoRA"),
]


@pytest.mark.parametrize(("spoil", "line"), BAD)
def test_bad_adapters_are_one_line_and_nothing_is_written(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], line: str
) -> None:
    bad = shutil.copytree(three / "two", tmp_path / "bad")
    spoil(bad)
    code = cli.main(["compare", str(three / "one"), str(bad), "--out", "out"])
    told = capsys.readouterr().err
    assert code == 2
    assert told.count("\n") == 1 and told.startswith("error: ") and line in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["one"], "one adapter has nothing to be compared with"),
        (["one", "two", "--base", "nowhere"], "--base nowhere is neither a folder nor a hub name"),
        (["one", "two", "--base", "three"], "three: no model.safetensors"),
        (["one", "two", "--top", "0"], "no whole number from 1"),
        (["one", "two", "--intruder-below", "1.5"], "no number between 0 and 1"),
        (["one", "two", "--out", "one"], "--out one holds something else"),
        (
            ["one", "two", "--start", "three"],
            "--start three has other modules or ranks than every adapter",
        ),
        (["one", "=two"], "has no name before the ="),
        (["one", "a\nb=two"], "control characters"),
        ([], "the following arguments are required"),
    ],
)
def test_bad_words(
    three: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    monkeypatch.chdir(three)
    before = sorted(three.rglob("*"))
    try:
        code = cli.main(["compare", *words])
    except SystemExit as stop:  # argparse's own way out
        code = int(str(stop.code))
    told = capsys.readouterr().err
    assert code == 2 and told.count("\n") == 1 and line in told
    assert sorted(three.rglob("*")) == before


def test_a_comparison_takes_the_place_of_an_older_one_alone(three: Path, tmp_path: Path) -> None:
    assert compare(three / "one", three / "two", "--out", "out")[0] == 0
    (tmp_path / "out" / "mine.txt").write_text("kept")
    first = (tmp_path / "out" / "results.json").read_bytes()
    assert compare(three / "two", three / "one", "--out", "out")[0] == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
    assert (tmp_path / "out" / "results.json").read_bytes() != first
    assert compare(three / "one", three / "two", "--out", "out")[0] == 0
    assert (tmp_path / "out" / "results.json").read_bytes() == first, "the same adapters give the same bytes"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "csv", "figures", "mine.txt", "provenance.json", "report.html", "results.json",
    ]  # fmt: skip


def test_a_base_that_lacks_weights_is_no_base(
    three: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transformers would make them up at random."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 2", "answer": "3", "completion": "= 3"}\n')
    words = [three / "one", three / "two", "--base", base, "--rollouts", "rows.jsonl", "--out", "out"]
    code, said = compare(*words, capsys=capsys)
    assert code == 2 and "lacks 3 weights of its model (model.layers.1.mlp" in said
    assert not (tmp_path / "out").exists()


def test_unlike_checkpoints_are_said_and_equal_ones_refused(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in (("a/checkpoint-100", "one"), ("a/checkpoint-300", "two"), ("b/checkpoint-200", "one")):
        edit_weights(
            shutil.copytree(three / name, tmp_path / folder), lambda t: t.update({k: v + 1 for k, v in t.items()})
        )
    given = sorted(tmp_path.glob("[ab]/*"))
    code, said = compare(*given, "--out", "out", capsys=capsys)
    assert code == 0 and "Compared as they are, at unlike steps (100, 200, 300)" in said
    shutil.copytree(three / "three", tmp_path / "a" / "step-100")
    code, said = compare(*given, "a/step-100", "--out", "out", capsys=capsys)
    assert code == 2 and "are both step 100: name one" in said


def test_links_and_files_in_the_places_of_parts_make_way(three: Path, tmp_path: Path) -> None:
    assert compare(three / "one", three / "two", "--out", "out")[0] == 0
    elsewhere = shutil.move(tmp_path / "out" / "csv", tmp_path / "elsewhere")
    (tmp_path / "out" / "csv").symlink_to(elsewhere)
    shutil.rmtree(tmp_path / "out" / "figures")
    (tmp_path / "out" / "figures").write_text("")
    assert compare(three / "one", three / "three", "--out", "out")[0] == 0
    assert "three" in (tmp_path / "out" / "csv" / "pairs.csv").read_text()
    assert "three" not in (Path(elsewhere) / "pairs.csv").read_text(), "what is linked to is not ours"
