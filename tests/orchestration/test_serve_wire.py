"""Connections that are slow, half open or gone, and work that is long: none of it is anybody else's loss."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from serving import HELLO, Running, chat, connected, posted, rest_of, serving, text, texts, toy_parts
from waiting import PATIENCE

from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.orchestration.serve.prompts import PromptReader
from gristmill.orchestration.serve.reply import Reply

BRIEFLY = 5.0
"""Seconds: long enough for a client that does something, on any machine."""


@pytest.fixture(scope="module")
def hasty() -> Iterator[Running]:
    """A server that waits for its clients only briefly."""
    with serving(patience=BRIEFLY) as server:
        yield server


@pytest.fixture
def log(hasty: Running) -> Iterator[list[str]]:
    """What the server logs while a test runs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    names = ("", "uvicorn.error", "asyncio")
    for name in names:
        logging.getLogger(name).addHandler(handler)
    yield lines
    for name in names:
        logging.getLogger(name).removeHandler(handler)


HALF_OPEN = {
    b"": b"",
    b"POST /v1/compl": b"",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-More: ": b"",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{": b"HTTP/1.1 408 ",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{": b"HTTP/1.1 408 ",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea": b"HTTP/1.1 200 ",
}


def test_half_open_connections_end(hasty: Running, log: list[str]) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connected(hasty, sent)) for sent in HALF_OPEN]
        answers = [rest_of(connection) for connection in connections]
    for answer, status in zip(answers, HALF_OPEN.values(), strict=True):
        assert answer.startswith(status) and bool(answer) == bool(status)
        if b"408" in status:
            assert b'"type":"invalid_request_error"' in answer and b"connection: close" in answer.lower()
    assert log == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_leaves_is_no_line_of_the_log(hasty: Running, log: list[str], stream: bool, reset: bool) -> None:
    hasty.engine.delay = 0.05  # 450 tokens would take 22 seconds
    connection = connected(hasty, posted("completions", prompt="the cat", max_tokens=450, n=4, stream=stream))
    assert hasty.until(lambda health: health["samples"] == 4)["samples"] == 4
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert hasty.until(lambda health: health["samples"] == 0)["samples"] == 0
    hasty.engine.delay = 0.0
    assert len(texts(text(hasty))) == 1 and log == []


def test_a_client_that_leaves_while_it_sends(hasty: Running, log: list[str]) -> None:
    for data in (posted("completions", prompt="x" * 999)[:200], b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"):
        connected(hasty, data).close()
    assert len(texts(text(hasty))) == 1 and log == []


def test_an_answer_that_nobody_reads_is_given_up(hasty: Running, log: list[str]) -> None:
    fields = {"messages": HELLO, "max_tokens": 400, "n": 4, "stream": True, "logprobs": True, "top_logprobs": 20}
    with connected(hasty, posted("chat/completions", **fields)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        assert hasty.until(lambda health: health["samples"] > 0)["samples"] > 0
        assert hasty.until(lambda health: health["samples"] == 0)["samples"] == 0
    assert log == []


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    with serving(body_limit=1000) as server, connected(server, posted("completions", prompt="x" * 4000)) as connection:
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"1,000 bytes" in answer


def test_a_prompt_too_long_by_its_bytes_is_not_encoded(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: Tokenizer, samples: Any) -> Any:
        raise AssertionError("it was encoded")

    monkeypatch.setattr(Tokenizer, "encode", encode)
    long = {"role": "user", "content": "the cat sat " * 10_000}
    many = [{"role": "user", "content": "x"}] * 300
    for path, fields in (
        ("completions", {"prompt": "the cat sat " * 10_000}),
        ("completions", {"prompt": " " * 100_000}),
        ("completions", {"prompt": [5] * 10_000}),
        ("completions", {"prompt": [[5] * 10_000, "x"]}),
        ("chat/completions", {"messages": [long]}),
        ("chat/completions", {"messages": many}),
    ):
        answer = httpx.post(f"{server.url}/v1/{path}", json={"model": "tiny"} | fields, timeout=PATIENCE)
        assert answer.status_code == 400, answer.text
        assert (
            answer.json()["error"]["code"] == "context_length_exceeded" and "512" in answer.json()["error"]["message"]
        )


def test_large_requests_wait_for_each_other_alone(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of them that never end to be encoded: the rest of the world goes on."""
    gate, begun, encode = threading.Event(), threading.Semaphore(0), Tokenizer.encode

    def slow(self: Tokenizer, samples: Any) -> Any:
        if sum(len(part[0]) for sample in samples for part in sample) > 60_000:
            begun.release()
            assert gate.wait(PATIENCE)
        return encode(self, samples)

    monkeypatch.setattr(Tokenizer, "encode", slow)
    monkeypatch.setattr(PromptReader, "_least_tokens", lambda *_: 0)  # as with a tokenizer of which nothing is known
    with ThreadPoolExecutor(4) as pool:
        post = lambda: httpx.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE)  # noqa: E731
        body = {"model": "tiny", "prompt": "the cat " * 10_000}
        large = [pool.submit(post) for _ in range(4)]
        try:
            assert begun.acquire(timeout=PATIENCE) and begun.acquire(timeout=PATIENCE)
            assert len(texts(chat(server, n=2))) == 2 and server.health().status_code == 200
        finally:
            gate.set()
        assert {request.result().status_code for request in large} == {400}


def test_nothing_is_built_on_the_event_loop(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, set[str]] = {}

    def watched(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def call(self: Any, *args: Any) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread().name.rpartition("_")[0])
            return method(self, *args)

        monkeypatch.setattr(kind, name, call)

    watched(Tokenizer, "encode")
    watched(Reply, "whole")
    watched(Reply, "events")
    chat(server, logprobs=True)
    list(chat(server, stream=True))
    assert threads == {"encode": {"requests"}, "whole": {"whole answers"}, "events": {"requests"}}


def test_one_tokenizer_serves_several_threads() -> None:
    tokenizer = Tokenizer.from_bytes(toy_parts()[0])
    samples = [[[Segment(f"the cat {i} sat on {i * j} mats " * 9)] for j in range(30)] for i in range(40)]
    expected = [Tokenizer.from_bytes(toy_parts()[0]).encode(sample).ids.tolist() for sample in samples]
    with ThreadPoolExecutor(8) as pool:
        assert [encoded.ids.tolist() for encoded in pool.map(tokenizer.encode, samples * 3)] == expected * 3
