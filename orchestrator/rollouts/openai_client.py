"""A teacher behind an OpenAI-compatible API: one chat completion a question, and what goes wrong in one line.

The key is read from the environment, sent as the bearer token, and told to nobody: it is cut out of whatever a server
says. Certificates are checked; a proxy is the environment's own (``HTTPS_PROXY``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from execution.errors import UserError
from methods.seeds import derive

LONGEST = 200  # characters of what a server says
FINISH = 40  # characters of the reason why it ended an answer
UNUSABLE = (400, 413, 422)  # answers to one request that say nothing about the next: too long, filtered
TEMPLATE_TOKENS = 256  # that a chat template may add to what is asked
OPENAI = "api.openai.com"  # where max_tokens is called max_completion_tokens
SECRET = 8  # characters from which on a key is cut out of completions: a shorter one may be a word of theirs


class Refused(ValueError):
    """A request that the server does not take, or a reply without a completion: others may fare better.

    ``tokens`` of prompt and completion are what the reply is billed by.
    """

    def __init__(self, said: str, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(said)
        self.tokens = tokens


@dataclass(frozen=True)
class Question:
    """Sample number ``sample`` of the problem ``problem_id``; ``text`` is the user's turn."""

    problem_id: str
    sample: int
    text: str

    def seed(self, of: int) -> int:
        """Of this request, in [0, 2^31): from the study's seed, the problem and the sample's number alone."""
        return derive("teacher", of, self.problem_id, self.sample) % 2**31


@dataclass(frozen=True)
class Answer:
    """What came back: the text, the reasoning told apart from it, why it ended, and the tokens that it is billed by."""

    text: str
    reasoning: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    retries: int


def key_of(name: str | None) -> str | None:
    """The key in the environment variable ``name``; None for None. ``UserError`` where there is none."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"rollouts.key: the environment variable {name} is not set here: export the key in it, or set "
            "rollouts.key=null for a server that asks for none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"rollouts.key: what {name} holds is no key: it has spaces or characters that no key has")
    return key


class Teacher:
    """Asks by the rollouts' ``config``, as their ``where`` allows (key, retries, timeout). Close it in its loop."""

    def __init__(self, config: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        from openai import AsyncOpenAI, Omit

        self.config, self.where = config, where
        self.key = key_of(where["key"])
        self.openai = urlsplit(config["base_url"]).hostname == OPENAI
        self.headers = {} if self.key else {"Authorization": Omit()}  # the client would look for a key of its own
        self.client = AsyncOpenAI(
            api_key=self.key or "none",
            base_url=config["base_url"],
            max_retries=where["retries"],
            timeout=where["timeout"],
        )
        if not self.openai:  # what the environment holds for OpenAI (OPENAI_ORG_ID and the like) is no one else's
            self.client.organization = self.client.project = None
            self.client._custom_headers = {}

    async def close(self) -> None:
        await self.client.close()

    def most(self, question: Question) -> tuple[int, int]:
        """Tokens of prompt and completion that the answer may be billed by, at most: a token is a byte or more."""
        system = self.config["prompt"]["system"] or ""
        return len((system + question.text).encode()) + TEMPLATE_TOKENS, self.config["max_tokens"]

    async def ask(self, question: Question) -> Answer:
        """``Refused`` for a request that this server does not answer, ``ValueError`` where none is worth sending.

        The client itself waits and asks again, ``retries`` times, after 408, 409, 429, 5xx, a timeout and a lost
        connection: as long as ``Retry-After`` says (up to two minutes), else 0.5 s, doubled up to 8 s, with jitter.
        """
        import openai

        try:
            reply = await self.client.chat.completions.with_raw_response.create(**self.request(question))
        except openai.APIStatusError as error:
            said = f"{error.status_code}: {self._said(error.body or error.message)}"
            if error.status_code in UNUSABLE:
                raise Refused(said) from None
            raise ValueError(self._line(error.status_code, said)) from None
        except openai.APITimeoutError:
            line = f"no answer within {self.where['timeout']:g} s, {self._times()}: raise rollouts.timeout or lower "
            raise ValueError(f"{self._server()}: {line}rollouts.at_once") from None
        except openai.APIConnectionError as error:
            why = self._said(str(error.__cause__ or error))
            raise ValueError(f"{self._server()} cannot be reached, {self._times()} ({why})") from None
        return self._read(reply.http_response, question, reply.retries_taken)

    def request(self, question: Question) -> dict[str, Any]:
        """What is sent."""
        config = self.config
        system = config["prompt"]["system"]
        return {
            "model": config["model"],
            "messages": [
                *([{"role": "system", "content": system}] if system else []),
                {"role": "user", "content": question.text},
            ],
            "n": 1,
            "seed": question.seed(config["seed"]),
            "temperature": config["temperature"],
            "top_p": config["top_p"],
            "max_completion_tokens" if self.openai else "max_tokens": config["max_tokens"],
            "extra_body": config["body"],
            "extra_headers": self.headers,
        }

    def _read(self, response: Any, question: Question, retries: int) -> Answer:
        """The answer in a reply."""
        tokens = 0, 0
        try:
            reply = response.json()
            tokens = self._tokens(reply, question)
            choice = reply["choices"][0]
            message = choice["message"]
            text, finish = message.get("content"), choice.get("finish_reason")
            reasoning = message.get("reasoning_content") or message.get("reasoning")
            if not isinstance(text, str | None) or not isinstance(reasoning, str | None):
                raise TypeError
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            said = self._said(response.text) or "empty"
            raise Refused(f"its reply is no chat completion: {said}", tokens) from None
        return Answer(self._text(text), self._text(reasoning), self._said(finish)[:FINISH], *tokens, retries)

    def _tokens(self, reply: Any, question: Question) -> tuple[int, int]:
        """What a reply is billed by. A completion that does not say it is billed by the most that it can be."""
        usage = reply.get("usage")
        told = usage if isinstance(usage, dict) else {}
        most = self.most(question) if reply.get("choices") else (0, 0)

        def of(name: str, else_: int) -> int:
            found = told.get(name)
            return found if isinstance(found, int) and found >= 0 else else_

        return of("prompt_tokens", most[0]), of("completion_tokens", most[1])

    def _line(self, status: int, said: str) -> str:
        """A status that stops the asking, in a line with its mend."""
        name = self.where["key"]
        if status == 401 and name is None:
            return f"{self._server()} wants a key ({said}): name its environment variable in rollouts.key"
        if status == 401:
            return f"{self._server()} refuses the key that {name} holds ({said}): export another one"
        if status == 403:
            return f"{self._server()} does not allow this ({said}): see rollouts.key and rollouts.model"
        if status == 404:
            return (
                f"{self._server()} has no model {self.config['model']} or no chat completions there ({said}): see "
                "rollouts.model and rollouts.base_url"
            )
        if status == 429:
            return f"{self._server()} takes no more, {self._times()} ({said}): lower rollouts.at_once, or wait"
        return f"{self._server()} fails{f', {self._times()}' if status in (408, 409) or status >= 500 else ''} ({said})"

    def _server(self) -> str:
        return f"the teacher at {self.config['base_url']}"

    def _times(self) -> str:
        times = self.where["retries"] + 1
        return "asked once" if times == 1 else f"asked {times} times"

    def _said(self, body: object) -> str:
        """What a server says, in a few words on one line and without the key."""
        message = body.get("message", body) if isinstance(body, dict) else body
        text = " ".join(str(message).split())
        text = "".join(c for c in text if c.isprintable())
        if self.key:
            text = text.replace(self.key, "[key]")
        return text[:LONGEST]

    def _text(self, text: str | None) -> str:
        """A text of the server's, without the key, and with question marks for halves of characters: no file takes
        those."""
        text = (text or "").encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if self.key and len(self.key) >= SECRET else text
