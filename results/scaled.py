"""Updates scaled to the norm of the reference's, which are evaluated and measured as further models."""

from __future__ import annotations

from pydantic import Field

from results.places import Named


class Scaled(Named):
    """A training's update times a number. Its direction, and with it every cosine and angle, is the training's own."""

    of: str = Field(description="The training whose update it is.")
    to: str = Field(description="The training that has the norm: the reference.")
    factor: float = Field(description="What the update is multiplied by, above zero.")
    norm_before: float = Field(description="Norm of the training's update.")
    norm: float = Field(description="Norm of the scaled one, as it was written in float32.")
    reference_norm: float = Field(description="Norm of the reference's update.")


class CkaToBase(Named):
    """CKA of a scaled copy's hidden states and the base's after a layer, as in similarity."""

    layer: int = Field(description="After which layer, from 0; -1 are the embeddings.")
    cka: float | None = Field(
        description="Debiased linear CKA, -1 to 1; null for fewer than 4 prompts, and for features that are constant "
        "over them."
    )
