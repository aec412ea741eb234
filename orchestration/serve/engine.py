"""An engine on a thread of its own, for clients in an event loop: `grist serve` is one.

`model.generate.engine.Engine` serves one thread. Here that thread takes requests in between two steps and hands every
client what grew, as plain values; a client that goes away takes its samples with it. What ends the thread ends every
client with an error, now and later: nothing waits for a thread that is no more.
Notable choice: a request is refused (`Busy`) only when all slots are spoken for and too many requests have not begun.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gristmill.model.generate.engine import Completion, Engine, Request

_LOG = logging.getLogger(__name__)


class Busy(RuntimeError):
    """Too many requests wait already: try again later."""


class Failed(RuntimeError):
    """The engine's thread has ended with an error: this host serves nothing more."""


class Closed(RuntimeError):
    """The host was closed."""


@dataclass(frozen=True)
class Delta:
    """One more token of a completion; None: it ended without one, since none was asked for. `index`: which of the
    stream's completions. `logprob` and `top_logprobs` (id, log-probability) if they were asked for. `finished`: it was
    the last; only then may `completion` itself be read, but for its `prompt_logprobs`: the engine's thread writes to it
    until then."""

    completion: Completion
    index: int
    token: int | None
    logprob: float | None
    top_logprobs: tuple[tuple[int, float], ...]
    finished: bool


class Stream:
    """What grows of requests that belong together: an asynchronous iterator of lists of `Delta`, for the event loop it
    was made in. Completions are numbered from one request to the next.

    Ends with the last completion; raises Failed or Closed if that does not come. Close it, or use it in `with`:
    completions that have not ended are then given up.
    """

    def __init__(self, host: HostedEngine, requests: Sequence[Request]) -> None:
        self.requests, self.completions = tuple(requests), list[Completion]()
        self.begun, self.unfinished = False, sum(request.n for request in requests)  # the engine's thread counts
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host, self._loop, self._unread = host, asyncio.get_running_loop(), self.unfinished
        self._items: asyncio.Queue[list[Delta] | Exception] = asyncio.Queue()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Delta]:
        if not self._unread:
            raise StopAsyncIteration
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        self._unread -= sum(delta.finished for delta in item)
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what has not ended. May be called again."""
        self._host.leave(self)

    def send(self, item: list[Delta] | Exception | None) -> bool:
        """From the engine's thread; None: the request was accepted. False: the client's event loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._put, item)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True

    def _put(self, item: list[Delta] | Exception | None) -> None:
        if self.accepted.done():
            if item is not None:
                self._items.put_nowait(item)
        elif isinstance(item, Exception):
            self.accepted.set_exception(item)
        else:
            self.accepted.set_result(None)


class HostedEngine:
    """Owns `engine`, which nobody else may use, until `close`. `max_waiting`: requests of which nothing has begun."""

    def __init__(self, engine: Engine, max_waiting: int = 256) -> None:
        if max_waiting < 0:
            raise ValueError(f"max_waiting={max_waiting}: allowed is 0 or more")
        self.max_waiting = max_waiting
        self.options, self.decode, self.config = engine.options, engine.decode, engine.model.config
        self._engine = engine
        self._changed = threading.Condition()  # guards what follows
        self._live: set[Stream] = set()
        self._arrived: list[Stream] = []
        self._left: list[Stream] = []
        self._closing = False
        self._failure: str | None = None
        # Of each completion, by its id, the stream and its number there; the thread's own.
        self._owner: dict[int, tuple[Stream, int]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def failure(self) -> str | None:
        """What ended the engine's thread; None as long as it serves."""
        return self._failure

    @property
    def load(self) -> tuple[int, int]:
        """Completions that have not ended, and streams of which none has begun."""
        with self._changed:
            return sum(stream.unfinished for stream in self._live), sum(not stream.begun for stream in self._live)

    @property
    def slots_used(self) -> int:
        """Completions that are generated now: the engine's own count, as another thread may see it."""
        return self._engine.slots_used

    async def submit(self, *requests: Request) -> Stream:
        """Waits until the engine has taken the requests, a step at most: all of them or none. Raises Busy, Failed,
        Closed, and what `Engine.submit` raises: TooLong, ValueError."""
        stream = Stream(self, requests)
        with self._changed:
            self._check_open()
            completions, waiting = self.load
            if completions >= self.options.max_num_seqs and waiting >= self.max_waiting:
                raise Busy(
                    f"{waiting} requests wait and all {self.options.max_num_seqs} slots are taken: try again later"
                )
            self._live.add(stream)
            self._arrived.append(stream)
            self._changed.notify()
        try:
            await stream.accepted
        except BaseException:
            stream.close()
            raise
        return stream

    def leave(self, stream: Stream) -> None:
        """Takes a stream's completions out, if they have not ended."""
        with self._changed:
            if stream in self._live:
                self._live.remove(stream)
                self._left.append(stream)
                self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the step it is in; clients get Closed. May be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise Failed(self._failure)
        if self._closing:
            raise Closed("the server is shutting down")

    def _run(self) -> None:
        try:
            while self._take():
                self._deliver(self._engine.step())
            error: Exception = Closed("the server is shutting down")
        except BaseException as fault:  # whatever it is, clients wait to hear of it
            _LOG.critical("the engine's thread ended: nothing is served any more", exc_info=True)
            error = Failed(f"the engine failed: {type(fault).__name__}: {fault}")
        with self._changed:
            self._failure = str(error) if isinstance(error, Failed) else None
            self._closing = True
            last, self._live = self._live, set()
        for stream in last:
            stream.send(type(error)(str(error)))  # an exception of its own: each collects tracebacks

    def _take(self) -> bool:
        """Waits for something to do, and takes in who came and who left. False: it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._arrived or self._left or not self._engine.idle)
            arrived, self._arrived = self._arrived, []
            left, self._left = self._left, []
            if self._closing:
                return False
        for stream in arrived:
            try:
                for request in stream.requests:
                    stream.completions += self._engine.submit(request)
            except ValueError as error:  # of these requests alone
                self._engine.cancel(stream.completions)
                self._forget(stream)
                stream.send(error)
                continue
            for number, completion in enumerate(stream.completions):
                self._owner[id(completion)] = stream, number
            stream.send(None)
        for stream in left:
            self._drop(stream)
        return True

    def _drop(self, stream: Stream) -> None:
        self._engine.cancel(stream.completions)
        for completion in stream.completions:
            self._owner.pop(id(completion), None)

    def _forget(self, stream: Stream) -> None:
        with self._changed:
            self._live.discard(stream)

    def _deliver(self, grown: Sequence[Completion]) -> None:
        """What grew in a step, to each client its own."""
        by_stream: dict[Stream, list[Delta]] = {}
        for completion in grown:
            stream, number = self._owner[id(completion)]
            by_stream.setdefault(stream, []).append(_delta(completion, number))
            if completion.finish_reason:
                del self._owner[id(completion)]
        for stream, deltas in by_stream.items():
            stream.begun = True
            stream.unfinished -= sum(delta.finished for delta in deltas)
            if not stream.unfinished:
                self._forget(stream)
            if not stream.send(deltas):
                self._forget(stream)
                self._drop(stream)


def _delta(completion: Completion, number: int) -> Delta:
    with_logprobs = completion.request.sampling.logprobs is not None and bool(completion.tokens)
    return Delta(
        completion=completion,
        index=number,
        token=completion.tokens[-1] if completion.tokens else None,
        logprob=completion.logprobs[-1] if with_logprobs else None,
        top_logprobs=tuple(completion.top_logprobs[-1]) if with_logprobs else (),
        finished=completion.finish_reason is not None,
    )
