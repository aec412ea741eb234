"""Outages: what does not answer now and may in a minute is waited for, with growing pauses, for minutes.

Clients retry for seconds, which is right for a lost packet; a store that restarts takes longer, and a night must not be
lost to it. `is_outage` tells such errors from those that no waiting mends (no bucket, no permission, a defect).
`Patience` repeats a whole call, such as a run, of which receipts keep what was done; it says so once an outage and ends
in `Unreachable`, which a run answers with exit code 5.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

log = logging.getLogger("gristmill")

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds; doubled in between
_NETWORK = frozenset(
    [
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "HTTPClientError",
        "ProxyConnectionError",
        "SSLError",
        "IncompleteReadError",
        "ResponseStreamingError",
    ]
)
"""Exceptions of botocore by name: this module serves local lakes too, and botocore takes half a second to import."""
_CLIENTS = frozenset(["aiohttp", "httpx", "httpcore", "requests", "urllib3", "huggingface_hub", "gcsfs", "adlfs"])
_OF_CLIENTS = frozenset(
    [
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "TransportError",  # httpx
        "NetworkError",  # httpcore
        "TimeoutException",
        "ConnectionError",  # requests
        "Timeout",
        "ChunkedEncodingError",
        "ProtocolError",  # urllib3
        "MaxRetryError",
    ]
)
"""The clients that fsspec's file systems use, and what they raise where a server is away."""
_BUSY = frozenset(["SlowDown", "RequestTimeout", "RequestLimitExceeded", "Throttling", "ThrottlingException"])
_BUSY_STATUS = frozenset([429, 500, 502, 503, 504])
_OF_ARROW = re.compile(r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT)")


class Unreachable(OSError):
    """A store or cluster that stayed away for as long as was waited. The message names it, how long, and the cause."""


def is_outage(error: BaseException) -> bool:
    """Whether the same call may succeed in a minute, with nothing changed by anybody."""
    if isinstance(error, Unreachable | BrokenPipeError):  # it was waited for already; a child process, or a reader
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if type(error).__module__.startswith("botocore"):
        return type(error).__name__ in _NETWORK or _is_busy(getattr(error, "response", None) or {})
    if isinstance(error, OSError) and _OF_ARROW.search(str(error)):
        return True
    if _is_of_a_client(error):
        return True
    return error.__cause__ is not None and is_outage(error.__cause__)


def _is_of_a_client(error: BaseException) -> bool:
    """An error of a network client other than botocore: of the connection, or an answer that says to come back."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] in _CLIENTS}
    if not names:
        return False
    response = getattr(error, "response", None)
    status = [getattr(error, "status", None), getattr(error, "code", None), getattr(response, "status_code", None)]
    return bool(names & _OF_CLIENTS) or any(number in _BUSY_STATUS for number in status)


def _is_busy(response: dict[str, Any]) -> bool:
    """Of an S3 answer that was an error: the store is there, and cannot serve now."""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in _BUSY_STATUS or response.get("Error", {}).get("Code") in _BUSY


@dataclass(frozen=True)
class Patience:
    """How long to wait, and for whom: `seconds` from the first failure of an outage to the last try. `ended`: nobody
    waits any longer, in whatever thread (`end`)."""

    what: str
    seconds: float
    sleep: Callable[[float], None] | None = field(default=None, repr=False)  # None: until `ended`, at most
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    say: Callable[[str], None] = field(default=log.warning, repr=False)
    ended: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def end(self) -> None:
        """Ends all waiting, that of other threads too: what meets an outage now raises Unreachable at once. For who was
        interrupted, and waits for threads that wait."""
        self.ended.set()

    def pause(self, seconds: float) -> None:
        """Sleeps, until `end` at most."""
        (self.sleep or self.ended.wait)(seconds)

    def wait(self, call: Callable[[], T], outage: Callable[[BaseException], bool] = is_outage) -> T:
        """The result of `call`, which is made again while it meets an outage: it has to be safe to repeat.

        A call that worked for longer than `seconds` before it failed met another outage than the last one. Raises
        Unreachable, or at once whatever is no outage.
        """
        began: float | None = None
        pause = FIRST_PAUSE
        while True:
            started = self.clock()
            try:
                result = call()
            except Exception as error:
                if not outage(error):
                    raise
                now = self.clock()
                if began is None or now - started > self.seconds > 0:
                    began, pause = now, FIRST_PAUSE
                    self._say_that_it_began(error)
                if now - began >= self.seconds or self.ended.is_set():
                    raise self.unreachable(now - began, error) from error
                self.pause(min(pause, self.seconds - (now - began)))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if began is not None:
                    self.say(f"{self.what} answered again, {self.clock() - began:.0f} s after it had not")
                return result

    def unreachable(self, seconds: float, error: BaseException) -> Unreachable:
        """The error of an outage that was waited for for so long."""
        until = ", when the wait was interrupted" if self.ended.is_set() else ""
        return Unreachable(f"{self.what} unreachable for {seconds:.0f} s{until}: {brief(error)}")

    def _say_that_it_began(self, error: BaseException) -> None:
        if self.seconds:
            self.say(f"{self.what} unreachable, trying again for {self.seconds:.0f} s: {brief(error)}")


def brief(error: BaseException) -> str:
    """One line of an error."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
