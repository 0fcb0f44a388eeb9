"""Tables of what the models do: accuracy, paired tests, strata, held-out losses and the canary."""

from __future__ import annotations

from collections.abc import Callable

from analysis import formats
from analysis.roster import BASE, Roster
from analysis.tables import Cell, Column, Line, Table, failed, number, records, text


def _tint(roster: Roster, name: str | None) -> str:
    if name == BASE:
        return "base"
    return "floor" if roster.role(name or "") in ("order", "init") else ""


def _ordered(roster: Roster, rows: list[dict]) -> list[dict]:
    named = {row.get("name"): row for row in rows}
    return [named[name] for name in roster.order(named)]


def _against_base(task: dict, name: str | None) -> dict:
    for row in task.get("pairs") or []:
        if {row.get("a"), row.get("b")} == {name, BASE}:
            return row
    return {}


def _difference(task: dict, row: dict) -> Cell:
    base = [model for model in task.get("models") or [] if model.get("name") == BASE]
    if row.get("name") == BASE:
        return number(formats.MISSING, "the base itself")
    if not base or base[0].get("accuracy") is None or row.get("accuracy") is None:
        return number(formats.MISSING, "base not evaluated")
    points = 100 * (row["accuracy"] - base[0]["accuracy"])
    return number(("+" if points > 0 else "") + formats.fixed(points, 1))


def accuracy_table(task: dict, roster: Roster) -> Table | None:
    """One task: accuracy with its interval, the difference to the base and its test, lengths."""
    rows = _ordered(roster, task.get("models") or [])
    columns = [
        (Column("Model", kind="text"), lambda row: text(roster.label(row.get("name")))),
        (
            Column("Right", f"of {formats.count(task.get('n'))}"),
            lambda row: number(formats.count(row.get("correct")), "not evaluated"),
        ),
        (
            Column("Accuracy", "95% interval"),
            lambda row: number(
                formats.percent(row.get("accuracy")),
                "not evaluated",
                formats.interval(row.get("low"), row.get("high")),
            ),
        ),
        (Column("To base", "points"), lambda row: _difference(task, row)),
        (
            Column("p to base", "Holm"),
            lambda row: number(
                formats.p_value(_against_base(task, row.get("name")).get("p_holm")),
                "no test against the base",
            ),
        ),
        (Column("Truncated"), lambda row: number(_share(row, "truncated"), "not recorded")),
        (Column("No answer found"), lambda row: number(_share(row, "not_found"), "not recorded")),
        (Column("Length", "mean tokens"), lambda row: number(formats.significant(row.get("mean_tokens")))),
    ]
    title = task.get("title") or task.get("task") or "Task"
    table = records(
        f"accuracy-{task.get('task')}",
        f"Accuracy on {title}",
        rows,
        columns,
        f"Greedy pass@1 on {formats.count(task.get('n'))} problems; Wilson intervals; exact McNemar "
        "against the base, Holm-adjusted over all pairs of the task. The interval is over problems: it "
        "does not hold what another training run of the same method would give.",
        kind=lambda row: _tint(roster, row.get("name")),
    )
    errors = [model for model in roster.models.values() if model.error]
    if table is None or not errors:
        return table
    lines = [failed(model.label, model.error, len(columns)) for model in errors]
    return Table(table.key, table.title, table.columns, (*table.lines, *lines), table.caption)


def _share(row: dict, key: str) -> str:
    value = row.get(key)
    if value is None:
        return formats.MISSING
    # counts and shares are both met; a count of one problem out of many must not read as 100 %
    if isinstance(value, float) and value <= 1:
        return formats.percent(value)
    return formats.percent(value / row["n"]) if row.get("n") else formats.count(value)


def mcnemar_table(task: dict, roster: Roster) -> Table | None:
    """Above the diagonal Holm-adjusted p; below it how many problems one of the two models alone solves."""
    found = {(row.get("a"), row.get("b")): row for row in task.get("pairs") or []}
    names = roster.order([name for pair in found for name in pair if name is not None])
    if not names:
        return None

    def cell(i: int, j: int) -> Cell:
        a, b = names[i], names[j]
        if i == j:
            return Cell("", "diagonal")
        row, turned = (found[a, b], False) if (a, b) in found else (found.get((b, a), {}), True)
        if not row:
            return number(formats.MISSING, "pair not tested")
        if j > i:
            p = row.get("p_holm")
            kind = "strong" if p is not None and p < 0.05 else "number"
            shown = formats.p_value(p)
            return Cell(shown, kind, note=f"unadjusted p = {formats.p_value(row.get('p'))}")
        first, second = (row.get("only_b"), row.get("only_a")) if turned else (row.get("only_a"), row.get("only_b"))
        return Cell(f"{formats.count(first)} : {formats.count(second)}", "faint")

    lines = tuple(
        Line((text(roster.label(name)), *(cell(i, j) for j in range(len(names)))), _tint(roster, name))
        for i, name in enumerate(names)
    )
    columns = (Column("", kind="text"), *(Column(roster.label(name)) for name in names))
    title = task.get("title") or task.get("task") or "Task"
    return Table(
        f"mcnemar-{task.get('task')}",
        f"Paired tests on {title}",
        columns,
        lines,
        f"Above the diagonal: exact McNemar p, Holm-adjusted over all {len(found)} pairs, bold below 0.05. "
        "Below it: problems that only the row’s model solves : only the column’s. n = "
        f"{formats.count(task.get('n'))} problems. The test compares two checkpoints, not two methods: two "
        "seeds of one method can differ just as much.",
    )


def strata_table(task: dict, roster: Roster) -> Table | None:
    """Accuracy within each stratum, such as easy and hard problems."""
    rows = task.get("strata") or []
    strata = list(dict.fromkeys(row.get("stratum") for row in rows))
    found = {(row.get("name"), row.get("stratum")): row for row in rows}
    sizes = {stratum: next(row.get("n") for row in rows if row.get("stratum") == stratum) for stratum in strata}
    names = roster.order([row.get("name") for row in rows])
    title = task.get("title") or task.get("task") or "Task"

    def cell(stratum: str) -> Callable[[dict], Cell]:
        return lambda row: number(
            formats.percent((found.get((row["name"], stratum)) or {}).get("accuracy")), "not evaluated"
        )

    return records(
        f"strata-{task.get('task')}",
        f"Easy and hard on {title}" if set(strata) == {"easy", "hard"} else f"Strata of {title}",
        [{"name": name} for name in names],
        [
            (Column("Model", kind="text"), lambda row: text(roster.label(row["name"]))),
            *((Column(str(stratum), f"n = {formats.count(sizes[stratum])}"), cell(stratum)) for stratum in strata),
        ],
        "Share right within each stratum, greedy. Strata are smaller than the task: a few points between "
        "two models are within chance here.",
        kind=lambda row: _tint(roster, row["name"]),
    )


def losses_table(results: dict, roster: Roster) -> Table | None:
    """Held-out loss on right and wrong completions, and KL to the base."""

    def gap(row: dict) -> str:
        right, wrong = row.get("nll_right"), row.get("nll_wrong")
        return formats.MISSING if right is None or wrong is None else formats.significant(wrong - right)

    return records(
        "losses",
        "Held-out losses",
        _ordered(roster, results.get("losses") or []),
        [
            (Column("Model", kind="text"), lambda row: text(roster.label(row.get("name")))),
            (
                Column("Right rows", "nats a token"),
                lambda row: number(formats.significant(row.get("nll_right"))),
            ),
            (
                Column("Wrong rows", "nats a token"),
                lambda row: number(formats.significant(row.get("nll_wrong"))),
            ),
            (Column("Wrong − right", "nats a token"), lambda row: number(gap(row))),
            (
                Column("KL to base", "nats a token"),
                lambda row: number(formats.significant(row.get("kl_to_base")), "zero by definition"),
            ),
        ],
        "Negative log-likelihood of held-out rollouts, right and wrong apart, and the KL divergence from "
        "the base on them. The rows are the rollouts’ own, so a low loss says that a model imitates their "
        "source, not that it is right more often.",
        kind=lambda row: _tint(roster, row.get("name")),
    )


def canary_table(results: dict, roster: Roster) -> Table | None:
    """Whether the engine really served each adapter."""
    rows = (results.get("evaluation") or {}).get("canary") or []

    def value(key: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.significant(row.get(key)))

    def answer(value: bool | None, good: str, bad: str) -> Cell:
        return text(None) if value is None else Cell(good if value else bad, "text" if value else "error")

    def apart(row: dict) -> Cell:
        if row.get("name") == BASE:
            return text(None, "the base itself")
        return answer(row.get("told_apart"), "yes", "no")

    return records(
        "canary",
        "Was each adapter really served?",
        rows,
        [
            (Column("Model", kind="text"), lambda row: text(roster.label(row.get("name")))),
            (Column("Largest difference", "log-prob"), value("max_difference")),
            (Column("Tolerance", "log-prob"), lambda row: number(formats.rate(row.get("tolerance")))),
            (Column("Effect of the adapter", "log-prob"), value("effect")),
            (Column("Agrees", kind="text"), lambda row: answer(row.get("passed"), "yes", "no: not served")),
            (Column("Told apart from base", kind="text"), apart),
        ],
        "The engine’s top log-probabilities against Transformers with PEFT in float32, largest absolute "
        "difference. Where an adapter’s own effect is below the tolerance, agreement cannot show that it was "
        "applied.",
    )
