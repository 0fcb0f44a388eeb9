"""Many questions to a teacher at once: kept as they are answered, and never beyond what they may cost.

What came is appended to a journal, a line an answer, so that a kill costs what was under way and nothing else. The cost
is that of the journal's tokens at the study's prices. What a server bills for an answer that never arrived (a timeout,
a kill) is not known here.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.teacher_api import Answer, Question, Refused, Teacher

JOURNAL = "answers.jsonl"
PATIENCE = 20  # refusals without an answer between them, after which the server is not asked further
REFUSED = "refused by the teacher"

Sample = tuple[str, int]  # problem id, number of the sample
Tokens = Counter[int]  # 0: of prompts, 1: of completions


class Journal:
    """Answers in a file. A last line that a kill left half-written does not count, and is written over."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        self.answers: dict[Sample, Answer] = {}
        for line in data[:end].split(b"\n"):
            try:
                problem_id, sample, fields = json.loads(line)
                self.answers[problem_id, sample] = Answer(**fields)
            except (ValueError, TypeError):  # the end of the file, or what a machine's crash left of a line
                continue
        self._stream = path.open("ab")
        self._stream.truncate(end)

    def add(self, question: Question, answer: Answer) -> None:
        line = json.dumps([question.problem_id, question.sample, asdict(answer)])
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()
        self.answers[question.problem_id, question.sample] = answer

    def close(self) -> None:
        self._stream.close()


class Budget:
    """Tokens in dollars: those billed, and those that requests under way may come to; ``most`` None: no cap."""

    def __init__(self, prices: Sequence[float], most: float | None) -> None:
        self.prices, self.most = prices, most
        self.billed, self.pending = Tokens(), Tokens()

    def dollars(self, tokens: Mapping[int, int]) -> float:
        return sum(tokens[i] * price for i, price in enumerate(self.prices)) / 1e6

    def fits(self, tokens: Tokens) -> bool:
        """Whether a request that may take these ``tokens`` keeps within the cap, whatever the others come to."""
        return self.most is None or self.dollars(self.billed + self.pending + tokens) <= self.most


class Asking:
    """One round of asking. ``keep()`` is called after every ``shard`` problems, and at the end however it ends."""

    def __init__(
        self,
        teacher: Teacher,
        questions: Sequence[Question],
        journal: Path,
        keep: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        where = teacher.where
        self.teacher, self.keep, self.say, self.shard = teacher, keep, say, where["shard"]
        self.journal = Journal(journal)
        known = self.journal.answers
        self.budget = Budget(where["prices"], where["max_cost"])
        self.budget.billed = sum(map(_billed, known.values()), Tokens())
        self.todo = [q for q in questions if (q.problem_id, q.sample) not in known]
        self.samples = Counter(q.problem_id for q in questions)
        self.left = Counter(q.problem_id for q in self.todo)  # samples of a problem that are not settled
        self.settled = len(self.samples) - len(self.left)  # problems without such a sample
        self.refusals: list[str] = []
        self.in_a_row = 0  # refusals since the last answer
        self.ended: str | None = None  # why nothing more is asked
        self.mend = "the same command goes on from there"
        self.changed = asyncio.Condition()

    def run(self) -> tuple[dict[Sample, Answer], dict[str, Any], Counter[str]]:
        """All answers, what they took, and how many questions were refused; ``ValueError`` says in a line why not."""
        try:
            asyncio.run(self._all())
        finally:
            self.journal.close()
            self.keep()
        answers = self.journal.answers
        if self.refusals and not answers:
            self._end(self._useless())
        if self.ended is not None:
            raise ValueError(f"{self.ended}; {self._kept()}: {self.mend}")
        told = {
            "requests": len(answers) + len(self.refusals),
            "retries": sum(answer.retries for answer in answers.values()),
            "prompt_tokens": self.budget.billed[0],
            "completion_tokens": self.budget.billed[1],
            "cost": self.budget.dollars(self.budget.billed),
        }
        return answers, told, Counter({REFUSED: len(self.refusals)} if self.refusals else {})

    async def _all(self) -> None:
        todo = iter(self.todo)
        workers = min(self.teacher.where["at_once"], len(self.todo))
        try:
            await asyncio.gather(*(self._worker(todo) for _ in range(workers)))
        finally:
            await self.teacher.close()

    async def _worker(self, todo: Iterator[Question]) -> None:
        """Asks the next question as long as there is one: all workers share the iterator."""
        for question in todo:
            most = Tokens(dict(enumerate(self.teacher.most(question))))
            if not await self._may_ask(most):
                return
            try:
                answer = await self.teacher.ask(question)
            except Refused as error:
                self._refused(question, str(error))
            except ValueError as error:
                self._end(str(error))
            else:
                self._answered(question, answer)
            finally:
                self.budget.pending -= most
                async with self.changed:
                    self.changed.notify_all()

    async def _may_ask(self, most: Tokens) -> bool:
        """Waits until the request fits the budget; False where it never will, or where nothing more is asked.

        Requests under way are always waited for: they are paid for.
        """
        budget = self.budget
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended is not None or budget.fits(most) or not budget.pending)
            if self.ended is None and not budget.fits(most):
                self.mend = "raise rollouts.max_cost to go on from there"
                self._end(
                    f"rollouts.max_cost: ${budget.dollars(budget.billed):.4f} of ${budget.most:.4f} are spent, and the "
                    f"next request may cost ${budget.dollars(most):.4f}"
                )
                self.changed.notify_all()
            if self.ended is not None:
                return False
            budget.pending += most
            return True

    def _answered(self, question: Question, answer: Answer) -> None:
        self.journal.add(question, answer)
        self.budget.billed += _billed(answer)
        self.in_a_row = 0
        self._settle(question)

    def _refused(self, question: Question, said: str) -> None:
        self.refusals.append(said)
        self.in_a_row += 1
        self._settle(question)
        if self.in_a_row >= PATIENCE:
            self._end(self._useless())

    def _settle(self, question: Question) -> None:
        self.left[question.problem_id] -= 1
        if not self.left[question.problem_id]:
            self.settled += 1
            spent = self.budget.dollars(self.budget.billed)
            self.say(
                f"{self.settled}/{len(self.samples)} problems answered" + (f", ${spent:.2f} spent" if spent else "")
            )
            if self.settled % self.shard == 0:
                self.keep()

    def _useless(self) -> str:
        server = self.teacher.config["base_url"]
        return f"the teacher at {server} answered none of {self.in_a_row} requests ({self.refusals[-1]})"

    def _kept(self) -> str:
        kept = Counter(problem_id for problem_id, _ in self.journal.answers)
        whole = sum(kept[problem_id] >= samples for problem_id, samples in self.samples.items())
        return f"{whole} of {len(self.samples)} problems are answered and kept"

    def _end(self, why: str) -> None:
        self.ended = self.ended or why


def _billed(answer: Answer) -> Tokens:
    return Tokens({0: answer.prompt_tokens, 1: answer.completion_tokens})
