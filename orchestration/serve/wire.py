"""Connections of `grist serve`: who is slow, half gone or gone costs no thread, no slot and no page of the log.

A client has a bounded time to do its part: to end its headers, to send its body, to read a piece of the answer. A peer
that has vanished without a word is found by TCP's own probes. A client that leaves is no error of the server's.
How many requests there are says nothing of memory: one holds anything from a kilobyte to hundreds of megabytes, from
its body to its images and clips as the model takes them. So what all hold together is bounded in bytes.
Source: RFC 1122, 4.2.3.6 (keep-alive); Linux tcp(7); slowloris.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

from gristmill.orchestration.serve.engine import Busy
from gristmill.orchestration.serve.errors import ApiError, unserved

PATIENCE = 60.0
"""Seconds that a client may take for its headers, for its body, and for a piece of the answer."""
_GONE = 499
_T = TypeVar("_T")


class Gone(Exception):
    """The client has left: nobody reads an answer."""


async def say_nothing(request: Request, error: Exception) -> Response:
    """The answer to a client that has left: what proxies log for one that closed."""
    return Response(status_code=_GONE)


def server_config(app: Any, host: str, port: int, patience: float = PATIENCE, **settings: Any) -> uvicorn.Config:
    """How uvicorn runs the app. `settings`: of `uvicorn.Config`."""

    class Patient(_Patient):
        seconds = patience

    return uvicorn.Config(app, host, port, http=Patient, ws="none", **settings)


class _Patient(H11Protocol):
    """Ends a connection on which no request begins, or none comes to the end of its headers, or that is not read.

    Whoever works for it is told that the client has left.
    """

    seconds = PATIENCE
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _probe(transport.get_extra_info("socket"), self.seconds)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._read_on()
        super().resume_writing()

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        """The time runs from the first moment without a request, however many bytes come."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _probe(connection: socket.socket | None, seconds: float) -> None:
    """Lets the system find out that a peer has vanished: by probes where nothing is sent, by what stays unread."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", max(1, int(seconds / 2))), ("TCP_KEEPINTVL", max(1, int(seconds / 6)))):
        if hasattr(socket, name):  # Linux has them all
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_KEEPCNT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class Memory:
    """Bytes that requests hold together, `most`, from the first of a body to the last of the answer. For one event
    loop: nothing here may be called from another thread. Raises ValueError for `most` below 1."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_inflight_bytes={most}: allowed is 1 or more")
        self.most, self.held = most, 0

    def request(self) -> Held:
        """What one request holds, nothing as yet: to use in `with`, or to close."""
        return Held(self)


class Held:
    """Bytes that one request holds, until it is closed."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._size = memory, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def grow(self, size: int) -> None:
        """Adds to them. Raises Busy where there is no room for that."""
        others = self._memory.held - self._size
        if others and self._memory.held + size > self._memory.most:
            raise Busy(
                f"other requests hold {others:,} bytes and this one would hold {self._size + size:,}, of"
                f" {self._memory.most:,} for all together: try again later"
            )
        self._size += size
        self._memory.held += size

    def close(self) -> None:
        """Gives all of them back. May be called again."""
        self._memory.held -= self._size
        self._size = 0


async def read_body(receive: Receive, limit: int, seconds: float, held: Held) -> bytes:
    """The body of a request, which grows what that holds. Raises ApiError for one that is too large, finds no room or
    does not come; Gone."""
    data = bytearray()
    close = {"Connection": "close"}  # what is still to come is not read
    try:
        async with asyncio.timeout(seconds):
            while True:
                part = await receive()
                if part["type"] == "http.disconnect":
                    raise Gone
                piece = part.get("body", b"")
                if len(data) + len(piece) > limit:
                    message = f"the body is larger than {limit:,} bytes, the most that this server takes: send less"
                    raise ApiError(413, message, headers=close)
                held.grow(len(piece))
                data += piece
                if not part.get("more_body", False):
                    return bytes(data)
    except TimeoutError:
        raise ApiError(408, f"the body has not come in {seconds:g} s: send it again", headers=close) from None
    except Busy as error:
        raise unserved(error, close) from error


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` returns. Raises Gone, and cancels `work`, if the client goes away before."""

    async def gone() -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()

    tasks = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Gone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # so that no error is left for the log to find
