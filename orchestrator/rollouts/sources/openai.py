"""Rollouts from a teacher behind an OpenAI-compatible API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from execution.errors import UserError
from execution.fingerprint import canonical
from execution.settings import Count, Every, Positive
from execution.step import Step, StepKind
from orchestrator.config.values import Two, certain
from orchestrator.planning import cost
from orchestrator.rollouts.openai_client import key_of
from orchestrator.rollouts.sources.asked import AskedRollouts, instruction_of, told_golds, verified
from orchestrator.rollouts.sources.source import Found

if TYPE_CHECKING:
    from execution.context import Context
    from orchestrator.config.study import Study
    from orchestrator.planning.plan import Planned
    from orchestrator.prompts.prompter import Prompter

# Fields of a request that other settings determine, and so are refused in ``body``.
OWN_FIELDS = {
    "model", "messages", "n", "seed", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream",
}  # fmt: skip

Price = Annotated[float, Field(ge=0)]
# Assumed where a plan states tokens, price and hours before a request was sent.
PROMPT_TOKENS = 200  # of a competition problem with its instruction, mean
TOKENS_A_SECOND = 50  # of one request
HOW = {"key", "prices", "max_cost", "at_once", "retries", "timeout", "shard"}  # settings that do not affect answers


class ApiRollouts(AskedRollouts):
    """Chat completions of a teacher behind an OpenAI-compatible API.

    The key is read, where the step runs, from the environment variable that ``key`` names, and never written; null
    sends none. ``prices`` are dollars per million tokens; with ``max_cost`` no request is sent that could exceed it.
    """

    source: Literal["openai"]
    base_url: str
    model: Annotated[str, Field(min_length=1, max_length=200)]
    key: str | None = "OPENAI_API_KEY"
    body: dict[str, Any] = Field(default_factory=dict)  # further fields of each request, such as a thinking switch
    reasoning: Literal["drop", "keep"] = "drop"  # of the server's separate reasoning: keep it as <think>...</think>
    shard: Count = 50  # problems between two uploads of the journal to the store
    prices: Two[Price] = (0.0, 0.0)  # of prompt, of completion
    max_cost: Positive | None = None
    at_once: Count = 16  # concurrent requests
    retries: Every = 6  # per request, with exponential back-off
    timeout: Positive = 600.0  # seconds per request

    @model_validator(mode="after")
    def _reachable(self) -> ApiRollouts:
        if self.key is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", self.key):  # perhaps a key: not shown
            raise ValueError("key names the environment variable with the key, in capitals, or is null")
        try:
            parts = urlsplit(self.base_url)
            parts.port  # noqa: B018  # raises for a port that is none
        except ValueError:
            raise ValueError("base_url is not an address: its port or its brackets are invalid") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be http(s)://HOST[:PORT]/PATH, as in http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must not carry a secret: name the key's environment variable in key")
        if own := sorted(OWN_FIELDS & self.body.keys()):
            raise ValueError(f"body: {own[0]} is set by the study's own settings: remove it")
        try:
            canonical(certain(self.body))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"body is not JSON: only text, numbers, true, false and null ({error})") from None
        if self.max_cost is not None and not any(self.prices):
            raise ValueError("max_cost needs prices: dollars per million tokens of prompt and completion")
        return self

    @property
    def answered_by(self) -> str:
        return "the base" if self.model == "base" else self.model

    def check_access(self) -> None:
        key_of(self.key)

    def check_cost(self) -> None:
        """``UserError`` for a paid teacher without a cap, and for a cap that not even the first shard fits under."""
        if not any(self.prices):
            return
        if self.max_cost is None:
            raise UserError(
                "rollouts.max_cost: a teacher with prices needs a cap: set rollouts.max_cost to the dollars that its "
                f"answers may cost (${self._dollars(self.problem_count()):.2f} are expected)"
            )
        problems = min(self.shard, self.problem_count())
        if self.max_cost < (shard := self._dollars(problems)):
            raise UserError(
                f"rollouts.max_cost: ${self.max_cost:g} are less than the ${shard:.2g} that one shard of {problems} "
                "problems is expected to cost: raise it, or lower rollouts.shard"
            )

    def describe(self) -> Iterator[str]:
        yield from super().describe()
        cap = "no cap" if self.max_cost is None else f"at most ${self.max_cost:g}"
        yield f"teacher    at {self.base_url}, {self.at_once} requests at once; {cap}"
        problems = self.problem_count()
        tokens = self._expected(problems)
        price = ""
        if any(self.prices):
            longest = problems * self.samples * self.max_tokens * self.prices[1] / 1e6
            price = (
                f", ${self._dollars(problems):.2f} at ${self.prices[0]:g} and ${self.prices[1]:g} a million (the "
                f"longest completions: ${longest:.2f})"
            )
            if self.max_cost is not None and self.max_cost < self._dollars(problems):
                price += f", of which the cap pays {self.max_cost / self._dollars(problems):.0%}"
        yield (
            f"expected   {problems} x {self.samples} requests, {tokens[0] / 1e6:.3g} M prompt and "
            f"{tokens[1] / 1e6:.3g} M completion tokens{price}, {self._seconds() / 3600:.2g} h (assumed: prompts of "
            f"{PROMPT_TOKENS} tokens, completions of {cost.TOKENS_A_ROW:g} of max_tokens, {TOKENS_A_SECOND} tokens a "
            "second of each request)"
        )

    def _expected(self, problems: int) -> tuple[float, float]:
        """Tokens of prompts and of completions for so many problems."""
        requests = problems * self.samples
        return requests * PROMPT_TOKENS, requests * self.max_tokens * cost.TOKENS_A_ROW

    def _dollars(self, problems: int) -> float:
        return sum(n * price for n, price in zip(self._expected(problems), self.prices, strict=True)) / 1e6

    def _seconds(self) -> float:
        at_once = min(self.at_once, self.problem_count() * self.samples)
        return self._expected(self.problem_count())[1] / (at_once * TOKENS_A_SECOND)

    def seconds(self, study: Study) -> float:
        return self._seconds()

    def step(self, kind: StepKind, planned: Planned) -> Step:
        runtime = self.asked_runtime(planned) | self.model_dump(include=HOW)
        config = self.asked_config(planned, without=HOW)
        return Step(kind, "openai", config, {"base": planned.first("base")}, runtime)

    def api_cost(self, statistics: Mapping[str, Any]) -> float | None:
        if not any(self.prices):
            return None
        tokens = statistics["prompt_tokens"], statistics["completion_tokens"]
        return sum(n * price for n, price in zip(tokens, self.prices, strict=True)) / 1e6

    @classmethod
    def collect(cls, context: Context, prompter: Prompter) -> Found:
        """K completions per problem. Those with another finish reason than "stop" or "length" (filtered, a tool call)
        are dropped and counted by reason."""
        from orchestrator.evaluation.problems import loaded
        from orchestrator.rollouts.api_sampling import JOURNAL, Asking
        from orchestrator.rollouts.openai_client import Question, Teacher

        config = context.config
        problems, left_out = found = loaded(config["problems"], context.runtime["sources"][0])
        context.progress(found.told() or f"{len(problems)} problems")
        questions = [
            Question(p.id, k, instruction_of(config).replace("{problem}", p.problem))
            for p in problems
            for k in range(config["samples"])
        ]
        asking = Asking(
            Teacher(config, context.runtime), questions, context.work / JOURNAL, context.keep, context.progress
        )
        answers, api, dropped = asking.run()
        texts, apart = [], 0
        for problem in problems:
            for k in range(config["samples"]):
                answer = answers.get((problem.id, k))
                if answer is None:
                    continue
                if answer.finish not in ("stop", "length"):
                    dropped[f"ended by {answer.finish}"] += 1
                    continue
                apart += bool(answer.reasoning)
                kept = answer.reasoning and config["reasoning"] == "keep"
                text = f"<think>\n{answer.reasoning.strip()}\n</think>\n\n{answer.text}" if kept else answer.text
                texts.append((problem, text, answer.finish == "stop"))
        statistics = {"asked": instruction_of(config), "api": api | {"with_reasoning": apart}}
        return Found(verified(context, texts, config["model"]), statistics | told_golds(left_out), dropped)
