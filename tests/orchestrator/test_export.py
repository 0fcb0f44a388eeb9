"""Every completion in lm-evaluation-harness' format: its keys, its hashes, and numbers that are the run's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from execution.runner import DagRunner
from execution.step import Step
from execution.store import Store, open_store, write_json
from orchestrator import cli
from orchestrator.config.study import Study
from orchestrator.evaluation.answer import COLUMNS
from orchestrator.evaluation.verdicts import evaluation
from orchestrator.planning import resolve as facts
from orchestrator.planning.plan import make_plan
from orchestrator.steps.evaluate import CANARY, VERDICTS

# The keys of a logged example of generate_until and of a results file, in lm-evaluation-harness 0.4.9.2 to 0.4.13.dev0.
EXAMPLE = [
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
]  # fmt: skip
RESULTS = {
    "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config", "git_hash",
    "date", "transformers_version", "task_hashes", "model_source", "model_name", "model_name_sanitized",
    "system_instruction", "system_instruction_sha", "fewshot_as_multiturn", "chat_template", "chat_template_sha",
    "total_evaluation_time_seconds",
}  # fmt: skip
TASKS = "evaluation.tasks=[{task: arithmetic}, {task: arithmetic, name: drawn_4, samples: 4, temperature: 0.7}]"
TEXT = 'It is 4.\n"\\boxed{4}" \u05d0 \U0001f600 \x1b[0m'


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_step(step: Step, out: Path) -> None:
    """What the steps leave of which an export is made; the rest is of no account."""
    (out / "result.txt").write_text(step.title)
    problems = [
        {"id": f"q{i}", "problem": f"{i} + 1?", "answer": str(i + 1), "stratum": None, "prompt": f"<user>{i} + 1?"}
        for i in range(5)
    ]
    if step.kind.name == "problems":
        tasks = [{"task": t["name"], "title": t["name"], "problems": problems} for t in step.config["tasks"]]
        write_json(out / "problems.json", {"tasks": tasks})
    if step.kind.name == "evaluate":
        rows = []
        for task, drawn in step.config["sampling"].items():
            for i in range(5)[step.config["part"] :: step.config["parts"]]:
                for k in range(drawn["samples"]):
                    said = None if (i + k) % 4 == 3 else str(i + 1 + (k > i) + (step.role == "base"))
                    text, right = f"{step.role} {i} {k} {TEXT}", said == str(i + 1)
                    values = (task, f"q{i}", k, None, str(i + 1), text, said, said, right, 7, "stop")
                    rows.append(dict(zip(COLUMNS, values, strict=True)))
        pyarrow.parquet.write_table(pyarrow.table({c: [r[c] for r in rows] for c in COLUMNS}), out / VERDICTS)
        check = {"max_difference": 0.0, "tolerance": 5e-4, "passed": True, "effect": 0.1, "told_apart": True}
        write_json(out / CANARY, [check | {"name": name} for name in ("base", "zero", "adapter")])


@pytest.fixture
def ran(
    make_study: Callable[..., Study], tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Store, list[Step]]]:
    """A function that leaves a run's folder ``run`` with made-up verdicts, as the command line finds it."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, fails: list[str] | None = None) -> tuple[Store, list[Step]]:
        study = make_study(TASKS, *overrides)
        known = facts.gather(study, tmp_path / "run", online=False)
        store = open_store(tmp_path / "run")
        plan = make_plan(study, known)
        executor = stand_in(store, fails or [], write_step)
        outcome = DagRunner(plan, store, lambda line: None).run(lambda: executor)
        for n, step in enumerate(s for s in outcome.steps if s.kind.name == "evaluate"):
            store.record_times(step, {"started": 1.7e9 + n, "ended": 1.7e9 + n + 2.5, "seconds": 2.5})
        told = {"study": study.model_dump(mode="json"), "facts": known, "store": None}
        write_json(tmp_path / "run" / "study.json", told, sort=False)
        return store, outcome.steps

    return run


def export(*words: str) -> int:
    return cli.main(["export", "--out", "run", "--to", *words])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_folder_a_model_with_the_harnesses_names(ran: Callable[..., Any], tmp_path: Path) -> None:
    ran()
    assert export("out") == 0
    models = ["base", "dpo", "dpo-lr3e-4", "rft", "sft", "sft-init43", "sft-order43"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == models
    names = sorted(p.name for p in (tmp_path / "out" / "base").iterdir())
    stamp = "2023-11-14T22-13-20.000000"
    assert names == [f"results_{stamp}.json", f"samples_arithmetic_{stamp}.jsonl", f"samples_drawn_4_{stamp}.jsonl"]
    for name in names[1:]:  # as the harness's own get_file_task_name and get_file_datetime take them apart
        assert name[name.find("_") + 1 : name.rfind("_")] in ("arithmetic", "drawn_4")
        assert re.fullmatch(r"[\d-]+T[\d.-]+", name[name.rfind("_") + 1 :].replace(".jsonl", ""))


def test_an_example_holds_what_the_harness_logs(ran: Callable[..., Any], tmp_path: Path) -> None:
    ran()
    export("out")
    rows = lines(only(tmp_path / "out" / "sft", "samples_arithmetic_*.jsonl"))
    assert [list(row) for row in rows] == [[*EXAMPLE, "exact_match"]] * 5
    row = rows[2]
    assert row["doc_id"] == 2 and row["doc"] == {"id": "q2", "problem": "2 + 1?", "answer": "3", "stratum": None}
    assert row["target"] == "3" and row["filter"] == "extract" and row["metrics"] == ["exact_match"]
    arguments = row["arguments"]["gen_args_0"]
    assert arguments["arg_0"] == "<user>2 + 1?"
    assert arguments["arg_1"] == {"until": [], "max_gen_toks": 1024, "temperature": 0.0, "do_sample": False}
    assert row["resps"] == [[f"sft 2 0 {TEXT}"]] and row["filtered_resps"] == ["3"]
    assert [r["filtered_resps"] for r in rows][3] == ["[invalid]"]
    assert [r["exact_match"] for r in rows] == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert row["doc_hash"] == sha(json.dumps(row["doc"], indent=2, ensure_ascii=False))
    assert (row["prompt_hash"], row["target_hash"]) == (sha("<user>2 + 1?"), sha("3"))


def test_of_several_samples_every_one_is_there(ran: Callable[..., Any], tmp_path: Path) -> None:
    ran()
    export("out")
    rows = lines(only(tmp_path / "out" / "sft", "samples_drawn_4_*.jsonl"))
    metrics = ["exact_match", "pass@2", "pass@4", "maj@4"]
    assert [list(row) for row in rows] == [[*EXAMPLE, *metrics]] * 5 and rows[0]["metrics"] == metrics
    assert rows[1]["resps"] == [[f"sft 1 {k} {TEXT}" for k in range(4)]]
    assert rows[1]["filtered_resps"] == [["2", "2", "[invalid]", "3"]]
    assert [rows[1][m] for m in metrics] == [0.5, pytest.approx(1 - 1 / 6), 1.0, 1.0]
    drawn = rows[1]["arguments"]["gen_args_0"]["arg_1"]
    assert drawn == {"until": [], "max_gen_toks": 1024, "temperature": 0.7, "do_sample": True}


@pytest.mark.parametrize("parts", [1, 2])
def test_the_results_are_the_runs_own(ran: Callable[..., Any], tmp_path: Path, parts: int) -> None:
    store, steps = ran(f"evaluation.parts={parts}")
    export("out")
    done = {step.title: step for step in steps}
    own = evaluation(done, {step.title: store.folder(step) for step in steps})
    assert own is not None and own.tasks is not None
    for task in own.tasks:
        for model in task.models:
            folder = tmp_path / "out" / model.name
            told = json.loads(only(folder, "results_*.json").read_text())
            assert told.keys() == RESULTS
            scores, name = told["results"][task.task], task.task
            assert (scores["alias"], scores["sample_len"]) == (name, 5)
            assert scores["exact_match,extract"] == pytest.approx(model.accuracy)
            for k, value in model.pass_at.items():
                assert k == "1" or scores[f"pass@{k},extract"] == pytest.approx(value)
            if model.samples > 1:
                assert scores["maj@4,extract"] == pytest.approx(model.maj)
            rows = lines(only(folder, f"samples_{name}_*.jsonl"))
            values = [row["exact_match"] for row in rows]
            assert scores["exact_match_stderr,extract"] == pytest.approx(statistics.stdev(values) / 5**0.5)
            joined = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows)
            assert told["task_hashes"][name] == sha(joined)
            assert told["n-samples"][name] == {"original": 5, "effective": 5}
            config = told["configs"][name]
            assert (config["output_type"], config["repeats"]) == ("generate_until", model.samples)
            assert [m["metric"] for m in config["metric_list"]] == rows[0]["metrics"]
            assert told["n-shot"] == {"arithmetic": 0, "drawn_4": 0}
            peft = "" if model.name == "base" else f",peft={model.name}"
            assert told["config"]["model_args"] == f"pretrained=scratch,dtype=float32{peft}"


def test_datasets_loads_every_file_as_the_hub_does(ran: Callable[..., Any], tmp_path: Path) -> None:
    """The harness cleans its lists so that its logs load as a data set: so must these."""
    from datasets import load_dataset

    ran()
    export("out")
    for task, several in (("arithmetic", False), ("drawn_4", True)):
        files = [str(p) for p in sorted((tmp_path / "out").glob(f"*/samples_{task}_*.jsonl"))]
        table = load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(table) == 7 * 5
        assert len(table[0]["resps"][0]) == (4 if several else 1)


def test_the_same_run_gives_the_same_bytes_again(ran: Callable[..., Any], tmp_path: Path) -> None:
    ran()
    assert export("out") == 0
    first = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    (tmp_path / "out" / "base" / "gone.aside").mkdir()
    assert export("out") == 0, "an earlier export gives way"
    again = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert first == again and len(first) == 7 * 3 + 1
    assert not list(tmp_path.glob(".export-*"))


@pytest.mark.parametrize(
    "mark", [{"files": ["a.txt"]}, {"study": "x", "files": ["a.txt"]}, {"files": {"a.txt": ""}}, []]
)
def test_another_tools_export_is_left_alone(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: Any
) -> None:
    """That it calls its list of files as ours is called makes it none of ours."""
    ran()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("mine")
    (tmp_path / "out" / "export.json").write_text(json.dumps(mark))
    assert export("out") == 2
    assert "which no export wrote: name a new folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.txt").read_text() == "mine"


def test_another_runs_export_is_left_alone(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another study's, and the same study's from another folder: they may hold other answers."""
    ran()
    assert export("out") == 0
    before = (tmp_path / "out" / "export.json").read_bytes()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    shutil.copytree(tmp_path / "run", tmp_path / "named")
    told = json.loads((tmp_path / "named" / "study.json").read_text())
    told["study"]["name"] = "another"
    (tmp_path / "named" / "study.json").write_text(json.dumps(told))
    for run in ("other", "named"):
        assert cli.main(["export", "--out", run, "--to", "out"]) == 2
        assert "holds the export of another run, of the study small: name a new folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "export.json").read_bytes() == before and export("out") == 0
    (tmp_path / "out" / "sft" / "link").symlink_to(tmp_path / "run")
    assert export("out") == 2
    (tmp_path / "out" / "sft" / "link").unlink()
    edited = only(tmp_path / "out" / "sft", "results_*.json")
    edited.write_text("{}")
    assert export("out") == 2
    assert "results_" in (line := capsys.readouterr().err) and "was changed since an export wrote it" in line


@pytest.mark.parametrize("kind", ["file", "foreign", "added", "inside"])
def test_what_no_export_wrote_is_left_alone(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    ran()
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    elif kind == "foreign":
        (target / "sub").mkdir(parents=True)
        (target / "notes.txt").write_text("mine")
    elif kind == "added":
        assert export("out") == 0
        (target / "sft" / "notes.txt").write_text("mine")
    else:
        target = tmp_path / "run"
    before = sorted(p for p in target.rglob("*"))
    assert export(str(target)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --to ") and len(error.splitlines()) == 1
    assert sorted(p for p in target.rglob("*")) == before


def test_a_model_that_has_answered_in_part_is_left_out_and_said(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran("evaluation.parts=2", fails=["evaluate/rft-part2of2"])
    assert export("out") == 0
    assert "rft is left out: 1 of 2 parts of its evaluation are finished" in capsys.readouterr().out
    assert not (tmp_path / "out" / "rft").exists() and (tmp_path / "out" / "sft").exists()


def test_with_nothing_answered_there_is_nothing_to_export(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(fails=["problems/evaluation"])
    assert export("out") == 2
    assert "no model of this run has answered every problem yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for to in ("file/below", "x" * 300, "loop"):
        assert export(to) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --to ") and len(error.splitlines()) == 1


def test_what_no_export_wrote_is_not_read(
    ran: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FIFO without a writer would be read for ever."""
    ran()
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "fifo")
    assert export("out") == 2
    assert "holds fifo, which no export wrote: name a new folder" in capsys.readouterr().err
