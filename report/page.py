"""What stands on the page: its first screen, and the sections filled with their tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from report import findings, formats, text_pages
from report.figures import Drawn
from report.model_index import ModelIndex, dimensions
from report.section import Section, Source
from report.sections import SECTIONS
from report.sections.attribution import ANSWER
from report.tables import Table
from results import Results
from results.study import ComparedAdapter, Unfinished

MOST_LINES = 160  # of a table on the page
_BANNERS = {  # by the base's kind
    "from_scratch": "The base was pretrained by this study itself, with a failure planted in it. This report is a test "
    "of the tool, not evidence about language models.",
    "random": "The base has random weights: a rehearsal of a study's memory, time and parts. None of the numbers below "
    "says anything about a language model.",
}


@dataclass(frozen=True)
class Filled:
    """A section with its tables and figures, or in ``absent`` why there are none."""

    section: Section
    tables: list[Table]
    figures: list[Drawn]
    absent: str

    @property
    def headed(self) -> bool:
        """Whether its tables need headings of their own beside the section's."""
        return len(self.tables) > 1


def fill(source: Source, drawn: Mapping[str, Drawn]) -> list[Filled]:
    """Every section with what was measured of it."""
    return [
        Filled(
            section,
            [shortened(table) for table in section.tables(source) if table],
            [drawn[key] for key in section.figures if key in drawn],
            _absent(section, source.results),
        )
        for section in SECTIONS
    ]


def shortened(table: Table) -> Table:
    """The table's first ``MOST_LINES`` lines, and in its caption how many there are."""
    if len(table.lines) <= MOST_LINES:
        return table
    more = f" Shown are the first {MOST_LINES} of {formats.count(len(table.lines))} rows; results.json has all."
    return replace(table, lines=table.lines[:MOST_LINES], caption=table.caption + more)


def tables_beside(sections: Sequence[Filled]) -> dict[str, list[Table]]:
    """The tables of the sections that have a page of texts, by that page's file name."""
    return {filled.section.texts: filled.tables for filled in sections if filled.section.texts}


def values(source: Source, sections: Sequence[Filled], files: Sequence[str], beside: Sequence[str]) -> dict[str, Any]:
    """What the page's template is given: ``files`` are the CSV files' names, ``beside`` the pages of texts."""
    results, index = source.results, source.index
    study, comparison = results.study, results.comparison
    opening, *below = sections
    found = findings.findings(results, index, source.headline)
    first = [figure for one in below for figure in one.figures if found.by_factor and figure.key == ANSWER]
    if comparison:  # it was not meant to train or to evaluate: what it has not is not missing
        below = [one for one in below if one.section.in_comparison and (one.tables or one.figures)]
    below = [replace(one, figures=[figure for figure in one.figures if figure not in first]) for one in below]
    below = [one for one in below if one.tables or one.figures or not one.section.optional]
    return {
        "title": _title(results),
        "question": study.question if study else "",
        "facts": _facts(results, source.provenance),
        "partial": partial(results.unfinished),
        "note": (study and study.note) or "",
        "banner": _BANNERS.get(results.base.kind, "") if results.base else "",
        "found": found,
        "first": first,
        "notes": comparison.notes if comparison else [],
        "opening": opening,
        "sections": below,
        "reference": index.label(index.reference),
        "k": dimensions(results, results.geometry.pairs if results.geometry else []) or "k",
        "drawn": index.drawn,
        "by_chance": index.by_chance,
        "update": _update(comparison.adapters if comparison else [], index),
        "citation": _citation(results, source.provenance),
        "files": files,
        "drawings": {figure.key: Markup(figure.svg) for filled in sections for figure in filled.figures},
        "beside": {name: text_pages.TITLES[name] for name in beside},
    }


def _title(results: Results) -> str:
    if results.study:
        return results.study.title or results.study.name
    return "Comparison of adapters" if results.comparison else "Study"


def _update(adapters: Sequence[ComparedAdapter], index: ModelIndex) -> str:
    """What an update is, with its scale: rsLoRA has another, and is named where it was used."""
    stabilised = [index.label(adapter.name) for adapter in adapters if adapter.rslora]
    own, by_root = "(α / r) · B · A", "(α / √r) · B · A"
    if len(stabilised) < len(adapters):
        return f"{own}, or {by_root} where rsLoRA was used ({', '.join(stabilised)})," if stabilised else own
    return f"{by_root} (rsLoRA)" if stabilised else own


def _facts(results: Results, provenance: dict) -> str:
    """The line below the title: base, size, adapted modules, when."""
    parts = []
    if base := results.base:
        parts.append(f"Base {base.name}")
        parts += [f"{_size(base.parameters)} parameters with embeddings"] if base.parameters else []
        parts += [f"{base.layers} layers, hidden {base.hidden}"] if base.layers and base.hidden else []
        parts += [f"{base.modules} adapted modules"] if base.modules else []
    if comparison := results.comparison:
        bases = sorted({adapter.base for adapter in comparison.adapters if adapter.base})
        parts.append(f"{len(comparison.adapters)} adapters of {', '.join(bases) or 'a base not named'}")
        parts.append(f"{comparison.shared_modules} modules in all of them")
    if provenance.get("started"):
        parts.append(f"run {provenance['started']}")
    return " · ".join(parts)


def _size(parameters: float) -> str:
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= limit:
            return f"{formats.significant(parameters / limit)} {unit}"
    return formats.count(parameters)


def partial(unfinished: Unfinished | None) -> str:
    """What these results lack, in words: the first line of a report that is not whole, empty for one that is."""
    if unfinished is None:
        return ""
    parts = [
        f"This report is partial: {formats.count(unfinished.done)} of {formats.count(unfinished.steps)} steps are done."
    ]
    for words, titles in (("Failed", unfinished.failed), ("Not done", unfinished.waiting)):
        if titles:
            parts.append(f"{words} ({formats.count(len(titles))}): {_by_kind(titles)}.")
    if unfinished.early:
        parts.append(f"Measured for this report alone, of the trainings that are done: {_by_kind(unfinished.early)}.")
    return " ".join(parts)


def _by_kind(titles: list[str]) -> str:
    """Titles of steps, "kind/name", each kind once."""
    kinds: dict[str, list[str]] = {}
    for title in titles:
        kind, _, name = title.partition("/")
        kinds.setdefault(kind, []).append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())


def _absent(section: Section, results: Results) -> str:
    """Why a section is empty: its step, or one that it reads, failed or is not done."""
    if section.absent:
        return section.absent(results)
    for failure in results.failures or ():
        why = f"{failure.step} failed ({failure.error or 'no reason recorded'})"
        if _made_by(section, failure.step):
            return f"Not measured: {why}."
        if any(_made_by(section, title) for title in failure.dependants):
            return f"Not measured, because {why}."
    waiting = [
        title for title in (results.unfinished.waiting if results.unfinished else ()) if _made_by(section, title)
    ]
    if waiting:
        return f"Not measured: {_by_kind(waiting)} not done."
    return "Not in these results."


def _made_by(section: Section, title: str) -> bool:
    """Whether a step, "kind/name", is one of those that make the section."""
    return bool(section.step) and title.partition("/")[0] == section.step


def _citation(results: Results, provenance: dict) -> str:
    study = results.study.name if results.study else "this study"
    what = "the adapters" if results.comparison else f"the study ({study})"
    versions = provenance.get("versions") or {}
    stack = ", ".join(
        f"{key} {versions[key]}" for key in ("torch", "transformers", "peft", "vllm") if versions.get(key)
    )
    text = (
        f"Name {what}, the base with its revision, and the settings below; results.json beside "
        "this page holds every number at full precision, and is the same on every run of the same "
        f"{'comparison' if results.comparison else 'study'} on one machine."
    )
    return f"{text} Software: {stack}." if stack else text
