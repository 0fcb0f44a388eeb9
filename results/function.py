"""What the trainings did to the function: on real inputs, on held-out rows, along paths, in hidden states."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field

from results.part import GramCosine, Matrix, Part
from results.places import AtModule, Between, InLayer, LeftOut, Named, OfProjection

UNDEFINED = "for fewer than 4 prompts, and for features that are constant over them"


class Effect(Named):
    """How far an update moves its modules' outputs on the base's own inputs."""

    norm: float = Field(description="Root of the mean over tokens of |dW x|^2, summed over modules.")


class Alike(Part):
    """How alike two updates move their modules' outputs."""

    cosine: float | None = Field(
        description="Activation-weighted cosine, -1 to 1; null where one moves no output on these rows."
    )


class AlikePair(Alike, Between):
    """Over all modules."""

    plain: float | None = Field(
        default=None,
        description="The plain cosine over the same modules, -1 to 1; null where one update is zero. Absent where no "
        "module is left out: geometry's cosine is over the same modules then.",
    )


class AlikeLayer(Alike, InLayer, Between):
    """Over the modules of a layer."""


class AlikeProjection(Alike, OfProjection, Between):
    """Over the modules of a projection."""


class Activations(Part):
    """The updates weighed by the inputs that their modules get on the base."""

    tokens: int = Field(description="Tokens that are averaged over: those that predict a completion's token.")
    adapters: list[Effect]
    pairs: list[AlikePair] = Field(description="Every pair, or those of kept_pairs.")
    layers: list[AlikeLayer] = Field(description="Every pair in each layer, or those of kept_pairs.")
    projections: list[AlikeProjection] = Field(description="Every pair in each projection, or those of kept_pairs.")
    gram: Matrix = Field(description="Weighted inner products, summed over modules, in the order of adapters.")
    rows: int = Field(description="Rows that these tokens are of.")
    modules: int = Field(description="Modules that are weighed.")
    chance: float | None = Field(
        description="Root mean square cosine of random B on the first adapter's A, or, where that adapter drew B "
        "(start b), of random A on its B; null where that factor puts out nothing."
    )
    plain_chance: float | None = Field(
        default=None,
        description="The same of the plain cosine over the same modules; null where that factor is zero. Absent where "
        "no module is left out.",
    )
    left_out: list[LeftOut] = Field(description="Modules whose inputs a pass over the base does not give.")

    def pair(self, a: str, b: str) -> AlikePair | None:
        """The pair of ``a`` and ``b``, whichever way round it stands; None where it is not listed."""
        return self._by_names.get(frozenset((a, b)))

    def cosine(self, a: str, b: str) -> float | None:
        """The cosine of ``a`` and ``b``: their pair's, or, where it is not listed, from the Gram."""
        pair = self.pair(a, b)
        return self._from_gram(a, b) if pair is None else pair.cosine

    @cached_property
    def _from_gram(self) -> GramCosine:
        return GramCosine([adapter.name for adapter in self.adapters], self.gram)

    @cached_property
    def _by_names(self) -> dict[frozenset[str], AlikePair]:
        return {frozenset((pair.a, pair.b)): pair for pair in self.pairs}


class Losses(Named):
    """A model's losses on held-out rows."""

    nll_right: float | None = Field(
        description="Nats a token on right rows; null where no right row is held out, or it is not finite."
    )
    nll_wrong: float | None = Field(
        description="Nats a token on wrong rows; null where no wrong row is held out, or it is not finite."
    )
    kl_to_base: float | None = Field(
        description="KL(base || model), nats a token over all these rows; null where it is not finite."
    )


class Path(Between):
    """The loss on the straight line between two models, base among them."""

    weights: list[float] = Field(description="Share of a at each point, from 0 (b alone) to 1 (a alone).")
    loss: list[float | None] = Field(description="Nats a token at each point; null where it is not finite.")
    barrier: float | None = Field(
        description="Largest excess over the line between the ends, nats a token, 0 or more; null where a loss is."
    )


class Connectivity(Part):
    """Losses along paths between models."""

    loss: str = Field(description="What the loss is, in words.")
    rows: int = Field(description="Right held-out rows that it is taken over; 0 where none is held out.")
    paths: list[Path] = Field(description="Empty where no right row is held out.")


class HiddenCka(Between):
    """CKA of two models' hidden states after a layer."""

    layer: int = Field(description="After which layer, from 0; -1 are the embeddings.")
    cka: float | None = Field(description=f"Debiased linear CKA, -1 to 1; null {UNDEFINED}.")
    low: float | None = Field(
        description=f"Lower end of its 95 % interval; null {UNDEFINED}, with or without a group of prompts."
    )
    high: float | None = Field(description="Upper end of the interval; null where low is.")
    shuffled: float | None = Field(
        description=f"The control: mean over random pairings of the prompts, about 0; null {UNDEFINED}."
    )
    biased: float | None = Field(
        description="The usual estimator, 0 to 1; null for fewer than 2 prompts, and for constant features."
    )


class ModuleCka(AtModule, Between):
    """CKA of what a module puts out in two models."""

    cka: float | None = Field(description=f"Debiased linear CKA, -1 to 1; null {UNDEFINED}.")


class Similarity(Part):
    """CKA between the models, base among them, on prompts of the first evaluated task."""

    estimator: str = Field(description="Which estimator, in words.")
    position: Literal["last", "mean"] = Field(description="At the prompt's last token, or as a mean over its tokens.")
    prompts: int = Field(description="How many prompts.")
    hidden: list[HiddenCka] = Field(description="Every pair after each layer, or those of kept_pairs.")
    modules: list[ModuleCka] = Field(description="Every pair at each adapted module, or those of kept_pairs.")
