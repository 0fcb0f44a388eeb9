"""The command line: frozen words, light help, one line for bad input, and nothing written for it."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution.lease import hold
from execution.process import note
from execution.runner import DagRunner
from execution.step import Step
from execution.store import open_store, write_json
from orchestrator import cli
from orchestrator.config.study import Study
from orchestrator.planning import resolve as facts
from orchestrator.runtime.threads import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "ray", "transformers", "vllm", "matplotlib", "peft", "pandas", "datasets", "numpy", "results")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a command sets in this process is taken back; relative folders fall under the test's own."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("ORCHESTRATOR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def process(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    how = ["-c", code] if code else ["-m", "orchestrator"]
    return subprocess.run([sys.executable, *how, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def words_of(parser: argparse.ArgumentParser) -> list[str]:
    return [
        " ".join(a.option_strings) or f"{a.metavar or a.dest}{a.nargs or ''}"
        for a in parser._actions
        if "-h" not in a.option_strings
    ]


def test_the_command_line_grows_on_purpose() -> None:
    parser = cli._parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    common = ["STUDY.yaml?", "--set", "--out"]
    assert words_of(parser) == ["COMMANDA..."]
    assert {name: words_of(sub) for name, sub in subparsers.choices.items()} == {
        "run": [*common, "--serial", "--address", "--store"],
        "plan": [*common, "--gpus", "--store"],
        "status": common,
        "report": common,
        "export": [*common, "--to"],
        "compare": [
            "[NAME=]ADAPTER+", "--base", "--rollouts", "--rows", "--start", "--top", "--intruder-below", "--out",
        ],
        "grade": ["ROWS.jsonl", "--out"],
        "doctor": ["STUDY.yaml?", "--set", "--measure"],
    }  # fmt: skip


def test_the_default_study_is_tiny() -> None:
    options = cli._parser().parse_args(["run"])
    assert options.study == ROOT / "configs" / "tiny.yaml"
    assert (options.set, options.out, options.serial, options.address) == ([], None, False, None)


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"
    for command in ("run", "plan", "status", "report", "compare", "grade", "doctor"):
        assert f"\n    {command} " in done.stdout


def test_planning_is_light() -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "assert main(['plan']) == 0\n"
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules and m not in ('numpy', 'scipy')])"  # power
    )
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_serial_path_imports_neither_ray_nor_vllm(study_file: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "import orchestrator.commands.run, execution.runner, execution.execute, orchestrator.results.write_report\n"
        "import orchestrator.evaluation.answer, orchestrator.rollouts.build, orchestrator.training.train\n"
        "import orchestrator.training.reference, orchestrator.evaluation.problems, orchestrator.bases.scratch\n"
        "from orchestrator.measurements import activations, connectivity, features, geometry, losses\n"
        "from orchestrator.measurements import similarity, spectra\n"
        "print('loaded:', [m for m in ('ray', 'vllm') if m in sys.modules])"
    )
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_report_is_written_without_a_library_that_trains_or_serves() -> None:
    code = (
        "import sys, orchestrator.results.write_report; "
        "assert not {'torch', 'transformers', 'peft', 'ray', 'vllm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_bad_input_ends_a_process_with_two_and_one_line(tmp_path: Path) -> None:
    done = process("run", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/no.yaml: no such file: name a YAML file, such as one of configs/"
    ]
    assert not (tmp_path / "out").exists()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that must end in bad input."""
    assert cli.main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


LOCAL = "base={kind: local, name: mine, path: /nowhere}"
BAD = {
    "an unknown key": (["training.learning_rat=1"], "did you mean learning_rate?"),
    "a wrong type": (["training.steps=many"], "training.steps"),
    "no number": (["training.learning_rate=.inf"], "training.learning_rate"),
    "no target": (["adapter.targets=[wq]"], "wq matches no module"),
    "no local base": ([LOCAL], "/nowhere"),
    "no GGUF file": (["base={kind: gguf, name: mine, path: /nowhere/m.gguf}"], "/nowhere/m.gguf"),
    "no GGUF package": (["base={kind: gguf, name: mine, package: no_such_pkg}"], "no_such_pkg is not installed"),
    "no rollouts": (["rollouts={source: file, path: /nowhere/r.jsonl}"], "/nowhere/r.jsonl is not there"),
    "no data folder": (["rollouts={source: file, path: '{data}/r.jsonl'}"], "set ORCHESTRATOR_DATA"),
    "no source": (["evaluation.tasks=[{task: gsm8k, source: /nowhere/at/all}]"], "/nowhere/at/all"),
    "no file of a task": (["evaluation.tasks=[{task: gsm8k, source: gone/q.jsonl}]"], "gone/q.jsonl"),
    "no such split": (["evaluation.tasks.0.split=dev"], "dev"),
    "a setting no task knows": (["evaluation.tasks.0.settings={hard: 1}"], "hard"),
    "no pair of models": (["analysis.connectivity.pairs=[[sft, ppo]]"], "ppo"),
    "a bad override": (["training.steps"], "KEY=VALUE"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "part"), BAD.values(), ids=BAD)
def test_bad_settings_start_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], part: str
) -> None:
    words = [word for o in overrides for word in ("--set", o)]
    line = refused(capsys, "run", str(study_file), *words, "--out", str(tmp_path / "out"), "--serial")
    assert part in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([{"problem": "a", "answer": "1"}], "r.jsonl, line 1: completion is missing"),
        (
            [{"problem": "a", "answer": "1", "completion": "1", "reward": 0}],
            "methods.rft: no rollout is right",
        ),
        ([{"problem": "a", "answer": "1", "completion": "1", "reward": 1}], "no problem has both a right and"),
    ],
)
def test_bad_rollouts_start_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_rows: Any, rows: list[Any], part: str
) -> None:
    path = write_rows(tmp_path / "r.jsonl", rows)
    override = f"rollouts={{source: file, path: {path}}}"
    line = refused(capsys, "run", str(study_file), "--set", override, "--out", str(tmp_path / "out"), "--serial")
    assert part in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\xff", b"GGUF\x00\x01", b"- 1\n", b"a: [1\n"])
def test_a_file_that_is_no_study_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert str(path) in refused(capsys, "run", str(path), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_starts_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as held:  # bound, not listening
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        line = refused(capsys, "run", str(study_file), "--out", str(tmp_path / "out"), "--address", address)
    assert f"--address {address}: no Ray cluster can be joined there" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--store", "http://["], "--store: http://[ is not an address"),
        (["--store", ""], "--store is empty"),
        (["--address", ""], "write it as HOST:PORT"),
        (["--set", f"rollouts={{source: file, path: {'x' * 300}}}"], "cannot be read"),
        (["--set", 'data="x\\0"', "--set", 'rollouts={source: file, path: "{data}/x"}'], "cannot be read"),
        (["--set", "a\nb=1"], "a b"),
        (["--set", "rollouts.table.heldout=0.99"], "rollouts.table.heldout: 0.99 of 10 problems are all of them"),
    ],
)
def test_odd_words_start_nothing_and_are_one_line(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    assert part in refused(capsys, "run", str(study_file), "--out", str(tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_an_endpoint_that_is_none_is_named(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in ("http://[", "ftp://127.0.0.1:9", "127.0.0.1:9000"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        line = refused(
            capsys, "plan", str(study_file), "--out", str(tmp_path / "out"), "--store", f"s3://b/{endpoint[:3]}"
        )
        assert line.startswith(f"error: AWS_ENDPOINT_URL: {endpoint} is no")


def test_unknown_words_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    several = [["compare", "a", "b", *more] for more in (["--rows", "0"], ["--top", "x"], ["--intruder-below", "1"])]
    for words in (["plan", "--bogus"], ["frobnicate"], ["plan", "--gpus"], ["compare"], *several):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        told = capsys.readouterr().err
        assert caught.value.code == 2 and told.startswith("error: ") and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a"], "one adapter has nothing to be compared with"),
        (["a", "b"], "a: no adapter_model.safetensors"),
        (["a", "a"], "a is given twice"),
        (["x=a", "x=b"], "two adapters are called 'x'"),
        (["=a", "b"], "'=a' has no name before the ="),
    ],
)
def test_adapters_that_cannot_be_compared_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    assert part in refused(capsys, "compare", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "plan", "status", "report"])
def test_a_store_that_is_a_file_is_refused(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file" in refused(capsys, command, str(study_file), "--out", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_folder_without_a_run_is_refused(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    line = refused(capsys, command, str(study_file), "--out", str(tmp_path / "out"))
    assert "holds no run: start one with run" in line
    assert not (tmp_path / "out").exists()


def test_a_second_run_into_one_folder_is_refused(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with hold(open_store(out).storage, print):
        line = refused(capsys, "run", str(study_file), "--out", str(out), "--serial")
    assert f"{out} is in use by process {os.getpid()}" in line


def test_plan_shows_every_step_and_touches_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], plan_of: Any, make_study: Any
) -> None:
    before = sorted(p.name for p in tmp_path.rglob("*"))
    assert cli.main(["plan", str(study_file), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for step in plan_of(make_study()):
        line = next(x for x in shown.splitlines() if x.startswith(f"{step.title} "))
        assert step.key in line and "to do" in line
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_plan_claims_no_split_of_a_file_and_says_what_it_counts(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_rows: Any
) -> None:
    rows = write_rows(
        tmp_path / "train.jsonl", [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(9)]
    )
    tasks = f"evaluation.tasks=[{{task: gsm8k, source: {rows}}}, {{task: arithmetic, draw: 6}}]"
    assert cli.main(["plan", str(study_file), "--set", tasks, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "all problems of gsm8k (rows of train.jsonl)" in shown and "6 problems of arithmetic (test)" in shown
    assert "786 k parameters without embeddings" in shown


def test_the_reference_study_is_planned_in_full_without_a_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_ask_hub", lambda *a: pytest.fail("planning reached for the network"))
    assert cli.main(["plan", str(ROOT / "configs" / "qwen3-4b.yaml"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for method in ("sft", "rft", "dft", "rift", "offline_grpo", "dpo", "dpo-lr5e-6", "dpo-lr5e-5"):
        assert f"train/{method} " in shown and f"evaluate/{method} " in shown
    assert "144 modules" in shown
    for value in (
        "Qwen/Qwen3-4B-Instruct-2507",
        "rank 32, alpha 64",
        "1500 steps",
        "step 1000",
        "batch 32",
        "75000",
        "1800",
    ):
        assert value in shown, value
    for figure in ("4.02 B parameters", "23.6 M parameters", "78 GPU-hours", "GiB"):
        assert figure in shown, figure
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["sft"][:5] == ["sft", "sft", "5e-6", "42", "42"] and rows["sft"][-1] == "0.43"  # 32 000 of 75 000
    assert rows["dpo"][2] == "5e-7" and "beta=0.1," in rows["dpo"] and rows["dpo"][-1] == "17.78"  # of 1 800
    assert rows["sft-init123"][3:5] == ["123", "42"] and rows["dpo-order123"][3:5] == ["42", "123"]


@pytest.mark.parametrize("gpus", [1, 8, 64, 4096])
@pytest.mark.parametrize("study", ["qwen3-4b", "tiny"])
def test_a_schedule_stands_behind_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, study: str, gpus: int
) -> None:
    monkeypatch.setattr(facts, "_ask_hub", lambda *a: pytest.fail("planning reached for the network"))
    words = ["plan", str(ROOT / "configs" / f"{study}.yaml"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert "makespan" not in page
    assert cli.main([*words, "--gpus", str(gpus)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(page)
    table, _, end = shown[len(page) :].strip().partition("\n\n")
    steps = [line.split()[0] for line in page.splitlines() if line.endswith((" base", " -")) or "to do" in line]
    assert {line.split()[-1] for line in table.splitlines()[2:]} == {s for s in steps if "/" in s}
    assert max(map(len, table.splitlines())) <= 80
    assert f"on {gpus} GPU{'s' if gpus > 1 else ''}, " in end.splitlines()[0]
    assert "(longest chain)" in end and "(work)" in end and "an estimate" in end
    assert "the teacher's sampling is not counted" not in end  # of an API its hours are
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_unknown_size_is_said_not_to_be_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled = "rollouts={source: vllm, model: {kind: hub, name: a/b}, problems: {task: deepscaler, split: train}}"
    words = ["plan", str(ROOT / "configs" / "qwen3-4b.yaml"), "--out", str(tmp_path / "out"), "--gpus", "8"]
    assert cli.main([*words, "--set", sampled]) == 0
    assert "(the teacher's sampling is not counted: give rollouts.model.shape)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "rollouts.max_cost=null",
            "rollouts.max_cost: a teacher with prices needs a cap: set rollouts.max_cost to the dollars that its "
            "answers may cost ($73.29 are expected)",
        ),
        (
            "rollouts.max_cost=0.9",  # 500 x 4 answers: 400 k tokens at 0.14 and 3.072 M at 0.28 a million
            "rollouts.max_cost: $0.9 are less than the $0.92 that one shard of 500 problems is expected to cost: raise "
            "it, or lower rollouts.shard",
        ),
        (
            "rollouts.problems.split=test",
            "task deepscaler: agentica-org/DeepScaleR-Preview-Dataset has no split 'test', but train: name one of them "
            "as split",
        ),
    ],
)
def test_a_teacher_that_cannot_be_paid_or_asked_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, line: str
) -> None:
    words = ["plan", str(ROOT / "configs" / "qwen3-4b.yaml"), "--out", str(tmp_path / "out"), "--set", setting]
    assert refused(capsys, *words) == f"error: {line}"


def test_what_a_teacher_is_expected_to_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["plan", str(ROOT / "configs" / "qwen3-4b.yaml"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    # 160 000 prompts of 200 tokens, completions of 1 536, or of 3 072 at most
    told = (
        "expected   40000 x 4 requests, 32 M prompt and 246 M completion tokens, $73.29 at $0.14 and $0.28 a million "
        "(the longest completions: $137.63), 2.7 h (assumed: prompts of 200 tokens, completions of 0.5 of max_tokens, "
        "50 tokens a second of each request)"
    )
    shown = capsys.readouterr().out.splitlines()
    assert told in shown
    assert "teacher    at https://openrouter.ai/api/v1, 512 requests at once; at most $150" in shown
    expected = 32 * 0.14 + 245.76 * 0.28
    assert f"${expected:.2f}" == "$73.29"
    assert cli.main([*words, "--set", "rollouts.max_cost=36.6464"]) == 0
    assert "of which the cap pays 50%" in capsys.readouterr().out
    assert cli.main([*words, "--set", "rollouts.prices=[0, 0]", "--set", "rollouts.max_cost=null"]) == 0
    shown = capsys.readouterr().out
    assert "no cap" in shown and "tokens, 2.7 h (assumed" in shown  # a teacher of one's own needs none


@pytest.mark.parametrize("gpus", ["0", "-1", "4097", "1.5", "many", "", "99999999999999999999"])
def test_a_bad_number_of_gpus_is_one_line(
    study_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, gpus: str
) -> None:
    line = refused(capsys, "plan", str(study_file), "--gpus", gpus, "--out", str(tmp_path / "out"))
    assert line == f"error: --gpus {gpus}: give a whole number of GPUs, 1 to 4096"


def test_no_schedule_without_a_shape(study_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = "base={kind: hub, name: a/b}"
    assert "--gpus needs base.shape" in refused(capsys, "plan", str(study_file), "--set", hub, "--gpus", "8")


def test_status_counts_what_is_done_failed_begun_and_to_do(
    study_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_study: Callable[..., Study],
    plan_of: Callable[[Study], list[Step]],
    stand_in: Any,
) -> None:
    study, out = make_study(), tmp_path / "out"
    plan, store = plan_of(study), open_store(out)
    gathered = facts.gather(study, out, online=False)
    write_json(out / "study.json", {"study": study.model_dump(mode="json"), "facts": gathered}, sort=False)
    DagRunner(plan, store, lambda line: None).run(lambda: stand_in(store, fails=["train/dpo", "train/rft"]))
    rft = next(s for s in plan if s.title == "train/rft")
    store.clear_failure(rft)
    store.progress_writer(rft)("step 3/4")
    assert cli.main(["status", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [s.title for s in plan]
    shown = {line.split()[0]: line.split()[1:] for line in lines}
    assert shown["train/sft"][0] == "done"
    assert shown["train/dpo"] == ["failed", "planted"]
    assert shown["train/rft"] == ["begun", "step", "3/4"]
    assert shown["evaluate/dpo"] == ["to", "do"]
    write_json(out / "lease.json", note() | {"born": "0", "id": "x"})
    assert cli.main(["status", "--out", str(out)]) == 0  # its process has ended, this one has its number
    assert "begun   stopped at step 3/4" in capsys.readouterr().out
    # Still to do: 5 collective steps, and the answers, losses and features of 2 models. Done: 36 - 11 - 1 - 1.
    assert " ".join(shown["small:"]) == "23 done, 1 begun, 1 failed, 11 to do"


@pytest.fixture
def finished(
    tmp_path: Path,
    make_study: Callable[..., Study],
    plan_of: Callable[[Study], list[Step]],
    stand_in: Any,
) -> Path:
    """The folder of the small study's run, all of it finished."""
    study, out = make_study(), tmp_path / "out"
    store = open_store(out)
    DagRunner(plan_of(study), store, lambda line: None).run(lambda: stand_in(store))
    told = {"study": study.model_dump(mode="json"), "facts": facts.gather(study, out, online=False)}
    write_json(out / "study.json", told | {"file": "small.yaml"}, sort=False)
    return out


def test_status_is_that_of_the_study_that_is_given(
    study_file: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", str(study_file), "--out", str(finished)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "small: 36 done" and said.err == ""
    assert cli.main(["status", str(study_file), "--out", str(finished), "--set", "methods.sft.learning_rate=1e-5"]) == 0
    said = capsys.readouterr()
    shown = {line.split()[0]: line.split()[1] for line in said.out.splitlines()}
    assert (shown["train/sft"], shown["train/sft-init43"], shown["train/rft"]) == ("to", "to", "done")
    assert "not the study as it was run (methods.sft.learning_rate: None -> 1e-05)" in said.err
    study_file.write_text(
        study_file.read_text().replace("  dpo: {learning_rate: 3e-5}", "  dpo: {learning_rate: 2e-5}")
    )
    assert cli.main(["status", str(study_file), "--out", str(finished)]) == 0
    assert ["train/dpo", "to", "do"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert cli.main(["status", "--out", str(finished)]) == 0  # as it was started
    assert capsys.readouterr().out.splitlines()[-1] == "small: 36 done"


def test_who_reads_a_part_of_what_is_shown_hears_of_no_error(finished: Path) -> None:
    """As `status | head -1` does."""
    words = [sys.executable, "-m", "orchestrator", "status", "--out", str(finished)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        assert shown.stdout and shown.stderr
        shown.stdout.close()
        assert (shown.stderr.read(), shown.wait()) == (b"", 0)


@pytest.mark.parametrize("command", ["run", "status", "report", "export"])
def test_one_folder_holds_one_study(
    study_file: Path, finished: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Of another name, or of the same name in another file with other settings: its report would be taken away."""
    other, copy = study_file.with_name("other.yaml"), study_file.with_name("copy.yaml")
    other.write_text("extends: small.yaml\nname: other\n")
    copy.write_text("extends: small.yaml\nadapter: {rank: 2}\n")
    more = {"run": ["--serial"], "export": ["--to", str(finished.parent / "to")]}.get(command, [])
    for file, whose in ((other, "small"), (copy, "small of small.yaml")):
        line = refused(capsys, command, str(file), "--out", str(finished), *more)
        assert f"{finished} holds the run of the study {whose}: name another --out" in line
        assert f"--store {finished} to share its steps" in line
    assert not (finished / "report").exists()


def test_a_folder_that_no_run_wrote_is_not_taken_away(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis" / "report").mkdir(parents=True)
    (tmp_path / "thesis" / "report" / "chapter.txt").write_text("mine")
    line = refused(capsys, "run", str(study_file), "--out", str(tmp_path / "thesis"), "--serial")
    assert f"{tmp_path}/thesis/report is no report of a run: move it away, or name another --out" in line
    assert [p.name for p in (tmp_path / "thesis").rglob("*")] == ["report", "chapter.txt"]


def test_plan_says_why_a_step_is_made_again(
    study_file: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def because(*overrides: str) -> dict[str, str]:
        words = [word for o in overrides for word in ("--set", o)]
        assert cli.main(["plan", str(study_file), "--out", str(finished), *words]) == 0
        said = capsys.readouterr().out
        _, found, table = said.partition("made again")
        rows = table.partition("\n\n")[0].splitlines()[1:] if found else []
        return dict(row.split(maxsplit=1) for row in rows)

    assert because() == {} and because("training.resume_every=7") == {}
    found = because("methods.dpo.learning_rate=1e-5", "sweep=null")
    assert found["train/dpo"] == "learning_rate: 3e-05 -> 1e-05"
    assert found["evaluate/dpo"] == "reads train/dpo, made again"
    assert "train/sft" not in found and "no longer reads adapter:dpo-lr3e-4" in found["geometry/weights"]
    found = because("rollouts.samples=2", "adapter.rank=2")
    assert found["rollouts/sampled"] == "samples: 4 -> 2"
    assert found["train/sft"] == "adapter.rank: 4 -> 2; reads rollouts/sampled, made again"
    assert because("prompt.system=" + "x" * 99)["rollouts/sampled"] == f"prompt.system: None -> {'x' * 40}…"


def test_doctor_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for what in ("python", "torch", "transformers", "peft", "trl", "ray"):
        assert any(line.split()[:2] == ["ok", what] for line in shown), what
    lacks = [i for i, line in enumerate(shown) if line.startswith("LACK")]
    assert all("mend: " in shown[i + 1] for i in lacks)


def test_doctor_names_a_lack_with_its_mend(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.commands import doctor

    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "peft" else known(package))
    assert cli.main(["doctor"]) == 2
    shown = capsys.readouterr().out.splitlines()
    lack = next(i for i, line in enumerate(shown) if line.startswith("LACK  peft"))
    assert "not installed" in shown[lack] and "make install" in shown[lack + 1]


def test_a_stopped_run_says_how_to_go_on(
    study_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.commands import run as commands

    def interrupted(study: Study) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "check", interrupted)
    assert cli.main(["run", str(study_file), "--serial"]) == 130
    assert f"Go on with: python -m orchestrator run {study_file} --serial" in capsys.readouterr().err


def test_an_intruder_among_the_packages_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orchestrator.commands import process as commands

    monkeypatch.setattr(commands, "ROOT", tmp_path)
    assert "the package methods is " in refused(capsys, "plan")


def test_a_python_without_a_library_is_told_in_one_line(
    study_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "orchestrator.cluster.connection", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert cli.main(["run", str(study_file), "--address", "127.0.0.1:1"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {sys.executable} has no module grpc: `make install` puts it into .venv; ")
    assert told.count("\n") == 1
