"""What the measuring code returns fits the types, keys in their order: a table of dumped rows has its columns so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel

from analysis.function.activations import summarise_activations, weighted_gram
from analysis.function.cka import gram, similarity
from analysis.weights.base_weights import module_base_geometry, summarise_base
from analysis.weights.chance import floors
from analysis.weights.directions import directions
from analysis.weights.geometry import module_geometry
from analysis.weights.replicas import INIT, ORDER, RATE, runs
from analysis.weights.summary import summarise
from evals.engines.settings import EngineSettings
from execution.settings import hints
from models.adapter import Factors
from orchestrator.bases import BASES
from orchestrator.config.evaluation import Evaluation as EvaluationSettings
from results.evaluation import Engine
from results.function import AlikeLayer, AlikePair, AlikeProjection, Effect, HiddenCka
from results.part import Part
from results.rollouts import Contamination
from results.study import Base
from results.weights import (
    ByChance,
    Direction,
    FloorKind,
    KeptAdapter,
    KeptPair,
    LayerPair,
    LayerSize,
    ModulePair,
    Pair,
    ProjectionPair,
    ProjectionSize,
    Share,
    Sizes,
    SpectraAdapter,
    SpectraLayer,
    SpectraModule,
    SpectraProjection,
    Variance,
)

NAMES = ["sft", "rft", "sft-order43", "zero"]
ONE = ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "model.extra")
SEVERAL = ("encoder.layers.0.q_proj", "decoder.layers.0.q_proj", "head")


def factors(generator: torch.Generator, zero: bool = False) -> Factors:
    b, a = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((9, 2), (2, 7)))
    return Factors(b * (not zero), a)


@pytest.fixture(params=[ONE, SEVERAL], ids=["one stack", "several stacks"])
def modules(request: pytest.FixtureRequest) -> dict[str, list[Factors]]:
    generator = torch.Generator().manual_seed(0)
    return {module: [factors(generator, name == "zero") for name in NAMES] for module in request.param}


def fits(rows: Sequence[Mapping[str, Any]], kind: type[BaseModel], **more: Any) -> None:
    """Every row is of the kind, and has its keys in the order of the kind's fields."""
    assert rows
    for row in rows:
        kind.model_validate({**row, **more})
        assert list(row) == [key for key in kind.model_fields if key in row], kind.__name__


def test_geometry(modules: dict[str, list[Factors]]) -> None:
    found = summarise(NAMES, {name: module_geometry(held, 3) for name, held in modules.items()})
    fits(found["pairs"], Pair)
    fits(found["layers"], LayerPair)
    fits(found["projections"], ProjectionPair)
    fits(found["modules"], ModulePair)
    fits(found["adapter_layers"], LayerSize)
    fits(found["adapter_projections"], ProjectionSize)
    fits([{"step": 1, **row} for row in found["pairs"]], KeptPair)
    fits([{"step": 1, **row, "to_end": None} for row in found["adapters"]], KeptAdapter)
    assert {row["cosine"] is None for row in found["pairs"]} == {True, False}, "a zero update has none"
    told = runs([], NAMES[:3])
    spread = directions(told, [row[:3] for row in found["gram"][:3]], "sft")
    fits(spread["adapters"], Direction)
    chance = floors({name: held[0] for name, held in modules.items()}, 3, generator=torch.Generator(), draws=2)
    fits([chance["ambient"], chance["shared_a"]], ByChance)


def test_variance(modules: dict[str, list[Factors]]) -> None:
    found = summarise(NAMES, {name: module_geometry(held, 3) for name, held in modules.items()})
    rows = [
        {"name": name, "role": "order" if "order" in name else "method", "of": "sft" if "order" in name else None,
         "learning_rate": 1.0, "init_seed": 0, "order_seed": int("order" in name)}
        for name in NAMES
    ]  # fmt: skip
    told = directions(runs(rows, NAMES[:3]), [row[:3] for row in found["gram"][:3]], "sft")
    fits([told["variance"]], Variance)


def test_base_weights(modules: dict[str, list[Factors]]) -> None:
    weight = torch.randn(9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = summarise_base(NAMES, {name: module_base_geometry(weight, held, 3) for name, held in modules.items()})
    fits(found["adapters"], SpectraAdapter)
    fits(found["layers"], SpectraLayer)
    fits(found["projections"], SpectraProjection)
    fits(found["modules"], SpectraModule)
    fits([found["chance"]], Share)
    assert {row["both"] is None for row in found["adapters"]} == {True, False}


def test_activations(modules: dict[str, list[Factors]]) -> None:
    grams = {}
    for name, held in modules.items():
        stacked = torch.cat([one.a for one in held])
        grams[name] = weighted_gram(stacked @ stacked.T, held)
    found = summarise_activations(NAMES, grams, 10)
    fits(found["adapters"], Effect)
    fits(found["pairs"], AlikePair)
    fits(found["layers"], AlikeLayer)
    fits(found["projections"], AlikeProjection)


@pytest.mark.parametrize("prompts", [12, 3], ids=["defined", "too few prompts"])
def test_cka(prompts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (gram(torch.randn(prompts, 5, generator=generator)) for _ in range(2))
    row = {"a": "base", "b": "sft", "layer": -1, **similarity(x, y, generator, 4)}
    fits([row], HiddenCka)
    assert (row["cka"] is None) == (prompts == 3)


def test_kinds_are_the_tools_own() -> None:
    def choices(part: type[BaseModel], field: str) -> set[Any]:
        return set(get_args(part.model_fields[field].annotation))

    def allowed(field: str) -> set[Any]:
        return set(get_args(hints(EngineSettings)[field]))

    assert choices(Base, "kind") == BASES.keys()
    for field in ("kind", "adapters", "precision"):
        assert choices(Engine, field) == allowed(field) - {"auto"}
    assert choices(Contamination, "policy") == choices(EvaluationSettings, "contamination")
    assert set(get_args(FloorKind)) == {ORDER, INIT, RATE, "itself"}


def test_every_part_is_frozen_and_closed() -> None:
    def kinds(of: type[Part]) -> list[type[Part]]:
        return [kind for child in of.__subclasses__() for kind in (child, *kinds(child))]

    assert Sizes in kinds(Part)
    for kind in kinds(Part):
        assert kind.model_config == Part.model_config, kind.__name__
