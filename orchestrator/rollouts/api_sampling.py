"""Concurrent requests to a teacher's API, with a journal of answers and a cost limit.

Every answer or refusal is appended to a journal as a sealed line, so that a kill loses only pending requests. A
damaged line is requested again and counted at its highest possible cost. Cost is the journal's tokens at the study's
prices; what a server bills for answers that never arrived (a timeout, a kill) is unknown.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from errno import EISDIR
from pathlib import Path
from typing import Any

from execution import durable
from orchestrator.rollouts.openai_client import Answer, Question, Refused, Teacher

JOURNAL = "answers.jsonl"
PATIENCE = 20  # problems refused in a row after which no more requests are sent
REFUSED = "refused by the teacher"

Sample = tuple[str, int]  # problem id, number of the sample
Tokens = Counter[int]  # 0: of prompts, 1: of completions


@dataclass(frozen=True)
class Refusal:
    """Why a question has no answer, and the billed tokens of its reply."""

    refused: str
    prompt_tokens: int
    completion_tokens: int


class Journal:
    """Answers and refusals in a file. An incomplete last line, left by a kill, is ignored and overwritten."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            durable.lost(path, IsADirectoryError(EISDIR, os.strerror(EISDIR)), "its questions are asked again")
            durable.discard(path)
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        self.answers: dict[Sample, Answer] = {}
        self.refused: dict[Sample, Refusal] = {}
        self.billed, self.lost = Tokens(), 0
        for number, line in enumerate(data[:end].split(b"\n")[:-1], 1):
            try:
                (problem_id, sample), fields = durable.unseal(line).values()
                self._know((problem_id, sample), Refusal(**fields) if "refused" in fields else Answer(**fields))
            except (ValueError, TypeError) as error:
                self.lost += 1
                durable.lost(path, ValueError(f"line {number}: {error}"), "its question is asked again")
        self._stream, self._end = path.open("ab", buffering=0), end
        self._stream.truncate(end)

    def add(self, question: Question, what: Answer | Refusal) -> None:
        """Append it, fsynced; ``OSError`` leaves the file as it was."""
        entry = {"of": [question.problem_id, question.sample], "came": asdict(what)}
        line = durable.seal(entry).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += self._stream.write(line[written:])
            os.fsync(self._stream.fileno())
        except OSError:
            self._stream.truncate(self._end)
            raise
        self._end += len(line)
        self._know((question.problem_id, question.sample), what)

    def _know(self, sample: Sample, what: Answer | Refusal) -> None:
        if isinstance(what, Answer):
            self.answers[sample] = what
            self.refused.pop(sample, None)
        else:
            self.refused[sample] = what
        self.billed += _billed(what)

    def close(self) -> None:
        self._stream.close()


class Budget:
    """Cost in dollars of the journal's tokens and at most of pending requests; ``most`` is the limit, None for none."""

    def __init__(self, journal: Journal, prices: Sequence[float], most: float | None) -> None:
        self.journal, self.prices, self.most = journal, prices, most
        self.pending = Tokens()

    def dollars(self, tokens: Mapping[int, int]) -> float:
        return sum(tokens[i] * price for i, price in enumerate(self.prices)) / 1e6

    def fits(self, tokens: Tokens) -> bool:
        """Whether a request of up to ``tokens`` stays within the limit even if all pending ones take their most."""
        return self.most is None or self.dollars(self.journal.billed + self.pending + tokens) <= self.most

    def spent(self) -> float:
        return self.dollars(self.journal.billed)


class Asking:
    """One round of requests. ``keep()`` is called after every ``shard`` problems and at the end, also after an error.

    Refused questions are not asked again, unless no question was ever answered: then once more, after all others.
    """

    def __init__(
        self,
        teacher: Teacher,
        questions: Sequence[Question],
        journal: Path,
        keep: Callable[[], None],
        progress: Callable[[str], None],
    ) -> None:
        runtime = teacher.runtime
        self.teacher, self.keep, self.progress, self.shard = teacher, keep, progress, runtime["shard"]
        self.journal = Journal(journal)
        answers, refused = self.journal.answers, self.journal.refused
        for i, worst in enumerate(zip(*map(teacher.most, questions), strict=True)):
            self.journal.billed[i] += self.journal.lost * max(worst)
        self.budget = Budget(self.journal, runtime["prices"], runtime["max_cost"])
        self.todo = [q for q in questions if (s := (q.problem_id, q.sample)) not in answers and s not in refused]
        if not answers:
            self.todo += [q for q in questions if (q.problem_id, q.sample) in refused]
        self.samples = Counter(q.problem_id for q in questions)
        self.left = Counter(q.problem_id for q in self.todo)  # open samples by problem
        self.settled = len(self.samples) - len(self.left)  # problems without open samples
        self.in_a_row: Counter[str] = Counter()  # refusals since the last answer, by problem
        self.why = ""  # the last refusal
        self.retries = sum(answer.retries for answer in answers.values())
        self.ended: str | None = None  # why no more requests are sent
        self.mend = "the same command goes on from there"
        self.changed = asyncio.Condition()

    def run(self) -> tuple[dict[Sample, Answer], dict[str, Any], Counter[str]]:
        """All answers, their counts and tokens, and the number of refused questions.

        Counts and tokens depend only on the answers, not on timing or retries. One-line ``ValueError`` on failure.
        """
        try:
            asyncio.run(self._all())
        finally:
            self.journal.close()
            self.keep()
        answers, refused = self.journal.answers, self.journal.refused
        if refused and not answers:
            self._end(self._useless())
        if self.ended is not None:
            raise ValueError(f"{self.ended}; {self._kept()}: {self.mend}")
        settled: list[Answer | Refusal] = [*answers.values(), *refused.values()]
        tokens = sum(map(_billed, settled), Tokens())
        counts = {
            "answers": len(answers),
            "refused": len(refused),
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
        }
        return answers, counts, Counter({REFUSED: len(refused)} if refused else {})

    async def _all(self) -> None:
        todo = iter(self.todo)
        workers = min(self.teacher.runtime["at_once"], len(self.todo))
        try:
            ends = await asyncio.gather(*(self._worker(todo) for _ in range(workers)), return_exceptions=True)
        finally:
            await self.teacher.close()
        for error in ends:
            if error is not None:
                raise error

    async def _worker(self, todo: Iterator[Question]) -> None:
        """Ask questions until none is left; all workers share the iterator."""
        for question in todo:
            most = Tokens(dict(enumerate(self.teacher.most(question))))
            if not await self._may_ask(most):
                return
            try:
                await self._ask(question)
            except Exception as error:  # the answer cannot be written, e.g. disk full
                self._end(str(error))
                raise
            finally:
                self.budget.pending -= most
                async with self.changed:
                    self.changed.notify_all()

    async def _ask(self, question: Question) -> None:
        try:
            answer = await self.teacher.ask(question)
        except Refused as error:
            self._refused(question, Refusal(str(error), *error.tokens))
        except ValueError as error:
            self._end(str(error))
        else:
            self._answered(question, answer)

    async def _may_ask(self, most: Tokens) -> bool:
        """Wait until the request fits the budget; False if it never will, or if no more requests are sent.

        Pending requests are always waited for, since they are billed.
        """
        budget = self.budget
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended is not None or budget.fits(most) or not budget.pending)
            if self.ended is None and not budget.fits(most):
                self.mend = "raise rollouts.max_cost to go on from there"
                self._end(
                    f"rollouts.max_cost: ${budget.spent():.4f} of ${budget.most:.4f} are spent, and the "
                    f"next request may cost ${budget.dollars(most):.4f}"
                )
                self.changed.notify_all()
            if self.ended is not None:
                return False
            budget.pending += most
            return True

    def _answered(self, question: Question, answer: Answer) -> None:
        self.journal.add(question, answer)
        self.retries += answer.retries
        self.in_a_row.clear()
        self._settle(question)

    def _refused(self, question: Question, why: Refusal) -> None:
        self.journal.add(question, why)
        self.in_a_row[question.problem_id] += 1
        self.why = why.refused
        self._settle(question)
        if len(self.in_a_row) >= PATIENCE:
            self._end(self._useless())

    def _settle(self, question: Question) -> None:
        self.left[question.problem_id] -= 1
        if not self.left[question.problem_id]:
            self.settled += 1
            refused, spent = len(self.journal.refused), self.budget.spent()
            self.progress(
                f"{self.settled}/{len(self.samples)} problems answered"
                + (f", {refused} requests refused" if refused else "")
                + (f", {self.retries} sent again" if self.retries else "")
                + (f", ${spent:.2f} spent" if spent else "")
            )
            if self.settled % self.shard == 0:
                self.keep()

    def _useless(self) -> str:
        server = self.teacher.config["base_url"]
        return f"the teacher at {server} answered none of {self.in_a_row.total()} requests ({self.why})"

    def _kept(self) -> str:
        kept = Counter(problem_id for problem_id, _ in self.journal.answers)
        whole = sum(kept[problem_id] >= samples for problem_id, samples in self.samples.items())
        return f"{whole} of {len(self.samples)} problems are answered and kept"

    def _end(self, why: str) -> None:
        self.ended = self.ended or why


def _billed(what: Answer | Refusal) -> Tokens:
    return Tokens({0: what.prompt_tokens, 1: what.completion_tokens})
