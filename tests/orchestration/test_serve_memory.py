"""Bytes that requests of `grist serve` hold together: what waits, what is still sent, and what is given back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from serving import (
    Running,
    answer,
    asked,
    chat,
    connected,
    heard,
    posted,
    refused,
    rest_of,
    seeing_parts,
    serving,
    shown,
    text,
    texts,
    worded,
)
from speech import clip
from vision import picture

from gristmill.orchestration.serve.engine import Busy
from gristmill.orchestration.serve.wire import Memory

pytestmark = pytest.mark.usefixtures("one_thread")
MOST = 400_000
"""Room for two requests with a clip of two seconds: 85 kB of base64 and 64 kB of frames each, and for no third."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(parts=seeing_parts, max_inflight_bytes=MOST) as running:
        yield running


def test_a_request_finds_what_others_leave() -> None:
    memory = Memory(100)
    with memory.request() as first, memory.request() as second:
        first.grow(60)
        second.grow(40)
        with pytest.raises(Busy, match="other requests hold 60 bytes and this one would hold 41, of 100"):
            second.grow(1)
        assert memory.held == 100
        first.close()
        first.close()
        second.grow(1)
        assert memory.held == 41
    assert memory.held == 0


def test_a_request_alone_is_never_refused() -> None:
    memory = Memory(1)
    with memory.request() as alone:
        alone.grow(1_000)
        alone.grow(1_000)
        with memory.request() as other, pytest.raises(Busy):
            other.grow(1)
    with pytest.raises(ValueError, match="max_inflight_bytes=0: allowed is 1 or more"):
        Memory(0)


def test_clips_that_wait_are_bounded_in_bytes(server: Running) -> None:
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(text, server, max_tokens=200)
        server.until(lambda health: health["samples"] == 1 and not health["waiting"])
        server.engine.hold()
        waiting = [pool.submit(answer, server, heard(clip(seed)), worded("so?"), max_tokens=4) for seed in (1, 2)]
        held = server.until(lambda health: health["waiting"] == 2)["bytes"]
        assert 2 * 145_000 < held < MOST
        with pytest.raises(openai.RateLimitError, match="400,000 for all together: try again later") as caught:
            answer(server, heard(clip(3)), worded("so?"), max_tokens=4)
        assert caught.value.response.headers["retry-after"] == "1"
        assert server.health().json()["bytes"] == held
        server.engine.gate.set()
        assert len(texts(first.result())) == 1 and all(job.result() is not None for job in waiting)
    assert server.until(lambda health: health["bytes"] == 0)
    assert answer(server, heard(clip(3)), worded("so?"), max_tokens=4) is not None


def test_a_stream_holds_its_media_until_it_ends(server: Running) -> None:
    with chat(server, messages=asked(shown(picture(1)), heard(clip(1))), max_tokens=200, stream=True) as stream:
        next(iter(stream))
        assert server.health().json()["bytes"] > 145_000
    assert server.until(lambda health: health["bytes"] == 0)


def test_what_is_refused_holds_nothing(server: Running) -> None:
    refused(server, heard(b"no clip"), worded("so?"))
    assert server.until(lambda health: health["bytes"] == 0)


def test_bodies_that_are_still_sent_count(server: Running) -> None:
    whole = posted("completions", prompt="x" * 300_000)
    with connected(server, whole[:250_000]):
        assert server.until(lambda health: health["bytes"] > 249_000)
        with connected(server, whole) as other:
            reply = rest_of(other)
        assert reply.startswith(b"HTTP/1.1 429 ") and b"rate_limit_exceeded" in reply
        assert b"retry-after: 1" in reply.lower() and b"connection: close" in reply.lower()
    assert server.until(lambda health: health["bytes"] == 0)
    with pytest.raises(openai.BadRequestError, match="the prompt is too long"):
        text(server, prompt="x" * 300_000)
