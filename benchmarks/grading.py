"""Tables of disagreements between this grader, math-verify and lm-evaluation-harness' flexible-extract.

    python benchmarks/grading.py [--data FOLDER]

Data: the published rollouts of FOLDER (default: ORCHESTRATOR_DATA) in ``gsm8k/rollouts.jsonl``, whose rewards are the
publishers' verdicts, and the completions of ``tests/evals/written_cases.py`` with hand-assigned verdicts.
math-verify: its parse of the gold in dollar signs and of the whole completion, and its verify, with their defaults.
flexible-extract: the last match of a pattern for numbers, compared as text without commas and dollar signs, as in the
harness' task gsm8k (version 3).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.answers import Grader
from tests.evals.written_cases import WRITTEN

FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = re.compile(r",|\$|(?s:.*)#### |\.$")
SHOWN = 3

Row = tuple[str, str]  # completion, gold


def ours(rows: Sequence[Row]) -> list[bool]:
    with Grader() as grader:
        return [verdict.correct for verdict in grader.grade(rows)]


def math_verify(rows: Sequence[Row]) -> list[bool]:
    from math_verify import parse, verify

    return [bool(verify(parse(f"${gold}$"), parse(completion))) for completion, gold in rows]


def flexible_extract(rows: Sequence[Row]) -> list[bool]:
    def bare(text: str) -> str:
        return IGNORED.sub("", text).lower()

    matches = [list(FLEXIBLE.finditer(completion)) for completion, _ in rows]
    return [bool(of) and bare(of[-1][0].strip()) == bare(gold) for of, (_, gold) in zip(matches, rows, strict=True)]


GRADERS: dict[str, Callable[[Sequence[Row]], list[bool]]] = {
    "this grader": ours,
    "math-verify": math_verify,
    "flexible-extract": flexible_extract,
}


def table(
    title: str, groups: dict[str, list[tuple[str, str, bool]]], verdicts: dict[str, dict[str, list[bool]]]
) -> None:
    """Print a line per group: the wrong verdicts of each grader, as too strict + too lenient."""
    print(f"| {title} | rows | {' | '.join(f'{name}: wrong' for name in GRADERS)} |")
    print("| --- " * (len(GRADERS) + 2) + "|")
    whole = dict.fromkeys(GRADERS, (0, 0))
    for group, rows in groups.items():
        cells = []
        for name in GRADERS:
            pairs = list(zip(verdicts[name][group], (right for *_, right in rows), strict=True))
            strict, lenient = sum(not v and r for v, r in pairs), sum(v and not r for v, r in pairs)
            whole[name] = whole[name][0] + strict, whole[name][1] + lenient
            cells.append(f"{strict} + {lenient}")
        print(f"| {group} | {len(rows)} | {' | '.join(cells)} |")
    total = sum(map(len, groups.values()))
    print(f"| all | {total} | {' | '.join(f'{strict} + {lenient}' for strict, lenient in whole.values())} |\n")


def judged(groups: dict[str, list[tuple[str, str, bool]]]) -> dict[str, dict[str, list[bool]]]:
    flat = [(completion, gold) for rows in groups.values() for completion, gold, _ in rows]
    verdicts: dict[str, dict[str, list[bool]]] = {}
    for name, grade in GRADERS.items():
        of = iter(grade(flat))
        verdicts[name] = {group: [next(of) for _ in rows] for group, rows in groups.items()}
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORCHESTRATOR_DATA"))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    table("written by hand", WRITTEN, judged(WRITTEN))
    if options.data is None:
        return
    teachers: dict[str, list[tuple[str, str, bool]]] = {}
    for line in (Path(options.data) / "gsm8k" / "rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        teachers.setdefault(row["teacher"], []).append((row["completion"], row["answer"], bool(row["reward"])))
    verdicts = judged(teachers)
    table("published rollouts, by teacher", teachers, verdicts)
    for name in list(GRADERS)[1:]:
        apart = [
            (row, verdicts[name][teacher][i])
            for teacher, rows in teachers.items()
            for i, row in enumerate(rows)
            if verdicts[name][teacher][i] is not verdicts["this grader"][teacher][i]
        ]
        print(f"{name} differs from this grader in {len(apart)} rows; the first {min(SHOWN, len(apart))}:")
        for (completion, gold, right), said in apart[:SHOWN]:
            print(f"- gold {gold!r}, published {right}, {name} {said}: ...{completion[-60:]!r}")


if __name__ == "__main__":
    main()
