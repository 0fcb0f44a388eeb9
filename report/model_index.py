"""The models that results name: each one's name, label, role, and how it is drawn.

The index is the one place that reads names out of ``results``. It sets the order of rows, the reference that all others
are compared to, and the label, colour, marker and line that a model keeps through every table and figure. No two models
have one label.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

from report import formats
from report.drawn import A, Drawn, drawn
from report.escape import line as one_line
from results import Results
from results.places import Between
from results.trainings import AnyTraining
from results.weights import Measures

BASE = "base"

# Okabe and Ito's palette, told apart under the common forms of colour blindness; its yellow is left out
# because it fades on white paper.
_COLOURS = {
    "sft": "#0072B2", "rft": "#56B4E9", "dft": "#009E73", "rift": "#E69F00",
    "offline_grpo": "#CC79A7", "dpo": "#D55E00",
}  # fmt: skip
_MARKERS = {"sft": "o", "rft": "s", "dft": "^", "rift": "D", "offline_grpo": "v", "dpo": "P"}
_LABELS = {
    "base": "Base", "sft": "SFT", "rft": "RFT", "dft": "DFT", "rift": "RIFT",
    "offline_grpo": "Offline GRPO", "dpo": "DPO",
}  # fmt: skip
# What a name says of some settings, where it ends or before the next hyphen, and how that is read.
_SETTINGS = {
    "examplespaired": "on DPO’s rows", "startb": "from a random B", r"batch_size(\d+)": r"at batch \1",
    r"rank(\d+)": r"at rank \1",
}  # fmt: skip
_VARIANT_MARKERS = ("*", "p", "h", "8")
_SPARE_MARKERS = ("X", "<", ">", "p", "h", "d", "*")
_VARIANT_LINES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_GREY = "#6b6b6b"
_ROLE_ORDER = ("base", "method", "sweep", "variant", "order", "init", "rate", "cell", "scaled")
_REPEATING = {"order": "X", "init": "d", "cell": "x"}  # roles of trainings that repeat another: their markers

BRIEF = 22  # characters of a label that fit beside an axis
_WIDE = 0x3000  # from here on a character takes the room of several

Line = str | tuple[int, tuple[int, ...]]


@runtime_checkable
class OfModel(Protocol):
    """A row of one model."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=OfModel)


@dataclass(frozen=True)
class Model:
    """One model. ``role``: base, a training's, or scaled for a scaled copy of one; ``error`` is empty where it was
    trained.

    ``label`` is what it is called wherever it is shown, ``brief`` the same where there is little room.
    """

    name: str
    label: str
    brief: str
    role: str
    method: str
    learning_rate: float | None
    error: str
    colour: str
    marker: str
    line: Line
    filled: bool


@dataclass(frozen=True)
class ModelIndex:
    """All models in reading order, and the ``reference`` (SFT where there is one) they are compared to.

    ``drawn`` is the factor that they drew at random, ``by_chance`` that of the adapter for which chance is given.
    """

    models: dict[str, Model]
    reference: str | None
    drawn: Drawn = A
    by_chance: Drawn = A

    @property
    def rate(self) -> float | None:
        """The learning rate of the reference, None where it is not known."""
        return self.models[self.reference].learning_rate if self.reference in self.models else None

    def label(self, name: str | None) -> str:
        """The label of ``name``; its usual one where the index does not hold it."""
        if name is None:
            return formats.MISSING
        return self.models[name].label if name in self.models else one_line(label(name))

    def brief(self, name: str | None) -> str:
        """The brief form of the label of ``name``."""
        if name is None:
            return formats.MISSING
        return self.models[name].brief if name in self.models else brief(label(name))

    def order(self, names: Iterable[str | None]) -> list[str]:
        """``names`` without repeats, in the index's order."""
        wanted = set(names)
        return [name for name in self.models if name in wanted]

    def in_order(self, rows: Iterable[T]) -> list[T]:
        """One row a model, by its ``name``, in the index's order; rows of models that it does not hold are left out."""
        named = {row.name: row for row in rows}
        return [named[name] for name in self.order(named)]

    def few(self, most: int) -> ModelIndex:
        """The index of at most so many models, where there is room for no more: base, the reference, methods, variants,
        what repeats the reference, then the rest, still in the index's order."""

        def turn(model: Model) -> tuple[bool, bool, bool]:
            own = model.role in ("base", "method", "variant")
            return model.name not in (self.reference, BASE), not own, model.method != of

        if len(self.models) <= most:
            return self
        of = self.models[self.reference].method if self.reference in self.models else ""
        kept = {model.name for model in sorted(self.models.values(), key=turn)[:most]}
        return replace(self, models={name: model for name, model in self.models.items() if name in kept})

    def role(self, name: str) -> str:
        """The role of ``name``: a name that no training claims counts as a method."""
        return self.models[name].role if name in self.models else "method"


def _names(results: Results) -> list[str]:
    """Every model once: a study lists all its trainings and then their scaled copies, a comparison's adapters are those
    of its geometry."""
    base = [BASE] if results.evaluation or results.losses or results.similarity else []
    adapters = results.geometry.adapters if results.geometry else []
    return list(dict.fromkeys([*base, *(row.name for row in (*results.trainings, *adapters, *(results.scaled or ())))]))


def label(name: str) -> str:
    """A model's name for reading: the usual name of a known method or of one that a name begins with, then the rest."""
    head, dash, rest = name.partition("-")
    known = max((key for key in _LABELS if head == key or head.startswith(f"{key}_")), key=len, default=None)
    if known is None:
        return name
    variant = head.removeprefix(known).replace("_", " ")
    return f"{_LABELS[known]}{variant}{' ' if dash else ''}{_worded(rest)}"


def _worded(rest: str) -> str:
    """What follows a method's name, with some settings in words."""
    parts = re.split("-(?=[A-Za-z])", rest)  # lr5e-4 is one
    words = [re.sub(f"^{setting}$", said, part) for part in parts for setting, said in [_setting(part)]]
    text = words[0]
    for before, part, told in zip(parts, parts[1:], words[1:], strict=False):
        text += (" " if told != part else ", " if _setting(before)[1] else "-") + told
    return text


def _setting(part: str) -> tuple[str, str]:
    """The entry of ``_SETTINGS`` that a part of a name is of; two that change nothing where it is of none."""
    return next(((key, words) for key, words in _SETTINGS.items() if re.fullmatch(key, part)), ("$^", ""))


def brief(text: str, width: int = BRIEF) -> str:
    """A text on one line of ``width`` characters or fewer, its middle left out where it is longer."""
    text = one_line(" ".join(text.split()))
    if _room(text) <= width:
        return text
    head, tail = text, text
    while _room(head) > (width - 1) // 2:
        head = head[:-1]
    while _room(tail) > (width - 1) // 2:
        tail = tail[1:]
    return f"{head}…{tail}"


def _room(text: str) -> int:
    return sum(5 if ord(c) >= _WIDE else 1 for c in text)


def distinct(names: Sequence[str], *ways: Callable[[str], str]) -> dict[str, str]:
    """What each name is called: by the first of ``ways`` that calls no two of them alike, else with a number too."""
    called: dict[str, str] = {}
    left = list(names)
    for way in ways:
        labels = {name: way(name) for name in left}
        taken = Counter([*called.values(), *labels.values()])
        called |= {name: labels[name] for name in left if taken[labels[name]] == 1}
        left = [name for name in left if name not in called]
    for name in left:
        number, first = 1, ways[-1](name)
        while (numbered := first if number == 1 else f"{first} ({number})") in called.values():
            number += 1
        called[name] = numbered
    return called


def _model(
    name: str, called: tuple[str, str], training: AnyTraining | None, variant: int, newcomer: int, spare: list[str]
) -> Model:
    objective = _objective(training, name)
    role = "base" if name == BASE else training.role if training else "method"
    colour = _COLOURS.get(objective, spare[newcomer % len(spare)])
    marker = _MARKERS.get(objective, _SPARE_MARKERS[newcomer % len(_SPARE_MARKERS)])
    line: Line = "-" if variant == 0 else _VARIANT_LINES[(variant - 1) % len(_VARIANT_LINES)]
    if role in ("sweep", "method", "variant") and variant > 0:
        marker = _VARIANT_MARKERS[(variant - 1) % len(_VARIANT_MARKERS)]
    if role == "base":
        colour, marker, line = "#000000", "|", "-"
    if role in _REPEATING:
        colour, marker, line = _GREY, _REPEATING[role], ":" if role == "init" else "-."
    failed = training is not None and training.status == "failed"
    return Model(
        name,
        *called,
        role,
        method=training.method if training else _head(name),
        learning_rate=training.learning_rate if training else None,
        error=(training.error or "no reason recorded") if training and failed else "",
        colour=colour,
        marker=marker,
        line=line,
        filled=variant == 0 or role in _REPEATING,
    )


def _head(name: str) -> str:
    return name.partition("-")[0]


def _objective(training: AnyTraining | None, name: str) -> str:
    """What a model was trained with, whose colour it wears: variants of one objective under their own names too."""
    return training.objective if training else _head(name)


def model_index(results: Results) -> ModelIndex:
    """Every model of ``results``: base, methods, sweep points, then the seeds' runs."""
    names = _names(results)
    trainings = {training.name: training for training in results.trainings}
    scaled = {copy.name: copy for copy in results.scaled or ()}
    trainings |= {copy.name: trainings[copy.of] for copy in scaled.values()}
    objectives = {name: _objective(trainings.get(name), name) for name in names}
    # methods without a colour of their own take first the colours that no other method here wears
    worn = {_COLOURS.get(objective) for objective in objectives.values()}
    spare = sorted(_COLOURS.values(), key=lambda colour: colour in worn)
    # an adapter is listed as the user named it where its usual name is another's too
    usual = {copy.name: f"{label(copy.of)}, at {label(copy.to)}’s norm" for copy in scaled.values()}
    labels = distinct(names, lambda name: one_line(usual.get(name) or label(name)), one_line)
    briefs = distinct(names, lambda name: brief(labels[name]))
    seen: dict[str, int] = {}
    models = []
    newcomers = 0
    for name, objective in objectives.items():
        variant = seen.get(objective, 0)
        seen[objective] = variant + 1
        models.append(_model(name, (labels[name], briefs[name]), trainings.get(name), variant, newcomers, spare))
        if objective not in _COLOURS and name != BASE:
            newcomers += 1
    models = [replace(model, role="scaled", error="") if model.name in scaled else model for model in models]
    models.sort(key=lambda model: _ROLE_ORDER.index(model.role))
    geometry = results.geometry
    started = drawn(row.start for row in (*results.trainings, *(geometry.adapters if geometry else ())))
    by_chance = drawn([geometry.chance.start]) if geometry else started
    return ModelIndex({model.name: model for model in models}, results.reference, started, by_chance)


def dimensions(results: Results, rows: Iterable[Measures]) -> str:
    """The k of the subspaces whose angles ``rows`` (pairs) hold, a number or the range over pairs and modules.

    Where the pairs do not tell it is the geometry's own, the largest; empty where that is not known either.
    """
    spans = formats.span(k for row in rows for k in (row.k, row.k_max))
    return spans or formats.span([results.geometry.k] if results.geometry else [])


def other(row: Between, name: str | None) -> str | None:
    """The other member of a pair, or None where ``name`` is neither or both."""
    if name is None or row.a == row.b:
        return None
    return {row.a: row.b, row.b: row.a}.get(name)
