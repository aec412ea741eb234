"""A web of a few addresses, for tests of what a server fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx

PUBLIC, OTHER = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
Answer = Callable[[httpx.Request], httpx.Response]


class Web(httpx.AsyncBaseTransport):
    """What would be on the network: `answers` by address and path; `asked` is what was connected to."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers, self.asked = answers, list[httpx.Request]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of an address. Raises ConnectError where nothing answers."""
        self.asked.append(request)
        address = f"{request.url.host}{request.url.path}"
        if address not in self.answers:
            raise httpx.ConnectError("no route to host 10.1.2.3")
        return self.answers[address](request)


def names(**hosts: Sequence[str]) -> Any:
    """A resolver. Each time that a name is asked for, it has the next of its addresses; the last one stays."""
    left = {name.replace("_", "."): list(addresses) for name, addresses in hosts.items()}

    async def resolver(host: str, port: int) -> Sequence[str]:
        if host not in left:
            raise OSError("unknown")
        listed = left[host]
        return [listed.pop(0) if len(listed) > 1 else listed[0]]

    return resolver


async def _parts(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def body(data: bytes, **headers: str) -> Answer:
    """An answer with these bytes, in pieces."""
    return lambda request: httpx.Response(200, headers=headers, content=_parts(data))


def moved(to: str) -> Answer:
    """A redirect."""
    return lambda request: httpx.Response(302, headers={"location": to})


async def never(request: httpx.Request) -> AsyncIterator[bytes]:
    """Bytes that do not come."""
    await asyncio.Event().wait()
    yield b""
