"""Control tokens written out in somebody's text: read as the characters that they are, never as the tokens.

A problem that says ``<|im_end|>`` must not end its own turn. Whoever puts a text into a template marks what looks like
a control token in it; what the template itself writes stays unmarked and becomes the token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

# A mark is OPEN, a number, CLOSE: characters that no text has (Unicode keeps them from interchange), or that are
# themselves marked.
OPEN, CLOSE, TWIN = "\ufdd0", "\ufdd1", "\ufdd2"
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")


class ControlText:
    """Of one fast tokenizer and the template that is used with it (None: no template).

    Control tokens are the tokenizer's special ones, and further added ones that the template writes (``<think>``).
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.ids = {
            token.content: number
            for number, token in added.items()
            if token.content.strip() and (token.special or token.content in (template or ""))
        }
        self.names = [*self.ids, OPEN]
        self.pattern = _any_of(self.names)
        self._twin: Any = None

    def mark(self, text: str, only: Collection[str] | None = None) -> str:
        """The text with its control tokens (or ``only`` these) marked as characters."""
        pattern = self.pattern if only is None else _any_of([*only, OPEN])
        return pattern.sub(lambda match: f"{OPEN}{self.names.index(match[0])}{CLOSE}", text)

    def plain(self, text: str) -> str:
        """The text without marks: with the characters that they stand for."""
        return MARK.sub(lambda match: self.names[int(match[1])], text)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text with marks, without the tokens that a tokenizer puts around it."""
        if OPEN not in text:
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        if self._twin is None:
            self._twin = _twin_of(self.tokenizer, {name: f"{TWIN}{i}{TWIN}" for i, name in enumerate(self.ids)})
        twins = [f"{TWIN}{i}{TWIN}" for i in range(len(self.ids))]
        back = dict(zip(map(self._twin.token_to_id, twins), self.ids.values(), strict=True))
        parts = MARK.split(text)  # text, number, text, number, ..., text
        parts[::2] = [_any_of(self.ids).sub(lambda match: twins[self.names.index(match[0])], p) for p in parts[::2]]
        parts[1::2] = [self.names[int(number)] for number in parts[1::2]]
        return [back.get(token, token) for token in self._twin.encode("".join(parts), add_special_tokens=False).ids]


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    """A pattern for any of the names, the longest first; of no name it finds nothing."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def _twin_of(tokenizer: Any, names: dict[str, str]) -> Any:
    """The tokenizer with its control tokens under other names, so that their own are mere characters to it."""
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise ValueError("a problem holds the text of a control token, which only a fast tokenizer can tell apart")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = spec["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:  # Unigram's
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if not _makes(m, names)]
    spec |= {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(spec))


def _makes(merge: str | list[str], names: Collection[str]) -> bool:
    """Whether a merge of BPE makes or takes one of these tokens out of its characters."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left + right in names or left in names or right in names
