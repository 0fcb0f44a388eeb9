"""Problems and completions as tokens: one tokenizer, one template, for rollouts, training and evaluation alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Prompter:
    """Renders and tokenizes with the base model's own fast tokenizer and chat template.

    A tokenizer without a chat template gets the bare text: the prompt is then the instruction itself.
    """

    def __init__(self, model: Path, prompt: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        if prompt.get("template") is not None:
            self.tokenizer.chat_template = prompt["template"]
        self.prompt = prompt
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {model.name} names no end-of-sequence token: set eos_token in it")

    def prompt_ids(self, problem: str, instruction: str) -> list[int]:
        """Token ids up to where the answer begins. ``instruction`` holds ``{problem}``."""
        return self.rendered(problem, instruction)[1]

    def rendered(self, problem: str, instruction: str, shots: Sequence[tuple[str, str]] = ()) -> tuple[str, list[int]]:
        """The prompt as text and as token ids; ``shots`` are (problem, solution) pairs, earlier turns of the chat."""
        asked = [(instruction.replace("{problem}", text), solution) for text, solution in (*shots, (problem, ""))]
        if self.tokenizer.chat_template is None:
            text = "\n\n".join(f"{question}\n{solution}" if solution else question for question, solution in asked)
            return text, list(self.tokenizer.encode(text))
        system = self.prompt.get("system")
        turns = [{"role": "system", "content": system}] if system else []
        for question, solution in asked:
            turns.append({"role": "user", "content": question})
            if solution:
                turns.append({"role": "assistant", "content": solution})
        thinking = self.prompt.get("thinking")
        rendered = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=True,
            **({} if thinking is None else {"enable_thinking": thinking}),
        )
        text = str(rendered)
        return text, list(self.tokenizer.encode(text, add_special_tokens=False))

    def completion_ids(self, text: str, ended: bool = True) -> list[int]:
        """Token ids of an answer, with the end-of-sequence token behind one that ``ended``."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self.tokenizer.eos_token_id] if ended else list(ids)
