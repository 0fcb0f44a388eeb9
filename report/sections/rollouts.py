"""The rollouts: how many rows, groups, lengths and teachers there are, and what each method sees of them."""

from __future__ import annotations

from collections.abc import Sequence

from report import formats
from report.model_index import ModelIndex
from report.section import Section, Source, csv_of
from report.tables import Column, Table, number, pairs, records, text
from report.text_pages import ROLLOUTS
from results.rollouts import Api, Contamination, GoldAsText, GoldLeftOut, GraderAgreement, Quantiles, Rollouts, Tokens


def rollouts_table(rollouts: Rollouts) -> Table | None:
    """What there was to learn, as names and values."""
    groups, length = rollouts.groups, rollouts.length
    total = groups.mixed + groups.all_right + groups.all_wrong

    def group(problems: int) -> str:
        return f"{formats.count(problems)} ({formats.percent(problems / total)})" if total else "0"

    values = {
        "Source": rollouts.source,
        "Rows": formats.count(rollouts.rows),
        "Problems": formats.count(rollouts.problems),
        "Rows for training": formats.count(rollouts.train_rows),
        "Rows held out": formats.count(rollouts.heldout_rows),
        "Share right": formats.percent(rollouts.share_right),
        "Groups with right and wrong": group(groups.mixed),
        "Groups all right": group(groups.all_right),
        "Groups all wrong": group(groups.all_wrong),
        "Duplicate completions": formats.count(rollouts.duplicates),
        "Rows joined to a problem that is the same but for case and space": formats.count(rollouts.joined),
        "Left out or cut": _by_reason(rollouts.dropped) or "none",
        "Mended in their tokens": _by_reason(rollouts.tokens.mended),
        "Tokens other than the chat template’s": _parted(rollouts.tokens),
        "Rewards that this tool’s grader confirms": _agreement(rollouts.grader_agreement),
        "Problems by right rows, from none": _counts(rollouts.right_counts),
        "Length, median / 95th percentile / longest (tokens)": _lengths(length),
        "Length of right rows": _lengths(length.right),
        "Length of wrong rows": _lengths(length.wrong),
        "Asked of the teacher": _asked(rollouts.api),
        "Problems shared with the evaluation": _contamination(rollouts.contamination),
        "Gold answers compared as text": _golds(rollouts.golds_as_text or []),
        "Problems left out, as nothing can check their gold answers": _golds(rollouts.golds_left_out or []),
    }
    return pairs(
        "rollouts",
        "What there was to learn",
        {key: value for key, value in values.items() if value not in ("", formats.MISSING)},
        "Counts of the frozen table, held-out rows included. Only mixed groups tell right from wrong "
        "within one problem: where nearly all rows are right, RFT equals SFT by construction.",
    )


def _lengths(length: Quantiles | None) -> str:
    return " / ".join(formats.count(n) for n in (length.median, length.p95, length.max)) if length else ""


def _counts(counts: list[int]) -> str:
    """How many problems have 0, 1, 2, ... right rows; left out where groups are large: the shares say it then."""
    return " · ".join(formats.count(n) for n in counts) if len(counts) <= 17 else ""


def _asked(api: Api | None) -> str:
    """What the answers of an API took."""
    if api is None:
        return ""
    parts = [f"{formats.count(api.answers)} answers", f"{formats.count(api.refused)} refused"]
    parts.append(f"{formats.count(api.prompt_tokens)} + {formats.count(api.completion_tokens)} tokens")
    return ", ".join([*parts, f"${api.cost:.2f}"] if api.cost else parts)


def _by_reason(rows: dict[str, int]) -> str:
    return ", ".join(f"{formats.count(n)} {reason}" for reason, n in sorted(rows.items()))


def _parted(tokens: Tokens) -> str:
    """Rows that part from what the chat template writes, and where the first one does."""
    if not tokens.parted:
        return ""
    return f"{formats.count(tokens.parted)} of {formats.count(tokens.rows)} rows; {tokens.first}"


def _agreement(agreement: GraderAgreement | None) -> str:
    return f"{formats.count(agreement.agreed)} of {formats.count(agreement.rows)}" if agreement else ""


def _golds(golds: Sequence[GoldAsText | GoldLeftOut]) -> str:
    """How many gold answers, and the first few by name."""
    if not golds:
        return ""
    named = ", ".join(f"{gold.id}: {gold.answer[:40]}" for gold in golds[:3])
    return f"{formats.count(len(golds))} ({named}{', ...' if len(golds) > 3 else ''})"


def _contamination(contamination: Contamination | None) -> str:
    if contamination is None:
        return ""
    excluded, checked = formats.count(contamination.excluded), formats.count(contamination.checked)
    return f"{excluded} excluded of {checked} checked (policy: {contamination.policy})"


def teachers_table(rollouts: Rollouts) -> Table | None:
    """Who wrote the rollouts."""
    return records(
        "teachers",
        "Teachers",
        rollouts.teachers,
        [
            (Column("Teacher", kind="text"), lambda row: text(row.name)),
            (Column("Rows"), lambda row: number(formats.count(row.rows))),
            (Column("Right"), lambda row: number(formats.percent(row.share_right))),
        ],
        "Rows by the model that wrote them. With several teachers of unlike accuracy, chosen against "
        "rejected is partly one teacher’s style against another’s.",
    )


def views_table(rollouts: Rollouts, index: ModelIndex) -> Table | None:
    """What each method sees of the rollouts."""
    return records(
        "views",
        "What each method sees",
        rollouts.views,
        [
            (Column("Method", kind="text"), lambda row: text(index.label(row.method))),
            (Column("Units", "rows or pairs"), lambda row: number(formats.count(row.units))),
            (Column("Rows"), lambda row: number(formats.count(row.rows))),
            (Column("Problems"), lambda row: number(formats.count(row.problems))),
        ],
        "All methods share one table and one global order of rows; a view only leaves rows out. A unit is "
        "what the loss is averaged over: a row, or for DPO a pair of a right and a wrong row.",
    )


def _tables(source: Source) -> list[Table | None]:
    rollouts = source.results.rollouts
    if rollouts is None:
        return []
    return [rollouts_table(rollouts), teachers_table(rollouts), views_table(rollouts, source.index)]


SECTION = Section(
    key="rollouts",
    title="The rollouts: what there was to learn",
    step="rollouts",
    tables=_tables,
    csv=csv_of(
        lambda results: results.rollouts,
        {
            "teachers": lambda rollouts: rollouts.teachers,
            "views": lambda rollouts: rollouts.views,
        },
    ),
    texts=ROLLOUTS,
)
