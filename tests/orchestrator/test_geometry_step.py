"""The geometry step on real trainings of a few steps: each is measured against the factor that it drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from execution.context import Context, NoResources
from methods.config import TrainConfig
from methods.data.batch import Rollout
from methods.training.trainer import train
from orchestrator.steps.geometry import read, run


@pytest.mark.parametrize("start", ["a", "b"])
def test_an_update_lies_where_its_start_put_it(
    tiny_model: Path, make_config: Callable[..., TrainConfig], tmp_path: Path, start: str
) -> None:
    rng = np.random.default_rng(0)
    rows = [Rollout(rng.integers(2, 64, 5).tolist(), rng.integers(2, 64, 6).tolist(), i % 3 / 2, i) for i in range(24)]
    names = {"sft": "sft", "dft": "dft", "other": "sft"}
    for name, method in names.items():
        more: dict[str, Any] = {"init_seed": 9} if name == "other" else {}
        config = make_config(method, start=start, checkpoint_every=3, learning_rate=1e-3, **more)
        (tmp_path / f"{name}-work").mkdir()
        train(config, tiny_model, rows, tmp_path / name, work=tmp_path / f"{name}-work")
    inputs = {f"adapter:{name}": tmp_path / name for name in names}
    (tmp_path / "out").mkdir()
    context = Context(
        config={"top": 4, "chance_draws": 4, "seed": 0, "threads": 1},
        runtime={"init_seeds": {"sft": 1, "dft": 1, "other": 9}, "starts": dict.fromkeys(names, start)},
        inputs=inputs, out=tmp_path / "out", work=tmp_path, keep=lambda: None, progress=lambda line: None,
        parallel_map=lambda function, items: [function(item, inputs) for item in items], resources=NoResources(),
    )  # fmt: skip
    run(context)
    found = read(tmp_path / "out").geometry
    assert found is not None and found.chance.start == start
    for row in (*found.adapters, *found.adapter_modules):
        assert row.start == start and ("start" in row.model_fields_set) == (start == "b")
        assert row.a_moved_rel is not None and 0 < row.a_moved_rel < 0.1
        assert row.start_share is not None and row.start_share > 0.98
    same, another = found.pair("sft", "dft"), found.pair("sft", "other")
    assert same is not None and another is not None
    overlaps = {"input": (same.right_overlap, another.right_overlap), "output": (same.overlap, another.overlap)}
    shared, elsewhere = overlaps.pop("output" if start == "b" else "input")
    assert shared is not None and elsewhere is not None and shared > 0.99 and elsewhere < 0.5
    chance = found.chance.shared_a
    of_chance = chance.overlap if start == "b" else chance.right_overlap
    assert of_chance == pytest.approx(1, abs=1e-6), "top 4 of rank 4: random updates on that factor share it too"
