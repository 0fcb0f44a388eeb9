"""The rollouts step: collects from the source, tokenises, applies limits and freezes the table."""

from __future__ import annotations

from collections import Counter

from execution.context import Context
from execution.store import write_json
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.dataset import chosen, distinct, fit, freeze, group_means, joined, statistics_of, write_table
from orchestrator.rollouts.row_tokens import positions, tokenized, with_answers
from orchestrator.rollouts.sources import SOURCES
from orchestrator.steps.base import model_folder
from orchestrator.steps.rollouts import STATISTICS


def build(context: Context) -> None:
    """Write ``rollouts.parquet`` (one row per completion) and ``statistics.json``; see ``dataset.py``.

    ``ValueError`` if no rollout remains.
    """
    config = context.config
    base = model_folder(context.inputs["base"])
    prompter = Prompter(base, config["prompt"])
    source = SOURCES[config["source"]]
    collected, statistics, dropped = source.collect(context, prompter)
    with source.grader(config) as grader:
        rows, again = joined(collected, grader.canonical)
    rows, tokens = tokenized(prompter, rows, context.progress)
    statistics |= {"tokens": tokens} | ({"joined": again} if again else {})
    means = group_means(rows)  # over all rollouts, including those that the limits leave out
    kept, limited = fit(rows, config["prompt"], positions(base, rows))
    lost = Counter[str]()
    if config["table"]["cut"] == "drop":
        kept, lost = with_answers(prompter, kept, source.grader(config))
    dropped += limited + lost
    if config["table"]["duplicates"] == "drop":
        before, kept = len(kept), distinct(kept)
        dropped += Counter({"duplicate": before - len(kept)})
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
        raise ValueError(f"no rollout is left ({reasons}): raise the limits of prompt, or give other rollouts")
    if not chosen(kept, config["table"]):
        raise ValueError("rollouts.table.groups: no problem has right and wrong rows: set it to all")
    table = freeze(kept, config["table"], means)
    write_table(table, context.out)
    stats = statistics_of(table) | statistics | {"dropped": dict(dropped), "source": config["source"]}
    write_json(context.out / STATISTICS, stats)
