"""Separates a completion's answer from the reasoning that a model writes in special tags or channels."""

from __future__ import annotations

import re

LONGEST = 200_000  # characters at a completion's end that are searched for an answer
OPENING = 10_000  # characters at its beginning that are searched for an opening tag
_TAGS = (  # opening and closing tags of reasoning
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3 and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<thoughts>", "</thoughts>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<THINK>", "</THINK>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|channel>thought", "<channel|>"),
    ("<unused94>", "<unused95>"),
)
# gpt-oss (openai-harmony): every message names its channel, and only "final" is for the reader. Where special tokens
# are stripped from the text, role and channel names remain as words.
_HARMONY = re.compile(
    r"<\|channel\|>\s*(?P<channel>[a-z]+)(?:(?!<\|).){0,200}(?:<\|message\|>)?"
    r"|\A\s{0,8}(?P<first>analysis|commentary)(?=[A-Z])|assistant(?P<then>final|analysis|commentary)(?=[^a-z]|\Z)",
    re.DOTALL,
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call)\|>")


def opened(prompt: str) -> str:
    """The opening reasoning tag, with trailing space, that a prompt ends with; empty if it does not."""
    bare = prompt.rstrip()
    return next((start + prompt[len(bare) :] for start, _ in _TAGS if bare.endswith(start)), "")


def spoken(completion: str) -> str:
    """The text after the last closed reasoning block, within the last ``LONGEST`` characters.

    A block that is never closed, and everything after it, is left out. For gpt-oss it is the last "final" message.
    """
    text = completion[-LONGEST:]
    before = completion[: min(OPENING, len(completion) - len(text))]
    begin = max((text.rfind(end) + len(end) for _, end in _TAGS if end in text), default=0)
    if not begin and any(start in before and end not in completion for start, end in _TAGS):
        return ""
    starts = [text.find(start, begin) for start, _ in _TAGS]
    text = text[begin : min((at for at in starts if at >= 0), default=len(text))]
    return _final(before + text) if _HARMONY.search(before + text) else text


def _final(text: str) -> str:
    """The message of the last final channel; without one, the text before the first channel."""
    begin, end = 0, len(text)
    for match in _HARMONY.finditer(text):
        channel = match["channel"] or match["first"] or match["then"]
        if channel == "final":
            begin, end = match.end(), len(text)
        else:
            end = min(end, match.start())
    return _MESSAGE_END.split(text[begin:end], maxsplit=1)[0]
