"""The rollouts: how many rows, groups, lengths and teachers there are, and what each method sees of them."""

from __future__ import annotations

from report import formats
from report.model_index import ModelIndex
from report.section import Section, Source, rows_at
from report.tables import Column, Table, number, pairs, records, text
from report.text_pages import ROLLOUTS


def rollouts_table(results: dict) -> Table | None:
    """What there was to learn, as names and values."""
    rollouts = results.get("rollouts") or {}
    groups = rollouts.get("groups") or {}
    length = rollouts.get("length") or {}
    contamination = rollouts.get("contamination") or {}
    total = sum(groups.get(key) or 0 for key in ("mixed", "all_right", "all_wrong"))

    def group(key: str) -> str | None:
        if groups.get(key) is None:
            return None
        return f"{formats.count(groups[key])} ({formats.percent(groups[key] / total)})" if total else "0"

    values = {
        "Source": rollouts.get("source"),
        "Rows": _count(rollouts.get("rows")),
        "Problems": _count(rollouts.get("problems")),
        "Rows for training": _count(rollouts.get("train_rows")),
        "Rows held out": _count(rollouts.get("heldout_rows")),
        "Share right": formats.percent(rollouts.get("share_right")),
        "Groups with right and wrong": group("mixed"),
        "Groups all right": group("all_right"),
        "Groups all wrong": group("all_wrong"),
        "Duplicate completions": _count(rollouts.get("duplicates")),
        "Rows joined to a problem that is the same but for case and space": _count(rollouts.get("joined")),
        "Left out or cut": _dropped(rollouts.get("dropped")),
        "Mended in their tokens": _dropped((rollouts.get("tokens") or {}).get("mended") or None),
        "Tokens other than the chat template’s": _parted(rollouts.get("tokens")),
        "Rewards that this tool’s grader confirms": _agreement(rollouts.get("grader_agreement")),
        "Problems by right rows, from none": _counts(rollouts.get("right_counts")),
        "Length, median / 95th percentile / longest (tokens)": _lengths(length),
        "Length of right rows": _lengths(length.get("right") or {}),
        "Length of wrong rows": _lengths(length.get("wrong") or {}),
        "Asked of the teacher": _asked(rollouts.get("api")),
        "Problems shared with the evaluation": _contamination(contamination),
        "Gold answers compared as text": _as_text(rollouts.get("golds_as_text")),
    }
    known = {key: value for key, value in values.items() if value not in (None, "", formats.MISSING)}
    return pairs(
        "rollouts",
        "What there was to learn",
        known,
        "Counts of the frozen table, held-out rows included. Only mixed groups tell right from wrong "
        "within one problem: where nearly all rows are right, RFT equals SFT by construction.",
    )


def _count(value: float | None) -> str | None:
    return None if value is None else formats.count(value)


def _lengths(length: dict) -> str | None:
    return " / ".join(formats.count(length.get(key)) for key in ("median", "p95", "max")) if length else None


def _counts(counts: list[int] | None) -> str | None:
    """How many problems have 0, 1, 2, ... right rows; left out where groups are large: the shares say it then."""
    return " · ".join(formats.count(n) for n in counts) if counts and len(counts) <= 17 else None


def _asked(api: dict | None) -> str | None:
    """What the answers of an API took."""
    if not api:
        return None
    parts = [f"{formats.count(api['answers'])} answers", f"{formats.count(api['refused'])} refused"]
    parts.append(f"{formats.count(api['prompt_tokens'])} + {formats.count(api['completion_tokens'])} tokens")
    return ", ".join([*parts, f"${api['cost']:.2f}"] if api.get("cost") else parts)


def _dropped(reasons: dict | None) -> str | None:
    """Rows that the limits kept out of the table or shortened, by reason."""
    if reasons is None:
        return None
    return ", ".join(f"{formats.count(n)} {reason}" for reason, n in sorted(reasons.items())) or "none"


def _parted(tokens: dict | None) -> str | None:
    """Rows that part from what the chat template writes, and where the first one does."""
    if not tokens or not tokens.get("parted"):
        return None
    return f"{formats.count(tokens['parted'])} of {formats.count(tokens['rows'])} rows; {tokens.get('first')}"


def _agreement(value: dict | None) -> str | None:
    return None if not value else f"{formats.count(value['agreed'])} of {formats.count(value['rows'])}"


def _as_text(golds: list[dict] | None) -> str | None:
    """Of the evaluation's gold answers those that no algebra can read, the first few by name."""
    if not golds:
        return None
    named = ", ".join(f"{gold['id']}: {gold['answer'][:40]}" for gold in golds[:3])
    return f"{formats.count(len(golds))} ({named}{', ...' if len(golds) > 3 else ''})"


def _contamination(value: dict) -> str | None:
    if not value:
        return None
    return (
        f"{formats.count(value.get('excluded'))} excluded of {formats.count(value.get('checked'))} checked "
        f"(policy: {value.get('policy') or 'not recorded'})"
    )


def teachers_table(results: dict) -> Table | None:
    """Who wrote the rollouts."""
    rows = (results.get("rollouts") or {}).get("teachers") or []
    return records(
        "teachers",
        "Teachers",
        rows,
        [
            (Column("Teacher", kind="text"), lambda row: text(row.get("name"))),
            (Column("Rows"), lambda row: number(formats.count(row.get("rows")))),
            (Column("Right"), lambda row: number(formats.percent(row.get("share_right")))),
        ],
        "Rows by the model that wrote them. With several teachers of unlike accuracy, chosen against "
        "rejected is partly one teacher’s style against another’s.",
    )


def views_table(results: dict, index: ModelIndex) -> Table | None:
    """What each method sees of the rollouts."""
    rows = (results.get("rollouts") or {}).get("views") or []
    return records(
        "views",
        "What each method sees",
        rows,
        [
            (Column("Method", kind="text"), lambda row: text(index.label(row.get("method")))),
            (Column("Units", "rows or pairs"), lambda row: number(formats.count(row.get("units")))),
            (Column("Rows"), lambda row: number(formats.count(row.get("rows")))),
            (Column("Problems"), lambda row: number(formats.count(row.get("problems")))),
        ],
        "All methods share one table and one global order of rows; a view only leaves rows out. A unit is "
        "what the loss is averaged over: a row, or for DPO a pair of a right and a wrong row.",
    )


def _tables(source: Source) -> list[Table | None]:
    return [
        rollouts_table(source.results),
        teachers_table(source.results),
        views_table(source.results, source.index),
    ]


SECTION = Section(
    key="rollouts",
    title="The rollouts: what there was to learn",
    step="rollouts",
    tables=_tables,
    csv={"teachers": rows_at("rollouts", "teachers"), "views": rows_at("rollouts", "views")},
    texts=ROLLOUTS,
)
