"""Sampling from a teacher on an engine, shard by shard, and the completions of all teachers as rollouts need them.

A shard is one call of an engine. Its problems and its seed follow from the study alone, so its completions are the same
whichever engine answers it, and whatever is sampled before, after or beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from evals.engines import Completion, Sampling
from evals.tasks import Problem
from execution import durable
from execution.context import Context
from execution.fingerprint import key
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.sources.asked import instruction_of
from orchestrator.steps.base import NOTE, model_folder

COMPLETIONS = "completions.parquet"
Answers = dict[int, list[Completion]]  # the number of a problem -> its completions


def sample(context: Context) -> None:
    """Write ``completions.parquet``: the completions of one model to its part of the problems."""
    from orchestrator.evaluation.problems import load_problems

    problems = load_problems(context.config["problems"], context.runtime["sources"][0])
    model = model_folder(context.inputs["model"])
    prompter = Prompter(model, context.config["prompt"])
    _write(sampled(context, prompter, _engine(context), model, problems), context.out)


def answers_of(context: Context, problems: list[Problem]) -> Iterator[tuple[str, Prompter, list[list[Completion]]]]:
    """(name, prompter, completions of each problem) of each model that answers, sampled here or by steps before."""
    if "model" in context.inputs:
        alone = context.inputs["model"] == context.inputs["base"]
        name, model, prompter = _teacher(context, context.inputs["model"], alone)
        found = sampled(context, prompter, _engine(context), model, problems)
        yield name, prompter, [found[i] for i in range(len(problems))]
        return
    for number in count():
        if f"model-{number}" not in context.inputs:
            return
        folder = context.inputs[f"model-{number}"]
        name, _, prompter = _teacher(context, folder, folder == context.inputs["base"])
        found = {}
        for part in count():
            if f"answers-{number}-{part}" not in context.inputs:
                break
            found |= _read(context.inputs[f"answers-{number}-{part}"])
        yield name, prompter, [found[i] for i in range(len(problems))]


def _teacher(context: Context, folder: Path, alone: bool) -> tuple[str, Path, Prompter]:
    """A prepared model's name, its folder, and its prompter; the study's template is for the base ``alone``."""
    model, own = model_folder(folder), {} if alone else {"template": None}
    name = json.loads((folder / NOTE).read_text())["name"]
    return name, model, Prompter(model, context.config["prompt"] | own)


def _engine(context: Context) -> dict[str, Any]:
    from orchestrator.runtime.serving import engine_placement

    return context.config["engine"] | engine_placement(context)


def sampled(
    context: Context, prompter: Prompter, engine_settings: dict[str, Any], model: Path, problems: list[Problem]
) -> Answers:
    """The completions of this step's part of the problems: every ``parts``-th shard, the whole by default.

    Finished shards are read back, so that a killed step resumes.
    """
    config, size, asked = context.config, context.config["shard"], instruction_of(context.config)
    found: Answers = {}
    for first in range(0, len(problems), size)[config.get("part", 0) :: config.get("parts", 1)]:
        shard = problems[first : first + size]
        path = context.work / f"shard-{first}-{key([p.id for p in shard])}.json"
        kept = durable.recall(path)
        if kept is None:
            context.progress(f"{first}/{len(problems)} problems sampled")
            sampling = Sampling(
                n=config["samples"],
                temperature=config["temperature"],
                top_p=config["top_p"],
                max_tokens=config["max_tokens"],
                seed=config["seed"] + first,
                stop=(prompter.turn.end_id,),
            )
            prompts = [prompter.prompt_ids(p.problem, asked) for p in shard]
            answers = context.resources(engine_settings, model).generate(prompts, sampling, None)
            kept = durable.keep(
                path, {"answers": [[[list(c.token_ids), c.text, c.finish] for c in row] for row in answers]}
            )
            context.keep()
        for number, row in enumerate(kept["answers"], first):
            found[number] = [Completion(tuple(ids), text, finish) for ids, text, finish in row]
    return found


def _write(found: Answers, out: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [(number, completion) for number, samples in found.items() for completion in samples]
    columns = {
        "problem": [number for number, _ in rows],
        "token_ids": [list(completion.token_ids) for _, completion in rows],
        "text": [completion.text for _, completion in rows],
        "finish": [completion.finish for _, completion in rows],
    }
    kinds = pyarrow.schema(  # explicit, for a part without problems
        {"problem": pyarrow.int64(), "token_ids": pyarrow.list_(pyarrow.int32())}
        | dict.fromkeys(("text", "finish"), pyarrow.string())
    )
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=kinds), out / COMPLETIONS, compression="zstd")


def _read(folder: Path) -> Answers:
    import pyarrow.parquet

    found: Answers = {}
    for row in pyarrow.parquet.read_table(folder / COMPLETIONS).to_pylist():
        completion = Completion(tuple(row["token_ids"]), row["text"], row["finish"])
        found.setdefault(row["problem"], []).append(completion)
    return found
