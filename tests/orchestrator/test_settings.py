"""A setting of a training or an engine is declared once, and one that is off by default moves no key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from evals.engines.settings import EngineConfig, EnginePlace, EngineSettings
from evals.engines.transformers import TransformersEngine
from evals.engines.vllm import VllmEngine
from execution.errors import UserError
from execution.settings import NEUTRAL, Below1, Neutral, Settings, hints
from methods.config import LoraSettings, TrainConfig, TrainingSettings
from orchestrator.config.study import Placement, Study
from orchestrator.config.study_file import load_study
from orchestrator.config.values import Declared, Frozen
from orchestrator.planning.plan import make_plan
from orchestrator.training.train import train_config

FACTS = {"engine": "transformers", "adapters": "lora", "task:arithmetic:None": "own"}
# Names that a training or an engine has and that stand elsewhere too, each with why it is no second declaration.
ELSEWHERE = {
    "Cells": {"learning_rate": "levels", "init_seed": "levels", "order_seed": "levels"},
    "AskedRollouts": {"seed": "of the answers that are drawn"},
    "Evaluation": {"seed": "of the answers that are drawn"},
    "Measuring": {"seed": "of the measurements", "threads": "of the measurements"},
    "MethodSpec": {
        "method": "the objective's key", "settings": "the objective's own", "learning_rate": "where not the common one",
    },
    "Problems": {"seed": "of the draw of problems", "settings": "the task's own"},
    "RandomBase": {"precision": "its files'", "seed": "of its weights"},
    "Replica": {
        "method": "which is trained again", "init_seed": "the one change", "order_seed": "the one change",
        "learning_rate": "the one change",
    },
    "Search": {"seed": "of the rates that are drawn"},
    "ScratchBase": {
        "steps": "of its pretraining", "learning_rate": "of its pretraining", "threads": "of its pretraining",
        "seed": "of its pretraining",
    },
    "Settings": {"pairs": "of models, that connectivity measures"},
    "Shots": {"seed": "of the draw of shots"},
    "Sweep": {"method": "which is swept"},
    "WrittenRollouts": {"seed": "of the rows that are written"},
    "Table": {
        "pairs": "TrainConfig's, with its default", "pair_rule": "TrainConfig's, with its default",
        "seed": "of the draw of rows",
    },
}  # fmt: skip
Maker = Callable[..., Study]


@dataclass(frozen=True, kw_only=True)
class Smoothed(TrainingSettings):
    smoothing: Neutral[Below1] = 0.0


def keys(study: Study) -> dict[str, str]:
    return {step.title: step.key for step in make_plan(study, FACTS)}


def test_a_setting_that_is_off_by_default_moves_no_key(make_study: Maker) -> None:
    study = make_study()
    told = TypeAdapter(Declared[Smoothed])

    def smoothed(**more: Any) -> Study:
        settings = told.validate_python(study.model_dump()["training"] | more)
        return study.model_copy(update={"training": settings})

    before = keys(study)
    assert keys(smoothed()) == keys(smoothed(smoothing=0)) == before
    after = keys(smoothed(smoothing=0.1))
    moved = {title for title in before if before[title] != after[title]}
    assert moved >= {title for title in before if title.startswith("train/")}
    assert not any(title.startswith(("base/", "rollouts/", "problems/", "reference/")) for title in moved)


@pytest.mark.parametrize("override", [(), ("adapter.start=b",)], ids=["a", "b"])
def test_a_step_gives_its_training_what_the_study_says(
    make_study: Maker, tmp_path: Path, override: tuple[str, ...]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "base.json").write_text('{"kind": "from_scratch", "name": "x"}')
    study = make_study("training.betas=[0.8, 0.95]", "training.report_step=3", "adapter.rank=3", *override)
    for step in make_plan(study, FACTS):
        if step.kind.name == "train":
            config = train_config(step.config, step.runtime, tmp_path)
            for part in (study.adapter, study.training):
                told = {field.name: getattr(config, field.name) for field in fields(part)}
                apart = {"learning_rate": step.config["learning_rate"], "run_steps": 4}
                asked = {field.name: getattr(part, field.name) for field in fields(part)}
                assert told == asked | {name: value for name, value in apart.items() if name in told}
            assert (config.reported_step, config.last_step) == (3, 4)


def test_a_setting_that_is_off_is_not_told_either() -> None:
    told = TypeAdapter(Declared[Smoothed])
    assert told.dump_python(Smoothed()) == TypeAdapter(Declared[TrainingSettings]).dump_python(TrainingSettings())
    assert told.dump_python(Smoothed(smoothing=0.5))["smoothing"] == 0.5
    with pytest.raises(ValidationError, match="less than 1"):
        told.validate_python({"smoothing": 1.0})


@pytest.mark.parametrize(
    ("part", "declared"),
    [("training", TrainingSettings), ("adapter", LoraSettings), ("engine", EngineSettings), ("placement", Placement)],
)
def test_a_part_of_a_study_is_what_the_package_declares(make_study: Maker, part: str, declared: type[Settings]) -> None:
    assert Study.model_fields[part].annotation is declared
    every = [field.name for field in fields(declared)]
    off = [name for name, hint in hints(declared).items() if NEUTRAL in getattr(hint, "__metadata__", ())]
    assert list(make_study().model_dump()[part]) == [name for name in every if name not in off]


def test_no_setting_of_a_training_or_an_engine_is_declared_twice() -> None:
    def parts(of: type[Frozen]) -> list[type[Frozen]]:
        return [part for child in of.__subclasses__() for part in (child, *parts(child))]

    def names(*kinds: type[Settings]) -> set[str]:
        return {field.name for kind in kinds for field in fields(kind)}

    known = names(TrainConfig, EngineConfig) - {"kind"}  # bases have kinds too
    mirrored = {kind.__name__ for kind in (TrainingSettings, LoraSettings, EngineSettings, Placement, Smoothed)}
    twice = {
        part.__name__: met
        for part in parts(Frozen)
        if part.__name__ not in mirrored and part.__module__.startswith("orchestrator")
        if (met := known & set(part.__annotations__))
    }
    assert twice == {name: set(why) for name, why in ELSEWHERE.items()}
    for engine in (VllmEngine, TransformersEngine):
        assert list(inspect.signature(engine).parameters) == ["model", "config"]
    assert names(TrainConfig) - names(TrainingSettings, LoraSettings) == {
        "method", "settings", "init_seed", "order_seed", "base_name", "base_revision", "pair_rule", "pairs",
        "keep_state",
    }  # fmt: skip
    assert names(EngineConfig) - names(EngineSettings, EnginePlace) == {"attention", "max_lora_rank", "device"}


def test_the_page_on_training_names_settings_that_there_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 10 and named <= {field.name for field in fields(TrainingSettings)}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.workers=9", "training.workers: 9 cannot share a batch of 2"),
        ("adapter.targets=[]", "adapter.targets: name at least one module to adapt"),
        ("adapter.start=c", "adapter.start: input should be 'a' or 'b', not 'c'"),
        ("training.attention=flash", "training.attention: flash needs training.precision=bfloat16"),
        ("engine.adapters=swapped", "engine.adapters: swapped needs engine.kind=vllm: Transformers serves with PEFT"),
    ],
)
def test_what_does_not_go_together_is_named_by_its_key(make_study: Maker, override: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        make_study(override)
    assert str(refused.value).endswith(f".yaml: {line}")


def test_what_does_not_go_together_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    text = (Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml").read_text()
    path.write_text(text.replace("  batch_size: 24\n", "  batch_size: 24\n  workers: 33\n"))
    line = path.read_text().splitlines().index("  workers: 33") + 1
    with pytest.raises(UserError, match=f"study.yaml, line {line}: training.workers: 33 cannot share a batch of 24"):
        load_study(path)
