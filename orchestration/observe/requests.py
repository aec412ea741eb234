"""Every request is noted once, when it has ended: in counts, and, if asked for, in a log of JSON lines.

The log says which endpoint, how long, how many tokens, what status; never a prompt, an answer, a key, an address or
anything else that a client sent, paths included: a name in a path is a client's. `x-request-id` of the answer is the
line's `id`, so that a report finds its line. The file may be rotated: it is opened anew where it was moved away.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from dataclasses import dataclass, field
from logging.handlers import WatchedFileHandler
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gristmill.orchestration.observe.metrics import Metrics

OTHER = "other"
"""The route of a request for a path that no endpoint has."""
_KEY = "gristmill.noted"
_DEFECT = 500


@dataclass
class Noted:
    """One request on its way. Seconds are of a clock that only runs forward."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: float = field(default_factory=time.perf_counter)
    status: int | None = None
    whole: bool = False
    """Whether the end of the answer was sent."""
    first_token: float | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def took(self, tokens: int) -> None:
        """The engine took a prompt of so many tokens."""
        self.prompt_tokens += tokens

    def grew(self, tokens: int) -> None:
        """So many tokens more were generated."""
        if tokens and self.first_token is None:
            self.first_token = time.perf_counter() - self.begun
        self.generated_tokens += tokens


def noted_of(scope: Scope) -> Noted:
    """What is noted of this request."""
    noted: Noted = scope[_KEY]
    return noted


class Observed:
    """An application, every request to which is noted. `log`: as `open_log` gives it; None: no log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: logging.Handler | None = None) -> None:
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted = scope[_KEY] = Noted()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", noted.id.encode())]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                noted.whole = True

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sent)
        finally:
            self._metrics.in_flight.dec()
            self._end(noted, scope)

    def _end(self, noted: Noted, scope: Scope) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        status = noted.status or _DEFECT  # an error that nobody made an answer of: the server says 500 after this
        seconds = time.perf_counter() - noted.begun
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        self._metrics.prompt_tokens.inc(noted.prompt_tokens)
        self._metrics.generated_tokens.inc(noted.generated_tokens)
        if noted.first_token is not None:
            self._metrics.first_token.labels(route).observe(noted.first_token)
        if self._log is not None:
            line = json.dumps(_line(noted, route, status, seconds))
            self._log.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO, "levelname": "INFO"}))


def _line(noted: Noted, route: str, status: int, seconds: float) -> dict[str, Any]:
    now = time.time()
    first = noted.first_token
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z",
        "id": noted.id,
        "route": route,
        "status": status,
        "whole": noted.whole,
        "seconds": round(seconds, 6),
        "first_token_seconds": None if first is None else round(first, 6),
        "prompt_tokens": noted.prompt_tokens,
        "generated_tokens": noted.generated_tokens,
    }


def open_log(address: str) -> logging.Handler:
    """A log at this path, to which lines are added, or on stderr (`-`). Raises OSError, where it cannot be opened."""
    handler = logging.StreamHandler(sys.stderr) if address == "-" else WatchedFileHandler(address, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler
