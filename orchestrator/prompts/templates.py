"""Chat templates tried before anything starts: rendered in a process of its own, with limits of time and memory.

A template is a program in Jinja. One that never ends, eats memory or drops the problem would be found hours later, by a
step. This file is also that process: it is started as a script and imports nothing of this package.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5  # of processor time, for all that is rendered
PATIENCE = 300  # seconds by the clock, on a machine that is busy
MEMORY = 2**30  # bytes beyond those of the interpreter
LONGEST = 10**7  # characters of a prompt
# Alike at both ends and long: a template that shows a part of the problem gives one prompt for both.
PROBLEMS = tuple(
    f"A farmer counts {'many sheep and ' * 20}{n} goats{', then some hens' * 20}. How many?" for n in (3, 4)
)


class _Generation(Extension):
    """``{% generation %}``, with which templates mark what the model writes: here it stands for its body."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own way

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def environment() -> Environment:
    """What Transformers renders chat templates with: its sandbox, extensions, filters and functions."""

    def fail(message: str) -> None:
        raise TemplateError(message)

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )
    sandbox.filters["tojson"] = lambda value, ensure_ascii=False, **how: json.dumps(
        value, ensure_ascii=ensure_ascii, **how
    )
    sandbox.globals |= {"raise_exception": fail, "strftime_now": datetime(2024, 7, 26).strftime}  # as prompting.py
    return sandbox


def why_not(template: str, chats: Sequence[Any], values: Mapping[str, Any], seconds: int = SECONDS) -> str | None:
    """What is wrong with a template that is to render these chats, no two to the same text; None where nothing is."""
    request = json.dumps({"template": template, "chats": chats, "values": dict(values), "seconds": seconds})
    words = [sys.executable, "-I", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(words, input=request.encode(), capture_output=True, timeout=PATIENCE)
        late = done.returncode == -signal.SIGXCPU
    except subprocess.TimeoutExpired:
        late = True
    if late:
        return f"takes more than {seconds} s to render a problem"
    try:
        reason = json.loads(done.stdout)
        return reason if reason is None else str(reason)
    except ValueError:
        return f"ends the process that renders a problem (with {done.returncode})"


def _limit(more: int) -> None:
    """This process gets so much time and memory from here on, and leaves no core behind."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + more
    with suppress(OSError, ValueError):  # where a system has no such limit
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _verdict(template: str, chats: Sequence[Any], values: Mapping[str, Any]) -> str | None:
    try:
        compiled = environment().from_string(template)
        prompts = [
            compiled.render(messages=chat, tools=None, documents=None, add_generation_prompt=True, **values)
            for chat in chats
        ]
        if max(map(len, prompts)) > LONGEST:
            return f"makes a prompt of more than {LONGEST} characters"
        again = compiled.render(messages=chats[0], tools=None, documents=None, add_generation_prompt=True, **values)
        if again != prompts[0]:
            return "writes one conversation in several ways: take chance out of it"
        if len(set(prompts)) < len(prompts):
            return "gives two problems the same prompt: it must show each message's content, whole"
    except MemoryError:
        return f"takes more than {MEMORY >> 30} GiB of memory to render a problem"
    except RecursionError:
        return "calls itself without end"
    except Exception as error:  # whatever a template comes to: it is text that somebody wrote
        return f"cannot render a problem ({' '.join((str(error) or type(error).__name__).split())[:200]})"
    return None


if __name__ == "__main__":
    _given = json.load(sys.stdin)
    _limit(_given["seconds"])
    print(json.dumps(_verdict(_given["template"], _given["chats"], _given["values"])))
