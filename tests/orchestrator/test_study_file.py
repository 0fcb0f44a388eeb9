"""From YAML and --set to a Study, and one line for whatever is wrong on the way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution.errors import UserError
from orchestrator.config.study import Study
from orchestrator.config.study_file import _read, _together, load_study


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a study's file."""
    return _together(_read(path))


def refused(path: Path, *overrides: str) -> str:
    """The one line with which the study is refused."""
    with pytest.raises(UserError) as caught:
        load_study(path, list(overrides))
    line = str(caught.value)
    assert "\n" not in line, line
    return line


def test_the_small_study_is_read(make_study: Callable[..., Study]) -> None:
    study = make_study()
    assert study.name == "small"
    assert list(study.methods) == ["sft", "rft", "dpo"]
    assert study.methods["sft"].settings == {}
    assert (study.learning_rate("sft"), study.learning_rate("dpo")) == (3e-4, 3e-5)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.5e-4", 1.5e-4), ("3E-5", 3e-5), (".5e-3", 5e-4), ("1.e-3", 1e-3), ("0.25", 0.25)],
)
def test_exponents_without_a_point_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    (tmp_path / "a.yaml").write_text(f"x: {text}\n")
    read = read_yaml(tmp_path / "a.yaml")["x"]
    assert isinstance(read, float) and read == value


def test_words_that_look_like_numbers_stay_words(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1e\nb: e5\nc: lr1e-4\nd: 12\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": "1e", "b": "e5", "c": "lr1e-4", "d": 12}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.learning_rat=1e-4", "training.learning_rat: unknown key; did you mean learning_rate?"),
        ("metods={}", "metods: unknown key; did you mean methods?"),
        ("adapter.rnk=3", "adapter.rnk: unknown key; did you mean rank?"),
        ("base.stps=3", "base.stps: unknown key; did you mean steps?"),
        ("xqzzy=3", "xqzzy: unknown key; remove it"),
    ],
)
def test_an_unknown_key_is_refused_with_the_near_name(study_file: Path, override: str, line: str) -> None:
    assert refused(study_file, override) == f"{study_file}: {line}"


@pytest.mark.parametrize("override", ["training.rank=3", "base.learning_rates=[1e-4]", "adapter.steps=1"])
def test_a_key_at_the_wrong_place_is_not_said_to_be_meant_as_itself(study_file: Path, override: str) -> None:
    name = override.partition("=")[0].rpartition(".")[2]
    line = refused(study_file, override)
    assert "unknown key" in line
    assert f"did you mean {name}?" not in line


@pytest.mark.parametrize("value", ["3", "[]", "x"])
@pytest.mark.parametrize("part", ["base", "adapter", "training", "engine", "rollouts.table", "evaluation", "placement"])
def test_what_is_no_mapping_is_refused_without_a_class_name(study_file: Path, part: str, value: str) -> None:
    with pytest.raises(UserError) as refused:
        load_study(study_file, [f"{part}={value}"])
    assert str(refused.value).endswith(f": {part}: must be a mapping of settings, such as {{key: value}}")


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("training.steps=many", "training.steps"),
        ("training.steps=0", "training.steps"),
        ("training.steps=2.5", "training.steps"),
        ("training.steps=true", "training.steps"),
        ("training.learning_rate=-1", "training.learning_rate"),
        ("training.learning_rate=.nan", "training.learning_rate"),
        ("training.learning_rate=.inf", "training.learning_rate"),
        ("training.precision=float16", "training.precision"),
        ("rollouts.table.heldout=1", "rollouts.table.heldout"),
        ("adapter.targets=q_proj", "adapter.targets"),
        ("seeds.init=-1", "seeds.init"),
        ("evaluation.tasks=[]", "evaluation.tasks"),
        ("methods={}", "methods"),
        ("name=../up", "name"),
        ("replicas.0.order_seed=x", "replicas.0.order_seed"),
        ("base.kind=ghost", "base"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(study_file: Path, override: str, where: str) -> None:
    assert refused(study_file, override).startswith(f"{study_file}: {where}: ")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("methods.sft.settings={bias: 1}", "sft: unknown setting 'bias'"),
        ("methods.dpo.settings={beta: 0}", "beta must be above 0"),
        ("methods.ppo={}", "unknown method 'ppo'; known methods: sft, rft, dft, rift, offline_grpo, dpo"),
        ("training.backend=trl", "TRL has no trainer for rft, only for sft, dft, dpo: set training.backend to native"),
        (
            "methods.Sft={method: sft}",
            "methods.Sft: a name consists of lower-case letters, digits and _, and begins with a letter",
        ),
        ("methods.sft-b={method: sft}", "methods.sft-b: a name consists of lower-case"),
        ("methods.other={method: sftt}", "unknown method 'sftt'"),
        ("methods.sft={method: ''}", "methods.sft.method"),
        ("training.learning_rate=true", "must be a number, not true or false"),
        ("training.probe_every=true", "training.probe_every"),
        ("placement.gpus_per_training=0.00001", "placement.gpus_per_training"),
        ("methods.base={method: sft}", "methods.base: base is the name of the base model; choose another name"),
        (
            "methods.rift={method: sft}",
            "methods.rift: rift is an objective's name; give sft another name",
        ),
        ("sweep.method=dft", "'dft', which is not among methods"),
        ("training.report_step=5", "report_step <= run_steps <= steps"),
        ("training.run_steps=5", "report_step <= run_steps <= steps"),
        ("replicas=[{method: sft}]", "exactly one of order_seed, init_seed, learning_rate"),
        ("replicas=[{method: sft, order_seed: 1, init_seed: 1}]", "exactly one of"),
        ("evaluation.tasks.0.task=chess", "unknown task 'chess'"),
        ("evaluation.tasks.0.instruction=Answer!", "instruction must contain {problem}"),
        ("base={name: x}", "base.kind: is required but missing"),
        ("rollouts={path: x}", "rollouts.source: is required but missing"),
        ("base={kind: gguf, name: x}", "either path or package"),
        ("base={kind: gguf, name: x, path: a, package: b}", "either path or package"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(study_file: Path, override: str, part: str) -> None:
    assert part in refused(study_file, override)


def test_a_missing_key_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nbase: {kind: from_scratch}\n")
    assert refused(path) == f"{path}: rollouts: is required but missing (and 2 more)"


def test_one_task_cannot_stand_twice(study_file: Path) -> None:
    """Verdicts and shards are told apart by the task's name: two draws of one task would be mixed up."""
    line = refused(study_file, "evaluation.tasks=[{task: arithmetic, draw: 4}, {task: arithmetic, draw: 4, seed: 2}]")
    assert "arithmetic" in line


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- 1\n- 2\n", "a study is a mapping, this is a list"),
        (b"just words\n", "a study is a mapping, this is a str"),
        (b"\x80\x81\xff\xfe", "is not text"),
        (b"GGUF\x03\x00\x00\x00\x01", "not valid YAML"),
        (b"name: a\nname: b\n", "line 2: not valid YAML: the key 'name' appears twice"),
        (b"name: a\nbase:\n  kind: hub\n  kind: local\n", "line 4: not valid YAML: the key 'kind' appears twice"),
        (b"name: [1, 2\nbase: x\n", "line 2: not valid YAML"),
        (b"name: !!python/name:os.system\n", "line 1: not valid YAML"),
        (b"name: 2024-13-45\n", ""),
        (b"? [a]\n: 1\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    line = refused(path)
    assert line.startswith(str(path))
    assert part in line


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.yaml").startswith(f"{tmp_path}/no.yaml: no such file")
    assert refused(tmp_path) == f"{tmp_path} is a folder: name the study's YAML file in it"
    (tmp_path / "file").write_text("x")
    assert "no such file" in refused(tmp_path / "file" / "a.yaml")


def test_extends_lays_one_study_over_another(study_file: Path) -> None:
    above = study_file.with_name("above.yaml")
    above.write_text("extends: small.yaml\nname: above\ntraining: {steps: 9}\nreplicas: []\n")
    study = load_study(above)
    assert (study.name, study.training.steps, study.training.learning_rate) == ("above", 9, 3e-4)
    assert study.replicas == ()
    assert list(study.methods) == ["sft", "rft", "dpo"]


def test_another_kind_replaces_the_whole_mapping(study_file: Path) -> None:
    above = study_file.with_name("above.yaml")
    above.write_text("extends: small.yaml\nbase: {kind: hub, name: a/b}\n")
    assert load_study(above).base.model_dump() == {"kind": "hub", "name": "a/b", "revision": "main", "shape": None}


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_circle_of_extends_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, parent in zip(names, (*names[1:], names[0]), strict=True):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {parent}.yaml\nname: {name}\n")
    assert "extends itself" in refused(tmp_path / "a.yaml")


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: gone.yaml\n")
    assert f"{tmp_path}/gone.yaml: no such file" in refused(tmp_path / "a.yaml")


def test_set_reaches_into_mappings_and_lists(make_study: Callable[..., Study]) -> None:
    study = make_study(
        "training.steps=7", "replicas.1.init_seed=9", "methods.dft.learning_rate=1e-5", "adapter.targets=[q_proj]",
        "placement.gpus_per_training=0.5", "title=a = b", "training.steps=8",
    )  # fmt: skip
    assert study.training.steps == 8  # the last word counts
    assert (study.replicas[0].order_seed, study.replicas[1].init_seed) == (43, 9)
    assert study.learning_rate("dft") == 1e-5
    assert study.adapter.targets == ("q_proj",)
    assert study.placement.gpus_per_training == 0.5
    assert study.title == "a = b"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.steps", "write it as KEY=VALUE"),
        ("=3", "write it as KEY=VALUE"),
        ("training.steps=[1", "the value is not valid YAML"),
        ("name.deep=1", "name is not a mapping"),
        ("methods.sft.settings" + ".a" * 9000 + "=1", "nested deeper than 50 levels"),
        ("name.deep.er=1", "name.deep is not a mapping"),
        ("replicas.9.order_seed=1", "is not a mapping"),
        ("replicas.x=1", "replicas is not a mapping"),
    ],
)
def test_a_bad_set_is_refused_by_its_own_words(study_file: Path, override: str, part: str) -> None:
    line = refused(study_file, override)
    assert line.startswith(f"--set {override[:200]}: ")
    assert part in line


FILE = "rollouts={source: file, path: '{data}/gsm8k/rollouts.jsonl'}"


def test_the_data_folder_comes_from_the_study_or_the_environment(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATA", "/from/environment/")
    assert make_study(FILE).rollouts.path == "/from/environment/gsm8k/rollouts.jsonl"
    assert make_study(FILE, "data=/own").rollouts.path == "/own/gsm8k/rollouts.jsonl"


def test_a_data_folder_that_is_needed_and_not_set_is_asked_for(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_DATA", raising=False)
    line = refused(study_file, FILE)
    assert re.match(r"rollouts\.path: .*set ORCHESTRATOR_DATA, or --set data=FOLDER$", line)
    assert load_study(study_file).name == "small"  # which needs none


def test_a_loss_that_trl_lacks_is_refused_before_anything_starts(study_file: Path) -> None:
    methods = "methods={dpo: {settings: {loss: ipo}}}"
    line = refused(study_file, methods, "replicas=[]", "analysis={}", "training.backend=trl")
    assert "TRL has no DPO loss ipo with length_normalised false and label_smoothing 0" in line


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-3", -3), ("+7", 7), ("0", 0), ("1.5", 1.5), ("1e-5", 1e-5), ("1E+3", 1000.0), ("5.e-7", 5e-7),
        (".5", 0.5), ("-.5", -0.5), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'010'", "010"), ("yes", "yes"), ("010", "010"), ("1:30", "1:30"), ("0x10", "0x10"),
    ],
)  # fmt: skip
def test_numbers_are_decimal_and_booleans_are_true_and_false(tmp_path: Path, text: str, value: object) -> None:
    read = read_yaml(written(tmp_path, f"x: {text}\n"))["x"]
    assert (str if isinstance(read, str) else type(read)) is type(value) and read == value


AMBIGUOUS = (
    "yes", "no", "on", "Off", "y", "010", "0o7", "0x10", "0b1", "1_000", "1,000", "1:30", "2024-01-02", ".inf", ".nan",
)  # fmt: skip
NUMBERS = (
    "training.learning_rate", "training.steps", "training.warmup", "training.weight_decay", "training.clip",
    "training.eps", "training.resume_every", "training.resume_seconds", "adapter.rank", "adapter.dropout",
    "base.steps", "base.hard_share", "base.largest", "seeds.init", "rollouts.temperature", "rollouts.top_p",
    "rollouts.table.heldout", "evaluation.parts", "evaluation.tasks.0.draw", "evaluation.tasks.0.settings.largest",
    "evaluation.tasks.0.settings.hard_share", "engine.max_model_len", "analysis.top", "analysis.spectra.threshold",
    "placement.memory_share", "placement.gpus_per_training", "methods.dpo.learning_rate", "replicas.0.order_seed",
    "methods.dpo.settings.beta", "analysis.similarity.groups", "analysis.connectivity.points",
)  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_one_rule_for_every_number(study_file: Path, name: str) -> None:
    for text in ("yes", "Off", "010", "0x10", "1_000", "1:30", "2024-01-02", ".inf", "true", "'5'"):
        line = refused(study_file, f"{name}={text}")
        assert name.rpartition(".")[2] in line, (text, line)


@pytest.mark.parametrize(
    "name", ["training.gradient_checkpointing", "prompt.thinking", "methods.dpo.settings.length_normalised"]
)
def test_one_rule_for_every_boolean(study_file: Path, name: str) -> None:
    for text in (*AMBIGUOUS, "1", "0", "1.0", "'true'"):
        assert name.rpartition(".")[2] in refused(study_file, f"{name}={text}"), text


@pytest.mark.parametrize("text", ["1e5", "1.10", "true", "12"])
def test_a_number_is_no_text(study_file: Path, text: str) -> None:
    """A branch 1.10 would be looked up as 1.1."""
    assert "put a string in quotes" in refused(study_file, f"prompt.system={text}")
    if text != "12":  # digits alone lose nothing: a commit may be all digits
        assert "put a string in quotes" in refused(study_file, f"base={{kind: hub, name: a/b, revision: {text}}}")


def test_texts_that_look_like_numbers_stay_as_they_stand(make_study: Callable[..., Study]) -> None:
    study = make_study("title=1_000", "prompt.system=yes", "base={kind: hub, name: a/b, revision: 010}")
    assert (study.title, study.prompt.system, study.base.revision) == ("1_000", "yes", "010")
    assert {type(x) for x in (study.title, study.prompt.system, study.base.revision)} == {str}


def test_a_request_is_not_sent_what_two_readers_read_as_two_things(study_file: Path) -> None:
    asked = "rollouts={source: openai, base_url: 'http://h/v1', model: m, problems: {task: arithmetic}, body: %s}"
    line = refused(study_file, asked % "{a: [{enable_thinking: no}]}")
    assert "'no' is a string here and a number, a boolean or a date to other readers" in line
    assert load_study(study_file, [asked % "{a: [{enable_thinking: false}]}"]).rollouts.body


def test_a_wrong_value_is_named_with_its_file_and_line(study_file: Path) -> None:
    text = study_file.read_text().replace("  samples: 4", "  samples: 0x4")
    study_file.write_text(text)
    number = text.splitlines().index("  samples: 0x4") + 1
    said = "rollouts.samples: input should be a valid integer, not '0x4'; an integer is decimal, such as 200"
    assert refused(study_file) == f"{study_file}, line {number}: {said}"
    above = study_file.with_name("above.yaml")
    above.write_text("extends: small.yaml\nname: above\nadapter:\n  rank: yes\n")
    assert refused(above).startswith(f"{above}, line 4: adapter.rank: ")
    above.write_text("extends: small.yaml\nname: above\n")
    assert refused(above).startswith(f"{study_file}, line {number}: rollouts.samples: ")


def test_a_merge_key_gives_what_the_mapping_itself_may_say_otherwise(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a, {x: 5, z: 6}], y: 7}\nd: {<<: *a, <<: {z: 1}}\n"
    lines = text.splitlines(keepends=True)
    found = read_yaml(written(tmp_path, "".join(lines[:3])))
    assert (found["b"], found["c"]) == ({"x": 3, "y": 2}, {"x": 1, "y": 7, "z": 6})
    assert "line 4: not valid YAML: the key '<<' appears twice" in refused(written(tmp_path, text))


def test_a_repeated_mapping_is_set_in_one_place_alone(study_file: Path) -> None:
    study_file.write_text(study_file.read_text() + "placement: &p {}\nseeds: &s {init: 1}\n")
    text = study_file.read_text().replace(
        "  - {method: sft, order_seed: 43}", "  - &r {method: sft, order_seed: 43}\n  - *r"
    )
    study_file.write_text(text)
    study = load_study(study_file, ["replicas.0.order_seed=44"])
    assert [r.order_seed for r in study.replicas][:2] == [44, 43]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("\n".join(f"k{i}: 1" for i in range(100_000)), "is larger than 256 KiB"),
        ("a: [" + "1, " * 20_000 + "1]", "more than 10000 values"),
        ("[" * 100_000, "nested deeper than 50 levels"),
        ("a: " + "{a: " * 60 + "1" + "}" * 60, "line 1: not valid YAML: nested deeper than 50 levels"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(f"{y}: &{y} [{', '.join(['*' + x] * 8)}]\n" for x, y in
         zip("abcdef", "bcdefg", strict=True)), "more than 10000 values, counting repeated ones each time"),
        ("a: &a {b: *a}\n", "line 1: not valid YAML: a mapping or list contains itself: remove the alias"),
        ("a: 1e999\n", "'1e999' is out of range for a number"),
        ("a: " + "9" * 5000, "is out of range for a number"),
        ("a: !!int 0x10\n", "remove the tag"),
        ("a: !!set {b}\n", "the tag 'tag:yaml.org,2002:set' is not supported"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
        ("a: {1: b}\n", "line 1: not valid YAML: the key '1' is not a string: put it in quotes"),
        ("a: *b\n", "line 1: not valid YAML: found undefined alias 'b'"),
        ('a: "\\UFFFFFFFF"\n', "not valid YAML: cannot be read (OverflowError)"),
        ('a: "\\U00110000"\n', "not valid YAML: cannot be read (ValueError)"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_at_once(tmp_path: Path, text: str, part: str) -> None:
    began = time.process_time()
    assert part in refused(written(tmp_path, text))
    assert time.process_time() - began < 3


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A FIFO without a writer, and a device without an end."""
    os.mkfifo(tmp_path / "fifo.yaml")
    for path in (tmp_path / "fifo.yaml", Path("/dev/zero"), Path("/dev/null")):
        assert refused(path) == f"{path} is not a regular file: a study is a YAML file"
    (tmp_path / "a.yaml").write_text(f"extends: {tmp_path}/fifo.yaml\n")
    assert "fifo.yaml is not a regular file" in refused(tmp_path / "a.yaml")


def test_relative_paths_count_from_the_file_that_they_stand_in(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of --set from the working folder. What lies under the same name elsewhere is not taken."""
    work, deep = tmp_path / "work", tmp_path / "deep"
    for folder in (work, deep, tmp_path):
        (folder / "own").mkdir(parents=True)
        for name in ("rows.jsonl", "own/set", "test.jsonl"):
            (folder / name).write_text("")
    monkeypatch.chdir(work)
    text = study_file.read_text()
    rollouts = text[text.index("rollouts:") : text.index("training:")]
    study_file.write_text(
        text.replace(rollouts, "rollouts: {source: file, path: rows.jsonl}\n").replace(
            "    - {task: arithmetic, split: test, draw: 6, seed: 1}",
            "    - {task: gsm8k, source: test.jsonl, shots: {count: 1, source: own/set}}\n"
            "    - {task: math, source: hub/name}",
        )
    )
    above = deep / "above.yaml"
    above.write_text("extends: ../small.yaml\nbase: {kind: local, name: x, path: own}\ndata: own\n")
    study = load_study(above)
    assert study.rollouts.path == str(tmp_path / "rows.jsonl")
    assert (study.base.path, study.data) == (str(deep / "own"), str(deep / "own"))
    tasks = study.evaluation.tasks
    assert (tasks[0].source, tasks[0].shots.source) == (str(tmp_path / "test.jsonl"), str(tmp_path / "own/set"))
    assert tasks[1].source == "hub/name"
    study = load_study(above, ["rollouts.path=rows.jsonl", "evaluation.tasks.0.source=own/set", "data=own"])
    assert (study.rollouts.path, study.data) == (str(work / "rows.jsonl"), str(work / "own"))
    assert study.evaluation.tasks[0].source == str(work / "own/set")
    study = load_study(above, ["rollouts={source: hub, name: own/set}", "base={kind: gguf, name: g, path: m.gguf}"])
    assert (study.rollouts.name, study.base.path) == (str(work / "own/set"), str(work / "m.gguf"))
