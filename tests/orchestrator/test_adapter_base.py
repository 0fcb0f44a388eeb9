"""Where a trained adapter says that its base is: PEFT finds it there, and neither key nor resume state hang on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM

from methods.training import state
from methods.training.lora import attach
from models.base import load
from orchestrator.steps.base import address
from orchestrator.training.train import train_config

TARGETS = ("q_proj", "v_proj")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def finished(folder: Path, tiny_model: Path, kind: str) -> Path:
    """A finished base step of the kind: a local base stays where it is, one made here lies beside its note."""
    folder.mkdir()
    note = {"name": "my-llama", "kind": kind, "revision": COMMIT}
    if kind == "local":
        note["folder"] = str(tiny_model)
    elif kind != "hub":
        shutil.copytree(tiny_model, folder / "model")
    (folder / "base.json").write_text(json.dumps(note))
    return folder


@pytest.mark.parametrize("kind", ["local", "from_scratch", "gguf"])
def test_peft_finds_the_base_that_an_adapter_names(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = finished(Path("base"), tiny_model, kind)  # as named from the working folder
    ours = attach(load(tiny_model, "float32"), TARGETS, 4, 8, 0.0, 1)
    with torch.no_grad():
        for seed, b in enumerate(ours.b.values()):
            b.normal_(generator=torch.Generator().manual_seed(seed))
    ours.save(tmp_path / "adapter", *address(base))
    monkeypatch.chdir(tiny_model)  # and found from any other
    read = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32).eval()
    ids = torch.arange(2, 12)[None]
    assert torch.equal(read(input_ids=ids).logits, ours.model.eval()(input_ids=ids).logits)


def test_a_hub_base_is_its_name_and_commit(tmp_path: Path, tiny_model: Path) -> None:
    name, revision = address(finished(tmp_path / "base", tiny_model, "hub"))
    assert (name, revision) == ("my-llama", COMMIT)
    attach(load(tiny_model, "float32"), TARGETS, 4, 8, 0.0, 1).save(tmp_path / "adapter", name, revision)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("my-llama", COMMIT)


def test_a_base_that_lies_elsewhere_is_the_same_training(
    tmp_path: Path, tiny_model: Path, make_config: Callable[..., Any]
) -> None:
    one, two = (make_config(base_name=name) for name in ("/a/base", "/b/base"))
    assert state.identity(one, [], None) == state.identity(two, [], None)
    known = make_config()
    config = {name: getattr(known, name) for name in ("method", "learning_rate", "steps", "report_step", "run_steps")}
    config |= {name: getattr(known, name) for name in ("batch_size", "micro_batch", "init_seed", "order_seed")}
    config |= {"backend": "native", "adapter": {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": TARGETS}}
    found = train_config(config, {"resume_every": 3}, finished(tmp_path / "base", tiny_model, "local"))
    assert (found.base_name, found.base_revision, found.resume_every) == (str(tiny_model.resolve()), None, 3)
