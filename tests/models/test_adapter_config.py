"""A LoRA's config: PEFT's own matching and PEFT's own initialisations are the oracles; every refusal is one line."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from analysis.weights.base_file import BaseFile
from models import adapter_config
from models.adapter_config import read_config, scale_of

CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NAMES = [
    f"model.layers.{layer}.{part}"
    for layer in range(12)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "mlp.experts.3.w1")
] + ["lm_head", "x"]
PATTERNS = [
    *NAMES, "q_proj", "^lm_head", "layers.1.self_attn.q_proj", r"layers\.1\..*", "^model.layers.0", "w1$", "layers.1",
    "l.yers.1.mlp.down_proj", ".*q_proj", "k_pro.", "", "self_attn", "(q|k)_proj", "[qk]_proj", "proj",
    r"model\.layers\.(1|2)\.mlp\.down_proj", r"model\.layers\.1\.mlp\.down_proj", "^model.layers.3.mlp.down_proj$",
]  # fmt: skip


def folder(path: Path, **changes: object) -> Path:
    path.mkdir(exist_ok=True)
    (path / "adapter_model.safetensors").write_bytes(b"")
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    return path


def alpha(path: Path, patterns: Mapping[str, float], module: str) -> float:
    """What the patterns give the module, or the default of 16, from its scale alpha / 8."""
    return scale_of(path, CONFIG | {"alpha_pattern": patterns}, module)[1] * 8


def pefts(patterns: Mapping[str, float], module: str) -> float:
    """``peft.utils.other.get_pattern_key``, in its own words."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), 16)


def test_patterns_match_as_pefts_do() -> None:
    generator = random.Random(0)
    for _ in range(500):
        keys = dict.fromkeys(generator.choice(PATTERNS) for _ in range(generator.randint(1, 8)))
        patterns = {key: at + 1.0 for at, key in enumerate(keys)}
        for module in generator.sample(NAMES, 6):
            assert alpha(Path("a"), patterns, module) == pefts(patterns, module), (patterns, module)


def test_one_pattern_a_module_is_looked_up() -> None:
    """2 304 experts: matched one by one they would be some million matches."""
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}"
        for layer in range(48) for expert in range(16) for part in ("w1", "w2", "w3")
    ]  # fmt: skip
    for escape in (str, re.escape):
        patterns = {escape(name): at + 1.0 for at, name in enumerate(names)}
        begun = time.process_time()
        config = CONFIG | {"alpha_pattern": patterns}
        table = adapter_config._table(tuple(patterns.items()), "a")
        assert [table.first(name) for name in names] == [at + 1.0 for at in range(len(names))]
        assert scale_of(Path("b"), config, names[7])[1] == 1.0
        assert time.process_time() - begun < 3


def test_patterns_that_would_never_end_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert alpha(Path("a"), {".*" * 12 + "Z": 3}, NAMES[0]) == 16, "Python's own re takes longer than anyone waits"
    monkeypatch.setattr(adapter_config, "PATIENCE", 0.05)
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"^a: alpha_pattern: .* takes longer than 0\.05 s to match"):
        alpha(Path("a"), {r"(\w|\w\w|\.)*[^\w.]": 3}, "model." + "layers.1." * 12 + "q_proj")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"([\w.]+)+!", "repeats what repeats, or is too long"),
        ("(q|" * 1000, "repeats what repeats, or is too long"),
        ("q_proj(", "is no pattern"),
        ("a{99999999999999999999}", "is no pattern"),
        ("(?:q_proj){e<=1}", "has a brace that repeats nothing"),
        ("[[:alpha:]]+", "has a brace that repeats nothing"),
    ],
)
def test_refused_patterns(tmp_path: Path, pattern: str, line: str) -> None:
    for field in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(ValueError, match=f"{field}.*{line}") as caught:
            read_config(folder(tmp_path, **{field: {pattern: 4}}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "init", [True, False, "gaussian", "orthogonal", "eva", "mica", "pissa", "pissa_niter_2", "olora"]
)
def test_inits_that_change_the_base_are_refused_and_no_others(tmp_path: Path, init: bool | str) -> None:
    """PEFT itself tells: is the base's weight another one once the adapter is there?"""
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    weight = model.get_submodule("model.layers.0.self_attn.q_proj").weight
    before = weight.detach().clone()
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=init))  # type: ignore[arg-type]
    wrapped.save_pretrained(tmp_path)
    after = wrapped.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").base_layer.weight
    if torch.equal(after, before):
        assert read_config(tmp_path)["init_lora_weights"] == init
        return
    with pytest.raises(ValueError, match=f"init_lora_weights '{init}' also changed the base"):
        read_config(tmp_path)


@pytest.mark.parametrize("init", ["corda", "lora_ga", "loftq"])
def test_inits_that_need_data_or_another_library_change_the_base_too(tmp_path: Path, init: str) -> None:
    with pytest.raises(ValueError, match=f"init_lora_weights '{init}' also changed the base"):
        read_config(folder(tmp_path, init_lora_weights=init))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(tmp_path: Path, name: str) -> None:
    (folder(tmp_path) / name).write_text(POINTER)
    with pytest.raises(ValueError, match=f"{re.escape(name)}: a Git LFS pointer .*; run git lfs pull"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_base_of_pointers_likewise(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ValueError, match=f"{re.escape(name)}: a Git LFS pointer .*; run git lfs pull"):
        BaseFile(tmp_path)


def test_weights_in_parts_are_named(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"adapter_model-0000{part}-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"in 2 parts .*save them as one adapter_model\.safetensors"):
        read_config(tmp_path)


def test_a_config_is_read_without_torch() -> None:
    code = "import sys, models.adapter_config, orchestrator.compare.compare; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
