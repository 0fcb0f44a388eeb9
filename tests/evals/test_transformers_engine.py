"""The Transformers engine against HF generate, against itself one prompt at a time, and against distributions."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from evals.engines import Completion, Sampling, open_engine
from evals.engines.settings import EngineConfig
from evals.engines.transformers import TransformersEngine, _choose

PLAIN = EngineConfig(kind="transformers", precision="float32")
EOS = 1


@pytest.fixture(scope="module")
def engine(served_model: Path) -> Iterator[TransformersEngine]:
    opened = open_engine("transformers", served_model, precision="float32", max_lora_rank=8, max_model_len=64)
    assert isinstance(opened, TransformersEngine)
    yield opened
    opened.close()


def test_greedy_equals_hf_generate(engine: TransformersEngine, served_model: Path, prompts: list[list[int]]) -> None:
    oracle = AutoModelForCausalLM.from_pretrained(served_model, dtype=torch.float32)
    for prompt, (completion,) in zip(prompts, engine.generate(prompts, Sampling(max_tokens=12)), strict=True):
        with torch.inference_mode():
            expected = oracle.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        assert list(completion.token_ids) == expected.tolist()
        assert completion.finish == ("stop" if EOS in completion.token_ids else "length")


def test_an_adapter_acts_and_leaves_no_trace(
    engine: TransformersEngine, models: dict[str, Path | None], prompts: list[list[int]]
) -> None:
    before = engine.logprobs(prompts)
    adapted = engine.logprobs(prompts, models["first"])
    assert (adapted - before).abs().max() > 0.1
    assert torch.equal(engine.logprobs(prompts), before)
    assert torch.equal(engine.logprobs(prompts, models["first"]), adapted)


def test_padding_changes_rounding_alone(engine: TransformersEngine, prompts: list[list[int]]) -> None:
    together = engine.logprobs(prompts)
    alone = torch.cat([engine.logprobs([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    top = engine.top_logprobs(prompts, 3)
    assert [list(t) for t in top] == together.topk(3).indices.tolist()
    assert list(top[5].values()) == together[5].topk(3).values.tolist()


def test_samples_do_not_depend_on_the_batch(served_model: Path, prompts: list[list[int]]) -> None:
    sampling = Sampling(n=2, temperature=2.0, top_p=0.9, max_tokens=40, seed=7)
    wide = TransformersEngine(served_model, replace(PLAIN, max_model_len=64)).generate(prompts, sampling)
    narrow = TransformersEngine(served_model, replace(PLAIN, max_model_len=64, batch_size=1)).generate(
        prompts[::-1], sampling
    )
    assert wide == narrow[::-1]
    finishes = Counter(completion.finish for pair in wide for completion in pair)
    assert finishes["stop"] > 20 and finishes["length"] > 5  # both ends were met, so rows left the batch at many steps
    assert all(first != second for first, second in wide)


def check_ends(completions: list[Completion], prompt: list[int], max_tokens: int, max_model_len: int) -> None:
    """A completion ends with the stop token or at its limit, and its text omits the stop token."""
    for c in completions:
        stopped = c.finish == "stop"
        assert (c.token_ids[-1] == EOS) == stopped and EOS not in c.token_ids[:-1]
        assert stopped or len(c.token_ids) == min(max_tokens, max_model_len - len(prompt))
        assert len(c.text.split()) <= len(c.token_ids) - stopped
        assert "eos" not in c.text


def test_completions_end_at_eos_or_at_their_limit(engine: TransformersEngine, prompts: list[list[int]]) -> None:
    found = engine.generate(prompts, Sampling(temperature=2.0, max_tokens=50))
    for prompt, completions in zip(prompts, found, strict=True):
        check_ends(completions, prompt, 50, 64)
    assert Counter(c.finish for (c,) in found).keys() == {"stop", "length"}


def test_every_stop_token_of_the_generation_config_ends_a_turn(served_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(served_model, tmp_path / "model"))
    plain = TransformersEngine(folder, PLAIN).generate([[5, 6, 7]], Sampling(max_tokens=10))[0][0]
    path = folder / "generation_config.json"
    config = json.loads(path.read_text()) | {"eos_token_id": [EOS, plain.token_ids[0]]}
    path.write_text(json.dumps(config))
    stopped = TransformersEngine(folder, PLAIN).generate([[5, 6, 7]], Sampling(max_tokens=10))[0][0]
    assert stopped == Completion(plain.token_ids[:1], "", "stop")


def test_the_token_that_ends_a_turn_ends_a_completion(engine: TransformersEngine) -> None:
    """The one that the chat template writes, where the model's own config does not name it."""
    plain = engine.generate([[5, 6, 7]], Sampling(max_tokens=10))[0][0]
    end = plain.token_ids[3]
    stopped = engine.generate([[5, 6, 7]], Sampling(max_tokens=10, stop=(end,)))[0][0]
    length = plain.token_ids.index(end) + 1
    assert (stopped.token_ids, stopped.finish) == (plain.token_ids[:length], "stop")
    assert engine.generate([[5, 6, 7]], Sampling(max_tokens=10))[0][0] == plain


def test_sampling_inverts_the_cumulative_distribution() -> None:
    """Probabilities .3, .5, .2; sorted .5 (token 1), .3 (token 0), .2 (token 2)."""
    logits = torch.tensor([[0.3, 0.5, 0.2]]).log()

    def token(u: float, **settings: float) -> int:
        sampling = Sampling(**({"temperature": 1.0} | settings))
        return int(_choose(logits, sampling, torch.tensor([u], dtype=torch.float64)))

    assert [token(u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.9999)] == [1, 1, 0, 0, 2, 2]
    # top_p .7 keeps .5 and .3: the bound between them is .625
    assert [token(u, top_p=0.7) for u in (0.62, 0.63, 0.9999)] == [1, 0, 0]
    assert token(0.9999, top_p=0.4) == 1
    # temperature .5 squares: .25, .09, .04 of .38, bounds .658 and .895
    assert [token(u, temperature=0.5) for u in (0.65, 0.66, 0.89, 0.9)] == [1, 0, 0, 2]
    assert int(_choose(logits, Sampling(), None)) == 1


def test_sample_frequencies_follow_the_model(engine: TransformersEngine) -> None:
    draws = 2000
    (found,) = engine.generate([[5, 6, 7]], Sampling(n=draws, temperature=1.0, max_tokens=1, seed=3))
    counts = Counter(c.token_ids[0] for c in found)
    for token, p in enumerate(engine.logprobs([[5, 6, 7]])[0].exp().tolist()):
        assert abs(counts[token] - draws * p) < 5 * (draws * p * (1 - p)) ** 0.5 + 1


def test_bad_requests_are_refused(engine: TransformersEngine, models: dict[str, Path | None], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        engine.generate([[1], []], Sampling())
    with pytest.raises(ValueError, match="prompt 0 has 64 tokens, which leaves no room within max_model_len 64"):
        engine.top_logprobs([[5] * 64], 3)
    with pytest.raises(ValueError, match=r"holds no adapter_config.json"):
        engine.generate([[5]], Sampling(), tmp_path)
    with pytest.raises(ValueError, match="rank 8 is more than the engine's max_lora_rank 4"):
        TransformersEngine(_model_of(engine), replace(PLAIN, max_lora_rank=4)).generate(
            [[5]], Sampling(), models["first"]
        )
    with pytest.raises(ValueError, match="temperature 0 gives 2 equal completions"):
        Sampling(n=2)
    with pytest.raises(ValueError, match="top_p in"):
        Sampling(top_p=0.0)
    with pytest.raises(ValueError, match="kind: 'sglang' is not one of"):
        open_engine("sglang", tmp_path)
    with pytest.raises(ValueError, match="kind: auto is for studies; name vllm or transformers"):
        open_engine("auto", tmp_path)
    with pytest.raises(ValueError, match=r"holds no config.json"):
        open_engine("transformers", tmp_path)


def _model_of(engine: TransformersEngine) -> Path:
    return Path(engine.decoder.tokenizer.name_or_path)


def test_threads_are_the_engines_own_and_given_back(served_model: Path) -> None:
    before = torch.get_num_threads()
    TransformersEngine(served_model, replace(PLAIN, threads=before + 1)).generate([[5, 6]], Sampling(max_tokens=1))
    assert torch.get_num_threads() == before
