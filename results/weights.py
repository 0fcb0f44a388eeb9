"""What the trainings did to the weights: every pair of updates, chance, the directions, the base's own directions.

An update is dW = s B A, all modules stacked where nothing else is said. A zero update has no direction, so what needs
one is null. docs/measurements/ defines each number.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field

from results.part import GramCosine, Matrix, MayBeAbsent, Part
from results.places import AtModule, AtStep, Between, InLayer, LeftOut, Named, OfProjection

NOWHERE = "where at every module one of the two is zero"
MEDIAN, MEAN = f"median over modules; null {NOWHERE}", f"mean over modules; null {NOWHERE}"
WITHOUT_A = "where that adapter's A, or B where start is b, is zero at every module"

FloorKind = Literal["order", "init", "learning_rate", "itself"]


class Sizes(Part):
    """How large an update is, over some modules, and over how many directions it spreads."""

    norm: float = Field(description="Frobenius norm of the update; 0 for a zero one.")
    effective_rank: float | None = Field(
        description="exp of the entropy of the singular values, mean over modules; null where all are zero."
    )
    stable_rank: float | None = Field(
        description="|dW|^2 over the largest singular value's square, mean over modules; null where all are zero."
    )


class Spectrum(Sizes):
    """An update's size with its ranks and the gaps in its singular values."""

    modules: int = Field(description="How many modules are compared: those that all adapters have.")
    zero_modules: int = Field(description="In how many of them the update is zero.")
    rank: int = Field(description="The largest numerical rank that it has at a module.")
    gap_median: float | None = Field(
        description="Median over modules of (sigma_k - sigma_k+1) / sigma_k at the k that is compared, 0 to 1; null "
        "where all are zero."
    )
    first_gap_median: float | None = Field(description="The same at k = 1; null where all are zero.")


class Start(Part):
    """How far A has left the A0 that it began at, or, where start is b, B the B0."""

    a_moved_rel: float | None = Field(
        description="|A - A0| / |A0|, or |B - B0| / |B0| where start is b; null where that start is not known."
    )
    start_share: float | None = Field(
        description="Share of |dW|^2 in the row space of A0, or in the column space of B0 where start is b, 0 to 1; "
        "null where that start is not known, and for a zero update."
    )
    start: Literal["a", "b"] = Field(
        default="a", description="The factor that was drawn at random; the other one began at zero. Absent: a."
    )


class Adapter(Start, Spectrum, Named):
    """An adapter's update over all modules."""


class LayerSize(Sizes, InLayer, Named):
    """An update's part in a layer."""


class ProjectionSize(Sizes, OfProjection, Named):
    """An update's part in a projection."""


class ModuleSize(Start, Sizes, AtModule, Named):
    """An update at a module."""


class KeptAdapter(Spectrum, Named, AtStep):
    """An update as it stood at a checkpoint."""

    to_end: float | None = Field(
        description="Cosine to the same training's own end, -1 to 1; null where one of the two is zero."
    )


class Measures(Part):
    """How alike two updates are, over some modules."""

    cosine: float | None = Field(description="Cosine of the stacked updates, -1 to 1; null where one is zero.")
    orthogonal_fraction: float | None = Field(
        description="sqrt(1 - cosine^2), 0 to 1: the share of one's norm that no multiple of the other reaches; null "
        "where one is zero."
    )
    angle_min_median_deg: float | None = Field(
        description=f"Smallest angle between the top k left singular vectors (outputs), degrees, {MEDIAN}."
    )
    angle_max_median_deg: float | None = Field(description=f"Largest of the same, degrees, {MEDIAN}.")
    right_angle_min_median_deg: float | None = Field(
        description=f"Smallest angle between the top k right singular vectors (inputs), degrees, {MEDIAN}."
    )
    right_angle_max_median_deg: float | None = Field(description=f"Largest of the same, degrees, {MEDIAN}.")
    u1: float | None = Field(description=f"|<u1, u1'>| of the top left singular vectors, 0 to 1, {MEAN}.")
    v1: float | None = Field(description=f"|<v1, v1'>| of the top right singular vectors, 0 to 1, {MEAN}.")
    overlap: float | None = Field(description=f"Mean squared cosine of the angles on the output side, 0 to 1, {MEAN}.")
    right_overlap: float | None = Field(
        description=f"Mean squared cosine of the angles on the input side, 0 to 1, {MEAN}."
    )
    gap_median: float | None = Field(
        description=f"The smaller of both gaps at k, 0 to 1 (near 0 the k-th direction is arbitrary), {MEDIAN}."
    )
    k: int | None = Field(description=f"Smallest k at a module: what was asked for, cut to both ranks; null {NOWHERE}.")
    k_max: int | None = Field(description=f"Largest k at a module; null {NOWHERE}.")
    defined_modules: int = Field(description="Modules at which neither update is zero.")


class Pair(Measures, Between):
    """Two updates over all modules."""


class LayerPair(Measures, InLayer, Between):
    """Two updates in a layer."""


class ProjectionPair(Measures, OfProjection, Between):
    """Two updates in a projection."""


class ModulePair(Measures, AtModule, Between):
    """Two updates at a module, with every angle."""

    angles_deg: list[float] = Field(
        description="All principal angles on the output side, degrees, ascending; empty where one update is zero."
    )
    right_angles_deg: list[float] = Field(description="The same on the input side.")


class KeptPair(Measures, Between, AtStep):
    """Two updates as they stood at a checkpoint that both have."""


class Along(Part):
    """The geometry at every checkpoint that two or more trainings have. Empty lists where none was kept."""

    pairs: list[KeptPair] = Field(description="Every pair at every common checkpoint, or those of kept_pairs.")
    adapters: list[KeptAdapter] = Field(description="Every adapter at every common checkpoint.")


class ByChance(Part):
    """What unrelated updates of these shapes give, as a pair's measures over modules, mean over draws."""

    cosine: float | None = Field(description=f"Root mean square of the cosine, in closed form; null {WITHOUT_A}.")
    angle_min_median_deg: float | None = Field(
        description=f"Smallest angle on the output side, degrees; null {WITHOUT_A}."
    )
    angle_max_median_deg: float | None = Field(
        description=f"Largest angle on the output side, degrees; null {WITHOUT_A}."
    )
    right_angle_min_median_deg: float | None = Field(
        description=f"Smallest angle on the input side, degrees; null {WITHOUT_A}."
    )
    right_angle_max_median_deg: float | None = Field(
        description=f"Largest angle on the input side, degrees; null {WITHOUT_A}."
    )
    u1: float | None = Field(description=f"|<u1, u1'>|, 0 to 1; null {WITHOUT_A}.")
    v1: float | None = Field(description=f"|<v1, v1'>|, 0 to 1; null {WITHOUT_A}.")
    overlap: float | None = Field(
        description=f"Mean squared cosine of the angles on the output side, 0 to 1; null {WITHOUT_A}."
    )
    right_overlap: float | None = Field(
        description=f"Mean squared cosine of the angles on the input side, 0 to 1; null {WITHOUT_A}."
    )


class Chance(Part):
    """The floors that chance sets."""

    draws: int = Field(description="Draws a module.")
    ambient: ByChance = Field(description="Of random updates in the whole space.")
    shared_a: ByChance = Field(
        description="Of random B on one and the same A; where start is b, of random A on one and the same B."
    )
    of: str = Field(description="The adapter whose shapes, rank and A, or B, were taken.")
    start: Literal["a", "b"] = Field(default="a", description="The factor that this adapter drew at random. Absent: a.")


class Floors(Part):
    """Pairs of runs of one method that differ in one thing alone. A kind without such a pair is absent."""

    order: MayBeAbsent[list[Pair]] = Field(
        default=None, description="They differ in the order of the rows; the reference's pairs first."
    )
    init: MayBeAbsent[list[Pair]] = Field(
        default=None, description="They differ in the initial A, or B; the reference's pairs first."
    )
    learning_rate: MayBeAbsent[list[Pair]] = Field(
        default=None, description="They differ in the learning rate; the reference's pairs first."
    )
    itself: Pair = Field(description="As geometry.itself: what rounding gives.")

    @property
    def pairs(self) -> list[tuple[FloorKind, Pair]]:
        """Every floor with its kind: another order, another initial A, another rate; last, what rounding gives."""
        floors: list[tuple[FloorKind, Pair]] = []
        floors += [("order", pair) for pair in self.order or ()]
        floors += [("init", pair) for pair in self.init or ()]
        floors += [("learning_rate", pair) for pair in self.learning_rate or ()]
        return [*floors, ("itself", self.itself)]


class MeasuredGeometry(Part):
    """What is measured of the weights: every adapter, every pair of them, and chance."""

    k: int = Field(description="The largest k of a pair at a module; what was asked for where no pair has one.")
    adapters: list[Adapter] = Field(description="The adapters in the order of the trainings, or as they were given.")
    adapter_layers: list[LayerSize] = Field(description="Each adapter in each layer.")
    adapter_projections: list[ProjectionSize] = Field(description="Each adapter in each projection.")
    adapter_modules: list[ModuleSize] = Field(description="Each adapter at each module.")
    pairs: list[Pair] = Field(description="Every pair over all modules, or those of kept_pairs.")
    layers: list[LayerPair] = Field(description="Every pair in each layer, or those of kept_pairs.")
    projections: list[ProjectionPair] = Field(description="Every pair in each projection, or those of kept_pairs.")
    modules: list[ModulePair] = Field(description="Every pair at each module, or those of kept_pairs.")
    gram: Matrix = Field(description="Inner products of the stacked updates, in the order of adapters.")
    itself: Pair = Field(
        description="The first adapter (a and b) beside the same update in other factors: what rounding gives."
    )
    along: Along
    chance: Chance

    @property
    def norms(self) -> dict[str, float]:
        """The norm of every update, by name."""
        return {adapter.name: adapter.norm for adapter in self.adapters}

    def pair(self, a: str, b: str) -> Pair | None:
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
    def _by_names(self) -> dict[frozenset[str], Pair]:
        return {frozenset((pair.a, pair.b)): pair for pair in self.pairs}


class Geometry(MeasuredGeometry):
    """Every adapter, every pair of them, and the floors."""

    floors: Floors


class Share(Part):
    """Of an update's square, how much lies in the base weights' top k singular directions."""

    both: float | None = Field(description="|U^T dW V|^2 / |dW|^2, 0 to 1; null where dW or W is zero.")
    left: float | None = Field(description="|U^T dW|^2 / |dW|^2 (output side), 0 to 1; null where dW or W is zero.")
    right: float | None = Field(description="|dW V|^2 / |dW|^2 (input side), 0 to 1; null where dW or W is zero.")


class BesideBase(Share):
    """An update beside the base's weights, over some modules."""

    relative_norm: float | None = Field(description="|dW| / |W|; null where the weights are zero.")
    relative_sigma_median: float | None = Field(
        description="Largest singular value of dW over that of W, median over modules; null where dW or W is zero."
    )
    intruders: int | None = Field(
        description="Of the top k left singular vectors of W + dW, how many are near none of W's; a sum over modules; "
        "null where dW or W is zero."
    )
    modules: int = Field(description="How many modules are in it.")
    zero_modules: int = Field(description="How many of them have a zero update or weight, so no shares and counts.")


class SpectraAdapter(BesideBase, Named):
    """Over all modules."""


class SpectraLayer(BesideBase, InLayer, Named):
    """Over the modules of a layer."""


class SpectraProjection(BesideBase, OfProjection, Named):
    """Over the modules of a projection."""


class SpectraModule(BesideBase, AtModule, Named):
    """At a module."""


class Spectra(Part):
    """The updates beside the base weights' own singular directions."""

    k: int = Field(description="Singular directions of a weight, at most: what was asked for, cut to its rank.")
    threshold: float = Field(description="The |cosine| below which a direction counts as new.")
    adapters: list[SpectraAdapter]
    layers: list[SpectraLayer]
    projections: list[SpectraProjection]
    modules: list[SpectraModule]
    chance: Share = Field(description="The shares expected of a random direction; null where all weights are zero.")
    left_out: list[LeftOut] = Field(description="Modules without a weight of their own in the base.")


class Direction(Named):
    """An update against the reference's, and against the span of the other methods' own updates."""

    scale: float = Field(description="The multiple of the reference's update that is nearest.")
    left_over: float = Field(description="The share of the norm that this multiple misses, 0 to 1.")
    span_left_over: float | None = Field(
        description="The share of the norm outside that span, 0 to 1; null where there is no other method."
    )
    span_rank: int = Field(description="The span's dimension.")
    span_of: int = Field(description="How many updates span it.")


class Variance(Part):
    """Analysis of variance of the directions by method, over runs in other orders; updates scaled to norm 1."""

    deltas: int = Field(description="Runs that entered.")
    total: float = Field(description="Sum of squared distances to the mean direction.")
    between: float = Field(description="The part of it between methods.")
    within: float = Field(description="The part of it within methods.")
    between_share: float | None = Field(description="between / total, 0 to 1; null where all directions are equal.")
    within_share: float | None = Field(description="within / total, 0 to 1; null where all directions are equal.")
    between_chance: float = Field(description="Mean of between_share over all relabellings.")
    between_df: int = Field(description="Degrees of freedom between.")
    within_df: int = Field(description="Degrees of freedom within.")
    f: float | None = Field(description="Pseudo-F; null where nothing is within.")
    p: float | None = Field(description="Permutation p; null where all directions are equal.")
    relabellings: int = Field(description="Relabellings that were compared.")
    exact: bool = Field(description="Whether these are all there are.")
    methods: int = Field(description="Methods that entered.")
    repeated: int = Field(description="How many of them have several runs.")


class Directions(Part):
    """What the Gram tells of the updates that have a direction: neither zero nor made of rounding."""

    adapters: list[Direction]
    variance: Variance | None = Field(description="Null where no method has two runs that differ in their order alone.")
