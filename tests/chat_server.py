"""A small OpenAI-compatible server in this process, which keeps what it was asked and answers as a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any] | tuple[int, Any] | tuple[int, Any, dict[str, str]]  # a body; or status, body, headers


def completion(text: str | None, finish: str = "stop", usage: tuple[int, int] | None = (7, 5), **more: Any) -> Reply:
    """A chat completion's body; ``more`` are further fields of its message."""
    message = {"role": "assistant", "content": text, **more}
    body: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    body["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body


@dataclass
class ChatServer:
    """``asked``: every request's JSON, in the order in which they came. Beside it ``headers``, names in lower case, and
    ``times`` in seconds."""

    url: str
    reply: Callable[[int, dict[str, Any]], Reply]
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    under_way: int = 0
    most: int = 0  # requests at the same time
    lock: Any = field(default_factory=threading.Lock)

    def texts(self) -> list[str]:
        """The user's turns, as they came."""
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def chat_server(reply: Callable[[int, dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """``reply(number of the request from 0, its body)`` is called in the request's own thread."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.asked)
                server.asked.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.times.append(time.monotonic())
                server.under_way += 1
                server.most = max(server.most, server.under_way)
            try:
                found = server.reply(number, body) if self.path.endswith("/chat/completions") else (404, "no such path")
            finally:
                with server.lock:
                    server.under_way -= 1
            status, content, *more = found if isinstance(found, tuple) else (200, found)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # who asked is gone

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        server = ChatServer(f"http://127.0.0.1:{http.server_address[1]}/v1", reply)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
