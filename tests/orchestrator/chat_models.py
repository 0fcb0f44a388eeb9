"""Folders with small real tokenizers of the kinds that are in use, each with its family's own way to write a chat."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "What is 3 + 4? The answer is 7.", "user\n", "assistant\n", "model\n", "\n\n", "Tom has 12 apples and eats 5.",
    "I think so.\n\nThe answer is 7.", "Today Date: 26 Jul 2024", "<think>\n", "</think>\n\n", "[INST] What? [/INST]",
]  # fmt: skip

WORDS = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # as Llama 3 splits, in short
LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
QWEN_THINKING = (  # of the models that always think: the prompt opens the thought
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- set content = m.content %}{%- set thought = '' %}"
    "{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{%- for m in messages %}{%- if m['role'] == 'user' %}{{- '<｜User｜>' + m['content'] }}{%- else %}"
    "{%- set content = m['content'] %}{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}"
    "{%- endif %}{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\n' }}{%- endif %}"
)


def saved(
    folder: Path, core: Tokenizer, template: str | None, extra: list[str], plain: list[str], **names: str
) -> Path:
    """The tokenizer with special tokens (``names``, ``extra``) and ``plain`` added ones, under ``folder``."""
    core.add_special_tokens([*names.values(), *extra])
    core.add_tokens(plain)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    fast.chat_template = template
    fast.save_pretrained(folder)
    ids = {name: core.token_to_id(token) for name, token in names.items()}
    config = {"model_type": "qwen3", "vocab_size": core.get_vocab_size(), "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": ids["eos_token"]}))
    return folder


def byte_level(
    folder: Path, template: str | None, extra: list[str], plain: list[str] | None = None, **names: str
) -> Path:
    """BPE over bytes, as Llama 3 and Qwen have it."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    return saved(folder, core, template, extra, plain or [], **names)


def sentence_piece(
    folder: Path, template: str | None, extra: list[str], *, end_behind: bool = False, **names: str
) -> Path:
    """Unigram with a space before each text, and a beginning of sequence, as SentencePiece's models have them.

    ``end_behind`` puts an end of sequence behind each text too (``add_eos_token``).
    """
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", *names.values()], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator([*TEXTS, "<s> </s>"], trainer)
    around = f"{names['bos_token']} $A" + f" {names['eos_token']}" * end_behind
    ids = [(name, core.token_to_id(name)) for name in names.values()]
    core.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return saved(folder, core, template, extra, [], **names)


def gemma(folder: Path) -> Path:
    """BPE over characters whose spaces are marks; a turn ends otherwise than a sequence."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>", "<eos>", "<bos>"], show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    ids = [("<bos>", core.token_to_id("<bos>"))]
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=ids)
    return saved(folder, core, GEMMA, ["<start_of_turn>", "<end_of_turn>"], [], bos_token="<bos>", eos_token="<eos>")


def llama3(folder: Path, template: str | None = LLAMA3) -> Path:
    extra = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return byte_level(folder, template, extra, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def qwen_thinking(folder: Path, template: str = QWEN_THINKING) -> Path:
    return byte_level(folder, template, ["<|im_start|>"], ["<think>", "</think>"], eos_token="<|im_end|>")


def deepseek(folder: Path) -> Path:
    names = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
    return byte_level(folder, DEEPSEEK, ["<｜User｜>", "<｜Assistant｜>"], ["<think>", "</think>"], **names)


def mistral(folder: Path) -> Path:
    return sentence_piece(folder, MISTRAL, ["[INST]", "[/INST]"], bos_token="<s>", eos_token="</s>")


FAMILIES = {"llama3": llama3, "gemma": gemma, "mistral": mistral, "qwen_thinking": qwen_thinking, "deepseek": deepseek}
