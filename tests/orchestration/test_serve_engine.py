"""A hosted engine: every client gets its own, nothing hangs when the engine ends, who leaves frees the slots."""

from __future__ import annotations

import asyncio
import threading

import pytest
from serving import ToyEngine, toy_engine

from gristmill.model.generate.engine import Request, TooLong
from gristmill.model.generate.sampling import Sampling
from gristmill.orchestration.serve.engine import Busy, Closed, Failed, HostedEngine, Stream

PROMPT = (20, 30, 40)


@pytest.fixture
def engine() -> ToyEngine:
    return toy_engine()[0]


def job(key: str, tokens: int = 12, n: int = 1) -> Request:
    return Request(key, PROMPT, Sampling(tokens, ignore_eos=True), n)


async def tokens_of(stream: Stream) -> dict[int, list[int]]:
    """Tokens of every completion, by its number, until the stream ends."""
    tokens: dict[int, list[int]] = {}
    async for deltas in stream:
        for delta in deltas:
            tokens.setdefault(delta.completion.number, []).append(delta.token)
    return tokens


def test_clients_get_what_the_engine_alone_would_make(engine: ToyEngine) -> None:
    jobs = [job(f"k{i}", 5 + i, n=3) for i in range(6)]
    expected = {(alone.request.key, alone.number): alone.tokens for alone in toy_engine()[0].run(jobs)}

    async def all_of_them(hosted: HostedEngine) -> list[dict[int, list[int]]]:
        streams = await asyncio.gather(*map(hosted.submit, jobs))
        return await asyncio.gather(*map(tokens_of, streams))

    with HostedEngine(engine) as hosted:
        by_client = asyncio.run(all_of_them(hosted))
        assert hosted.load == (0, 0)
    received: dict[tuple[str, int], list[int]] = {}
    for request, of_client in zip(jobs, by_client, strict=True):
        received |= {(request.key, number): tokens for number, tokens in of_client.items()}
    assert received == expected


def test_what_cannot_be_is_refused_to_its_client_alone(engine: ToyEngine) -> None:
    async def both(hosted: HostedEngine) -> dict[int, list[int]]:
        good = await hosted.submit(job("good"))
        with pytest.raises(TooLong):
            await hosted.submit(Request("long", PROMPT * 200))
        with pytest.raises(ValueError, match="ids from 0"):
            await hosted.submit(Request("bad", (10**6,), Sampling(3)))
        return await tokens_of(good)

    with HostedEngine(engine) as hosted:
        assert len(asyncio.run(both(hosted))[0]) == 12
        assert hosted.failure is None and hosted.load == (0, 0)


def test_requests_that_belong_together_are_one(engine: ToyEngine) -> None:
    jobs = [job("a", 5, n=2), job("b", 7), job("c", 3, n=3)]
    expected = {(alone.request.key, alone.number): alone.tokens for alone in toy_engine()[0].run(jobs)}

    async def together(hosted: HostedEngine) -> dict[int, list[int | None]]:
        tokens: dict[int, list[int | None]] = {}
        async for deltas in await hosted.submit(*jobs):
            for delta in deltas:
                tokens.setdefault(delta.index, []).append(delta.token)
        with pytest.raises(TooLong):
            await hosted.submit(job("d", 400), Request("long", PROMPT * 200))
        return tokens

    with HostedEngine(engine, max_waiting=1) as hosted:
        received = asyncio.run(together(hosted))
        assert hosted.load == (0, 0)
    assert [received[index] for index in range(6)] == list(dict(sorted(expected.items())).values())
    assert engine.idle, "all of them or none"


def test_busy_only_when_slots_are_taken_and_enough_wait(engine: ToyEngine) -> None:
    async def crowd(hosted: HostedEngine) -> list[dict[int, list[int]]]:
        burst = await asyncio.gather(*(hosted.submit(job(f"b{i}", 40)) for i in range(4)))  # more than may wait
        for stream in burst:
            await anext(stream)
        assert hosted.load == (4, 0)
        engine.hold()
        waiting = asyncio.create_task(hosted.submit(job("waits")))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="try again later"):
            await hosted.submit(job("too many"))
        engine.gate.set()
        return await asyncio.gather(*map(tokens_of, [*burst, await waiting]))

    engine.delay = 0.005
    with HostedEngine(engine, max_waiting=1) as hosted:
        received = asyncio.run(crowd(hosted))
    assert [len(tokens[0]) for tokens in received] == [39, 39, 39, 39, 12]


def test_leaving_frees_the_slots(engine: ToyEngine) -> None:
    async def leave(hosted: HostedEngine) -> dict[int, list[int]]:
        with await hosted.submit(job("leaves", 400, n=9)) as stream:
            first = await anext(stream)
            assert first
        assert hosted.load == (0, 0)
        return await tokens_of(await hosted.submit(job("next", 3)))

    with HostedEngine(engine) as hosted:
        assert len(asyncio.run(leave(hosted))[0]) == 3
    assert engine.idle and sorted(engine._free) == [0, 1, 2, 3]


def test_an_abandoned_wait_is_a_leaving_too(engine: ToyEngine) -> None:
    async def abandon(hosted: HostedEngine) -> None:
        running = await hosted.submit(job("runs", 300))
        engine.hold()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hosted.submit(job("gone", 400)), 0.05)
        engine.gate.set()
        assert len((await tokens_of(running))[0]) == 300

    with HostedEngine(engine) as hosted:
        asyncio.run(abandon(hosted))
        assert hosted.load == (0, 0)
    assert engine.idle


def test_a_failure_reaches_everybody_now_and_later(engine: ToyEngine) -> None:
    async def fail(hosted: HostedEngine) -> list[BaseException | dict[int, list[int]]]:
        streams = [await hosted.submit(job(f"k{i}", 300)) for i in range(6)]
        engine.broken = True
        outcomes = await asyncio.wait_for(asyncio.gather(*map(tokens_of, streams), return_exceptions=True), 5)
        with pytest.raises(Failed, match="RuntimeError: out of memory"):
            await hosted.submit(job("late"))
        return outcomes

    with HostedEngine(engine) as hosted:
        outcomes = asyncio.run(fail(hosted))
        assert [type(outcome) for outcome in outcomes] == [Failed] * 6
        assert hosted.failure == "the engine failed: RuntimeError: out of memory"


def test_close_ends_clients_and_the_thread(engine: ToyEngine) -> None:
    async def close(hosted: HostedEngine) -> None:
        stream = await hosted.submit(job("k", 400))
        await anext(stream)
        await asyncio.to_thread(hosted.close)
        with pytest.raises(Closed):
            await tokens_of(stream)
        with pytest.raises(Closed):
            await hosted.submit(job("late"))

    hosted = HostedEngine(engine)
    asyncio.run(close(hosted))
    hosted.close()
    assert hosted.failure is None
    assert "engine" not in {thread.name for thread in threading.enumerate()}


def test_a_client_whose_event_loop_is_gone_is_one_that_left(engine: ToyEngine) -> None:
    engine.delay = 0.005
    with HostedEngine(engine) as hosted:
        stream = asyncio.run(hosted.submit(job("k", 400)))
        tokens = asyncio.run(tokens_of_another(hosted))
        assert len(tokens[0]) == 12 and stream.unfinished == 1
        assert hosted.load == (0, 0)


async def tokens_of_another(hosted: HostedEngine) -> dict[int, list[int]]:
    return await tokens_of(await hosted.submit(job("other")))
