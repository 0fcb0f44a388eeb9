"""Tables of how the models came about: rollouts, trainings, the sweep, failures, time and settings."""

from __future__ import annotations

from collections.abc import Callable

from report import formats
from report.model_index import ModelIndex
from report.tables import Cell, Column, Table, failed, number, pairs, records, text


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


def _with_failures(table: Table | None, index: ModelIndex, title: str) -> Table | None:
    errors = [model for model in index.models.values() if model.error]
    if table is None:
        if not errors:
            return None
        columns = (Column("Training", kind="text"), Column("", kind="text"))
        lines = tuple(failed(model.label, model.error, 2) for model in errors)
        return Table(title, "Trainings", columns, lines, "No training finished.")
    lines = tuple(failed(model.label, model.error, len(table.columns)) for model in errors)
    return Table(table.key, table.title, table.columns, (*table.lines, *lines), table.caption, table.folded)


def _done(results: dict, index: ModelIndex) -> list[dict]:
    rows = {row.get("name"): row for row in results.get("trainings") or [] if row.get("status") != "failed"}
    return [rows[name] for name in index.order(rows)]


def seen_table(results: dict, index: ModelIndex) -> Table | None:
    """What each training was given: the columns on which two trainings can be called matched."""
    table = records(
        "trainings-given",
        "What each training was given",
        _done(results, index),
        [
            (Column("Training", kind="text"), lambda row: text(index.label(row.get("name")))),
            (Column("Learning rate", "peak"), lambda row: number(formats.rate(row.get("learning_rate")))),
            (Column("Steps", "at the report"), lambda row: number(formats.count(row.get("report_step")))),
            (Column("Rows seen"), lambda row: number(formats.count(row.get("rows_seen")))),
            (Column("Tokens seen"), lambda row: number(formats.count(row.get("tokens_seen")))),
            (Column("Distinct problems"), lambda row: number(formats.count(row.get("distinct_problems")))),
            (Column("Distinct rows"), lambda row: number(formats.count(row.get("distinct_rows")))),
            (Column("Epochs", "of its view"), lambda row: number(formats.significant(row.get("epochs")))),
            (Column("Init seed"), lambda row: number(str(row["init_seed"]) if "init_seed" in row else "–")),
            (
                Column("Order seed"),
                lambda row: number(str(row["order_seed"]) if "order_seed" in row else "–"),
            ),
        ],
        "Equal steps are not equal data: read a comparison of two methods against the column on which "
        "they are matched. Tokens are completion tokens that entered the loss.",
        kind=lambda row: "floor" if row.get("role") in ("order", "init") else "",
    )
    return _with_failures(table, index, "trainings-given")


def _noise(row: dict) -> Cell:
    """How many steps had no gradient that float32 can tell, and whether the update is noise for it."""
    steps = row.get("noise_steps")
    return number(formats.count(steps) + (": noise" if row.get("noise") else ""))


def moved_table(results: dict, index: ModelIndex) -> Table | None:
    """What each training did: loss, clipping, and how far the factors went."""
    table = records(
        "trainings-did",
        "What each training did",
        _done(results, index),
        [
            (Column("Training", kind="text"), lambda row: text(index.label(row.get("name")))),
            (Column("Loss, first step"), lambda row: number(formats.significant(row.get("loss_first")))),
            (Column("Loss, reported step"), lambda row: number(formats.significant(row.get("loss_last")))),
            (Column("Clipped steps"), lambda row: number(formats.percent(row.get("clip_rate"), 0))),
            (
                Column("A moved", "‖A−A₀‖ / ‖A₀‖"),
                lambda row: number(formats.significant(row.get("a_moved_rel"))),
            ),
            (Column("‖B‖", "from zero"), lambda row: number(formats.significant(row.get("b_norm")))),
            (
                Column("Gradient from wrong rows", "mean share"),
                lambda row: number(formats.percent(row.get("gradient_wrong"), 0)),
            ),
            (
                Column("Pushed rows", "nats a token, first → last"),
                lambda row: number(
                    f"{formats.significant(row.get('nll_pushed_first'))} → "
                    f"{formats.significant(row.get('nll_pushed_last'))}"
                    if row.get("nll_pushed_last") is not None
                    else formats.MISSING
                ),
            ),
            (Column("Logged KL", "base ‖ adapted"), lambda row: number(formats.significant(row.get("heldout_kl")))),
            (Column("Equal pairs", "left out"), lambda row: number(formats.count(row.get("equal_pairs")))),
            (Column("Steps on rounding", "gradient at its floor"), _noise),
        ],
        "Losses of different objectives are not on one scale: compare a method with itself only. Where "
        "most steps are clipped, the gradient’s size is lost and rate × steps decides the norm. The gradient "
        "is that at the log-probabilities of the step’s tokens. Pushed rows are those that a step makes less "
        "likely: where their nats rise and rise, the objective has no bound. The logged KL(base ‖ adapted) is exact, a "
        f"token of the first {_watched(results)}held-out rollouts, right and wrong as they come; the KL beside the "
        "held-out losses is over other rows, as many right as wrong ones, so the two are two numbers. Adam makes as "
        "long a step out of rounding as out of a gradient: where half of the steps or more had a gradient that the "
        "rounding of float32 alone may leave, the update is noise.",
        kind=lambda row: "floor" if row.get("role") in ("order", "init") else "",
    )
    return _with_failures(table, index, "trainings-did")


def _watched(results: dict) -> str:
    """How many held-out rows a training looks at, where the settings tell."""
    rows = ((results.get("study") or {}).get("settings") or {}).get("training.probe_rows")
    return f"{formats.count(rows)} " if rows else ""


def sweep_table(results: dict, index: ModelIndex, titles: dict[str, str]) -> Table | None:
    """The learning-rate sweep, a row a point; ``titles`` names the tasks."""
    sweep = results.get("sweep") or {}
    points = sorted(sweep.get("points") or [], key=lambda row: row.get("learning_rate") or 0.0)
    names = list(dict.fromkeys(task for row in points for task in row.get("accuracy") or {}))
    matched = sweep.get("matched_learning_rate")

    def accuracy(task: str) -> Callable[[dict], Cell]:
        return lambda row: number(formats.percent((row.get("accuracy") or {}).get(task)), "not evaluated")

    def shown(row: dict) -> str:
        same = row.get("learning_rate") is not None and row["learning_rate"] == matched
        return f"{formats.rate(row.get('learning_rate'))}{' (matched)' if same else ''}"

    reference = index.label(index.reference)
    return records(
        "sweep",
        f"Sweep of {index.label(sweep.get('method'))}’s learning rate",
        points,
        [
            (Column("Learning rate", kind="text"), lambda row: text(shown(row))),
            (
                Column("Norm", "‖ΔW‖"),
                lambda row: number(formats.significant(row.get("norm")), _failed(index, row)),
            ),
            (
                Column("Cosine", f"to {reference}"),
                lambda row: number(formats.cosine(row.get("cosine_to_sft")), _failed(index, row)),
            ),
            (
                Column("A moved", "‖A−A₀‖ / ‖A₀‖"),
                lambda row: number(formats.significant(row.get("a_moved_rel")), _failed(index, row)),
            ),
            (
                Column("Held-out loss", "right rows, nats a token"),
                lambda row: number(formats.significant(row.get("nll_right")), _failed(index, row)),
            ),
            *((Column(titles.get(task, task), "right"), accuracy(task)) for task in names),
        ],
        f"One training a rate, same steps. The matched rate ({formats.rate(matched)}) is the one that the "
        "other methods use. The sweep moves one method’s rate only: it cannot tell what the others would "
        "do at other rates.",
    )


def _failed(index: ModelIndex, row: dict) -> str:
    model = index.models.get(row.get("name") or "")
    return f"failed: {model.error}" if model and model.error else "not measured"


def failures_table(results: dict) -> Table | None:
    """Steps that did not finish, why, and what waited for them in vain."""
    return records(
        "failures",
        "Steps that did not finish",
        results.get("failures") or [],
        [
            (Column("Step", kind="text"), lambda row: text(row.get("step"))),
            (Column("Error", kind="text"), lambda row: text(row.get("error"))),
            (
                Column("Not run for want of it", kind="text"),
                lambda row: text(", ".join(row.get("dependants") or [])),
            ),
        ],
        "A failed step does not stop the others; what depended on it is missing above.",
    )


def time_table(provenance: dict) -> Table | None:
    """Start-up and work of each step; a step's ``seconds`` hold its ``startup_seconds``."""
    steps = provenance.get("steps") or []

    def work(row: dict) -> float | None:
        if row.get("seconds") is None:
            return None
        return row["seconds"] - (row.get("startup_seconds") or 0.0)

    wall = provenance.get("wall_seconds")
    together = f" The whole run took {formats.seconds(wall)} by the clock." if wall is not None else ""
    return records(
        "time",
        "Where the time went",
        steps,
        [
            (Column("Step", kind="text"), lambda row: text(row.get("step"))),
            (Column("Start-up"), lambda row: number(formats.seconds(row.get("startup_seconds")))),
            (Column("Work"), lambda row: number(formats.seconds(work(row)))),
            (
                Column("Taken from the store", kind="text"),
                lambda row: text(None if row.get("cached") is None else "yes" if row["cached"] else "no"),
            ),
        ],
        "Start-up is imports, workers and engines before the first useful operation. Steps run side by "
        f"side, so the column’s sum is not the run’s length.{together}",
        folded=len(steps) > 12,
    )
