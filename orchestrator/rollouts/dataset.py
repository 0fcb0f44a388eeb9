"""The one frozen table of rollouts: what every method trains on, in one order, with what there was to learn."""

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
    """A problem's text without case and spacing: what counts as the same problem."""
    return "".join(unicodedata.normalize("NFC", problem).casefold().split())


def joined(
    rows: Sequence[dict[str, Any]], canonical: Callable[[str], str | None] = canonical
) -> tuple[list[dict[str, Any]], int]:
    """The rows with problems that are the same, by :func:`normal` and by their gold answer, as one: under the first's
    id and text. Space and case alone may tell two problems apart ("2 3/4" and "23/4"), and then their golds do.

    Also how many rows were joined to a problem that came before them under another id or in another spelling.
    """
    first: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found, count = [], 0
    for row in rows:
        alike = first[normal(row["problem"])]
        told = next((other for other in alike if _one_gold(other["answer"], row["answer"], canonical)), None)
        if told is None:
            told = row
            alike.append(row)
        count += (told["problem_id"], told["problem"]) != (row["problem_id"], row["problem"])
        found.append(row | {name: told[name] for name in ("problem_id", "problem")})
    return found, count


def _one_gold(one: str, other: str, canonical: Callable[[str], str | None]) -> bool:
    """Whether two golds are the same, however they are written."""
    return one == other or canonical(one) == canonical(other)


def group_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean reward of each problem's rows, by its id."""
    rewards: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        rewards[row["problem_id"]].append(row["reward"])
    return {problem: statistics.fmean(found) for problem, found in rewards.items()}


def fit(
    rows: list[dict[str, Any]], prompt: Mapping[str, Any], positions: int | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows within the token limits, ``cut`` where they lost tokens, and how many were dropped or cut, by reason.

    ``rows`` carry prompt_ids, completion_ids and ``ended`` (False where generation ran out of tokens), and ``blank``
    where no token comes before the end. ``positions``:
    the longest row that the base takes, prompt and completion together.
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
    """The rows without those whose completion an earlier one of the same problem has, but for space around it."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        first.setdefault((row["problem_id"], row["completion"].strip()), row)
    return list(first.values())


def freeze(
    rows: list[dict[str, Any]], spec: Mapping[str, Any], means: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Number the rows, hold a share of the problems out, and cut the training rows to the limit, whole groups.

    ``means`` are the problems' mean rewards over all that was found of them; those of ``rows`` where None.
    """
    means = group_means(rows) if means is None else means
    texts = {row["problem_id"]: normal(row["problem"]) for row in rows}
    problems = list(texts)
    shuffled = random.Random(f"held out {spec['seed']}").sample(problems, len(problems))
    apart = {texts[problem] for problem in shuffled[: round(spec["heldout"] * len(problems))]}
    held = {problem for problem in problems if texts[problem] in apart}  # one text never stands in both splits
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
    """What there was to learn: shares, mixed groups, lengths, teachers. Counts training and held-out rows.

    A row is right where its reward is above 0. ``right_counts``: entry k counts the problems with k right rows.
    ``length``, in tokens, is told of right and of wrong rows too (None without such a row).
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
        | {kind: _quantiles(found) if found else None for kind, found in lengths.items()},
        "teachers": [
            {"name": name, "rows": len(rewards), "share_right": statistics.fmean(rewards)}
            for name, rewards in sorted(teachers.items())
        ],
    }


def _quantiles(lengths: list[int]) -> dict[str, Any]:
    """Median, 95th percentile and largest."""
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
    """The training rows as the methods read them."""
    return _rollouts(read_table(folder, "train"))


def heldout_rollouts(folder: Path) -> list[Rollout]:
    """The rows that no method trains on."""
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
