"""A server that answers each request with bytes that a test chose, whatever HTTP says of them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Sends = Callable[[dict[str, Any]], bytes]
"""What is sent for a request's body; the connection stays open for more."""


def message(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A response with this body."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answer(*texts: str, finish: str = "stop", **usage: Any) -> bytes:
    """A completion with these texts."""
    choices = [
        {"index": place, "message": {"content": text}, "finish_reason": finish} for place, text in enumerate(texts)
    ]
    return json.dumps({"choices": choices, "usage": usage}).encode()


@contextmanager
def raw_server(sends: Sends) -> Iterator[str]:
    """Its address, up to and with /v1."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=_talk, args=(connection, sends), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        listening.close()


def _talk(connection: socket.socket, sends: Sends) -> None:
    with connection, suppress(OSError):
        while (request := _request(connection)) is not None:
            connection.sendall(sends(request))


def _request(connection: socket.socket) -> dict[str, Any] | None:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[:end]):
        block = connection.recv(1 << 16)
        if not block:
            return None
        data += block
    body: dict[str, Any] = json.loads(data[end + 4 :])
    return body


def _length(head: bytes) -> int:
    (line,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.partition(b":")[2])
