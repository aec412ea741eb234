"""A server of chat completions that misbehaves on order, for tests of the client: each answer is scripted by the test.

It counts what is under way, so that a test can wait for an event (64 requests are there) and never for the clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from waiting import PATIENCE

from gristmill.stages.generate.engines.endpoint import Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.protocol import Draws

Answer = Callable[["Strange", dict[str, Any], web.Request], Awaitable[web.StreamResponse]]


def completion(body: dict[str, Any], *texts: str, usage: bool = True, finish: str = "stop") -> dict[str, Any]:
    """A whole answer with these texts."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for i, text in enumerate(texts)
    ]
    counted = {"prompt_tokens": 7, "completion_tokens": 5 * len(texts), "total_tokens": 7 + 5 * len(texts)}
    return {"model": body["model"], "choices": choices, **({"usage": counted} if usage else {})}


def drawn(body: dict[str, Any], index: int = 0) -> str:
    """What a good server draws: by prompt, seed and index."""
    key = f"{body['messages'][-1]['content']} {body.get('seed')} {index}"
    return f"number {hashlib.sha256(key.encode()).hexdigest()[:8]}"


async def good(server: Strange, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    """As the protocol says; a prompt of more than 1,000 words is too long."""
    if len(body["messages"][-1]["content"].split()) > 1000:
        error = {"message": "this model's maximum context length is 1000 tokens", "code": "context_length_exceeded"}
        return web.json_response({"error": error}, status=400)
    texts = [drawn(body, index) for index in range(body.get("n", 1))]
    return web.json_response(completion(body, *texts))


@dataclass
class Strange:
    """`answer`: how each request is met. `requests`, `keys`: what came; `under_way` now, `most` at a time."""

    url: str = ""
    answer: Answer = good
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization"))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self.answer(self, body, request)
        finally:
            self.under_way -= 1

    def open_gate(self) -> None:
        """Lets those go on who wait for `gate`."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gate.set)


@contextmanager
def strange(answer: Answer = good) -> Iterator[Strange]:
    """Such a server on a free port of this machine, in a thread."""
    server, started, stop = Strange(answer=answer), threading.Event(), None

    async def serve() -> None:
        nonlocal stop
        server.loop, stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        assert runner.addresses
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stop.wait()
        server.gate.set()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(PATIENCE), "the server did not start"
    try:
        yield server
    finally:
        assert server.loop is not None and stop is not None
        server.loop.call_soon_threadsafe(stop.set)
        thread.join()


def replying(status: int = 200, text: str = "", **headers: str) -> Answer:
    """Always this answer."""

    async def answer(server: Strange, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


DRAWS = Draws(max_tokens=16, seed=3)


class Clock:
    """Pauses that take no time, and are noted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def wait(self, seconds: float) -> None:
        """Notes it, and lets others go on."""
        self.slept.append(seconds)
        await asyncio.sleep(0)


def engine(server: Strange, clock: Clock | None = None, use_n: bool = False, **settings: Any) -> OpenAIEngine:
    """A client of the server that pauses by a clock of its own and tries three times."""
    given = {"url": server.url, "tries": 3, "key_env": "", **settings}
    return OpenAIEngine(Endpoint(**given), "tiny", DRAWS, wait=(clock or Clock()).wait, use_n=use_n)
