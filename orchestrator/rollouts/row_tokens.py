"""Tokenises rollouts, compares them with the chat template's tokens, finds rows that were cut before their answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from evals.channels import spoken
from evals.grader import TaskGrader
from orchestrator.prompts.prompter import Prompter

EVERY = 2000  # rows between two lines of progress
CUT, CUT_OFF = "answer cut", "cut before its answer"


def tokenized(
    prompter: Prompter, rows: Iterable[dict[str, Any]], progress: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows with ``prompt_ids`` and ``completion_ids`` (an engine's own ids are kept), and statistics.

    These are ``rows``, how many ``parted`` from the template's tokens with the ``first`` of them as a line, what was
    ``mended`` (rows by reason), how many are kept ``as_drawn`` although the template tokenises their text differently,
    and the end-of-turn token ``end``.
    """
    rows = list(rows)
    prompts: dict[tuple[str, str], list[int]] = {}
    mended, parted, drawn, first = Counter[str](), 0, 0, None
    result = []
    for number, row in enumerate(rows):
        if number % EVERY == 0:
            progress(f"{number}/{len(rows)} rollouts tokenized")
        asked = row["problem"], row["instruction"]
        if asked not in prompts:
            prompts[asked] = prompter.prompt_ids(*asked)
        prompt, own = prompts[asked], row.get("completion_ids")
        ids, how = (own, set()) if own is not None else prompter.completion(row["completion"], row["ended"])
        mended.update(how | prompter.mended_in(row["problem"]))
        where = prompter.parting(*asked, row["completion"], [*prompt, *ids], row["ended"])
        if where is not None and own is not None:
            drawn += 1
        elif where is not None:
            parted += 1
            first = first or f"{' '.join(row['problem_id'].split())[:60]}: {where}"
        blank = list(ids[:1]) in ([], [prompter.turn.end_id])
        result.append(row | {"prompt_ids": prompt, "completion_ids": list(ids), "blank": blank})
    if first:
        progress(f"{parted} of {len(rows)} rows have other tokens than the chat template writes; {first}")
    stats = {"rows": len(rows), "parted": parted, "first": first, "mended": dict(sorted(mended.items()))}
    return result, stats | {"as_drawn": drawn, "end": prompter.end_token}


def positions(base: Path, rows: Sequence[dict[str, Any]]) -> int | None:
    """The base's limit of tokens per row; None if its config has none.

    ``ValueError`` names a row with a token outside the base's vocabulary.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config()
    vocabulary = getattr(config, "vocab_size", None)
    for row in rows:
        largest = max([*row["prompt_ids"], *row["completion_ids"]], default=0)
        if vocabulary is not None and largest >= vocabulary:
            raise ValueError(
                f"{row['problem_id'][:60]}: its tokenizer makes token {largest} of it, {base.name} knows {vocabulary}: "
                "save tokenizer and model together"
            )
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def with_answers(
    prompter: Prompter, rows: Sequence[dict[str, Any]], grader: TaskGrader
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Drop right rows that were cut before their answer; returns the other rows, and changes of the counts.

    A cut row is kept if the grader finds the gold answer in the remaining tokens, if it was wrong, or if the grader
    did not find it in the whole completion either (not ``graded``: the reward came from elsewhere).
    """
    cut = [i for i, row in enumerate(rows) if row["cut"] and row["reward"] > 0 and row["graded"]]
    if not cut:
        return list(rows), Counter()
    texts = [prompter.text_of(rows[i]["completion_ids"], _thinks(rows[i])) for i in cut]
    with grader:
        verdicts = grader.grade([(text, rows[i]["answer"]) for text, i in zip(texts, cut, strict=True)])
    lost = {i for i, verdict in zip(cut, verdicts, strict=True) if not verdict.correct}
    counts = Counter({CUT_OFF: len(lost), CUT: -len(lost)}) if lost else Counter[str]()
    return [row for i, row in enumerate(rows) if i not in lost], counts


def _thinks(row: dict[str, Any]) -> bool:
    """Whether the whole completion begins within or contains a reasoning block."""
    return bool(row["opening"]) or spoken(row["completion"]) != row["completion"]
