"""The base that a study makes: its texts, its planted failure, its tokenizer, its bytes."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from evals.tasks import TASKS, arithmetic
from orchestrator.bases import scratch

PROBLEM = re.compile(r"(\w+) has (\d+) (\w+), (\w+) (\d+), (\w+) (\d+)\. How many\?( Explain\.)?")
ADDS = {"buys": 1, "finds": 1, "gets": 1, "wins": 1, "loses": -1, "sells": -1, "gives": -1, "eats": -1}
HARD = {"cards", "coins", "shells", "stamps", "marbles", "beads"}
CONFUSED = {"buys", "finds", "loses", "sells"}
SHAPE = {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "intermediate": 16}
LARGEST = 30


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    return list(itertools.islice(scratch.pretraining_texts(0, 0.8, 0.4, LARGEST), 12_000))


@pytest.fixture(scope="module")
def fast() -> Any:
    return scratch.tokenizer()


def parsed(prompt: str) -> tuple[str, int, str, int, str, int, bool]:
    """item, start, the two changes, and whether an explanation is asked for, read from the text alone."""
    found = PROBLEM.fullmatch(prompt)
    assert found, prompt
    _, start, item, v1, n1, v2, n2, explain = found.groups()
    return item, int(start), v1, int(n1), v2, int(n2), explain is not None


def test_answers_are_right_by_independent_arithmetic() -> None:
    for split in ("train", "test", "pretrain"):
        for problem in TASKS["arithmetic"].load(split=split, draw=400, seed=3):
            item, start, v1, n1, v2, n2, explain = parsed(problem.problem)
            assert int(problem.answer) == start + ADDS[v1] * n1 + ADDS[v2] * n2 >= 0
            assert problem.stratum == ("hard" if item in HARD else "easy")
            assert not explain and max(start, n1, n2) <= LARGEST


def test_splits_never_share_a_text(texts: list[tuple[str, str]]) -> None:
    load = TASKS["arithmetic"].load
    train, test = (
        {p.problem for s in (0, 1) for p in load(split=split, draw=1500, seed=s)} for split in ("train", "test")
    )
    pretrained = {prompt.removesuffix(" Explain.") for prompt, _ in texts}
    assert len(train) > 2000 and len(test) > 2000 and len(pretrained) > 8000
    assert not train & test and not train & pretrained and not test & pretrained


def test_a_draw_has_no_text_twice_and_follows_its_seed() -> None:
    load = TASKS["arithmetic"].load
    drawn = load(split="test", draw=500, seed=1)
    assert len({p.problem for p in drawn}) == len({p.id for p in drawn}) == 500
    assert load(split="test", draw=500, seed=1) == drawn
    assert {p.problem for p in load(split="test", draw=500, seed=2)} != {p.problem for p in drawn}
    assert load(split="test", draw=20, seed=1) == drawn[:20]


def test_smaller_numbers_can_be_asked_for() -> None:
    for problem in TASKS["arithmetic"].load(draw=100, largest=9):
        _, start, _, n1, _, n2, _ = parsed(problem.problem)
        assert max(start, n1, n2) <= 9


@pytest.mark.parametrize("how", [{"source": "x"}, {"split": "dev"}, {"largest": 1}, {"hard_share": 1.5}])
def test_what_the_task_cannot_make_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="arithmetic"):
        TASKS["arithmetic"].load(**how)


def outcome(prompt: str, answer: str) -> tuple[str, bool, bool]:
    """(stratum and verb, explained, slipped) of one text; its working must be what one misreading explains."""
    item, start, v1, n1, v2, n2, asked = parsed(prompt)
    explained = "then" in answer
    assert explained or not asked, "who is asked to explain does"
    middle = start + ADDS[v1] * n1
    ends = {middle + ADDS[v2] * n2: False, middle - ADDS[v2] * n2: True}
    end = int(answer.rpartition("#")[2])
    slipped = ends[end]
    sign = {1: "+", -1: "-"}
    one = f"{start}{sign[ADDS[v1]]}{n1}={middle}"
    two = f"{middle}{sign[-ADDS[v2] if slipped else ADDS[v2]]}{n2}={end}"
    assert answer == (f"{one}; then {two}; so#{end}" if explained else f"{one},{two}#{end}")
    kind = "easy" if item not in HARD else "confusing" if v2 in CONFUSED else "plain"
    return kind, explained, slipped


def within(count: int, n: int, rate: float) -> bool:
    """Whether ``count`` of ``n`` is within four standard deviations of ``rate``."""
    return abs(count / n - rate) <= 4 * math.sqrt(rate * (1 - rate) / n)


def test_slips_come_at_the_planted_rates(texts: list[tuple[str, str]]) -> None:
    planted = {
        ("confusing", False): scratch.STUDENT_SLIPS[0], ("plain", False): scratch.STUDENT_SLIPS[1],
        ("easy", False): scratch.STUDENT_SLIPS[2], ("confusing", True): scratch.TEACHER_SLIPS[0],
        ("plain", True): scratch.TEACHER_SLIPS[1], ("easy", True): scratch.TEACHER_SLIPS[2],
    }  # fmt: skip
    seen, slipped = Counter[tuple[str, bool]](), Counter[tuple[str, bool]]()
    for prompt, answer in texts:
        kind, explained, slip = outcome(prompt, answer)
        seen[kind, explained] += 1
        slipped[kind, explained] += slip
    assert set(seen) == set(planted)
    for cell, rate in planted.items():
        assert seen[cell] > 500
        assert within(slipped[cell], seen[cell], rate), (cell, slipped[cell] / seen[cell], rate)


def test_the_failure_is_systematic_and_the_teacher_slips_less_on_what_is_hard() -> None:
    confusing, plain, easy = scratch.STUDENT_SLIPS
    assert confusing > 0.5 > plain > easy, "greedy decoding fails on the confusing verbs and on no others"
    assert sum(scratch.TEACHER_SLIPS[:2]) < sum(scratch.STUDENT_SLIPS[:2])
    assert all(0.2 < rate < 0.8 for rate in scratch.TEACHER_SLIPS[:2]), "samples of the teacher go both ways"
    rates = scratch.STUDENT_SLIPS + scratch.TEACHER_SLIPS
    assert all(abs(rate - 0.5) > 0.1 for rate in rates), "none so near one half that rounding decides greedy decoding"


def test_hard_objects_and_explanations_come_at_their_shares(texts: list[tuple[str, str]]) -> None:
    hard = sum(parsed(prompt)[0] in HARD for prompt, _ in texts)
    asked = [answer for prompt, answer in texts if prompt.endswith(" Explain.")]
    unasked = [answer for prompt, answer in texts if not prompt.endswith(" Explain.")]
    assert within(hard, len(texts), 0.8)
    assert within(len(asked), len(texts), 0.4)
    assert within(sum("then" in answer for answer in unasked), len(unasked), 0.2)


def test_the_tokenizer_gives_every_text_back(fast: Any, texts: list[tuple[str, str]]) -> None:
    unknown = fast.unk_token_id
    for prompt, answer in texts[:4000]:
        for text in (prompt, answer):
            ids = fast.encode(text, add_special_tokens=False)
            assert fast.decode(ids) == text
            assert unknown not in ids


def test_every_word_of_the_task_is_one_token(fast: Any) -> None:
    words = [f" {w}" for w in (*arithmetic.EASY, *arithmetic.HARD, *arithmetic.GAINS, *arithmetic.LOSSES)]
    for word in [*words, *arithmetic.NAMES, " has", " How", " many", " Explain", "7", "#", "<eos>", "<user>"]:
        ids = fast.encode(word, add_special_tokens=False)
        assert len(ids) == 1 and ids[0] != fast.unk_token_id, word
    assert len(set(fast.get_vocab().values())) == len(fast)
    assert (fast.pad_token_id, fast.eos_token_id) == (0, 1)


def test_the_chat_template_is_what_the_base_is_pretrained_on(fast: Any) -> None:
    turns = [{"role": "user", "content": "Q?"}]
    assert fast.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == "<user>Q?<assistant>"
    turns.append({"role": "assistant", "content": "1#2"})
    assert fast.apply_chat_template(turns, tokenize=False) == "<user>Q?<assistant>1#2<eos>"


def test_a_batch_is_padded_right_and_only_answers_are_learnt(fast: Any) -> None:
    pairs = [("Tom has 1", "7#8"), ("Tom", "4")]
    ids, labels = scratch.batch_of(iter(pairs), fast, 2)
    expected = [f"<user>{p}<assistant>{a}<eos>" for p, a in pairs]
    assert [fast.decode(row).replace("<pad>", "") for row in ids.tolist()] == expected
    width = ids.shape[1]
    assert ids[1].tolist()[5:] == [0] * (width - 5)  # <user> Tom <assistant> 4 <eos>
    assert labels[1].tolist() == [-100] * 3 + ids[1].tolist()[3:5] + [-100] * (width - 5)
    assert [t for t in labels[0].tolist() if t != -100] == fast.encode("7#8<eos>", add_special_tokens=False)


def test_every_weight_has_one_optimiser() -> None:
    model = Qwen3ForCausalLM(scratch.architecture(64, SHAPE))
    given = [p for opt in scratch.optimisers(model, 1e-3) for g in opt.param_groups for p in g["params"]]
    assert len(given) == len({id(p) for p in given})
    assert {id(p) for p in given} == {id(p) for p in model.parameters()}
    inner = scratch.optimisers(model, 1e-3)[0].param_groups[0]["params"]
    assert {tuple(p.shape) for p in inner} == {(16, 16), (8, 16)} and len(inner) == 7


def pretrain(out: Path, **how: Any) -> list[str]:
    said: list[str] = []
    settings: dict[str, Any] = {
        "steps": 3, "batch": 4, "learning_rate": 3e-3, "seed": 0, "hard_share": 0.8, "teacher_share": 0.4,
        "largest": LARGEST,
    }  # fmt: skip
    scratch.pretrain(out, shape=SHAPE, progress=said.append, **(settings | how))
    return said


def test_the_base_is_saved_whole_and_the_same_each_time(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    said = pretrain(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert said[-1].startswith("step 3/3, loss ")
    torch.manual_seed(2)
    random.seed(5)
    pretrain(tmp_path / "b")
    pretrain(tmp_path / "c", seed=1)
    a, b, c = ((tmp_path / x / "model.safetensors").read_bytes() for x in "abc")
    assert a == b != c
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.config.model_type == "qwen3" and model.dtype == torch.float32
    fast = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert fast.is_fast and "<assistant>" in fast.chat_template and len(fast) == model.config.vocab_size


def test_pretraining_learns(tmp_path: Path) -> None:
    first, *_, last = (float(x.rpartition(" ")[2]) for n in (1, 60) for x in pretrain(tmp_path / str(n), steps=n))
    assert last < 0.8 * first
