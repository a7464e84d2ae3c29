"""A server on this machine that speaks the chat-completions protocol, and fails as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-0123456789abcdef"

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.seen)
            server.seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
        answer = server.script[min(number, len(server.script) - 1)]
        if self.headers["Authorization"] != f"Bearer {KEY}":
            answer = wrong_key
        answer(self, body)

    def send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked is in `seen`."""


class Server(ThreadingHTTPServer):
    """script: how each request is answered, the last one ever after; seen: the requests"""

    daemon_threads = True

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.lock = script, [], threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that hung up is part of the test."""


@contextmanager
def serving(*script: Answer) -> Iterator[Server]:
    server = Server(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


# ---- answers -------------------------------------------------------------------------------------


def completion(content: Any, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [choice],
    } | changes


def says(content: Any, **changes: Any) -> Answer:
    """A reply with this content; lists are sent as JSON."""
    text = json.dumps(content) if isinstance(content, list) else content
    return lambda handler, body: handler.send(200, json.dumps(completion(text, **changes)).encode())


def fails(status: int, message: str = "not now", code: str | None = None, **headers: str) -> Answer:
    content = json.dumps({"error": {"message": message, "type": "x", "code": code}}).encode()
    return lambda handler, body: handler.send(status, content, **headers)


def raw(content: bytes) -> Answer:
    """Status 200 and these bytes for a body."""
    return lambda handler, body: handler.send(200, content)


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    """Half a reply, and no more."""
    content = json.dumps(completion("[]" * 500)).encode()
    handler.send(200, content[:300], length=len(content))
    handler.close_connection = True


def sleeps(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.closing.wait(30)


def wrong_key(handler: Handler, body: dict[str, Any]) -> None:
    """As some servers do, with the key in the message."""
    given = handler.headers["Authorization"].removeprefix("Bearer ")
    fails(401, f"Incorrect API key provided: {given}.", "invalid_api_key")(handler, body)
