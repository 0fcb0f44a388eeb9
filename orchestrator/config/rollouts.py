"""The rollouts of a study, in their four sources, and the one table that they are frozen into."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from evals.engines import HOTTEST
from execution.fingerprint import canonical
from methods.view import PAIR_RULES
from orchestrator.config.base import Base
from orchestrator.config.evaluation import Problems, TopP, holds_problem
from orchestrator.config.values import Count, Every, Frozen, Positive, Revision, Seed, Two, certain

# Fields of a request that the study sets itself: in ``body`` they would be two truths.
OWN_FIELDS = {
    "model", "messages", "n", "seed", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stream",
}  # fmt: skip

Price = Annotated[float, Field(ge=0)]


class Table(Frozen):
    """From rollouts to the one frozen table: what is kept, what is held out, how pairs are picked."""

    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of the problems
    rows: Count | None = None  # at most so many training rows, whole groups in a seeded order
    duplicates: Literal["keep", "drop"] = "keep"  # a problem's equal completions, beyond the first
    cut: Literal["drop", "keep"] = "drop"  # right rows that prompt.overlong=truncate cuts before their answer
    pairs: Count | None = None  # at most so many (chosen, rejected) pairs
    pair_rule: Literal[PAIR_RULES] = "one"  # type: ignore[valid-type]  # methods/view.py says what each is
    seed: Seed = 0


class AskedRollouts(Frozen):
    """K completions a problem, asked of a model."""

    problems: Problems
    samples: Count = 4
    temperature: Positive = 1.0
    top_p: TopP = 1.0
    max_tokens: Count = 1024
    seed: Seed = 0
    shard: Count = 500  # problems a call; the unit that is taken up again
    instruction: str | None = None  # what the model is asked, where it differs from the students' prompt
    table: Table = Table()

    @model_validator(mode="after")
    def _asks(self) -> AskedRollouts:
        holds_problem(self.instruction)
        return self


class SampledRollouts(AskedRollouts):
    """From a model that the study's engine serves."""

    source: Literal["vllm"]
    model: Literal["base"] | Base = "base"
    temperature: Annotated[float, Field(gt=0, le=HOTTEST)] = 1.0


class ApiRollouts(AskedRollouts):
    """From a teacher behind an OpenAI-compatible API: its chat completions.

    The key is read from the environment variable that ``key`` names, where the step runs, and is written nowhere; null
    sends none. ``prices`` are dollars a million tokens; with ``max_cost`` no request is sent that could go beyond it.
    """

    source: Literal["openai"]
    base_url: str
    model: Annotated[str, Field(min_length=1, max_length=200)]
    key: str | None = "OPENAI_API_KEY"
    body: dict[str, Any] = Field(default_factory=dict)  # further fields of each request, such as a thinking switch
    reasoning: Literal["drop", "keep"] = "drop"  # what the server tells apart: keep it as <think>...</think> in front
    shard: Count = 50  # problems between two times that what came is sent to the store
    prices: Two[Price] = (0.0, 0.0)  # of prompt, of completion
    max_cost: Positive | None = None
    at_once: Count = 16  # requests under way
    retries: Every = 6  # of a request, with exponential back-off
    timeout: Positive = 600.0  # seconds a request

    @model_validator(mode="after")
    def _reachable(self) -> ApiRollouts:
        if self.key is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", self.key):  # perhaps a key: not shown
            raise ValueError("key names the environment variable with the key, in capitals, or is null")
        try:
            parts = urlsplit(self.base_url)
            parts.port  # noqa: B018  # raises for a port that is none
        except ValueError:
            raise ValueError("base_url is no address: its port is no number, or its brackets do not close") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must be http(s)://HOST[:PORT]/PATH, as in http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must not carry a secret: name the key's environment variable in key")
        if own := sorted(OWN_FIELDS & self.body.keys()):
            raise ValueError(f"body: {own[0]} is set by the study's own settings: remove it")
        try:
            canonical(certain(self.body))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"body holds what JSON does not: text, numbers, true, false, null alone ({error})"
            ) from None
        if self.max_cost is not None and not any(self.prices):
            raise ValueError("max_cost needs prices: dollars a million tokens, prompt and completion")
        return self


class Columns(Frozen):
    """Under which names a dataset's rows hold what a rollout is made of.

    Where ``completion`` holds a list, each of it is a rollout; ``reward`` is then a list too, and ``teacher`` may be.
    """

    problem: str = "problem"
    completion: str = "completion"
    answer: str | None = "answer"  # null: the gold answer is the completion's own final answer
    reward: str | None = None
    teacher: str | None = None
    problem_id: str | None = None


class GivenRollouts(Frozen):
    """Completions that exist already."""

    instruction: str = "{problem}"
    draw: Count | None = None  # a fixed draw of so many problems
    rewards: Literal["given", "graded"] = "given"  # graded: by this tool's own grader, whatever the rows say
    table: Table = Table()

    @model_validator(mode="after")
    def _asks(self) -> GivenRollouts:
        holds_problem(self.instruction)
        return self


class FileRollouts(GivenRollouts):
    """Rows of a JSONL or Parquet file: problem, answer, completion; reward and teacher optional."""

    source: Literal["file"]
    path: str


class HubRollouts(GivenRollouts):
    """Rows of a dataset by its hub name, or of a local folder that ``datasets`` reads as one."""

    source: Literal["hub"]
    name: Annotated[str, Field(min_length=1, max_length=4096)]
    config: str | None = None
    split: str = "train"
    revision: Revision = "main"
    columns: Columns = Columns()


Rollouts = Annotated[SampledRollouts | ApiRollouts | FileRollouts | HubRollouts, Field(discriminator="source")]
