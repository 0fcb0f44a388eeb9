"""The evaluation: accuracies, tests between models on the same problems, and the canaries."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from results.part import MayBeAbsent, Number, Part
from results.places import Between, Named


class Sampling(Part):
    """How a task's answers were drawn."""

    samples: int = Field(description="Samples a problem.")
    temperature: float = Field(description="0: greedy.")
    top_p: float = Field(description="1: all of the distribution.")
    max_tokens: int = Field(description="Tokens of an answer, at most.")
    seed: int = Field(description="Of the draws; 0 where answers are greedy.")


class Score(Named):
    """One model on one task. Counts are of answers, so of n x samples of them."""

    n: int = Field(description="Problems.")
    samples: int = Field(description="Samples a problem.")
    correct: int = Field(description="Right answers.")
    accuracy: float = Field(description="Share right, 0 to 1: the mean over problems, pass@1.")
    low: float = Field(description="Lower end of its 95 % interval.")
    high: float = Field(description="Upper end of its 95 % interval.")
    pass_at: dict[str, float] = Field(description="pass@k, 0 to 1, by k: 1, 2, 4, ... and samples.")
    maj: float | None = Field(description="maj@samples, 0 to 1; null where there is one sample a problem.")
    truncated: int = Field(description="Answers that the token limit cut off.")
    not_found: int = Field(description="Answers in which no final answer was found.")
    mean_tokens: float = Field(description="Mean length of an answer, tokens.")
    median_tokens: Number = Field(description="Median length, tokens.")
    p95_tokens: int = Field(description="95th percentile of the length, tokens.")


class Stratum(Named):
    """One model on a part of a task's problems."""

    stratum: str = Field(description="The part, as the task calls it.")
    n: int = Field(description="Problems in it.")
    accuracy: float = Field(description="Share right, 0 to 1.")


class Tested(Part):
    """What a paired test says."""

    p: float = Field(description="Two-sided exact p of equal shares right.")
    difference: float = Field(description="Accuracy of b less accuracy of a, -1 to 1.")
    low: float = Field(description="Lower end of the difference's 95 % interval.")
    high: float = Field(description="Upper end of the difference's 95 % interval.")
    agreement: float = Field(description="1 less the mean over problems of the distance of their shares right, 0 to 1.")
    p_holm: float = Field(description="p adjusted for all pairs of the task by Holm's method.")


class McNemar(Part):
    """The exact McNemar test: one sample a problem."""

    test: Literal["mcnemar"]
    only_a: int = Field(description="Problems that a alone solves.")
    only_b: int = Field(description="Problems that b alone solves.")


class SignFlip(Part):
    """The exact sign-flip test: several samples a problem."""

    test: Literal["sign flip"]
    more_a: int = Field(description="Problems of which a has more right samples.")
    more_b: int = Field(description="Problems of which b has more right samples.")


class McNemarPair(Tested, McNemar, Between):
    """Two models on the same problems, with one sample of each."""


class SignFlipPair(Tested, SignFlip, Between):
    """Two models on the same problems, with several samples of each."""


ComparedPair = Annotated[McNemarPair | SignFlipPair, Field(discriminator="test")]


class SmallestDifference(Part):
    """The smallest difference in accuracy that these problems could show."""

    single: float | None = Field(description="In one comparison at .05, 0 to 1; null where they could show none.")
    holm: float | None = Field(
        description="At the first step of Holm's method over all pairs of the task; null where they could show none."
    )


class SolvedAlone(Named):
    """Problems that one model solves and no other."""

    count: int = Field(description="How many.")
    ids: list[str] = Field(description="The first 20 of them.")


class Task(Part):
    """One task, answered by every model of the evaluation."""

    task: str = Field(description="The name that its verdicts go by.")
    title: str = Field(description="The same for people.")
    n: int = Field(description="Problems.")
    samples: int = Field(description="Samples a problem.")
    sampling: Sampling
    models: list[Score] = Field(description="The base first.")
    pairs: list[ComparedPair] = Field(
        description="Every pair of models, or, above 100 trainings, those of kept_pairs and with base."
    )
    strata: list[Stratum] = Field(description="Empty where the task has no strata.")
    smallest_difference: SmallestDifference
    solved_by_all: int = Field(description="Problems that every model solves, with one right sample or more.")
    solved_by_none: int = Field(description="Problems that none does.")
    alone: list[SolvedAlone] = Field(description="An entry a model; empty where there is one model alone.")
    scaled: MayBeAbsent[list[Score]] = Field(
        default=None,
        description="Scaled copies of trainings, which are in nothing else here: matched has their tests. Absent "
        "where none was evaluated.",
    )

    def score(self, model: str) -> Score | None:
        """What ``model`` has on this task; None where it was not evaluated."""
        return self._scores.get(model)

    def pair(self, a: str, b: str) -> ComparedPair | None:
        """The pair of ``a`` and ``b``, whichever way round it stands; None where it was not tested."""
        return self._by_names.get(frozenset((a, b)))

    @cached_property
    def _scores(self) -> dict[str, Score]:
        return {score.name: score for score in self.models}

    @cached_property
    def _by_names(self) -> dict[frozenset[str], ComparedPair]:
        return {frozenset((pair.a, pair.b)): pair for pair in self.pairs}


class CanaryRow(Named):
    """The engine's log-probabilities beside those of Transformers and PEFT in float32."""

    max_difference: float = Field(description="Largest difference, nats.")
    tolerance: float = Field(description="Largest difference that passes, nats.")
    passed: bool
    effect: float = Field(description="Largest change that the adapter makes to one of these log-probabilities, nats.")
    told_apart: bool = Field(description="Whether no mix-up of models could pass.")


class Control(CanaryRow):
    """The worst of all checks of the base (base) or of an adapter of zeros (zero)."""

    checks: int = Field(description="How often it was checked.")


class Engine(Part):
    """What answered, and how it was asked."""

    kind: Literal["vllm", "transformers"]
    adapters: Literal["lora", "swapped"] = Field(
        description="Applied beside the base's weights, or swapped into them in place."
    )
    precision: Literal["float32", "bfloat16"] = Field(description="Of the base's weights.")
    max_model_len: int = Field(description="Tokens of prompt and answer, at most.")
    batch_size: int = Field(description="Sequences at once.")
    threads: int = Field(description="Of the processor.")
    seed: int
    attention: MayBeAbsent[Literal["sdpa", "eager", "flash"]] = Field(
        default=None, description="Absent for vllm, which has its own."
    )
    shard: int = Field(description="Problems a call.")
    parts: int = Field(description="Into how many steps a model's problems are split.")


class Incomplete(Named):
    """A model of which only some parts are finished: nothing of it is counted."""

    parts: int = Field(description="Parts that are finished.")
    of: int = Field(description="Parts that there are.")


class Evaluation(Part):
    """All but ``incomplete`` is absent where no model has answered every problem."""

    tasks: MayBeAbsent[list[Task]] = Field(default=None, description="The tasks in the study's order.")
    canary: MayBeAbsent[list[CanaryRow]] = Field(default=None, description="Each model's own, the worst of its parts.")
    controls: MayBeAbsent[list[Control]] = Field(default=None, description="The base, and an adapter of zeros.")
    engine: MayBeAbsent[Engine] = None
    incomplete: MayBeAbsent[list[Incomplete]] = Field(default=None, description="Absent where every model is whole.")
