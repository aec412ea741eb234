"""The engine `openai`: any server that speaks OpenAI's chat completions, asked by an event loop of its own.

As many requests are under way as the settings say, whoever asks. What may do better a moment later (429, 5xx, no
connection, no answer in time, an answer that broke off or is none) is tried again after a pause that doubles, with
jitter so that 64 requests do not come back as one; what a server asks to wait is waited, by all. What is left then is
the sample's failure. The key is read from the environment when a request is sent, and stands nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from gristmill.stages.generate.engines.address import check_address
from gristmill.stages.generate.engines.bodies import ASKING, no_cookies, read_body, without_key
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation, Load, chat_body
from gristmill.stages.generate.engines.replies import Failed, Reply, failed_samples, read_reply, samples_of

_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_SHORTEST_KEY = 8
"""Characters of a key that is taken for a secret; servers without keys are given words such as `EMPTY`."""


class BadEndpoint(RuntimeError):
    """A server that cannot be used for this run, and why."""


class Away(BadEndpoint):
    """A server that may answer at another time."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is and how it is asked, which decides no sample.

    `url`: up to and with `/v1`. `key_env`: the environment variable with its key, if that is set. `in_flight`: requests
    under way at a time. `timeout_seconds`: of a request with its answer. `tries` of a request; `first_pause_seconds`
    after the first of them, doubled up to `longest_pause_seconds`, which is also the most that a server may ask for.
    `batch_folder`: no server is asked, but files of requests are written there for a provider's batch API, and results
    read from its folder `results` (`stages.generate.engines.batch`); empty: the server is asked.
    `share_prompts`: several samples of a problem in one request, if the server takes `n`.
    `prompt_price`, `answer_price`: of a million tokens, in whatever currency; None: what it costs is not told.
    """

    url: str = ""
    key_env: str = "OPENAI_API_KEY"
    in_flight: int = 64
    timeout_seconds: float = 600.0
    tries: int = 6
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    most_bytes: int = 16 << 20
    batch_folder: str = ""
    share_prompts: bool = False
    prompt_price: float | None = None
    answer_price: float | None = None

    def __post_init__(self) -> None:
        for name in ("in_flight", "tries", "most_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: 1 or more")
        if not self.timeout_seconds > 0 or not 0 <= self.first_pause_seconds <= self.longest_pause_seconds:
            raise ValueError(
                f"timeout_seconds={self.timeout_seconds}, first_pause_seconds={self.first_pause_seconds},"
                f" longest_pause_seconds={self.longest_pause_seconds}: a timeout above 0, pauses from 0, the first not"
                " above the longest"
            )
        if self.url:
            check_address(self.url)

    def price(self, prompt_tokens: int, tokens: int) -> float | None:
        """What so many tokens cost; None where no prices are given."""
        if self.prompt_price is None or self.answer_price is None:
            return None
        return (prompt_tokens * self.prompt_price + tokens * self.answer_price) / 1e6


@dataclass
class _Caller:
    """Who waits for samples: they are put here as they are done, or the error that ends all."""

    answers: queue.SimpleQueue[Generation | BaseException] = field(default_factory=queue.SimpleQueue)


class OpenAIEngine:
    """Asks a server. `model`: as the server calls it. `use_n`: whether samples of a problem share a request.
    `wait`: how to pause; a test gives another clock."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        draws: Draws,
        *,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        use_n: bool = False,
    ) -> None:
        self.endpoint, self.model, self.draws = endpoint, model, draws
        self.use_n = use_n
        self.longest_prompt: int | None = None  # bytes; None: the server refuses what is too long
        self._wait, self._jitter = wait, random.Random()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        # A client of one connection a place: one with many looks at all of them for each request.
        self._places: asyncio.LifoQueue[httpx.AsyncClient | None] = asyncio.LifoQueue()
        for _ in range(endpoint.in_flight):
            self._places.put_nowait(None)  # connected by whoever takes it
        self._clients: list[httpx.AsyncClient] = []
        # What certificates are checked by, read once for all; an address without TLS has none.
        self._tls = httpx.create_ssl_context() if endpoint.url.startswith("https:") else False
        self._held_until = 0.0  # the loop's time before which nothing is sent: a server asked for a pause
        self._closed = False

    @property
    def about(self) -> str:
        """The server's model."""
        return self.model

    def generate(self, asks: Iterable[Ask]) -> Iterator[Generation]:
        """As `Engine.generate`. Raises BadEndpoint where the server refuses whatever it is asked."""
        caller, wanted = _Caller(), 0
        futures = []
        for ask in asks:
            for first, count in ask.runs():
                step = count if self.use_n else 1
                for start in range(first, first + count, step):
                    numbers = tuple(range(start, min(start + step, first + count)))
                    wanted += len(numbers)
                    job = self._answered(caller, replace(ask, samples=numbers))
                    futures.append(asyncio.run_coroutine_threadsafe(job, self._loop))
        try:
            for _ in range(wanted):
                answer = caller.answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:  # who stops listening asks for nothing more
            for future in futures:
                future.cancel()

    def ask(self, body: dict[str, Any]) -> Reply:
        """One request, retried as all are. Raises Failed for one that got no answer in the end."""
        reply, _ = asyncio.run_coroutine_threadsafe(self._sent(body), self._loop).result()
        return reply

    def body(self, ask: Ask, n: int = 1, **more: Any) -> dict[str, Any]:
        """The request for the first of these samples, or for `n` from it on."""
        return chat_body(self.model, self.draws, ask, n, **more)

    def load(self) -> Load:
        """As `Engine.load`."""
        return Load()

    def close(self) -> None:
        """Ends what is under way, the connections and the thread."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _ended(self) -> None:
        jobs = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for client in self._clients:
            await client.aclose()

    async def _answered(self, caller: _Caller, ask: Ask) -> None:
        """Puts what became of each of these samples."""
        try:
            for generation in await self._generations(ask):
                caller.answers.put(generation)
        except asyncio.CancelledError:
            caller.answers.put(BadEndpoint("the engine was closed"))
            raise
        except BaseException as error:  # whatever it is: who waits has to hear of it
            caller.answers.put(error)

    async def _generations(self, ask: Ask) -> list[Generation]:
        if self.longest_prompt is not None and len(ask.prompt.encode()) > self.longest_prompt:
            detail = f"more than {self.longest_prompt:,} bytes of prompt, and this server cuts what is too long"
            return [Generation(ask.problem, n, failure="too_long", detail=detail, requests=0) for n in ask.samples]
        try:
            reply, requests = await self._sent(self.body(ask, len(ask.samples)))
        except Failed as failed:
            if failed.everyone:
                raise BadEndpoint(f"the server refuses every request: {failed.detail}") from None
            tries = self.endpoint.tries if failed.again else 1
            return failed_samples(ask, failed, tries)
        return samples_of(ask, reply, requests)

    async def _sent(self, body: dict[str, Any]) -> tuple[Reply, int]:
        """The reply, and how often it was asked for."""
        endpoint = self.endpoint
        for tried in range(1, endpoint.tries + 1):
            async with self._place() as client:
                try:
                    return await self._once(client, body), tried
                except Failed as failed:
                    if not failed.again or tried == endpoint.tries:
                        raise
                    pause = self._pause(tried, failed)
            await self._wait(pause)
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[httpx.AsyncClient]:
        """A place among the requests under way, once no pause is on that a server asked for: who waits holds none."""
        waited = 0.0  # the time until which it was waited for
        while True:
            until = self._held_until
            if until > max(waited, now := self._loop.time()):
                await self._wait(until - now)
                waited = until
                continue
            client = await self._places.get()
            try:
                if self._held_until <= max(waited, self._loop.time()):  # none began while a place was waited for
                    client = client or self._connected()
                    yield client
                    return
            finally:
                self._places.put_nowait(client)

    def _connected(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=1)
        here = httpx.URL(self.endpoint.url).host in _THIS_MACHINE  # which no proxy knows
        client = httpx.AsyncClient(
            verify=self._tls,
            limits=limits,
            timeout=None,
            follow_redirects=False,
            trust_env=not here,
            cookies=no_cookies(),
        )
        self._clients.append(client)
        return client

    def _pause(self, tried: int, failed: Failed) -> float:
        endpoint = self.endpoint
        pause = min(endpoint.first_pause_seconds * 2 ** (tried - 1), endpoint.longest_pause_seconds)
        pause *= self._jitter.uniform(0.5, 1.5)
        if failed.pause is not None:
            asked = min(failed.pause, endpoint.longest_pause_seconds)
            self._held_until = max(self._held_until, self._loop.time() + asked)
            pause += asked
        return pause

    async def _once(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
        """One request. Raises Failed."""
        began, key = False, self._key()
        headers = ASKING | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                url = f"{self.endpoint.url.rstrip('/')}/chat/completions"
                async with client.stream("POST", url, json=body, headers=headers) as response:
                    began = True
                    content = await read_body(response, self.endpoint.most_bytes)
        except (TimeoutError, httpx.TimeoutException):
            raise Failed("timeout", f"no answer in {self.endpoint.timeout_seconds:g} s") from None
        except httpx.HTTPError as error:  # by kind alone: its words can hold the address
            failure = "half_body" if began else "unreachable"
            raise Failed(failure, type(error).__name__) from None  # type: ignore[arg-type]
        if len(key) >= _SHORTEST_KEY:
            content = without_key(content, key)  # servers quote the key that they refuse
        return read_reply(response.status_code, response.headers, content)

    def _key(self) -> str:
        """The key; empty: there is none. Raises BadEndpoint for one that no header can hold, without quoting it."""
        key = os.environ.get(self.endpoint.key_env, "").strip() if self.endpoint.key_env else ""
        if not (key.isascii() and key.isprintable()):
            raise BadEndpoint(f"the key in {self.endpoint.key_env} has characters that no header may have")
        return key
