"""An S3 of one process and no signatures, with faults to order: what real stores do on their bad days.

Faults are set on the server object:
`ignore_conditions`: a store that takes every conditional PUT.
`drop_puts`: the next n PUTs are stored and the connection closed without an answer.
`conflicts`: the next n conditional PUTs are answered 409 and stored nowhere.
`cut_gets`: the next n GETs close after half of the body.
`refuse_status`: what a conditional PUT of an existing key is answered.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from s3_server import S3Server

BUCKET = "fake-bucket"
WHEN = "Sun, 01 Nov 2026 00:00:00 GMT"


class FakeS3(ThreadingHTTPServer):
    """`objects` is the truth, by key; `puts` counts the PUTs that reached it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.gets: list[str] = []
        self.ignore_conditions = self.read_only = False
        self.drop_puts = self.conflicts = self.cut_gets = 0
        self.refuse_status = 412

    def take(self, fault: str) -> bool:
        """Whether one more of this fault is ordered; counts it down."""
        with self.lock:
            left: int = getattr(self, fault)
            setattr(self, fault, max(0, left - 1))
            return left > 0


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: FakeS3

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests read the server's state, not its log."""

    @property
    def key(self) -> str:
        """The key of the object that is asked for."""
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends an answer; of HEAD and 304 without its body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)

    def fail(self, status: int, code: str) -> None:
        """Sends an error as S3 does."""
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def do_PUT(self) -> None:
        """Stores an object, or fails as it was told to."""
        server = self.server
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if server.read_only:
            self.fail(403, "AccessDenied")
            return
        conditional = self.headers["If-None-Match"] == "*" and not server.ignore_conditions
        if conditional and server.take("conflicts"):
            self.fail(409, "ConditionalRequestConflict")
            return
        with server.lock:
            server.puts += 1
            refused = conditional and self.key in server.objects
            if not refused:
                server.objects[self.key] = data
        if server.take("drop_puts"):
            self.close_connection = True
        elif refused:
            self.fail(server.refuse_status, "Refused")
        else:
            self.answer(200, ETag=etag(data))

    def do_GET(self) -> None:
        """Sends an object or its end (Range), or fails as it was told to."""
        data = self.server.objects.get(self.key)
        self.server.gets.append(self.headers["Range"] or "whole")
        if data is None:
            self.fail(404, "NoSuchKey")
            return
        if self.headers["If-Match"] not in (None, etag(data)):
            self.fail(412, "PreconditionFailed")
            return
        start, status, extra = 0, 200, {}
        if self.headers["Range"]:
            start, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
            extra = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        body = data[start:]
        if self.command == "GET" and self.server.take("cut_gets"):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", etag(data))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.answer(status, body, ETag=etag(data), Last_Modified=WHEN, **extra)

    do_HEAD = do_GET  # noqa: N815


def etag(data: bytes) -> str:
    """As S3 makes it."""
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def run_fake_s3() -> Iterator[tuple[FakeS3, S3Server]]:
    """The server, and what clients need to reach it."""
    with FakeS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server, S3Server(f"http://127.0.0.1:{server.server_address[1]}", BUCKET)
        finally:
            server.shutdown()
            thread.join()
