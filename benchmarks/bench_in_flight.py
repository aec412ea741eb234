"""Are as many requests under way at a slow server as the settings say? Requests a second against in_flight / latency.

The server answers each request after a pause of half to one and a half of the latency, and tells when requests came and
how many it had at a time: the engine `openai` can come to in_flight / latency requests a second and no more. It is
measured from the first request to the last that comes, as long as others wait: the rate is what is under way on
average over the latency. The server runs in a process of its own; the requests are those of a run: four samples of each
problem, asked by several threads, as pieces of work are.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.harness import Differ, Report, Row, figure, own_process
from gristmill.stages.generate.engines.endpoint import Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.protocol import Ask, Draws, Generation

IN_FLIGHT, LATENCY, CALLERS, EACH = 64, 8.0, 16, 4
_REPLY = b'{"choices": [{"index": 0, "message": {"content": "#### 18"}, "finish_reason": "stop"}], "usage": {}}'


@dataclass
class _Seen:
    """`began`: when each request came; `pauses` that they are answered after; `under_way` now, `most` at a time."""

    latency: float
    began: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def comes(self) -> float:
        """A request; how long it is under way."""
        self.began.append(time.perf_counter())
        self.pauses.append(self.draw.uniform(0.5, 1.5) * self.latency)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return self.pauses[-1]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen) -> None:
    """One connection: request after request."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            await asyncio.sleep(seen.comes())
            seen.under_way -= 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(_REPLY), _REPLY))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):  # the client is done
        writer.close()


def _serve(latency: float, pipe: Connection) -> None:
    """Tells its port; at any word what it has seen, and ends."""

    async def serving() -> None:
        seen = _Seen(latency)
        server = await asyncio.start_server(lambda r, w: _answer(r, w, seen), "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)
        pipe.send((seen.began, seen.pauses, seen.most))

    asyncio.run(serving())


@contextmanager
def slow_server(latency: float) -> Iterator[tuple[str, Connection]]:
    """Its address, and the pipe by which it is ended."""
    context = own_process()
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(latency, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1", here
    finally:
        process.terminate()
        process.join()


def asked(client: OpenAIEngine, caller: int, problems: int) -> list[Generation]:
    """What one piece of work asks."""
    asks = [Ask(f"{caller}/{problem}", tuple(range(EACH)), "How many?") for problem in range(problems)]
    return list(client.generate(asks))


class Measured(NamedTuple):
    """`mean` of requests under way, and the `most` at a time; `rate`: requests a second that comes to; `cpu_ms` of the
    client for a request."""

    mean: float
    rate: float
    most: int
    cpu_ms: float


def measured(in_flight: int, latency: float, rounds: int) -> Measured:
    """Over `rounds` times as many requests as may be under way."""
    problems = -(-in_flight * rounds // (CALLERS * EACH))
    with slow_server(latency) as (url, pipe):
        client = OpenAIEngine(Endpoint(url=url, in_flight=in_flight, key_env=""), "slow", Draws())
        try:
            used = time.process_time()
            with ThreadPoolExecutor(CALLERS) as pool:
                samples = [
                    sample
                    for of_caller in pool.map(lambda caller: asked(client, caller, problems), range(CALLERS))
                    for sample in of_caller
                ]
            used = time.process_time() - used
        finally:
            client.close()
        pipe.send("seen?")
        began, pauses, most = pipe.recv()
    places = {(sample.problem, sample.sample) for sample in samples if sample.text == "#### 18"}
    if len(places) != CALLERS * EACH * problems:
        raise Differ(f"in_flight: {len(places)} samples of {CALLERS * EACH * problems}")
    end = began[-1]  # from here on nobody waits
    held = sum(min(start + pause, end) - start for start, pause in zip(began, pauses, strict=True))
    mean = held / (end - began[0])
    return Measured(mean, mean / (sum(pauses) / len(pauses)), most, 1000 * used / len(samples))


def run(tiny: bool) -> Report:
    """Some times. `tiny`: on next to nothing, for the tests."""
    in_flight, latency, rounds, times = (16, 0.05, 8, 1) if tiny else (IN_FLIGHT, LATENCY, 7, 2)
    results = [measured(in_flight, latency, rounds) for _ in range(times)]
    of_possible = [100 * result.mean / in_flight for result in results]
    asked_for = f"{in_flight} in flight, {latency:g} s a request"
    rows = (
        Row(f"{asked_for}: of in_flight / latency", figure(of_possible), "%", "every sample"),
        Row(f"{asked_for}: requests", figure([result.rate for result in results]), "/s", "every sample"),
        Row("most requests that the server had at a time", figure([float(result.most) for result in results]), ""),
        Row("processor time of the client for a request", figure([result.cpu_ms for result in results]), "ms"),
    )
    note = f"{CALLERS} threads ask {EACH} samples of each problem; the server is a process of its own"
    return Report("in_flight", "a local server that is slow", times, rows, (note,))
