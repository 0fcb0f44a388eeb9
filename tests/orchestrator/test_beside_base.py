"""``compare --base --rollouts`` on bases of other makes: measured where it can be, named where it cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, T5Config, T5ForConditionalGeneration

from models.adapter import load_factors
from orchestrator import cli
from orchestrator.runtime.threads import ENVIRONMENT

ROOT = Path(__file__).parents[2]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.chdir(tmp_path)
    rows = [{"problem": "1 + 2", "answer": "3", "completion": f"= {i}", "reward": 1} for i in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A random GPT-2 beside the tiny model's tokenizer: Conv1D, and a head tied to the embeddings."""
    sizes = {"vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return saved(GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)), tmp_path_factory, tiny_model)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    sizes = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, eos_token_id=1))
    return saved(model, tmp_path_factory, tiny_model)


def saved(model: PreTrainedModel, folders: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = folders.mktemp("base")
    model.save_pretrained(folder)
    for name in TOKENIZER:
        if (tiny_model / name).exists():
            shutil.copy(tiny_model / name, folder / name)
    return folder


def adapters(load: Callable[[Path], Any], base: Path, targets: list[str], **settings: Any) -> list[Path]:
    """Two random adapters of the base, as PEFT writes them."""
    folders = []
    for seed in (1, 2):
        wrapped = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=6, target_modules=targets, **settings))
        generator = torch.Generator().manual_seed(seed)
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.data = torch.randn(value.shape, generator=generator)
        folders.append(Path(f"adapter{seed}"))
        wrapped.save_pretrained(folders[-1])
    return folders


def compared(base: Path, given: list[Path]) -> tuple[dict, str]:
    words = ["--base", str(base), "--rollouts", "rows.jsonl", "--out", "out"]
    assert cli.main(["compare", *map(str, given), *words]) == 0
    return json.loads(Path("out/results.json").read_text()), Path("out/report.html").read_text()


def test_conv1d_is_measured_and_a_head_is_named(gpt2: Path) -> None:
    given = adapters(GPT2LMHeadModel.from_pretrained, gpt2, ["c_attn", "c_proj", "lm_head"])
    found, page = compared(gpt2, given)
    assert len(found["geometry"]["modules"]) == 7, "the geometry of all"
    weighed, spectra = found["activations"], found["spectra"]
    assert weighed["modules"] == 6 and weighed["left_out"] == [{"module": "lm_head", "why": "the output head"}]
    assert len(spectra["modules"]) == 2 * 6
    assert spectra["left_out"] == [{"module": "lm_head", "why": "tied to the embeddings"}]
    for line in (
        "Beside the base&#39;s weights, left out: lm_head (tied to the embeddings).",
        "By activations, left out: lm_head (the output head).",
        "Both cosines are over 6 modules; left out: lm_head (the output head).",
    ):
        assert line in page
    one, two = (load_factors(path) for path in given)
    deltas = {name: [(f[name].b @ f[name].a).numpy() for f in (one, two)] for name in one if name != "lm_head"}
    flat = [np.concatenate([delta[m].ravel() for delta in deltas.values()]) for m in range(2)]
    (pair,) = weighed["pairs"]
    assert pair["plain"] == pytest.approx(flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]))
    assert pair["plain"] != pytest.approx(found["geometry"]["pairs"][0]["cosine"]), "the head is in that"
    assert pair["cosine"] == pytest.approx(dense_cosine(gpt2, deltas), abs=1e-5)


def dense_cosine(base: Path, deltas: dict[str, list[np.ndarray]]) -> float:
    """Of what the deltas do to the inputs that Conv1D modules get where a completion's token is predicted."""
    from orchestrator.compare.beside_base import PROMPT
    from orchestrator.prompts.prompter import Prompter

    model, prompter = GPT2LMHeadModel.from_pretrained(base).eval(), Prompter(base, PROMPT)
    seen: dict[str, torch.Tensor] = {}
    for name in deltas:
        hook = lambda _m, args, name=name: seen.update({name: args[0][0]})  # noqa: E731
        model.get_submodule(name).register_forward_pre_hook(hook)
    changes: list[list[np.ndarray]] = [[], []]
    for i in range(4):
        prompt, answer = prompter.prompt_ids("1 + 2", "{problem}"), prompter.completion_ids(f"= {i}")
        with torch.inference_mode():
            model(torch.tensor([[*prompt, *answer]]))
        for name, both in deltas.items():
            x = seen[name][len(prompt) - 1 : len(prompt) + len(answer) - 1].double().numpy()
            for m, delta in enumerate(both):
                changes[m].append((x @ delta.T).ravel())
    one, two = (np.concatenate(held) for held in changes)
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def test_an_adapter_of_the_head_alone_keeps_its_geometry(gpt2: Path) -> None:
    found, page = compared(gpt2, adapters(GPT2LMHeadModel.from_pretrained, gpt2, ["lm_head"], use_rslora=True))
    assert "activations" not in found and "spectra" not in found
    assert [row["module"] for row in found["geometry"]["modules"]] == ["lm_head"]
    assert "Not weighed by activations: no module&#39;s inputs are those of every token: lm_head (the output he" in page
    assert "Nothing lies beside the base&#39;s weights: lm_head is tied to the embeddings." in page
    assert "(α / √r) · B · A (rsLoRA) of one module" in page


def test_a_base_that_is_no_causal_model_is_not_weighed(t5: Path) -> None:
    given = adapters(T5ForConditionalGeneration.from_pretrained, t5, ["q", "v"], task_type="SEQ_2_SEQ_LM")
    path = given[1] / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_rslora": True}))
    found, page = compared(t5, given)
    assert "activations" not in found and len(found["spectra"]["modules"]) == 2 * 6
    assert "Not weighed by activations: the base is a T5ForConditionalGeneration, no causal language model." in page
    assert "(α / r) · B · A, or (α / √r) · B · A where rsLoRA was used (adapter2)," in page


def test_refusals_come_before_the_heavy_imports(tmp_path: Path) -> None:
    """Each within a second, instead of after torch and Transformers."""
    code = (
        "import sys; from orchestrator import cli; codes = ["
        "cli.main(['report', '--out', 'none']), cli.main(['export', '--to', 'to', '--out', 'none']),"
        "cli.main(['status', '--out', 'none']), cli.main(['grade', 'none']), cli.main(['compare', 'none', 'other']),"
        "cli.main(['compare', 'none']), cli.main(['compare', 'a', 'b', '--rollouts', 'x'])];"
        "assert codes == [2] * 7, codes; assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "none holds no run" in done.stderr and "none: no adapter_model.safetensors" in done.stderr
