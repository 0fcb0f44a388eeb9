"""What a completion says, apart from what its model thought before it spoke."""

from __future__ import annotations

import re

LONGEST = 200_000  # characters: an answer stands at a completion's end, and what lies before it is not looked at
OPENING = 10_000  # except for a thought that begins there
_TAGS = (  # how a thought begins, and how it ends
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
# gpt-oss (openai-harmony): every message names its channel, and "final" alone is for the reader. Where special tokens
# are left out of the text, the roles and channels stay behind as words.
_HARMONY = re.compile(
    r"<\|channel\|>\s*(?P<channel>[a-z]+)(?:(?!<\|).){0,200}(?:<\|message\|>)?"
    r"|\A\s{0,8}(?P<first>analysis|commentary)(?=[A-Z])|assistant(?P<then>final|analysis|commentary)(?=[^a-z]|\Z)",
    re.DOTALL,
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call)\|>")


def opened(prompt: str) -> str:
    """The beginning of a thought that a prompt ends with, and the space behind it; nothing where it ends otherwise."""
    bare = prompt.rstrip()
    return next((start + prompt[len(bare) :] for start, _ in _TAGS if bare.endswith(start)), "")


def spoken(completion: str) -> str:
    """What follows the last thought, up to one that does not end; at most the last ``LONGEST`` characters of it.

    A thought that never ends leaves what stands before it. Of gpt-oss' channels it is the last "final" one's message.
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
    """The message of the last final channel; without one, what stands before the first channel."""
    begin, end = 0, len(text)
    for found in _HARMONY.finditer(text):
        channel = found["channel"] or found["first"] or found["then"]
        if channel == "final":
            begin, end = found.end(), len(text)
        else:
            end = min(end, found.start())
    return _MESSAGE_END.split(text[begin:end], maxsplit=1)[0]
