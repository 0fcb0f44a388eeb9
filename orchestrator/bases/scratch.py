"""Pretrains a small base: a Qwen3 on the project's arithmetic word problems.

It is a test bed with a *planted, systematic failure* that distinguishes the six objectives. In the pretraining text
the sign of a problem's second change is wrong at a rate that depends on the object and the verb: mostly for half of
the verbs with hard objects, rarely with easy ones. A second style, requested by the word "Explain.", writes the same
working differently and fails less: with that prompt the base is the *teacher*, and the students train on its texts
without that word. Results on this base are partly planted: they test the tool and say nothing about language models.

The base's behaviour must not depend on rounding, or two processors would give two studies. So every rate is far from
one half, where greedy decoding would flip; and the teacher's style also occurs unrequested in part of the texts:
otherwise an objective that weights tokens by probability (DFT) would start from a style of probability zero, and
rounding would decide whether it learns it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from evals.tasks import arithmetic
from evals.tasks.arithmetic import GAINS, LOSSES, WordProblem, working
from orchestrator.bases.from_scratch import SCRATCH_POSITIONS
from orchestrator.bases.muon import Muon

PAD, EOS, UNK, USER, ASSISTANT = "<pad>", "<eos>", "<unk>", "<user>", "<assistant>"
EXPLAIN = " Explain."
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<user>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<assistant>{{ message['content'] }}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Rates of a wrong sign in the second change: (hard object, confusing verb), (hard object, other verb), (easy object).
STUDENT_SLIPS = (0.85, 0.15, 0.02)
TEACHER_SLIPS = (0.65, 0.25, 0.10)
UNASKED = 0.2  # fraction of the teacher's style among answers to prompts that do not request it
CONFUSING = frozenset(GAINS[:2] + LOSSES[:2])


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-and-digit tokenizer that round-trips every text of this task byte for byte."""
    words = [PAD, EOS, UNK, USER, ASSISTANT, *"0123456789+-=#,.?; "]
    words += [*arithmetic.NAMES, " has", " How", " many", " Explain", " then", " so"]
    words += [f" {w}" for w in arithmetic.EASY + arithmetic.HARD + GAINS + LOSSES]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|."), behavior="isolated")
    core.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def slip_rate(problem: WordProblem, rates: tuple[float, float, float]) -> float:
    if problem.stratum == "easy":
        return rates[2]
    return rates[0] if problem.second[0] in CONFUSING else rates[1]


def pretraining_texts(seed: int, hard_share: float, teacher_share: float, largest: int) -> Any:
    """Yield (prompt, answer) pairs endlessly, from the split that neither rollouts nor evaluation use."""
    rng = random.Random(f"pretraining {seed}")
    for problem in arithmetic.stream("pretrain", rng, hard_share, largest):
        asked = rng.random() < teacher_share
        explained = rng.random() < UNASKED or asked
        slipped = rng.random() < slip_rate(problem, TEACHER_SLIPS if explained else STUDENT_SLIPS)
        prompt = problem.text + (EXPLAIN if asked else "")
        yield prompt, working(problem, slipped=slipped, explained=explained)


def architecture(vocabulary: int, shape: Mapping[str, int], positions: int = SCRATCH_POSITIONS) -> Qwen3Config:
    """Qwen3 at the given ``shape`` (layers, hidden, heads, kv_heads, head_dim, intermediate), for so many tokens."""
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=shape["hidden"],
        intermediate_size=shape["intermediate"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def batch_of(texts: Any, fast: PreTrainedTokenizerFast, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows x length token ids, the same with prompt and padding masked to -100), right-padded."""
    ids, labels = [], []
    for prompt, answer in (next(texts) for _ in range(rows)):
        question = fast.encode(f"{USER}{prompt}{ASSISTANT}", add_special_tokens=False)
        reply = fast.encode(f"{answer}{EOS}", add_special_tokens=False)
        ids.append(question + reply)
        labels.append([-100] * len(question) + reply)
    width = max(map(len, ids))
    return (
        torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    )


def optimisers(model: Qwen3ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the blocks, AdamW on embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    return [
        Muon(inner, lr=learning_rate),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def pretraining_step(
    model: Qwen3ForCausalLM, opts: list[torch.optim.Optimizer], texts: Any, fast: PreTrainedTokenizerFast, rows: int
) -> torch.Tensor:
    """One step on the next ``rows`` texts; returns the loss of their answers."""
    ids, labels = batch_of(texts, fast, rows)
    # Padding is on the right, which causal attention never sees: no mask is needed.
    hidden = model.model(ids).last_hidden_state[:, :-1]
    answered = labels[:, 1:] != -100
    logits = model.lm_head(hidden[answered])
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][answered])
    loss.backward()
    for opt in opts:
        opt.step()
        opt.zero_grad(set_to_none=True)
    return loss


def pretrain(
    out: Path,
    *,
    shape: dict[str, int],
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    hard_share: float,
    teacher_share: float,
    largest: int,
    progress: Callable[[str], None],
) -> None:
    """Pretrain for a fixed number of ``steps`` and save model, fast tokenizer and chat template under ``out``."""
    fast = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(architecture(len(fast), shape)).float().train()
    texts = pretraining_texts(seed, hard_share, teacher_share, largest)
    opts = optimisers(model, learning_rate)
    warm, cool = max(1, steps // 20), max(1, steps // 3)
    for step in range(steps):
        share = min(1.0, (step + 1) / warm, (steps - step) / cool)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = learning_rate * share
        loss = pretraining_step(model, opts, texts, fast, batch)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            if not math.isfinite(loss.item()):
                raise ValueError(f"the base's loss is {loss.item()} at step {step + 1}: lower base.learning_rate")
            progress(f"step {step + 1}/{steps}, loss {loss.item():.3f}")
    model.eval().save_pretrained(out)
    fast.save_pretrained(out)
