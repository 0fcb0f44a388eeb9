"""Client of a teacher behind an OpenAI-compatible API: one chat completion per question, with one-line errors.

The key is read from the environment, sent as the bearer token and removed from everything that a server returns.
Certificates are checked; a proxy is taken from the environment (``HTTPS_PROXY``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from execution.errors import UserError
from methods.seeds import derive

LONGEST = 200  # characters of a server's message
FINISH = 40  # characters of a finish reason
UNUSABLE = (400, 413, 422)  # statuses that concern one request only: too long, filtered
TEMPLATE_TOKENS = 256  # that a chat template may add to a prompt
OPENAI = "api.openai.com"  # where max_tokens is called max_completion_tokens
SECRET = 8  # shortest key that is removed from completions: a shorter one could be an ordinary word


class Refused(ValueError):
    """The server refused this request, or its reply has no completion; other requests may succeed.

    ``tokens``: billed tokens of prompt and completion.
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
        """This request's seed in [0, 2^31), from the study's seed ``of``, the problem and the sample's number."""
        return derive("teacher", of, self.problem_id, self.sample) % 2**31


@dataclass(frozen=True)
class Answer:
    """A reply: text, separately returned reasoning, finish reason, billed tokens, retries."""

    text: str
    reasoning: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    retries: int


def key_of(name: str | None) -> str | None:
    """The key in the environment variable ``name``; None for None. ``UserError`` if it is missing or malformed."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"rollouts.key: the environment variable {name} is not set here: export the key in it, or set "
            "rollouts.key=null for a server that needs none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"rollouts.key: {name} does not hold a key: it has spaces or characters that no key has")
    return key


class Teacher:
    """Client for a rollouts ``config`` and runtime inputs ``runtime`` (key, retries, timeout). Close it in its loop."""

    def __init__(self, config: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
        from openai import AsyncOpenAI, Omit

        self.config, self.runtime = config, runtime
        self.key = key_of(runtime["key"])
        self.openai = urlsplit(config["base_url"]).hostname == OPENAI
        self.headers = {} if self.key else {"Authorization": Omit()}  # else the client would look for OPENAI_API_KEY
        self.client = AsyncOpenAI(
            api_key=self.key or "none",
            base_url=config["base_url"],
            max_retries=runtime["retries"],
            timeout=runtime["timeout"],
        )
        if not self.openai:  # OpenAI's settings in the environment (OPENAI_ORG_ID etc.) are not for other servers
            self.client.organization = self.client.project = None
            self.client._custom_headers = {}

    async def close(self) -> None:
        await self.client.close()

    def most(self, question: Question) -> tuple[int, int]:
        """Upper limit of billed prompt and completion tokens: a token is at least a byte."""
        system = self.config["prompt"]["system"] or ""
        return len((system + question.text).encode()) + TEMPLATE_TOKENS, self.config["max_tokens"]

    async def ask(self, question: Question) -> Answer:
        """The answer. ``Refused`` if the server refuses this request, ``ValueError`` if further ones would fail too.

        The client retries up to ``retries`` times after 408, 409, 429, 5xx, a timeout or a lost connection, after the
        time in ``Retry-After`` (up to two minutes), else 0.5 s doubled up to 8 s, with jitter.
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
            line = f"no answer within {self.runtime['timeout']:g} s, {self._times()}: raise rollouts.timeout or lower "
            raise ValueError(f"{self._server()}: {line}rollouts.at_once") from None
        except openai.APIConnectionError as error:
            why = self._said(str(error.__cause__ or error))
            raise ValueError(f"{self._server()} cannot be reached, {self._times()} ({why})") from None
        return self._read(reply.http_response, question, reply.retries_taken)

    def request(self, question: Question) -> dict[str, Any]:
        """The request's fields."""
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
            raise Refused(f"its reply is not a chat completion: {said}", tokens) from None
        return Answer(self._text(text), self._text(reasoning), self._said(finish)[:FINISH], *tokens, retries)

    def _tokens(self, reply: Any, question: Question) -> tuple[int, int]:
        """A reply's billed tokens; the upper limit for a completion without usage."""
        usage = reply.get("usage")
        given = usage if isinstance(usage, dict) else {}
        most = self.most(question) if reply.get("choices") else (0, 0)

        def of(name: str, else_: int) -> int:
            value = given.get(name)
            return value if isinstance(value, int) and value >= 0 else else_

        return of("prompt_tokens", most[0]), of("completion_tokens", most[1])

    def _line(self, status: int, said: str) -> str:
        """The message for a status that stops all requests, with what to do."""
        name = self.runtime["key"]
        if status == 401 and name is None:
            return f"{self._server()} needs a key ({said}): name its environment variable in rollouts.key"
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
            return f"{self._server()} limits requests, {self._times()} ({said}): lower rollouts.at_once, or wait"
        return f"{self._server()} fails{f', {self._times()}' if status in (408, 409) or status >= 500 else ''} ({said})"

    def _server(self) -> str:
        return f"the teacher at {self.config['base_url']}"

    def _times(self) -> str:
        times = self.runtime["retries"] + 1
        return "asked once" if times == 1 else f"asked {times} times"

    def _said(self, body: object) -> str:
        """A server's message, shortened to one line and without the key."""
        message = body.get("message", body) if isinstance(body, dict) else body
        text = " ".join(str(message).split())
        text = "".join(c for c in text if c.isprintable())
        if self.key:
            text = text.replace(self.key, "[key]")
        return text[:LONGEST]

    def _text(self, text: str | None) -> str:
        """A server's text without the key, and with question marks for lone surrogates, which no file can hold."""
        text = (text or "").encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if self.key and len(self.key) >= SECRET else text
