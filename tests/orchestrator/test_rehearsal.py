"""A rehearsal's parts: a base of random weights at a given shape, rollouts that the tool writes, the memory it uses."""

from __future__ import annotations

import ctypes
import mmap
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evals.answers import Grader
from evals.engines import Sampling
from evals.engines.settings import EngineConfig
from evals.engines.transformers import TransformersEngine
from execution.errors import UserError
from execution.memory import PeakMemory
from methods.data.batch import Rollout
from methods.data.view import order, view
from models.base import load
from orchestrator.bases import BASES
from orchestrator.bases.random_weights import RandomBase
from orchestrator.config.study import Study
from orchestrator.config.study_file import load_study
from orchestrator.planning.training_runs import training_runs
from orchestrator.prompts.prompter import Prompter
from orchestrator.rollouts.dataset import freeze
from orchestrator.rollouts.sources.written import written
from orchestrator.steps.base import sizes

SHAPE = {"layers": 2, "hidden": 48, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 96}
PROMPT = {"system": None, "template": None, "thinking": None}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def made(folder: Path, **settings: object) -> Path:
    base = RandomBase.model_validate({"kind": "random", "shape": SHAPE} | settings)
    config = base.step_config({})
    assert BASES[config["kind"]] is RandomBase and base.identity(None) is None
    return RandomBase.make(config, {}, folder, lambda line: None)[0]


def test_a_random_base_has_the_shape_the_precision_and_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    spec = RandomBase.model_validate({"kind": "random", "shape": SHAPE | {"vocabulary": 500}, "longest": 4096})
    folder = made(tmp_path / "one", shape=SHAPE | {"vocabulary": 500}, longest=4096)
    model = load(folder, "bfloat16")
    assert model.get_input_embeddings().weight.shape == (500, 48) and model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == spec.positions() == 4096
    found = {n.removesuffix(".weight"): tuple(p.shape) for n, p in model.named_parameters() if "proj" in n}
    assert found == spec.module_sizes()
    assert sizes(folder)["layers"] == 2
    saved = next(folder.glob("*.safetensors")).read_bytes()
    again, other = made(tmp_path / "two", shape=SHAPE | {"vocabulary": 500}, longest=4096), made(tmp_path / "3", seed=1)
    assert next(again.glob("*.safetensors")).read_bytes() == saved
    assert next(other.glob("*.safetensors")).read_bytes() != saved
    assert load(other, "float32").get_input_embeddings().num_embeddings == len(Prompter(other, PROMPT).tokenizer)
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(ValueError, match=r"base.shape.vocabulary: 10 are fewer than the tokenizer's \d+ tokens"):
        made(tmp_path / "few", shape=SHAPE | {"vocabulary": 10})


def test_written_rows_have_their_lengths_their_verdicts_and_no_two_are_equal(tmp_path: Path) -> None:
    wanted = [(40, 50), (1024, 3072)]
    rows = written(6, 4, wanted, 0)
    prompter = Prompter(made(tmp_path / "base"), PROMPT)
    lengths, groups = defaultdict(set), defaultdict(list)
    for row in rows:
        prompt, answer = (prompter.prompt_ids(row.problem, "{problem}"), prompter.completion_ids(row.completion))
        lengths[row.problem_id].add((len(prompt), len(answer)))
        groups[row.problem_id].append(row.reward)
    assert [*lengths.values()] == [{size} for size in wanted * 3]
    assert set(map(tuple, groups.values())) == {(1.0, 0.0, 1.0, 0.0)}
    assert len({(row.problem, row.completion) for row in rows}) == 24 and len({row.problem for row in rows}) == 6
    with Grader() as grader:
        verdicts = grader.grade([(row.completion, row.answer) for row in rows])
    assert [float(verdict.correct) for verdict in verdicts] == [row.reward for row in rows]
    assert rows == written(6, 4, wanted, 0) and rows != written(6, 4, wanted, 1)
    assert len(written(1, 2, [(1, 1)], 0)[0].completion) > 1  # a text is never cut


def test_the_rehearsal_is_the_reference_study_at_its_widths_and_limits() -> None:
    real, small = (load_study(CONFIGS / f"qwen3-4b{name}.yaml") for name in ("", "-rehearsal"))
    assert small.base.shape.model_dump() == real.base.shape.model_dump() | {"layers": 4}
    assert (small.adapter, small.prompt, small.methods) == (real.adapter, real.prompt, real.methods)
    assert (small.seeds, small.replicas, small.sweep) == (real.seeds, real.replicas, real.sweep)
    assert small.training.gradient_checkpointing and small.training.precision == "bfloat16"
    assert (small.prompt.max_prompt_tokens, small.prompt.max_answer_tokens) in small.rollouts.sizes
    assert small.analysis.connectivity.pairs == real.analysis.connectivity.pairs
    assert "32 problems of arithmetic" in next(small.rollouts.model_copy(update={"draw": 32}).describe())


def test_rehearsals_are_of_bases_and_rows_that_can_be_made(make_study: Callable[..., Study]) -> None:
    with pytest.raises(UserError, match=r"base.*shape"):
        make_study("base={kind: random}")
    with pytest.raises(UserError, match="samples"):
        make_study("rollouts={source: written, samples: 1}")


def test_the_peak_is_that_of_its_own_time() -> None:
    before = PeakMemory()
    size = 300 * 2**20
    block = mmap.mmap(-1, size)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(block)), 1, size)
    during = before.seen()["peak_gib"]
    block.close()
    after = PeakMemory().seen()["peak_gib"]
    assert during - after == pytest.approx(size / 2**30, abs=0.03)


def test_each_method_of_the_rehearsal_sees_rows_at_the_limits_and_the_measurements_short_ones() -> None:
    study = load_study(CONFIGS / "qwen3-4b-rehearsal.yaml")
    rows = [
        {"problem_id": r.problem_id, "problem": r.problem, "answer": r.answer, "completion": r.completion,
         "teacher": r.teacher, "reward": r.reward, "prompt_ids": [0], "completion_ids": list(r.completion.encode())}
        for r in study.rollouts.rows_at_hand()
    ]  # fmt: skip
    frozen = freeze(rows, study.rollouts.table.model_dump())
    assert max(len(row["completion_ids"]) for row in frozen if row["split"] == "heldout") < 400
    table = [row for row in frozen if row["split"] == "train"]
    rollouts = [Rollout([0], row["completion_ids"], row["reward"], row["group"], row["teacher"]) for row in table]
    for run in (run for run in training_runs(study) if run.role == "method"):
        seen = run.training.last_step * run.training.batch_size
        pairing = (study.rollouts.table.pair_rule, study.rollouts.table.pairs)
        units = view(run.objective, rollouts, *pairing, run.settings, run.training.examples)
        stream = order(len(rollouts), units, seen, run.order_seed)[:seen]
        long = [row for unit in stream for row in unit if len(rollouts[row].completion_ids) == 3071]  # and the end
        assert long, run.name


def test_an_engine_in_bfloat16_copies_no_weights_for_each_row(tmp_path: Path) -> None:
    folder = made(tmp_path / "base", shape=SHAPE | {"hidden": 256, "vocabulary": 40_000})
    config = EngineConfig(kind="transformers", precision="bfloat16", max_model_len=64, batch_size=32)
    engine = TransformersEngine(folder, config)
    prompts = [[5 + i] * 4 for i in range(32)]
    greedy = Sampling(n=1, temperature=0.0, top_p=1.0, max_tokens=2, seed=0, stop=())
    engine.generate(prompts[:1], greedy)
    peak = PeakMemory()
    before = peak.seen()["peak_gib"]
    written = engine.generate(prompts, greedy)
    copies = 32 * 40_000 * 256 * 2 / 2**30
    assert peak.seen()["peak_gib"] - before < copies / 4
    model = load(folder, "bfloat16")
    with torch.inference_mode():
        logits = model(torch.tensor(prompts)).logits[:, -1]
    assert [row[0].token_ids[0] for row in written] == logits.argmax(dim=-1).tolist()
    engine.close()
