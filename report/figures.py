"""The figures of a report: style and files.

What is drawn stands in ``report.sections``, whose functions are given a ``Canvas`` to draw on.
Widths are those of a paper: 3.3 inches for a column, 6.8 for a page. Bytes depend on the results alone: no
date, no version, no random id, and no user's matplotlib settings.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from report.model_index import ModelIndex
from report.plotting import FONT, Canvas, drawable
from report.sections import SECTIONS
from report.sections.attribution import ANSWER
from report.sections.sweep import matched_figure
from results import Results

MOST_MODELS = 24  # that a figure tells apart
_DPI = 200
_STYLE: Any = {
    "axes.axisbelow": True, "axes.edgecolor": "#444444", "axes.grid": True, "axes.labelsize": 8,
    "axes.linewidth": 0.6, "axes.spines.right": False, "axes.spines.top": False, "axes.titlesize": 8.5,
    "figure.constrained_layout.use": True, "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05, "font.family": FONT, "font.size": 8,
    "grid.color": "#e4e4e4", "grid.linewidth": 0.5, "legend.fontsize": 7.5, "legend.frameon": False,
    "legend.handlelength": 2.4, "lines.linewidth": 1.3, "lines.markersize": 5, "path.simplify": True,
    "savefig.dpi": _DPI, "svg.fonttype": "path", "text.parse_math": False, "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6, "ytick.labelsize": 7.5, "ytick.major.width": 0.6,
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """One figure as it stands in the report: inline SVG, title and caption."""

    key: str
    svg: str
    title: str
    caption: str


FIGURES = {key: function for section in SECTIONS for key, function in section.figures.items()}  # in reading order


def draw(results: Results, index: ModelIndex, folder: Path) -> dict[str, Drawn]:
    """Draws every figure that ``results`` can fill, as PNG and SVG in ``folder``; returns them by key.

    Of more than ``MOST_MODELS`` models those of ``ModelIndex.few`` are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, every, index = {}, len(index.models), index.few(MOST_MODELS)
    for key, function in FIGURES.items():
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a user's own matplotlib settings must not change a byte
            matplotlib.rcParams.update(_STYLE)
            matplotlib.rcParams["svg.hashsalt"] = key
            made = function(results, index, Canvas())
            for suffix in (".svg", ".png"):
                (folder / key).with_suffix(suffix).unlink(missing_ok=True)
            if made is None:
                continue
            figure, title, caption = made
            if any(drawable(model.brief) != model.brief for model in index.models.values()):
                caption += " Characters that the drawing’s font lacks stand as their numbers; the tables spell them."
            if every > len(index.models) and key not in (
                ANSWER,
                matched_figure.KEY,
            ):  # which draw comparisons, not models
                caption += (
                    f" Of {every} models the first {len(index.models)} are drawn, methods and floors before others."
                )
            svg = _save(figure, folder / key)
        drawn[key] = Drawn(key, _inline(svg, key), title, caption)
    return drawn


def _save(figure: Figure, path: Path) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        # The layout found for the SVG serves the PNG too. A figure with an engine, even "none", is drawn twice to save.
        figure.set_layout_engine(None)
    svg = buffer.getvalue()
    path.with_suffix(".svg").write_bytes(svg)
    figure.savefig(path.with_suffix(".png"), format="png", metadata={"Software": None})
    return svg.decode("utf-8")


def _inline(svg: str, key: str) -> str:
    """An SVG file's text for use inside HTML: no prologue, no comments, no metadata, ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'href="#', f'href="#{key}-', body)
    body = re.sub(r"url\(#", f"url(#{key}-", body)
    body = re.sub(r"\n\s*", "\n", body)
    return body.replace("<svg ", f'<svg role="img" aria-labelledby="caption-{key}" ', 1).strip()
