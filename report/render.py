"""The report: one folder with the page, the numbers behind it, and the figures.

``render`` is a function of its arguments alone: the same results, provenance and texts give the same bytes. All
text that comes from models or data is put as ``report.escape`` says and escaped by the template engine; only the
drawings and the style sheet, which are made here, go in as they are.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from report import csv_export as tidy
from report import (
    figures,
    findings,
    formats,
    headline,
    tables,
    tables_behaviour,
    tables_directions,
    tables_training,
    tables_weights,
)
from report import text_pages as pages
from report.escape import shown as as_shown
from report.figures import Drawn
from report.model_index import ModelIndex, dimensions, model_index
from report.tables import Table

TEMPLATES = Path(__file__).parent / "templates"

_PLANTED = (
    "The base was pretrained by this study itself, with a failure planted in it. This report is a test of "
    "the tool, not evidence about language models."
)

_PAGES = {"accuracy": pages.ANSWERS, "rollouts": pages.ROLLOUTS}


@dataclass(frozen=True)
class Section:
    """A part of the page: its tables and figures, or in ``absent`` why there are none; ``page``: of its texts."""

    key: str
    title: str
    tables: list[Table] = field(default_factory=list)
    figures: list[Drawn] = field(default_factory=list)
    absent: str = ""
    page: str = ""

    @property
    def headed(self) -> bool:
        """Whether its tables need headings of their own beside the section's."""
        return len(self.tables) > 1


def render(results: dict, provenance: dict, out: Path, shown: dict | None = None) -> None:
    """Writes the report of a study into the folder ``out``.

    ``report.html`` (self-contained, no script), ``results.json`` and ``provenance.json`` (sorted keys, exact
    floats), ``csv/*.csv`` (one tidy table each), ``figures/*.svg`` and ``*.png``. Any part of ``results`` may
    be missing or partial: what is missing is said on the page. A number that is not finite is a
    ``ValueError`` that names its place, raised before anything is written.

    ``shown`` holds the texts that the results do not: with them ``answers.html`` and ``rollouts.html`` are written
    too, and linked (see ``pages.make``).
    """
    files = {
        "results.json": canonical(results, "results"),
        "provenance.json": canonical(provenance, "provenance"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_text(content, encoding="utf-8")
    written = tidy.write(results, out / "csv")
    index = model_index(results)
    drawn = figures.draw(results, index, out / "figures")
    environment = _environment()
    beside = pages.make(shown or {}, results, index, environment, _style("style.css") + _style("sheet.css"))
    made = {"report.html": _page(environment, results, provenance, index, drawn, written, list(beside)), **beside}
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8")
    for name in pages.TITLES.keys() - made.keys():
        (out / name).unlink(missing_ok=True)  # an earlier report's


def canonical(value: dict, name: str) -> str:
    """JSON with sorted keys, indent 1, floats as ``repr``; ValueError names a number that is not finite."""
    place = _not_finite(value, name)
    if place:
        raise ValueError(f"{place} is not a finite number: write None for what is undefined")
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _not_finite(value: Any, place: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return place
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{place}.{key}", inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        items = ((f"{place}[{i}]", inner) for i, inner in enumerate(value))
    return next((found for name, inner in items if (found := _not_finite(inner, name))), None)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, finalize=_finalize,
    )  # fmt: skip


def _finalize(value: Any) -> Any:
    """What a template puts on a page: all foreign text passes here."""
    return as_shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _style(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _page(
    environment: Environment,
    results: dict,
    provenance: dict,
    index: ModelIndex,
    drawn: dict[str, Drawn],
    written: list[str],
    beside: list[str],
) -> str:
    rows = headline.rows(results, index)
    study, comparison = results.get("study") or {}, results.get("comparison") or {}
    notes = comparison.get("notes") or []
    return environment.get_template("report.html").render(
        title=study.get("title") or study.get("name") or ("Comparison of adapters" if comparison else "Study"),
        question=study.get("question") or "",
        facts=_facts(results, provenance),
        partial=partial(results),
        note=study.get("note") or "",
        banner=_PLANTED if (results.get("base") or {}).get("kind") == "from_scratch" else "",
        found=findings.findings(results, index, rows),
        notes=notes,
        headline=tables_weights.headline_table(results, index, rows),
        opening=drawn.get("step-size"),
        sections=_sections(results, provenance, index, drawn),
        reference=index.label(index.reference),
        k=dimensions(results, (results.get("geometry") or {}).get("pairs") or []) or "k",
        update=_update(comparison, index),
        citation=_citation(study, provenance, bool(comparison)),
        files=written,
        drawings={key: Markup(figure.svg) for key, figure in drawn.items()},
        beside={page: pages.TITLES[page] for page in beside},
        style=Markup(_style("style.css")),
        language="en",
    )


def _update(comparison: dict, index: ModelIndex) -> str:
    """What an update is, with its scale: rsLoRA has another, and is named where it was used."""
    adapters = comparison.get("adapters") or []
    stabilised = [index.label(row.get("name")) for row in adapters if row.get("rslora")]
    own, by_root = "(α / r) · B · A", "(α / √r) · B · A"
    if len(stabilised) < len(adapters):
        return f"{own}, or {by_root} where rsLoRA was used ({', '.join(stabilised)})," if stabilised else own
    return f"{by_root} (rsLoRA)" if stabilised else own


def _facts(results: dict, provenance: dict) -> str:
    """The line below the title: base, size, adapted modules, when."""
    base, comparison = results.get("base") or {}, results.get("comparison") or {}
    parts = [f"Base {base['name']}" if base.get("name") else ""]
    if comparison:
        bases = sorted({row["base"] for row in comparison.get("adapters") or [] if row.get("base")})
        parts.append(f"{len(comparison.get('adapters') or [])} adapters of {', '.join(bases) or 'a base not named'}")
        parts.append(f"{comparison.get('shared_modules')} modules in all of them")
    if base.get("parameters"):
        parts.append(f"{_size(base['parameters'])} parameters with embeddings")
    if base.get("layers") and base.get("hidden"):
        parts.append(f"{base['layers']} layers, hidden {base['hidden']}")
    if base.get("modules"):
        parts.append(f"{base['modules']} adapted modules")
    if provenance.get("started"):
        parts.append(f"run {provenance['started']}")
    return " · ".join(part for part in parts if part)


def _size(parameters: float) -> str:
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= limit:
            return f"{formats.significant(parameters / limit)} {unit}"
    return formats.count(parameters)


def _sections(results: dict, provenance: dict, index: ModelIndex, drawn: dict[str, Drawn]) -> list[Section]:
    """The page below its first screen, in reading order."""
    tasks = (results.get("evaluation") or {}).get("tasks") or []
    titles = {task: headline.task_title(results, task) for task in headline.tasks(results)}
    behaviour = []
    for task in tasks:
        makers = (
            tables_behaviour.accuracy_table,
            tables_behaviour.mcnemar_table,
            tables_behaviour.agreement_table,
            tables_behaviour.alone_table,
            tables_behaviour.strata_table,
        )
        behaviour += [make(task, index) for make in makers]
    both = results, index
    weights, training, acts, beyond = tables_weights, tables_training, tables_behaviour, tables_directions
    rollouts = [
        training.rollouts_table(results),
        training.teachers_table(results),
        training.views_table(*both),
    ]
    # key, title, the step that makes it, tables, figures
    plan: list[tuple[str, str, str, list[Table | None], list[str]]] = [
        ("accuracy", "Accuracy", "evaluat", behaviour, ["accuracy"]),
        ("rollouts", "The rollouts: what there was to learn", "rollouts", rollouts, []),
        ("trainings", "The trainings", "train", [training.seen_table(*both), training.moved_table(*both)],
         ["curves", "growth"]),
        ("sweep", "Is the learning rate the cause?", "train",
         [training.sweep_table(*both, titles)], ["sweep"]),
        ("geometry", "Geometry of the updates", "geometry",
         [weights.adapters_table(*both), weights.pairs_table(*both), beyond.span_table(*both)],
         ["cosines", "angles", "layers", "parting"]),
        ("activations", "What the updates do to real inputs", "activations", [beyond.weighted_table(*both)],
         ["functions"]),
        ("spectra", "The updates beside the base’s weights", "spectra", [beyond.spectra_table(*both)], ["spectra"]),
        ("connectivity", "Connectivity", "connectivity", [weights.barriers_table(*both)], ["paths"]),
        ("similarity", "Likeness of features", "similarity",
         [weights.hidden_table(*both), weights.projections_table(*both)], ["cka", "projections"]),
        ("losses", "Held-out losses and KL", "connectivity", [acts.losses_table(*both)], []),
        ("canary", "Canary: was each adapter really served?", "evaluat", [acts.canary_table(*both)], []),
        ("failures", "What failed, and why", "", [training.failures_table(results)], []),
        ("time", "Where the time went", "", [training.time_table(provenance)], []),
        ("settings", "Settings and versions", "", _settings(results, provenance), []),
    ]  # fmt: skip
    sections = [
        Section(
            key,
            title,
            [table for table in made if table],
            [drawn[name] for name in names if name in drawn],
            _absent(results, key, step),
            _PAGES.get(key, ""),
        )
        for key, title, step, made, names in plan
    ]
    # A comparison never meant to train or to evaluate: what it has not is not missing.
    if results.get("comparison"):
        return [one for one in sections if one.key not in ("trainings",) and (one.tables or one.figures)]
    return sections


def partial(results: dict) -> str:
    """What these results lack, in words: the first line of a report that is not whole, empty for one that is."""
    found = results.get("unfinished") or {}
    if not found:
        return ""
    parts = [
        f"This report is partial: {formats.count(found['done'])} of {formats.count(found['steps'])} steps are done."
    ]
    for words, key in (("Failed", "failed"), ("Not done", "waiting")):
        if found.get(key):
            parts.append(f"{words} ({formats.count(len(found[key]))}): {_by_kind(found[key])}.")
    if found.get("early"):
        parts.append(f"Measured for this report alone, of the trainings that are done: {_by_kind(found['early'])}.")
    return " ".join(parts)


def _by_kind(titles: list[str]) -> str:
    """Titles of steps, "kind/name", each kind once."""
    kinds: dict[str, list[str]] = {}
    for title in titles:
        kind, _, name = title.partition("/")
        kinds.setdefault(kind, []).append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())


def _absent(results: dict, key: str, step: str) -> str:
    unfinished = results.get("unfinished") or {}
    if key == "failures":
        undone = len(unfinished.get("waiting") or [])
        return f"No step has failed; {undone} are not done." if unfinished else "Nothing: every step finished."
    for row in results.get("failures") or []:
        why = f"{row.get('step')} failed ({row.get('error') or 'no reason recorded'})"
        if step and str(row.get("step") or "").startswith(step):
            return f"Not measured: {why}."
        if step and any(str(name).startswith(step) for name in row.get("dependants") or []):
            return f"Not measured, because {why}."
    waiting = [title for title in unfinished.get("waiting") or [] if step and title.startswith(step)]
    if waiting:
        return f"Not measured: {_by_kind(waiting)} not done."
    return "Not in these results."


def _settings(results: dict, provenance: dict) -> list[Table | None]:
    engine = (results.get("evaluation") or {}).get("engine") or {}
    plan = (
        ("settings", "The study", (results.get("study") or {}).get("settings"), "Every setting given."),
        ("base", "The base", results.get("base"), "The model that every update is added to."),
        ("engine", "The engine that answered", engine, "Answers depend on these too."),
        ("versions", "Versions", provenance.get("versions"), "The software of this run."),
        ("machine", "Machine", provenance.get("machine"), "What this run had."),
    )
    return [tables.pairs(key, title, values or {}, words, folded=True) for key, title, values, words in plan]


def _citation(study: dict, provenance: dict, comparison: bool) -> str:
    name = study.get("name") or "this study"
    what = "the adapters" if comparison else f"the study ({name})"
    versions = provenance.get("versions") or {}
    stack = ", ".join(
        f"{key} {versions[key]}" for key in ("torch", "transformers", "peft", "vllm") if versions.get(key)
    )
    text = (
        f"Name {what}, the base with its revision, and the settings below; results.json beside "
        "this page holds every number at full precision, and is the same on every run of the same "
        f"{'comparison' if comparison else 'study'} on one machine."
    )
    return f"{text} Software: {stack}." if stack else text
