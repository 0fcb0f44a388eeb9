"""Problems and completions as tokens: one tokenizer, one template, for rollouts, training and evaluation alike.

A completion gets the tokens that the chat template gives it behind its prompt: no space that the tokenizer puts in
front of a text of its own, and the end of turn that the template writes, once. How a template writes an answer is read
off one made-up conversation; :meth:`Prompter.parting` then holds each row against the template itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from evals.channels import opened, spoken
from orchestrator.prompts.control_text import ControlText

TODAY = datetime(2024, 7, 26)  # for templates that print the date: Llama 3's own where there is no clock
PROBE = "Zq7"  # an answer that no template has in it
TAG = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z_/]{2,20}\]")
HEADER = 400  # characters that a turn's header may have
SHOWN = 6  # tokens of each side where two rows part

# What was mended in a row, as the table's statistics count it.
OWN_END = "end of turn was there already"
OPENED_TWICE = "prompt's own opening stood there again"
SPACE = "space that the template trims"
CONTROL = "control tokens in a text, kept as text"
BEHIND = "end of sequence that the tokenizer puts behind a prompt"


@dataclass(frozen=True)
class Turn:
    """How the template writes an answer: ``prompt`` is the text before it, ``lead`` the space between them.

    ``end`` is what closes it, as text up to the token ``end_id``; empty where the template writes no such token.
    """

    prompt: str
    lead: str
    end: str
    end_id: int
    trims: tuple[bool, bool] = (False, False)  # space at the answer's start, at its end


class Prompter:
    """Renders and tokenizes with the base model's own fast tokenizer and chat template.

    A tokenizer without a chat template gets the bare text: the prompt is then the instruction itself.
    """

    def __init__(self, model: Path, prompt: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        from evals.engines.requests import stop_tokens

        self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        if prompt.get("template") is not None:
            self.tokenizer.chat_template = prompt["template"]
        self.prompt = prompt
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {model.name} names no end-of-sequence token: set eos_token in it")
        template = self.tokenizer.chat_template
        self.controls = ControlText(self.tokenizer, template if isinstance(template, str) else str(template or ""))
        known = any((model / name).is_file() for name in ("config.json", "generation_config.json"))
        self._stops = stop_tokens(model, self.tokenizer) if known else ()

    def prompt_ids(self, problem: str, instruction: str) -> list[int]:
        """Token ids up to where the answer begins. ``instruction`` holds ``{problem}``."""
        return self.rendered(problem, instruction)[1]

    def rendered(self, problem: str, instruction: str, shots: Sequence[tuple[str, str]] = ()) -> tuple[str, list[int]]:
        """The prompt as text and as token ids; ``shots`` are (problem, solution) pairs, earlier turns of the chat."""
        asked = [self._asked(text, instruction) for text, _ in shots] + [self._asked(problem, instruction)]
        answers = [self.controls.mark(solution, self.kept_as_text) for _, solution in shots] + [""]
        if self.tokenizer.chat_template is None:
            pairs = zip(asked, answers, strict=True)
            text = "\n\n".join(f"{question}\n{solution}" if solution else question for question, solution in pairs)
        else:
            text = self._conversation(asked, answers)
        return self.controls.plain(text), self._ids(text)

    def completion_ids(self, text: str, ended: bool = True) -> list[int]:
        """Token ids of an answer behind its prompt, with the end of turn behind one that ``ended``."""
        return self.completion(text, ended)[0]

    def completion(self, text: str, ended: bool = True) -> tuple[list[int], set[str]]:
        """As :meth:`completion_ids`, and what was mended on the way."""
        body, mended = self._tidied(text, ended)
        marked = self.controls.mark(body, self.kept_as_text)
        if marked != body:
            mended.add(CONTROL)
        if self.tokenizer.chat_template is None:
            ids = self.controls.encode(marked)
        else:
            turn = self.turn
            marked += turn.end if ended else ""
            before, ids = self._turn_ids, self._ids(turn.prompt + turn.lead + marked)
            # Where the two texts share a token at their seam, the answer is what a model goes on with behind the
            # prompt's own tokens.
            ids = ids[len(before) :] if ids[: len(before)] == before else self.controls.encode(turn.lead + marked)
        if ended and ids[-1:] != [self.turn.end_id]:
            ids.append(self.turn.end_id)
        return ids, mended

    def parting(self, problem: str, instruction: str, text: str, ids: Sequence[int], ended: bool = True) -> str | None:
        """Where the template, given problem and completion as a conversation, writes other tokens than ``ids``.

        ``ids`` are those of prompt and completion. None where they agree (what a template writes behind the end of turn
        does not count), or where there is no template.
        """
        if self.tokenizer.chat_template is None or not self._shows_answers:
            return None
        answer = self.controls.mark(self._without_end(text) if ended else text, self.kept_as_text)
        if not answer.strip():
            return None
        asked = self._asked(problem, instruction)
        written = self._answered(asked, answer)
        theirs = self._ids(written)
        ours = list(ids if self.turn.end or not ended else ids[:-1])  # an end that no template writes is none of its
        if theirs[: len(ours)] == ours:
            return None
        said = spoken(self.opening + answer)
        if 0 < len(said.strip()) < len(answer.strip()) and self._answered(asked, said) == written:
            return "the template leaves thoughts out of a conversation, and they are trained on"
        at = next(i for i in range(len(ours)) if theirs[i : i + 1] != [ours[i]])
        before, one, other = (
            self.tokenizer.decode(list(part))
            for part in (ours[max(0, at - SHOWN) : at], theirs[at : at + SHOWN], ours[at : at + SHOWN])
        )
        return f"behind {before!r} the template writes {one!r}, and {other!r} is trained on"

    def mended_in(self, problem: str) -> set[str]:
        """What was mended in a prompt with this problem."""
        around = self.tokenizer.chat_template is None and self._around[1]
        changes = {CONTROL} if self.controls.mark(problem) != problem else set()
        return changes | ({BEHIND} if around else set())

    def text_of(self, ids: Sequence[int], opening: bool = True) -> str:
        """The text of a completion's tokens, with the ``opening`` that its prompt begins it with, as it is graded."""
        return (self.opening if opening else "") + str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def writes_as(self, other: Prompter) -> bool:
        """Whether an answer has the same tokens here and there: one vocabulary, one way to write a turn."""
        return bool(self.turn == other.turn and self.tokenizer.get_vocab() == other.tokenizer.get_vocab())

    @property
    def end_token(self) -> str:
        """The token that ends a turn, as text."""
        return str(self.tokenizer.convert_ids_to_tokens(self.turn.end_id))

    @property
    def opening(self) -> str:
        """What the prompt begins each answer with itself: a thought, or nothing."""
        return opened(self.turn.prompt)

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The texts of the tokens that begin or end a sequence: an answer holds them as text alone, but at its end."""
        ids = {*self._stops, self.turn.end_id, self.tokenizer.eos_token_id, self.tokenizer.bos_token_id}
        return tuple(name for name, number in self.controls.ids.items() if number in ids)

    @cached_property
    def kept_as_text(self) -> tuple[str, ...]:
        """Control tokens that an answer holds as text alone: :attr:`ends`, and those that begin a turn."""
        header = self.turn.prompt.removesuffix(self.opening)
        added = self.tokenizer.added_tokens_decoder
        begin = [name for name, number in self.controls.ids.items() if added[number].special and name in header]
        return tuple(dict.fromkeys((*self.ends, *begin)))

    @cached_property
    def _shows_answers(self) -> bool:
        """Whether the template writes an answer at all, so that rows can be held against it."""
        return PROBE in self._answered("1", PROBE)

    @cached_property
    def turn(self) -> Turn:
        """See :class:`Turn`. ``ValueError`` for a template that writes one conversation in two ways."""
        bare = Turn("", "", "", self.tokenizer.eos_token_id)
        if self.tokenizer.chat_template is None:
            return bare
        prompt = self._conversation(["1"], [""])
        if any(self._conversation(["1"], [""]) != prompt for _ in range(3)):
            raise ValueError("prompt.template: it writes one conversation in several ways: take chance out of it")
        whole, spaced = self._answered("1", PROBE), self._answered("1", f"\t{PROBE}\t")
        start = whole.rfind(PROBE)
        if start < 0:  # it shows no answers: they end with the sequence
            return Turn(prompt, "", "", bare.end_id)
        before, tail = whole[:start], whole[start + len(PROBE) :]
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        end = self.controls.pattern.search(tail)
        return Turn(
            prompt,
            "" if lead.strip() else lead,
            tail[: end.end()] if end else "",
            self.controls.ids[end[0]] if end else bare.end_id,
            (f"\t{PROBE}" not in spaced, f"{PROBE}\t" not in spaced),
        )

    @cached_property
    def _turn_ids(self) -> list[int]:
        return self._ids(self.turn.prompt)

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts in front of a bare text, and behind it: these are no part of a prompt."""
        whole, bare = (list(self.tokenizer.encode("a", add_special_tokens=special)) for special in (True, False))
        for k in range(len(whole) - len(bare) + 1):
            if whole[k : k + len(bare)] == bare:
                return whole[:k], whole[k + len(bare) :]
        return [token for token in whole[:1] if token == self.tokenizer.bos_token_id], []

    def _ids(self, text: str) -> list[int]:
        """Token ids of a prompt or conversation, marks in it: it begins once, whoever writes the beginning."""
        ids = self.controls.encode(text)
        if self.tokenizer.chat_template is None:
            before = self._around[0]
            ids = ids if before and ids[: len(before)] == before else before + ids
        bos = self.tokenizer.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def _asked(self, problem: str, instruction: str) -> str:
        return instruction.replace("{problem}", self.controls.mark(problem))

    def _answered(self, asked: str, answer: str) -> str:
        """The template's text of a question and its answer; nothing where it takes no answers."""
        try:
            return self._conversation([asked], [answer])
        except Exception:  # a template is somebody's program, and raises what it likes
            return ""

    def _conversation(self, asked: Sequence[str], answers: Sequence[str]) -> str:
        """The template's text of these turns, marks in it; up to where the answer begins if the last one is empty."""
        system = self.prompt.get("system")
        turns = [{"role": "system", "content": system}] if system else []
        for question, answer in zip(asked, answers, strict=True):
            turns.append({"role": "user", "content": question})
            if answer:
                turns.append({"role": "assistant", "content": answer})
        thinking = self.prompt.get("thinking")
        return str(
            self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=not answers[-1],
                strftime_now=TODAY.strftime,  # a prompt is the same on every day
                **({} if thinking is None else {"enable_thinking": thinking}),
            )
        )

    def _tidied(self, text: str, ended: bool) -> tuple[str, set[str]]:
        """The completion without what its turn has anyway, and what that was."""
        mended = set()
        body = self._without_end(text) if ended else text
        if body != text:
            mended.add(OWN_END)
        rest = _without_opening(self.turn.prompt, body)
        if rest is not None:
            mended.add(OPENED_TWICE)
            body = rest
        left, right = self.turn.trims
        trimmed = body.lstrip() if left and rest is None else body
        trimmed = trimmed.rstrip() if right and ended else trimmed
        if trimmed != body:
            mended.add(SPACE)
        return trimmed, mended

    def _without_end(self, text: str) -> str:
        """The text without the tokens, written out, that end a turn or a sequence, and the space before them."""
        bare = text.rstrip()
        while end := next((name for name in self.ends if bare.endswith(name)), None):
            text = bare = bare.removesuffix(end).rstrip()
        return text


def _without_opening(prompt: str, text: str) -> str | None:
    """The answer without what the prompt ends with and the answer begins with once more; None where there is nothing.

    Only what holds a tag counts: ``<think>``, or a turn's whole header.
    """
    base, start = prompt.rstrip(), text.lstrip()
    for size in range(min(len(base), len(start), HEADER), 0, -1):
        if start.startswith(base[-size:]) and TAG.search(base[-size:]):
            return start[size:].removeprefix(prompt[len(base) :])
    return None
