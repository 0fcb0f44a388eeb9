"""A teacher behind an API, asked over loopback: what is sent, what is kept, what it may cost, what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from execution import durable
from execution.durable import Lost
from execution.errors import UserError
from orchestrator.rollouts.api_sampling import PATIENCE, REFUSED, Asking, Journal
from orchestrator.rollouts.openai_client import TEMPLATE_TOKENS, Answer, Question, Teacher, key_of
from tests.chat_server import ChatServer, Reply, chat_server, completion

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-secret-0123456789"
CONFIG = {
    "model": "teacher", "body": {}, "seed": 3, "temperature": 0.7, "top_p": 0.9, "max_tokens": 32,
    "prompt": {"system": None},
}  # fmt: skip
WHERE = {
    "key": "TEACHER_KEY", "prices": (0.0, 0.0), "max_cost": None, "at_once": 4, "retries": 0, "timeout": 10.0,
    "shard": 50,
}  # fmt: skip
QUESTIONS = [Question(f"p{i}", k, f"problem {i}?") for i in range(5) for k in range(2)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def echo(number: int, body: dict[str, Any]) -> Reply:
    return completion(f"{body['messages'][-1]['content']} seed {body['seed']}")


def teacher(url: str, config: dict[str, Any] | None = None, **where: Any) -> Teacher:
    return Teacher(CONFIG | {"base_url": url} | (config or {}), WHERE | where)


def asking(
    url: str,
    folder: Path,
    questions: list[Question] = QUESTIONS,
    config: dict[str, Any] | None = None,
    keep: Callable[[], None] = lambda: None,
    **where: Any,
) -> Asking:
    told = teacher(url, config, **where)
    return Asking(told, questions, folder / "answers.jsonl", keep, lambda line: None)


def refused(round: Asking) -> str:
    with pytest.raises(ValueError) as caught:
        round.run()
    line = str(caught.value)
    assert "\n" not in line and KEY not in line
    return line


def test_what_is_sent(tmp_path: Path) -> None:
    config = {"prompt": {"system": "Be brief."}, "body": {"chat_template_kwargs": {"enable_thinking": False}}}
    with chat_server(echo) as server:
        answers, api, dropped = asking(server.url, tmp_path, config=config).run()
    assert set(answers) == {(q.problem_id, q.sample) for q in QUESTIONS} and not dropped
    body = next(b for b in server.asked if b["seed"] == QUESTIONS[3].seed(3))
    assert body == {
        "model": "teacher",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "problem 1?"}],
        "n": 1,
        "seed": QUESTIONS[3].seed(3),
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 32,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert answers["p1", 1] == Answer(f"problem 1? seed {body['seed']}", "", "stop", 7, 5, 0)
    assert api == {"answers": 10, "refused": 0, "prompt_tokens": 70, "completion_tokens": 50}


def test_a_seed_hangs_on_study_problem_and_sample_alone() -> None:
    seeds = [q.seed(s) for q in QUESTIONS for s in (0, 1)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    assert Question("p1", 1, "another text").seed(3) == QUESTIONS[3].seed(3)


def test_without_a_system_turn_and_at_openais_own_address() -> None:
    request = teacher("https://api.openai.com/v1").request(QUESTIONS[0])
    assert request["messages"] == [{"role": "user", "content": "problem 0?"}]
    assert request["max_completion_tokens"] == 32 and "max_tokens" not in request
    assert "max_completion_tokens" not in teacher("https://api.openai.com.example/v1").request(QUESTIONS[0])


def test_a_server_without_a_key_is_sent_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, KEY)
    with chat_server(echo) as server:
        asking(server.url, tmp_path, key=None).run()
    assert len(server.headers) == 10
    assert KEY not in json.dumps(server.headers) and all("authorization" not in h for h in server.headers)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "the environment variable MY_KEY is not set here"),
        ("", "the environment variable MY_KEY is not set here"),
        (" \n", "the environment variable MY_KEY is not set here"),
        ("sk-one\nsk-two", "MY_KEY does not hold a key"),
        ("sk one", "MY_KEY does not hold a key"),
        ("sk-é", "MY_KEY does not hold a key"),
    ],
)
def test_a_key_that_is_none_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, value: str | None, line: str
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UserError) as caught:
        key_of("MY_KEY")
    assert str(caught.value).startswith(f"rollouts.key: {line}") and "sk-" not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "sk-good\n")
    assert key_of("MY_KEY") == "sk-good"
    assert key_of(None) is None


def test_as_many_at_once_as_allowed_and_no_more(tmp_path: Path) -> None:
    """The first three requests are answered only when all three are there."""
    together = threading.Barrier(3)

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number < 3:
            together.wait(timeout=30)
        return echo(number, body)

    with chat_server(reply) as server:
        answers, _, _ = asking(server.url, tmp_path, at_once=3).run()
    assert len(answers) == 10 and server.most == 3


def test_too_many_requests_waits_as_long_as_the_server_says(tmp_path: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        busy = {"error": {"message": "slow down"}}
        return (429, busy, {"Retry-After": "1.5"}) if number == 0 else echo(number, body)

    with chat_server(reply) as server:
        answers, api, _ = asking(server.url, tmp_path, QUESTIONS[:1], retries=1).run()
    assert server.times[1] - server.times[0] >= 1.5  # unasked it waits half a second
    assert answers["p0", 0].retries == 1
    assert api == {"answers": 1, "refused": 0, "prompt_tokens": 7, "completion_tokens": 5}, "as without the wait"


@pytest.mark.parametrize("status", [408, 409, 500, 503])
def test_what_may_pass_is_asked_again(tmp_path: Path, status: int) -> None:
    with chat_server(lambda n, body: (status, "busy") if n == 0 else echo(n, body)) as server:
        answers, _, _ = asking(server.url, tmp_path, QUESTIONS[:1], retries=1).run()
    assert len(server.asked) == 2 and answers["p0", 0].retries == 1


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (500, "fails, asked 2 times (500: oh no)"),
        (429, "limits requests, asked 2 times (429: oh no): lower rollouts.at_once, or wait"),
        (401, "refuses the key that TEACHER_KEY holds (401: oh no): export another one"),
        (403, "does not allow this (403: oh no): see rollouts.key and rollouts.model"),
        (
            404,
            "has no model teacher or no chat completions there (404: oh no): see rollouts.model and rollouts.base_url",
        ),
        (402, "fails (402: oh no)"),
    ],
)
def test_what_does_not_pass_ends_in_a_line(tmp_path: Path, status: int, part: str) -> None:
    with chat_server(lambda n, body: (status, {"error": {"message": "oh\n  no"}})) as server:
        line = refused(asking(server.url, tmp_path, at_once=1, retries=1))
    kept = "0 of 5 problems are answered and kept: the same command goes on from there"
    assert line == f"the teacher at {server.url} {part}; {kept}"
    assert len(server.asked) == (2 if status in (429, 500) else 1)


def test_the_key_is_cut_out_of_what_a_server_says(tmp_path: Path) -> None:
    said = {"error": {"message": f"Incorrect API key provided: {KEY}. " + "x" * 500}}
    with chat_server(lambda n, body: (401, said)) as server:
        line = refused(asking(server.url, tmp_path))
    assert "Incorrect API key provided: [key]. xxx" in line and len(line) < 600
    for body in (f"<html>{KEY}</html>", {"detail": [KEY]}, {"error": KEY}, [KEY]):
        with chat_server(lambda n, _, body=body: (403, body)) as server:  # type: ignore[misc]
            assert "[key]" in refused(asking(server.url, tmp_path))
    with chat_server(lambda n, body: (200, KEY * 30)) as server:
        assert "[key]" in refused(asking(server.url, tmp_path))


def test_a_server_that_wants_a_key_and_is_given_none(tmp_path: Path) -> None:
    with chat_server(lambda n, body: (401, "no")) as server:
        line = refused(asking(server.url, tmp_path, key=None))
    assert "needs a key (401: no): name its environment variable in rollouts.key" in line


def test_no_answer_in_time(tmp_path: Path) -> None:
    over = threading.Event()
    with chat_server(lambda n, body: (over.wait(30), echo(n, body))[1]) as server:
        line = refused(asking(server.url, tmp_path, QUESTIONS[:1], timeout=0.3))
        over.set()
    assert "no answer within 0.3 s, asked once: raise rollouts.timeout or lower rollouts.at_once" in line


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert f"the teacher at {url} cannot be reached, asked once (" in refused(asking(url, tmp_path))


MALFORMED = [
    "<html>welcome</html>", "{", "[]", "null", "", {"choices": []}, {"choices": [{}]}, {"choices": "abc"},
    {"choices": [{"message": None}]}, {"choices": [{"message": {"content": ["a"]}}]}, {"error": {"message": "later"}},
    {"choices": [{"message": {"content": "a", "reasoning": {"b": 1}}}]}, "[" * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_a_reply_that_is_no_completion(tmp_path: Path, body: Any) -> None:
    """One among others is left out, also by the next attempt; where there is nothing else, it is said."""

    def reply(number: int, asked: dict[str, Any]) -> Reply:
        return (200, body) if number == 1 or server.asked[0]["model"] == "bad" else echo(number, asked)

    with chat_server(reply) as server:
        answers, api, dropped = asking(server.url, tmp_path, at_once=1).run()
        assert len(answers) == 9 and dropped == {REFUSED: 1} and api["refused"] == 1
        again, told, left_out = asking(server.url, tmp_path, at_once=1).run()
        assert (again, told, left_out) == (answers, api, dropped) and len(server.asked) == 10
        server.asked.clear()
        (tmp_path / "other").mkdir()
        line = refused(asking(server.url, tmp_path / "other", QUESTIONS[:2], config={"model": "bad"}))
    assert "answered none of 2 requests (its reply is not a chat completion: " in line


def test_a_request_that_is_refused_says_nothing_about_the_next(tmp_path: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if "problem 2" in body["messages"][-1]["content"]:
            return 400, {"error": {"message": "too long"}}
        return echo(number, body)

    with chat_server(reply) as server:
        answers, _, dropped = asking(server.url, tmp_path, retries=3).run()
    assert len(answers) == 8 and dropped == {REFUSED: 2} and len(server.asked) == 10


def test_a_server_that_refuses_everything_is_not_asked_for_ever(tmp_path: Path) -> None:
    many = [Question(f"p{i}", 0, "?") for i in range(10 * PATIENCE)]
    with chat_server(lambda n, body: echo(n, body) if n == 0 else (422, "never")) as server:
        line = refused(asking(server.url, tmp_path, many, at_once=1))
    assert len(server.asked) == PATIENCE + 1
    assert f"answered none of {PATIENCE} requests (422: never); 1 of {len(many)} problems are answered and kept" in line


def overlong(few: int) -> Callable[[int, dict[str, Any]], Reply]:
    """Refuses the first ``few`` problems by themselves."""

    def reply(number: int, body: dict[str, Any]) -> Reply:
        problem = int(body["messages"][-1]["content"].split()[1].rstrip("?"))
        return (400, "too long") if problem < few else echo(number, body)

    return reply


def test_the_same_command_goes_on_behind_what_was_refused(tmp_path: Path) -> None:
    many = [Question(f"p{i}", 0, f"problem {i}?") for i in range(PATIENCE + 5)]
    with chat_server(lambda n, body: echo(n, body) if n == 0 else overlong(PATIENCE + 2)(n, body)) as server:
        assert f"answered none of {PATIENCE} requests" in refused(asking(server.url, tmp_path, many, at_once=1))
        answers, api, dropped = asking(server.url, tmp_path, many, at_once=1).run()
    assert len(server.asked) == len(many), "nothing was asked twice"
    assert set(answers) == {("p0", 0)} | {(f"p{i}", 0) for i in range(PATIENCE + 2, PATIENCE + 5)}
    assert dropped == {REFUSED: PATIENCE + 1} and api["refused"] == PATIENCE + 1


def test_many_samples_of_a_few_overlong_problems_end_nothing(tmp_path: Path) -> None:
    many = [Question(f"p{i}", k, f"problem {i}?") for i in range(4) for k in range(PATIENCE)]
    with chat_server(overlong(3)) as server:
        answers, _, dropped = asking(server.url, tmp_path, many, at_once=1).run()
    assert len(answers) == PATIENCE and dropped == {REFUSED: 3 * PATIENCE} and len(server.asked) == len(many)


def test_where_nothing_was_ever_answered_all_is_asked_again_in_the_end(tmp_path: Path) -> None:
    """A page of a proxy's in place of the server, for a while."""
    many = [Question(f"p{i}", 0, f"problem {i}?") for i in range(PATIENCE + 5)]
    page: Reply = (200, "<html>log in</html>")
    with chat_server(lambda n, body: page if n < PATIENCE else echo(n, body)) as server:
        refused(asking(server.url, tmp_path, many, at_once=1))
        answers, api, dropped = asking(server.url, tmp_path, many, at_once=1).run()
    assert [int(text.split()[1][:-1]) for text in server.texts()[PATIENCE:]] == [
        *range(PATIENCE, PATIENCE + 5),
        *range(PATIENCE),
    ]
    assert len(answers) == len(many) and not dropped and api["refused"] == 0
    assert not Journal(tmp_path / "answers.jsonl").refused


def test_a_refusal_that_is_billed_counts_towards_the_cap(tmp_path: Path) -> None:
    """Each reply has its tokens and no choice; three fit the cap, and a resumed round knows that they were paid."""
    empty: Reply = {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 900}}
    config, price = {"max_tokens": 1000}, {"prices": (0.0, 1000.0), "max_cost": 3.0, "at_once": 1}
    with chat_server(lambda n, body: empty) as server:
        for _ in range(2):
            line = refused(asking(server.url, tmp_path, config=config, **price))
            assert "rollouts.max_cost: $2.7000 of $3.0000 are spent" in line and len(server.asked) == 3
    kept = Journal(tmp_path / "answers.jsonl")
    assert kept.billed == {0: 3000, 1: 2700} and len(kept.refused) == 3


def test_a_completion_that_is_unusable_and_does_not_say_its_tokens_is_billed_by_the_most(tmp_path: Path) -> None:
    replies: list[Reply] = [{"choices": [{"message": {"content": ["a"]}}]}, {"choices": []}, completion("a")]
    with chat_server(lambda n, body: replies[n]) as server:
        _, api, _ = asking(server.url, tmp_path, QUESTIONS[:3], at_once=1).run()
    assert (api["prompt_tokens"], api["completion_tokens"]) == (len("problem 0?") + TEMPLATE_TOKENS + 7, 32 + 5)


def test_what_is_told_while_it_is_asked(tmp_path: Path) -> None:
    lines: list[str] = []
    replies: list[Reply] = [
        (503, "busy"),
        completion("a", usage=(0, 10_000)),
        (422, "no"),
        completion("a", usage=(0, 0)),
    ]
    with chat_server(lambda n, body: replies[n]) as server:
        told = teacher(server.url, retries=1, at_once=1, prices=(0.0, 100.0))
        questions = [Question(f"p{i}", 0, "?") for i in range(3)]
        Asking(told, questions, tmp_path / "answers.jsonl", lambda: None, lines.append).run()
    assert lines == [
        "1/3 problems answered, 1 sent again, $1.00 spent",
        "2/3 problems answered, 1 requests refused, 1 sent again, $1.00 spent",
        "3/3 problems answered, 1 requests refused, 1 sent again, $1.00 spent",
    ]


HEADERS = {
    "OPENAI_ORG_ID": "org-mine", "OPENAI_PROJECT_ID": "proj-mine", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "OPENAI_CUSTOM_HEADERS": "X-Mine: mine-too\nAuthorization: Bearer mine\nContent-Type: text/mine\n"
    "openai-organization: org-mine",
}  # fmt: skip


@pytest.mark.parametrize("key", ["TEACHER_KEY", None])
def test_what_the_environment_holds_for_openai_is_sent_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    for name, value in HEADERS.items():
        monkeypatch.setenv(name, value)
    with chat_server(echo) as server:
        answers, _, _ = asking(server.url, tmp_path, key=key).run()
    assert len(answers) == 10 and len(server.headers) == 10
    for headers in server.headers:
        assert not [value for value in headers.values() if "mine" in value]
        assert not {"openai-organization", "openai-project", "x-mine"} & headers.keys()
        assert headers.get("authorization") == (f"Bearer {KEY}" if key else None)
    own = teacher("https://api.openai.com/v1").client
    assert own.organization == "org-mine" and own.default_headers["X-Mine"] == "mine-too"


def test_a_server_that_repeats_the_key_does_not_get_it_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        return completion(f"I got {KEY}.", f"filter\n {KEY} {'x' * 90}", reasoning=f"Bearer {KEY}")

    with chat_server(reply) as server:
        answers, _, _ = asking(server.url, tmp_path, QUESTIONS[:1]).run()
        assert KEY.encode() not in (tmp_path / "answers.jsonl").read_bytes()
        found = answers["p0", 0]
        assert (found.text, found.reasoning) == ("I got [key].", "Bearer [key]")
        assert found.finish == f"filter [key] {'x' * 90}"[:40]
        monkeypatch.setenv("TEACHER_KEY", "EMPTY")  # as servers that want any key are given: a word, and no secret
        (tmp_path / "answers.jsonl").unlink()
        server.reply = lambda number, body: completion("EMPTY is the set.")
        answers, _, _ = asking(server.url, tmp_path, QUESTIONS[:1]).run()
    assert answers["p0", 0].text == "EMPTY is the set."


def test_a_full_disk_loses_no_answer_that_fits(tmp_path: Path) -> None:
    """One answer is larger than a file may be here; those under way beside it are waited for and kept."""
    together = threading.Barrier(3)

    def reply(number: int, body: dict[str, Any]) -> Reply:
        together.wait(timeout=30)
        if body["messages"][-1]["content"] == "problem 1?":
            return completion("x" * 2_000_000)
        time.sleep(0.5)
        return echo(number, body)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    questions = [Question(f"p{i}", 0, f"problem {i}?") for i in range(5)]
    with chat_server(reply) as server:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                asking(server.url, tmp_path, questions, at_once=3).run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(Journal(tmp_path / "answers.jsonl").answers) == {("p0", 0), ("p2", 0)}
    assert len(server.asked) == 3, "and nothing more is asked"


def test_why_an_answer_ended_and_what_it_thought(tmp_path: Path) -> None:
    replies = [
        completion("cut", "length"),
        completion(None, "content_filter"),
        completion("so", reasoning_content="because"),
        completion("so", reasoning="since \ud800"),
        completion("", usage=None),
    ]
    with chat_server(lambda n, body: replies[n]) as server:
        answers, api, _ = asking(server.url, tmp_path, QUESTIONS[:5], at_once=1).run()
    found = [answers[q.problem_id, q.sample] for q in QUESTIONS[:5]]
    assert [(a.text, a.reasoning, a.finish) for a in found] == [
        ("cut", "", "length"), ("", "", "content_filter"), ("so", "because", "stop"), ("so", "since ?", "stop"),
        ("", "", "stop"),
    ]  # fmt: skip
    most = len("problem 2?") + TEMPLATE_TOKENS, 32  # of an answer that does not say what it took
    assert (found[4].prompt_tokens, found[4].completion_tokens) == most
    assert (api["prompt_tokens"], api["completion_tokens"]) == (4 * 7 + most[0], 4 * 5 + 32)


def test_nothing_is_asked_that_could_cost_too_much(tmp_path: Path) -> None:
    """Every answer costs the most that it may: 32 000 completion tokens of 10 $ a million. Prompts cost nothing."""
    config, price = {"max_tokens": 32_000}, {"prices": (0.0, 10.0), "at_once": 3}

    def reply(number: int, body: dict[str, Any]) -> Reply:
        return completion("a", usage=(9, 32_000))

    with chat_server(reply) as server:
        line = refused(asking(server.url, tmp_path, config=config, max_cost=1.3, **price))
        assert line == (
            "rollouts.max_cost: $1.2800 of $1.3000 are spent, and the next request may cost $0.3200; 2 of 5 problems "
            "are answered and kept: raise rollouts.max_cost to go on from there"
        )
        assert len(server.asked) == 4 and server.most <= 3
        assert "$1.2800 of $1.5000 are spent" in refused(
            asking(server.url, tmp_path, config=config, max_cost=1.5, **price)
        )
        assert len(server.asked) == 4
        last = asking(server.url, tmp_path, config=config, max_cost=3.2, **price)
        answers, api, _ = last.run()
        assert len(server.asked) == 10 and len(answers) == 10
    assert last.budget.spent() == pytest.approx(10 * 0.32) and api["completion_tokens"] == 320_000
    assert sorted(server.texts()) == sorted(q.text for q in QUESTIONS), "nothing was asked twice"


def test_what_may_be_spent_counts_while_it_is_under_way(tmp_path: Path) -> None:
    """Answers cost a hundredth of the most they may, and two such requests fit the cap: all get through, two at a
    time, though four are allowed."""
    with chat_server(lambda n, body: completion("a", usage=(0, 320))) as server:
        round = asking(server.url, tmp_path, config={"max_tokens": 32_000}, prices=(0.0, 10.0), max_cost=0.7)
        answers, _, _ = round.run()
    assert len(answers) == 10 and server.most <= 2
    assert round.budget.spent() == pytest.approx(10 * 0.0032)


def test_prompts_cost_too(tmp_path: Path) -> None:
    with chat_server(lambda n, body: completion("a", usage=(11, 3))) as server:
        round = asking(server.url, tmp_path, prices=(2.0, 8.0))
        round.run()
    assert round.budget.spent() == pytest.approx(10 * (11 * 2 + 3 * 8) / 1e6)
    assert teacher(server.url, {"prompt": {"system": "é"}}).most(QUESTIONS[0]) == (2 + 10 + TEMPLATE_TOKENS, 32)


def test_what_is_kept_is_sent_to_the_store_shard_by_shard(tmp_path: Path) -> None:
    kept: list[int] = []
    path = tmp_path / "answers.jsonl"
    with chat_server(echo) as server:
        asking(server.url, tmp_path, keep=lambda: kept.append(path.read_bytes().count(b"\n")), at_once=1, shard=2).run()
    assert kept == [4, 8, 10]  # two problems of two samples each, and the rest


def test_a_half_written_line_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path)
    answer = Answer("é\n\x85 a", "", "stop", 1, 2, 0)
    for question in QUESTIONS[:3]:
        journal.add(question, answer)
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 3):
        path.write_bytes(whole[:-cut])
        again = Journal(path)
        assert again.answers == {("p0", 0): answer, ("p0", 1): answer}, cut
        again.add(QUESTIONS[2], answer)
        again.close()
        assert path.read_bytes() == whole
    path.write_bytes(b"\x00\xff\n[1]\n[[], 0, {}]\n" + whole)
    assert len(Journal(path).answers) == 3


def test_a_damaged_line_is_said_asked_again_and_taken_to_have_cost_the_most(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with chat_server(echo) as server:
        whole, api, _ = asking(server.url, tmp_path, prices=(1.0, 1.0)).run()
        lines = path.read_bytes().splitlines(keepends=True)
        for changed in (lines[3].replace(b'"stop"', b'"stpp"'), lines[3][:20] + b"\n", b"\n"):
            path.write_bytes(b"".join([*lines[:3], changed, *lines[4:]]))
            before = len(server.asked)
            with pytest.warns(
                Lost, match=r"answers\.jsonl cannot be read \(line 4: .+\): its question is asked again$"
            ):
                round = asking(server.url, tmp_path, prices=(1.0, 1.0))
            most = max(sum(round.teacher.most(question)) for question in QUESTIONS)
            spent = sum(a.prompt_tokens + a.completion_tokens for a in round.journal.answers.values()) + most
            assert round.budget.spent() == pytest.approx(spent / 1e6)
            assert round.run()[:2] == (whole, api) and len(server.asked) == before + 1
        durable.discard(path)
        path.mkdir()
        with pytest.warns(Lost, match=r"answers\.jsonl cannot be read \(Is a directory\)"):
            assert asking(server.url, tmp_path).run()[0] == whole


# Asks in a process of its own, which kills itself when an answer was written for the n-th time.
KILLED = """
import json, os, pathlib, signal, sys
from orchestrator.rollouts import api_sampling as asking
from orchestrator.rollouts.openai_client import Question, Teacher
given = json.loads(sys.argv[1])
add, calls = asking.Journal.add, 0
def deadly(journal, question, answer):
    global calls
    add(journal, question, answer)
    calls += 1
    if calls == given["at"]:
        os.kill(os.getpid(), signal.SIGKILL)
asking.Journal.add = deadly
teacher = Teacher(given["config"], given["where"])
questions = [Question(*q) for q in given["questions"]]
asking.Asking(teacher, questions, pathlib.Path(given["journal"]), lambda: None, print).run()
"""


@pytest.mark.parametrize("at_once", [1, 4])
def test_killed_and_taken_up_again_nothing_that_came_is_asked_twice(tmp_path: Path, at_once: int) -> None:
    with chat_server(echo) as server:
        given = {
            "config": CONFIG | {"base_url": server.url}, "where": WHERE | {"at_once": at_once}, "at": 4,
            "questions": [[q.problem_id, q.sample, q.text] for q in QUESTIONS],
            "journal": str(tmp_path / "answers.jsonl"),
        }  # fmt: skip
        words = [sys.executable, "-c", KILLED, json.dumps(given)]
        done = subprocess.run(words, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr
        first, kept = len(server.asked), Journal(tmp_path / "answers.jsonl").answers
        assert len(kept) == 4 and 4 <= first <= 4 + at_once
        answers, api, _ = asking(server.url, tmp_path, at_once=at_once).run()
        assert len(server.asked) - first == 6
    again = {(b["messages"][-1]["content"], b["seed"]) for b in server.asked[first:]}
    known = {(q.text, q.seed(3)) for q in QUESTIONS if (q.problem_id, q.sample) in kept}
    assert not again & known and len(answers) == 10 and api["completion_tokens"] == 50


def test_a_stop_keeps_what_came(tmp_path: Path) -> None:
    """A signal, as Ctrl-C or a batch system sends it, while requests are under way."""
    main = threading.get_ident()

    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number == 3:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.2)
        return echo(number, body)

    kept: list[bool] = []
    with chat_server(reply) as server, pytest.raises(KeyboardInterrupt):
        asking(server.url, tmp_path, at_once=1, keep=lambda: kept.append(True)).run()
    assert len(Journal(tmp_path / "answers.jsonl").answers) == 3 and kept == [True]


def test_the_server_of_the_tests_counts(tmp_path: Path) -> None:
    with chat_server(echo) as server:
        assert isinstance(server, ChatServer)
        asking(server.url, tmp_path).run()
        before = len(server.asked)
        asking(server.url, tmp_path).run()
    assert before == len(server.asked) == 10, "what is known is not asked again"
