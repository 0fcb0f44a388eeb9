"""Every completion of a run in the sample-log format of EleutherAI's lm-evaluation-harness.

The files are those that the harness writes with ``--log_samples`` from 0.4.9.2 to 0.4.13.dev0 (``EvaluationTracker``
in ``lm_eval/loggers/evaluation_tracker.py``, the logged examples of ``lm_eval/evaluator.py``): a folder a model, in it
``samples_TASK_TIME.jsonl`` with one object a problem, and ``results_TIME.json``. What reads the harness's logs reads
these. They differ where this tool does: the filter is its own extraction of the final answer, ``exact_match`` its own
grader's verdict, and with several samples a problem it is their mean, beside pass@k and maj@k.

TIME is when the model's evaluation began, from the store, so that the same run gives the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.statistics.sampling import ladder, majority, pass_at
from evals.tasks import TASKS
from execution.errors import UserError
from execution.fingerprint import file_hash, key
from execution.step import Step
from execution.store import Store, read_json, write_json
from execution.workspace import own
from orchestrator.config.study import Study
from orchestrator.evaluation.problems import read_problems
from orchestrator.evaluation.verdicts import Answered, answered, read
from orchestrator.results.write_report import versions

MARK = "export.json"  # makes a folder ours: whose answers were written into it, and the files with their checksums
FILTER = "extract"
NOT_FOUND = "[invalid]"  # what the harness's own filters give where they find nothing
COLUMNS = ("task", "id", "sample", "completion", "extracted", "vote", "correct")


def export(study: Study, steps: list[Step], store: Store, to: Path, progress: Callable[[str], None]) -> None:
    """Write the answers of every model that has answered every problem into the folder ``to``, whole or not at all.

    ``steps`` are the finished ones. ``UserError`` where there is nothing to write, and where ``to`` is not a new or an
    empty folder or one that an earlier export of the same run wrote, unchanged since.
    """
    done = {step.title: step for step in steps}
    folders = {t: store.folder(s) for t, s in done.items() if s.kind.name in ("problems", "evaluate")}
    models, incomplete = answered(done.values(), folders)
    for row in incomplete:
        progress(f"{row.name} is left out: {row.parts} of {row.of} parts of its evaluation are finished")
    if not models:
        raise UserError("no model of this run has answered every problem yet: let it run on, then export")
    tasks = read_problems(folders["problems/evaluation"])

    whose = {"study": study.name, "run": key(str(store.storage))}

    def write(aside: Path) -> None:
        for model in models:
            _model(study, model, done["problems/evaluation"], tasks, store, aside / model.name)
        files = {p.relative_to(aside).as_posix(): file_hash(p) for p in aside.rglob("*") if p.is_file()}
        write_json(aside / MARK, whose | {"files": files})

    try:
        _put(to.resolve(), whose, write)
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"--to {str(to)[:200]!r} cannot be written ({why}): name another folder") from None
    progress(f"{len(models)} models, {len(tasks)} task{'s' * (len(tasks) != 1)}: {to}")


def _put(target: Path, whose: Mapping[str, str], write: Callable[[Path], None]) -> None:
    """The folder is written beside its place and put there whole; an earlier export of the same run gives way to it."""
    _check(target, whose)
    target.parent.mkdir(parents=True, exist_ok=True)
    with own(".export-", target.parent) as scratch:
        aside, before = scratch / "new", scratch / "before"
        write(aside)
        if target.exists():
            os.replace(target, before)
        os.replace(aside, target)


def _check(target: Path, whose: Mapping[str, str]) -> None:
    """Nothing is taken away that an export of this run did not write, as it wrote it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"--to {target} is a file: name a folder")
    mark = read_json(target / MARK)
    written = mark.get("files")
    if not isinstance(written, dict) or not isinstance(mark.get("study"), str):
        written = {}
    elif {name: mark.get(name) for name in whose} != whose:
        raise UserError(
            f"--to {target} holds the export of another run, of the study {mark['study']}: name a new folder"
        )
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or not path.is_dir():
            known = name in written and path.is_file() and not path.is_symlink()
            ours = bool(written) if name == MARK else known and file_hash(path) == written[name]
            if not ours:
                what = "was changed since an export wrote it" if name in written else "no export wrote"
                raise UserError(f"--to {target} holds {name}, which {what}: name a new folder")


def _model(
    study: Study, model: Answered, problems: Step, tasks: list[dict[str, Any]], store: Store, folder: Path
) -> None:
    folder.mkdir(parents=True)
    times = [store.times(step) for step in model.steps]
    began = min((t["started"] for t in times if "started" in t), default=0.0)
    stamp = datetime.fromtimestamp(began, UTC).replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    results: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for task in tasks:
        samples = list(_examples(model, task))
        with (folder / f"samples_{task['task']}_{stamp}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        results[task["task"]] = _aggregate(task["task"], samples)
        parts = [s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples]
        hashes[task["task"]] = _hash("".join(parts))
    whole = {
        "results": results,
        "group_subtasks": {name: [] for name in results},
        **_configs(model, problems, tasks),
        "config": _config(study, model),
        "git_hash": None,
        "date": began,
        "transformers_version": versions().get("transformers"),
        "task_hashes": hashes,
        **_tracked(study, model),
        "total_evaluation_time_seconds": str(sum(t.get("seconds", 0.0) for t in times)),
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / f"results_{stamp}.json").write_text(text, encoding="utf-8")


def _examples(model: Answered, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One logged example a problem, its keys in the harness's order."""
    arguments = _generation(model.config["sampling"][task["task"]])
    for index, (problem, rows) in enumerate(zip(task["problems"], read(model, task, COLUMNS), strict=True)):
        doc = {name: problem[name] for name in ("id", "problem", "answer", "stratum")}
        answers = [NOT_FOUND if row["extracted"] is None else row["extracted"] for row in rows]
        metrics = _metrics(rows)
        yield {
            "doc_id": index,
            "doc": doc,
            "target": problem["answer"],
            "arguments": {"gen_args_0": {"arg_0": problem["prompt"], "arg_1": arguments}},
            "resps": [[row["completion"] for row in rows]],
            "filtered_resps": answers if len(rows) == 1 else [answers],
            "filter": FILTER,
            "metrics": list(metrics),
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(problem["prompt"]),
            "target_hash": _hash(problem["answer"]),
            **metrics,
        }


def _generation(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's generation arguments. Generation ends at the model's end-of-sequence token: no text ends it."""
    drawn = {"temperature": sampling["temperature"], "do_sample": sampling["temperature"] > 0}
    nucleus = {"top_p": sampling["top_p"]} if sampling["top_p"] < 1 else {}
    return {"until": [], "max_gen_toks": sampling["max_tokens"], **drawn, **nucleus}


def _metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """One problem's values, whose means over problems are the run's own results."""
    samples, right = len(rows), sum(row["correct"] for row in rows)
    metrics = {"exact_match": right / samples}
    if samples > 1:
        metrics |= {f"pass@{k}": pass_at(k, right, samples) for k in ladder(samples) if k > 1}
        metrics[f"maj@{samples}"] = majority([row["vote"] for row in rows], [row["correct"] for row in rows])
    return metrics


def _aggregate(name: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The harness's means and their standard errors, over problems."""
    aggregated: dict[str, Any] = {"name": name, "alias": name, "sample_len": len(samples)}
    for metric in samples[0]["metrics"]:
        values = [sample[metric] for sample in samples]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else "N/A"
        aggregated |= {f"{metric},{FILTER}": statistics.fmean(values), f"{metric}_stderr,{FILTER}": error}
    return aggregated


def _configs(model: Answered, problems: Step, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """What was asked, under the harness's keys: configs, versions, n-shot, higher_is_better, n-samples."""
    asked = {task["name"]: task for task in problems.config["tasks"]}
    configs, shots, better, counts = {}, {}, {}, {}
    for task in tasks:
        name, spec, sampling = task["task"], asked[task["task"]], model.config["sampling"][task["task"]]
        shots[name] = spec["shots"]["count"] if spec["shots"] else 0
        metrics = _metrics([{"vote": None, "correct": False}] * sampling["samples"])
        better[name] = dict.fromkeys(metrics, True)
        counts[name] = {"original": len(task["problems"]), "effective": len(task["problems"])}
        configs[name] = {
            "task": name,
            "task_alias": task["title"],
            "dataset_path": spec["task"],
            "test_split": spec["split"],
            "output_type": "generate_until",
            "doc_to_text": spec["instruction"] or TASKS[spec["task"]].instruction,
            "doc_to_target": "answer",
            "num_fewshot": shots[name],
            "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
            "generation_kwargs": _generation(sampling),
            "repeats": sampling["samples"],
            "filter_list": [{"name": FILTER, "filter": [{"function": "final answer"}]}],
            "metadata": {"version": 1.0, "content": spec["content"]},
        }
    versions = dict.fromkeys(configs, 1.0)
    return {"configs": configs, "versions": versions, "n-shot": shots, "higher_is_better": better, "n-samples": counts}


def _config(study: Study, model: Answered) -> dict[str, Any]:
    engine = model.config["engine"]
    return {
        "model": "vllm" if engine["kind"] == "vllm" else "hf",
        "model_args": _model_args(study, model),
        "batch_size": str(engine["batch_size"]),
        "batch_sizes": [],
        "device": None,
        "use_cache": None,
        "limit": None,
        "bootstrap_iters": 0,
        "gen_kwargs": None,
        "random_seed": engine["seed"],
        "numpy_seed": engine["seed"],
        "torch_seed": engine["seed"],
        "fewshot_seed": None,
    }


def _model_args(study: Study, model: Answered) -> str:
    adapter = "" if model.name == "base" else f",peft={model.name}"
    return f"pretrained={study.base.name},dtype={model.config['engine']['precision']}{adapter}"


def _tracked(study: Study, model: Answered) -> dict[str, Any]:
    """What the harness's tracker notes of the model; no template is named where it is the tokenizer's own."""
    system, template = study.prompt.system, study.prompt.template
    return {
        "model_source": "vllm" if model.config["engine"]["kind"] == "vllm" else "hf",
        "model_name": model.name,
        "model_name_sanitized": model.name,
        "system_instruction": system,
        "system_instruction_sha": _hash(system) if system else None,
        "fewshot_as_multiturn": True,
        "chat_template": template,
        "chat_template_sha": _hash(template) if template else None,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
