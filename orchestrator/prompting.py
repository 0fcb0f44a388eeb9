"""Problems and completions as tokens: one tokenizer, one template, for rollouts, training and evaluation alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Prompter:
    """Renders and tokenizes with the base model's own fast tokenizer and chat template.

    A tokenizer without a chat template gets the bare text: the prompt is then the instruction itself.
    """

    def __init__(self, model: Path, prompt: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        self.prompt = prompt
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {model.name} names no end-of-sequence token: set eos_token in it")

    def prompt_ids(self, problem: str, instruction: str) -> list[int]:
        """Token ids up to where the answer begins. ``instruction`` holds ``{problem}``."""
        text = instruction.replace("{problem}", problem)
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer.encode(text))
        system = self.prompt.get("system")
        turns = [{"role": "system", "content": system}] if system else []
        thinking = self.prompt.get("thinking")
        rendered = self.tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
            **({} if thinking is None else {"enable_thinking": thinking}),
        )
        return list(self.tokenizer.encode(rendered, add_special_tokens=False))

    def completion_ids(self, text: str, ended: bool = True) -> list[int]:
        """Token ids of an answer, with the end-of-sequence token behind one that ``ended``."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self.tokenizer.eos_token_id] if ended else list(ids)
