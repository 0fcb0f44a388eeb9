"""The vLLM engine (one for the whole file) against the Transformers engine, and the canary that watches it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals import canary
from evals.engines import Completion, Engine, Sampling, open_engine
from evals.engines.settings import EngineConfig
from evals.engines.transformers import TransformersEngine
from evals.engines.vllm import VllmEngine, served_rank

EOS = 1
ROOT = Path(__file__).resolve().parents[2]

PLAIN = EngineConfig(kind="transformers", precision="float32")


@pytest.fixture(scope="module")
def engine(served_model: Path) -> Iterator[VllmEngine]:
    environment, ray = dict(os.environ), sys.modules.get("ray")
    opened = open_engine(
        "vllm", served_model, precision="float32", adapters="lora", max_lora_rank=8, max_model_len=64, cache_gib=0.25
    )
    assert isinstance(opened, VllmEngine)
    assert dict(os.environ) == environment
    assert sys.modules.get("ray") is ray  # vLLM would import it
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(served_model: Path) -> TransformersEngine:
    return TransformersEngine(served_model, replace(PLAIN, max_lora_rank=8, max_model_len=64))


@pytest.mark.parametrize("name", ["base", "first", "second"])
def test_greedy_tokens_equal_transformers(
    engine: VllmEngine,
    reference: TransformersEngine,
    models: dict[str, Path | None],
    prompts: list[list[int]],
    name: str,
) -> None:
    found = engine.generate(prompts, Sampling(max_tokens=20), models[name])
    assert found == reference.generate(prompts, Sampling(max_tokens=20), models[name])


def test_the_models_do_differ(engine: VllmEngine, models: dict[str, Path | None], prompts: list[list[int]]) -> None:
    base, first, second = (engine.generate(prompts, Sampling(max_tokens=20), a) for a in models.values())
    assert base != first and first != second and base != second


def test_in_a_mixed_batch_every_row_gets_its_own_model(
    engine: VllmEngine,
    reference: TransformersEngine,
    models: dict[str, Path | None],
    prompts: list[list[int]],
) -> None:
    """vLLM's own kernels answer the plain requests of such a batch with the adapter; the engine never mixes anyway."""
    from vllm import SamplingParams

    assert models["first"] is not None
    lora = engine._adapter(models["first"])
    answers = engine.llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts],
        SamplingParams(temperature=0.0, max_tokens=8, detokenize=False, stop_token_ids=[EOS]),
        lora_request=[None if i % 2 else lora for i in range(len(prompts))],
        use_tqdm=False,
    )
    found = [tuple(answer.outputs[0].token_ids) for answer in answers]
    base, first = (reference.generate(prompts, Sampling(max_tokens=8), models[n]) for n in ("base", "first"))
    expected = [(base if i % 2 else first)[i][0].token_ids for i in range(len(prompts))]
    assert found == expected


def test_vllms_own_kernel_answers_plain_rows_with_an_adapter_and_ours_does_not() -> None:
    """Rows 0 and 1 are the base's, rows 2 and 3 the adapter's. Once vLLM mends this, ``punica.py`` is for
    speed alone."""
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from evals.engines.punica import MatmulPunica

    generator = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(shape, generator=generator) for shape in ((4, 6), (1, 1, 2, 6), (1, 1, 5, 2)))
    mapping = LoRAMapping(index_mapping=(0, 0, 1, 1), prompt_mapping=(0, 0, 1, 1), is_prefill=True)
    expected = x @ a[0, 0].T @ b[0, 0].T
    expected[:2] = 0
    results = []
    for wrapper in (PunicaWrapperCPU(8, 4, "cpu"), MatmulPunica(8, 4, "cpu")):
        wrapper.update_metadata(mapping, [1], 1, 64)
        y = torch.zeros(4, 5)
        wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (5,))
        logits = torch.zeros(4, 5)
        wrapper.add_lora_logits(logits, x, a, b, 1.0)
        results.append((y, logits))
    (theirs, _), (ours, our_logits) = results
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(our_logits, expected)
    torch.testing.assert_close(theirs[2:], expected[2:])
    assert theirs[:2].abs().max() > 0.1


def test_samples_are_seeded_and_do_not_depend_on_order(engine: VllmEngine, prompts: list[list[int]]) -> None:
    sampling = Sampling(n=2, temperature=2.0, max_tokens=50, seed=5)
    found = engine.generate(prompts, sampling)
    assert found == engine.generate(prompts, sampling)
    assert found == engine.generate(prompts[::-1], sampling)[::-1]
    assert found != engine.generate(prompts, Sampling(n=2, temperature=2.0, max_tokens=50, seed=6))
    twice = engine.generate([[5, 6, 7]] * 2, sampling)
    assert len({c.token_ids for pair in twice for c in pair}) == 4
    for prompt, completions in zip(prompts, found, strict=True):
        for c in completions:
            stopped = c.finish == "stop"
            assert (c.token_ids[-1] == EOS) == stopped and EOS not in c.token_ids[:-1]
            assert stopped or len(c.token_ids) == min(50, 64 - len(prompt))
    assert Counter(c.finish for pair in found for c in pair).keys() == {"stop", "length"}


def test_sample_frequencies_follow_the_model(engine: VllmEngine, reference: TransformersEngine) -> None:
    draws = 2000
    (found,) = engine.generate([[5, 6, 7]], Sampling(n=draws, temperature=1.0, max_tokens=1, seed=3))
    counts = Counter(c.token_ids[0] for c in found)
    for token, p in enumerate(reference.logprobs([[5, 6, 7]])[0].exp().tolist()):
        assert abs(counts[token] - draws * p) < 5 * (draws * p * (1 - p)) ** 0.5 + 1


class Mistaken:
    """An engine that answers for some adapters with another model."""

    def __init__(self, engine: Engine, instead: dict[Path | None, Path | None]) -> None:
        self.engine, self.instead = engine, instead

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, adapter: Path | None = None
    ) -> list[list[Completion]]:
        return self.engine.generate(prompts, sampling, self.instead.get(adapter, adapter))

    def top_logprobs(
        self, prompts: Sequence[Sequence[int]], k: int, adapter: Path | None = None
    ) -> list[dict[int, float]]:
        return self.engine.top_logprobs(prompts, k, self.instead.get(adapter, adapter))

    def close(self) -> None:
        self.engine.close()


def test_the_canary_passes_an_engine_that_is_right(
    engine: VllmEngine, served_model: Path, models: dict[str, Path | None], prompts: list[list[int]]
) -> None:
    rows = canary.check(engine, served_model, models, prompts[:16])
    assert [row["name"] for row in rows] == list(models)
    assert all(row["passed"] and row["told_apart"] for row in rows)
    assert max(row["max_difference"] for row in rows) < 1e-5  # far below the tolerance
    assert rows[0]["effect"] == 0 and min(row["effect"] for row in rows[1:]) > 0.1


def test_the_canary_fails_on_a_fall_back_to_the_base_and_on_swapped_adapters(
    engine: VllmEngine, served_model: Path, models: dict[str, Path | None], prompts: list[list[int]]
) -> None:
    first, second = models["first"], models["second"]
    for instead, failed in (
        ({first: None}, ["first"]),
        ({first: second, second: first}, ["first", "second"]),
        ({None: first}, ["base"]),
    ):
        rows = canary.check(Mistaken(engine, instead), served_model, models, prompts[:16])
        assert [row["name"] for row in rows if not row["passed"]] == failed


def test_an_adapter_that_does_nothing_is_not_told_apart(
    engine: VllmEngine,
    served_model: Path,
    models: dict[str, Path | None],
    prompts: list[list[int]],
    zero_adapter: Path,
) -> None:
    rows = canary.check(engine, served_model, models | {"zero": zero_adapter}, prompts[:8])
    assert all(row["passed"] for row in rows)
    assert [row["told_apart"] for row in rows] == [True, True, True, False]
    assert rows[-1]["effect"] == 0


@pytest.fixture
def zero_adapter(models: dict[str, Path | None], tmp_path: Path) -> Path:
    from safetensors.torch import load_file, save_file

    assert models["first"] is not None
    config = (models["first"] / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    factors = load_file(models["first"] / "adapter_model.safetensors")
    zeros = {name: value * (0 if "lora_B" in name else 1) for name, value in factors.items()}
    save_file(zeros, tmp_path / "adapter_model.safetensors")
    return tmp_path


def test_vllm_leaves_the_process_able_to_set_threads(engine: VllmEngine) -> None:
    before = torch.get_num_threads()
    engine.generate([[5, 6]], Sampling(max_tokens=1))
    assert torch.get_num_threads() == before
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1  # vLLM makes this a function that does nothing
    torch.set_num_threads(before)


def test_nothing_is_compiled_on_a_cpu(engine: VllmEngine, prompts: list[list[int]]) -> None:
    torch._dynamo.reset()  # what was compiled before would be taken up again
    before = dict(torch._dynamo.utils.counters["frames"])
    engine.top_logprobs(prompts, 3)
    engine.generate(prompts, Sampling(max_tokens=2))
    assert dict(torch._dynamo.utils.counters["frames"]) == before


PREPARED = """
import gc, sys
from evals.engines import prepare
prepare("vllm")
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert {"vllm.entrypoints.llm", "evals.canary"} <= sys.modules.keys() and "ray" not in sys.modules
"""


def test_a_prepared_process_has_what_an_engine_imports() -> None:
    done = subprocess.run([sys.executable, "-c", PREPARED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_call_that_fails_leaves_nothing_behind(
    engine: VllmEngine, models: dict[str, Path | None], prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.generate(prompts, Sampling(max_tokens=5), models["first"])
    with monkeypatch.context() as patch:
        patch.setattr(engine.llm.llm_engine, "step", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.generate(prompts, Sampling(max_tokens=5))
    assert engine.generate(prompts, Sampling(max_tokens=5), models["first"]) == expected


def test_heads_that_vllm_cannot_serve_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"head_dim 16 is not one of 32, 64, .*use the transformers engine"):
        open_engine("vllm", tiny_model, precision="float32")


def test_ranks_that_vllm_serves() -> None:
    assert [served_rank(rank) for rank in (1, 2, 8, 9, 33, 300, 512)] == [1, 8, 8, 16, 64, 320, 512]
    with pytest.raises(ValueError, match="rank 513 is more than 512"):
        served_rank(513)


def test_an_adapter_of_greater_rank_is_refused(engine: VllmEngine, models: dict[str, Path | None]) -> None:
    engine_rank, engine.max_lora_rank = engine.max_lora_rank, 4
    with pytest.raises(ValueError, match="rank 8 is more than the engine's max_lora_rank 4"):
        engine.generate([[5]], Sampling(), models["first"])
    engine.max_lora_rank = engine_rank
