"""The rollouts that everything was trained on: what there was to learn, and what was left out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from results.part import MayBeAbsent, Number, Part


class Groups(Part):
    """Problems by the rewards of their rows."""

    mixed: int = Field(description="With right and with wrong rows.")
    all_right: int
    all_wrong: int


class Quantiles(Part):
    """Of the completions' lengths, in tokens."""

    median: Number
    p95: int = Field(description="95th percentile.")
    max: int


class Lengths(Quantiles):
    """Of all completions, of right ones, of wrong ones."""

    right: Quantiles | None = Field(description="Null where no row is right.")
    wrong: Quantiles | None = Field(description="Null where no row is wrong.")


class Teacher(Part):
    """Who wrote completions."""

    name: str
    rows: int
    share_right: float = Field(description="Share of its rows that are right, 0 to 1.")


class Tokens(Part):
    """The rows' tokens held against the base's chat template."""

    rows: int = Field(description="Rows that were looked at, those that are left out later too.")
    parted: int = Field(description="Rows with other tokens than the template writes.")
    first: str | None = Field(description="The first of them and where it parts, in words; null where none does.")
    mended: dict[str, int] = Field(description="Rows whose tokens were mended, by reason.")
    as_drawn: int = Field(description="Rows that keep the tokens that were drawn, though the template writes others.")
    end: str = Field(description="The token that ends a turn.")


class Api(Part):
    """What a teacher behind an API took."""

    answers: int
    refused: int = Field(description="Requests that it refused.")
    prompt_tokens: int
    completion_tokens: int
    with_reasoning: int = Field(description="Answers whose reasoning the server told apart.")
    cost: MayBeAbsent[float] = Field(default=None, description="At the study's prices, dollars. Absent without prices.")


class GraderAgreement(Part):
    """How far the grader confirms rewards that were given."""

    rows: int
    agreed: int


class View(Part):
    """What a method sees of the training rows. Zeros where nothing is left for it."""

    method: str = Field(description="The method, by its name in the study.")
    units: int = Field(description="Rows, or pairs of rows.")
    rows: int = Field(description="Different rows.")
    problems: int = Field(description="Different problems.")


class Contamination(Part):
    """Evaluated problems that stand in the rollouts too."""

    policy: Literal["refuse", "exclude"]
    checked: int = Field(description="Problems that were looked for.")
    excluded: int = Field(description="Problems that are left out of the evaluation.")


class GoldAsText(Part):
    """A gold answer that no algebra can read: it is compared as text."""

    task: str
    id: str = Field(description="The problem.")
    answer: str


class GoldLeftOut(Part):
    """A gold answer that is empty or breaks off, so that nothing can be held against it: its problem is left out."""

    task: str
    id: str = Field(description="The problem.")
    answer: str


class FrozenTable(Part):
    """The one frozen table of rollouts. A row is a completion; it is right where its reward is above 0."""

    rows: int = Field(description="Training and held-out rows.")
    problems: int = Field(description="Their problems.")
    train_rows: int
    heldout_rows: int
    share_right: float = Field(description="Share of rows that are right, 0 to 1.")
    groups: Groups
    duplicates: int = Field(description="Right rows beyond the first of a problem with the same text.")
    right_counts: list[int] = Field(description="Entry k: problems with k right rows.")
    length: Lengths
    teachers: list[Teacher]
    asked: MayBeAbsent[str] = Field(
        default=None,
        description="The instruction that the teacher got. Absent where the rollouts were given.",
    )
    api: MayBeAbsent[Api] = Field(default=None, description="Absent where no API was asked.")
    grader_agreement: MayBeAbsent[GraderAgreement] = Field(
        default=None, description="Absent where no rewards were given."
    )
    tokens: Tokens
    joined: MayBeAbsent[int] = Field(
        default=None,
        description="Rows joined to a problem under another id or spelling. Absent where none was.",
    )
    golds_left_out: MayBeAbsent[list[GoldLeftOut]] = Field(
        default=None,
        description="Problems that were not asked or evaluated, for their gold answers. Absent where there is none.",
    )
    dropped: dict[str, int] = Field(description="Rows that were left out or cut, by reason.")
    source: str = Field(description="Where the rows come from: file, hub, vllm, openai, written, or one of one's own.")


class Rollouts(FrozenTable):
    """The one frozen table. A row is a completion; it is right where its reward is above 0."""

    views: list[View] = Field(description="Of each method.")
    contamination: MayBeAbsent[Contamination] = Field(
        default=None, description="Absent where the evaluation's problems are not drawn yet."
    )
    golds_as_text: MayBeAbsent[list[GoldAsText]] = Field(default=None, description="Absent where there is none.")
