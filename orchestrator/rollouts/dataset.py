"""The frozen table of rollouts that every method trains on: limits, splits, statistics, reading and writing."""

from __future__ import annotations

import random
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.answers import canonical
from methods.data.batch import Rollout

FILE = "rollouts.parquet"
COLUMNS = (
    "row", "problem_id", "group", "problem", "answer", "completion", "teacher", "reward", "split", "prompt_ids",
    "completion_ids", "group_mean",
)  # fmt: skip


def normal(problem: str) -> str:
    """A problem's text without case and spacing; problems are the same if this is equal."""
    return "".join(unicodedata.normalize("NFC", problem).casefold().split())


def joined(
    rows: Sequence[dict[str, Any]], canonical: Callable[[str], str | None] = canonical
) -> tuple[list[dict[str, Any]], int]:
    """Rows in which equal problems, by :func:`normal` and gold answer, have the id and text of the first.

    The gold answers are compared since problems can differ in space and case only ("2 3/4" and "23/4"). Also returns
    how many rows were changed.
    """
    first: dict[str, list[dict[str, Any]]] = defaultdict(list)
    merged, count = [], 0
    for row in rows:
        candidates = first[normal(row["problem"])]
        same = next((other for other in candidates if _one_gold(other["answer"], row["answer"], canonical)), None)
        if same is None:
            same = row
            candidates.append(row)
        count += (same["problem_id"], same["problem"]) != (row["problem_id"], row["problem"])
        merged.append(row | {name: same[name] for name in ("problem_id", "problem")})
    return merged, count


def _one_gold(one: str, other: str, canonical: Callable[[str], str | None]) -> bool:
    """Whether two golds are equal after normalisation."""
    return one == other or canonical(one) == canonical(other)


def group_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Problem id -> mean reward of its rows."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        rewards[row["problem_id"]].append(row["reward"])
    return {problem: statistics.fmean(values) for problem, values in rewards.items()}


def fit(
    rows: list[dict[str, Any]], prompt: Mapping[str, Any], positions: int | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows within the token limits, with ``cut`` set where they lost tokens, and counts of dropped and cut rows by
    reason.

    ``rows`` have prompt_ids, completion_ids, ``ended`` (False if generation ran out of tokens) and ``blank`` (no token
    before the end). ``positions``: the base's limit of prompt and completion tokens together.
    """
    kept, counts = [], Counter[str]()
    for row in rows:
        room = prompt["max_answer_tokens"] if positions is None else positions - len(row["prompt_ids"])
        limit = min(prompt["max_answer_tokens"], room)
        size = len(row["completion_ids"])
        too_long = size > limit or not row["ended"]
        if not row["completion"].strip() or row.get("blank"):
            counts["empty"] += 1
        elif len(row["prompt_ids"]) > prompt["max_prompt_tokens"]:
            counts["prompt too long"] += 1
        elif room < 1 or (too_long and limit < min(size, prompt["max_answer_tokens"]) and prompt["overlong"] == "drop"):
            counts[f"longer than the base's {positions} positions"] += 1
        elif too_long and prompt["overlong"] == "drop":
            counts["answer too long"] += 1
        else:
            if too_long:
                counts["answer cut"] += 1
            kept.append(row | {"completion_ids": row["completion_ids"][:limit], "cut": size > limit})
    return kept, counts


def distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without later duplicates of a completion of the same problem, ignoring surrounding space."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        first.setdefault((row["problem_id"], row["completion"].strip()), row)
    return list(first.values())


def chosen(rows: list[dict[str, Any]], spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of problems that the table is of (``groups``: all, or those with right and wrong rows), at most ``each``
    of a problem: its first right one, its first wrong one, its second right one and so on."""
    kept = rows
    if spec.get("groups") == "mixed":
        kinds: dict[str, set[bool]] = defaultdict(set)
        for row in rows:
            kinds[row["problem_id"]].add(row["reward"] > 0)
        kept = [row for row in kept if len(kinds[row["problem_id"]]) > 1]
    if spec.get("each") is not None:
        ranks, seen = [], Counter[tuple[str, bool]]()
        for row in kept:
            right = row["reward"] > 0
            ranks.append((seen[row["problem_id"], right], not right))
            seen[row["problem_id"], right] += 1
        places: dict[str, list[int]] = defaultdict(list)
        for place in sorted(range(len(kept)), key=ranks.__getitem__):
            places[kept[place]["problem_id"]].append(place)
        picked = {place for those in places.values() for place in those[: spec["each"]]}
        kept = [row for place, row in enumerate(kept) if place in picked]
    return kept


def freeze(
    rows: list[dict[str, Any]], spec: Mapping[str, Any], means: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Number the :func:`chosen` rows, split off the held-out problems, and limit the training rows by whole groups.

    ``means`` are the problems' mean rewards over all their rollouts; None: over ``rows``.
    """
    means = group_means(rows) if means is None else means
    rows = chosen(rows, spec)
    texts = {row["problem_id"]: normal(row["problem"]) for row in rows}
    problems = list(texts)
    shuffled = random.Random(f"held out {spec['seed']}").sample(problems, len(problems))
    apart = {texts[problem] for problem in shuffled[: round(spec["heldout"] * len(problems))]}
    held = {problem for problem in problems if texts[problem] in apart}  # a text is never in both splits
    sizes = Counter(row["problem_id"] for row in rows)
    allowed, total = set(), 0
    for problem in (p for p in shuffled if p not in held):
        if spec["rows"] is None or total + sizes[problem] <= spec["rows"]:
            allowed.add(problem)
            total += sizes[problem]
    group = {problem: i for i, problem in enumerate(problems)}
    kept = [row for row in rows if row["problem_id"] in held or row["problem_id"] in allowed]
    return [
        {k: v for k, v in row.items() if k in COLUMNS}
        | {
            "row": i,
            "group": group[row["problem_id"]],
            "split": "heldout" if row["problem_id"] in held else "train",
            "group_mean": means[row["problem_id"]],
        }
        for i, row in enumerate(kept)
    ]


def statistics_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics of training and held-out rows: accuracy, mixed groups, lengths, teachers.

    A row is right if its reward is above 0. ``right_counts``: entry k counts the problems with k right rows.
    ``length``, in tokens, is also given for right and for wrong rows (None without such rows).
    """
    groups: dict[str, list[bool]] = defaultdict(list)
    teachers: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        groups[row["problem_id"]].append(row["reward"] > 0)
        teachers[row["teacher"]].append(row["reward"] > 0)
    means = [statistics.fmean(rewards) for rewards in groups.values()]
    counts = Counter(sum(rewards) for rewards in groups.values())
    lengths: dict[str, list[int]] = {"right": [], "wrong": []}
    for row in rows:
        lengths["right" if row["reward"] > 0 else "wrong"].append(len(row["completion_ids"]))
    right = [(row["problem_id"], row["completion"].strip()) for row in rows if row["reward"] > 0]
    return {
        "rows": len(rows),
        "problems": len(groups),
        "train_rows": sum(row["split"] == "train" for row in rows),
        "heldout_rows": sum(row["split"] == "heldout" for row in rows),
        "share_right": statistics.fmean(row["reward"] > 0 for row in rows),
        "groups": {
            "mixed": sum(0 < m < 1 for m in means),
            "all_right": sum(m == 1 for m in means),
            "all_wrong": sum(m == 0 for m in means),
        },
        "duplicates": len(right) - len(set(right)),
        "right_counts": [counts[k] for k in range(max(counts) + 1)],
        "length": _quantiles([*lengths["right"], *lengths["wrong"]])
        | {kind: _quantiles(values) if values else None for kind, values in lengths.items()},
        "teachers": [
            {"name": name, "rows": len(rewards), "share_right": statistics.fmean(rewards)}
            for name, rewards in sorted(teachers.items())
        ],
    }


def _quantiles(lengths: list[int]) -> dict[str, Any]:
    """Median, 95th percentile and maximum."""
    ordered = sorted(lengths)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


def write_table(rows: list[dict[str, Any]], folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / FILE)


def read_table(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The rows of a finished rollouts step, of one split or all."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(folder / FILE).to_pylist()
    return [row for row in rows if split is None or row["split"] == split]


def training_rollouts(folder: Path) -> list[Rollout]:
    """The training rows as :class:`Rollout`."""
    return _rollouts(read_table(folder, "train"))


def heldout_rollouts(folder: Path) -> list[Rollout]:
    """The held-out rows as :class:`Rollout`."""
    return _rollouts(read_table(folder, "heldout"))


def _rollouts(rows: Sequence[Mapping[str, Any]]) -> list[Rollout]:
    return [
        Rollout(
            tuple(row["prompt_ids"]),
            tuple(row["completion_ids"]),
            row["reward"],
            row["group"],
            row["teacher"],
            row["group_mean"],
        )
        for row in rows
    ]
