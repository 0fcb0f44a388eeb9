"""The trainings: what was asked for, how it ended, what it was trained on, its course, and the sweep."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from results.part import MayBeAbsent, Part

Role = Literal["method", "sweep", "order", "init", "rate", "variant", "cell"]
Setting = bool | int | float | str
MIRRORED = "of a training whose start is b, A and B change places"


class OutOfMemory(Part):
    """A step at which memory ran out: what goes into one forward pass was halved."""

    step: int = Field(description="The optimiser step, from 1.")
    before: int = Field(alias="from", description="Units, or padded tokens, a forward pass before.")
    after: int = Field(alias="to", description="Units, or padded tokens, a forward pass from then on.")


class Course(Part):
    """What a finished training tells of itself, up to the step that is reported.

    A unit is what the method's loss is taken over: a row, or a pair of rows.
    """

    method: str = Field(description="The method, by its name in the study.")
    settings: dict[str, Setting] = Field(description="All settings of the objective, defaults filled in.")
    learning_rate: float = Field(description="Peak learning rate.")
    steps: int = Field(description="Optimiser steps of the schedule's horizon.")
    run_steps: int = Field(description="Optimiser steps that were trained.")
    report_step: int = Field(description="The optimiser step whose adapter counts.")
    units: int = Field(description="Units trained on, with repeats.")
    rows_seen: int = Field(description="Rows trained on, with repeats.")
    tokens_seen: int = Field(description="Completion tokens trained on, with repeats.")
    epochs: float = Field(description="Passes over the method's own view of the rollouts.")
    distinct_problems: int = Field(description="Different problems trained on.")
    distinct_rows: int = Field(description="Different rows trained on.")
    loss_first: float = Field(description="The objective's loss at step 1, in its own unit.")
    loss_last: float = Field(description="The objective's loss at report_step, in its own unit.")
    gradient_wrong: float | None = Field(
        description="Share of the loss's gradient at the log-probabilities that is on wrong rows, 0 to 1, mean over "
        "steps; null where no step has a gradient, and with the backend trl."
    )
    nll_pushed_first: float | None = Field(
        description="Nats a token on rows that the loss makes less likely, at the first step that has one; null where "
        "no step has one, and with the backend trl."
    )
    nll_pushed_last: float | None = Field(
        description="The same at the last step that has one; null where nll_pushed_first is."
    )
    heldout_nll_right: float | None = Field(
        description="Nats a token on right held-out rows at report_step; null where none was looked at."
    )
    heldout_nll_wrong: float | None = Field(
        description="Nats a token on wrong held-out rows at report_step; null where none was looked at."
    )
    heldout_kl: float | None = Field(
        description="KL(base || model) on held-out rows at report_step, nats a token; null where none was looked at."
    )
    clip_rate: float = Field(description="Share of steps whose gradient was clipped, 0 to 1.")
    noise_steps: int | None = Field(
        description="Steps whose gradient is no larger than rounding may leave; null with the backend trl."
    )
    noise: bool | None = Field(
        description="Whether these are half of all steps or more: the update is rounding. Null with the backend trl."
    )
    a_moved_rel: float = Field(
        description=f"|A - A0| / |A0| at report_step, Frobenius norms over all modules; {MIRRORED}."
    )
    b_norm: float = Field(description=f"|B| at report_step, Frobenius norm over all modules; {MIRRORED}.")
    path_ratio: float | None = Field(
        default=None,
        description="Way of the factors' elements (root mean square over elements of the sum over steps of |change|) "
        "over that of a training whose every step moves every element by its learning rate. Null where it was not "
        "logged (backend trl, trainings of before), and where every rate is zero.",
    )
    undone: float | None = Field(
        default=None,
        description="Share of the way that later steps undo, 0 to 1: 1 - |sum of changes| / |sum of |changes||, "
        "Frobenius norms over all elements of A and B, up to report_step. Null where it was not logged, and where "
        "nothing moved.",
    )
    signal: float | None = Field(
        default=None,
        description="Share of the gradient's power that is its running mean's at report_step, 0 to 1, both means with "
        "Adam's beta1: 1 for a constant gradient, about (1 - beta1) / (1 + beta1) for noise. Null where it was not "
        "logged, and where every gradient is zero.",
    )
    view_rows: int = Field(description="Different rows in the method's view.")
    view_units: int = Field(description="Units in the method's view.")
    equal_pairs: int = Field(description="Pairs left out because both sides are the same tokens; 0 without pairs.")
    out_of_memory: list[OutOfMemory] = Field(description="Empty where memory never ran out, and with the backend trl.")


class Training(Part):
    """Which training it is."""

    name: str = Field(description="Its name in the study, or the adapter's in a comparison.")
    method: str = Field(description="The method, by its name in the study.")
    objective: str = Field(description="The objective that the method trains with, a key of METHODS.")
    role: Role = Field(
        description="method: at its own rate and the study's seeds. sweep: at a further learning rate. order, init, "
        "rate: a method again with another order of rows, initial A (or B), learning rate. variant: a method with "
        "other settings (varied), compared as a method of its own. cell: one of these again that differs in several."
    )
    of: str | None = Field(description="The training that it repeats; null where it repeats none.")
    learning_rate: float = Field(description="Peak learning rate.")
    init_seed: int = Field(description="Seed of the initial A, or of the initial B where start is b.")
    order_seed: int = Field(description="Seed of the order of rows.")
    start: Literal["a", "b"] = Field(
        default="a",
        description="The factor that was drawn at random, A or B; the other one began at zero. Absent: a.",
    )
    varied: MayBeAbsent[dict[str, Any]] = Field(
        default=None, description="Further settings in which it differs from its method, by key; absent where none."
    )


class Trained(Training, Course):
    """A training of a study that is done."""

    status: Literal["done"]
    error: None = Field(description="Always null.")


class Untrained(Training):
    """A training of a study that failed or did not run."""

    status: Literal["failed", "not run"]
    error: str | None = Field(description="Why, in words; null where it did not run and the plan does not say why.")


class GivenTraining(Training):
    """An adapter in a comparison that this tool trained; its course is not known. Others have no row."""

    report_step: int = Field(description="The optimiser step that is compared.")
    status: Literal["done"]
    error: None = Field(description="Always null.")


def _kind(row: Any) -> str:
    """Which of the three a row is, read from a file or made here."""
    if isinstance(row, Training):
        return {Trained: "trained", GivenTraining: "given"}.get(type(row), "untrained")
    held = row if isinstance(row, dict) else {}
    if held.get("status") != "done":
        return "untrained"
    return "trained" if "steps" in held else "given"


AnyTraining = Annotated[
    Annotated[Trained, Tag("trained")]
    | Annotated[Untrained, Tag("untrained")]
    | Annotated[GivenTraining, Tag("given")],
    Discriminator(_kind),
]


class Curve(Part):
    """A training's course: lists of one value an optimiser step."""

    name: str = Field(description="The training.")
    step: list[int] = Field(description="Optimiser steps, from 1.")
    loss: list[float] = Field(description="The objective's loss, in its own unit.")
    grad_norm: list[float] = Field(description="Norm of the gradient before clipping.")
    learning_rate: list[float] = Field(description="Learning rate of the step.")
    a_moved: list[float] = Field(description=f"|A - A0|, Frobenius norm over all modules; {MIRRORED}.")
    a_moved_rel: list[float] = Field(description=f"The same over |A0|; {MIRRORED}.")
    b_norm: list[float] = Field(description=f"|B|, Frobenius norm over all modules; {MIRRORED}.")
    undone: MayBeAbsent[list[float | None]] = Field(
        default=None,
        description="Share of the way up to the step that is undone by then, 0 to 1; null before anything moved. "
        "Absent where it was not logged.",
    )
    signal: MayBeAbsent[list[float | None]] = Field(
        default=None,
        description="Share of the gradient's power that is its running mean's, 0 to 1; null while every gradient is "
        "zero. Absent where it was not logged.",
    )


class SweepPoint(Part):
    """The swept method at one learning rate."""

    name: str = Field(description="The training.")
    learning_rate: float = Field(description="Peak learning rate.")
    norm: float | None = Field(description="Norm of its update; null where it was not measured.")
    cosine_to_sft: float | None = Field(
        description="Cosine to the reference's update (SFT's where the study has SFT), -1 to 1; null where it was not "
        "measured, where one of the two is zero, and of the reference itself."
    )
    a_moved_rel: float | None = Field(
        description=f"|A - A0| / |A0| at report_step; {MIRRORED}; null where it was not trained."
    )
    nll_right: float | None = Field(
        description="Nats a token on right held-out rows; null where it was not measured or no right row is held out."
    )
    accuracy: dict[str, float] = Field(description="Share right, 0 to 1, by task; empty where it was not evaluated.")


class Sweep(Part):
    """One method along its learning rates."""

    method: str = Field(description="The method, by its name in the study.")
    matched_learning_rate: float = Field(description="The reference's learning rate.")
    points: list[SweepPoint] = Field(description="By learning rate, ascending.")
