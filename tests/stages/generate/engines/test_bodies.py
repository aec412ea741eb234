"""Answers that are more, other, or less than HTTP and the protocol say: none is taken for another sample's."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from raw_server import Sends, answer, message, raw_server
from strange_server import DRAWS, Clock

from gristmill.stages.generate.engines.bodies import read_body
from gristmill.stages.generate.engines.endpoint import Endpoint, OpenAIEngine
from gristmill.stages.generate.engines.protocol import Ask, Generation


def generated(sends: Sends, *asks: Ask, use_n: bool = False, **settings: Any) -> list[Generation]:
    """Of such a server, one request at a time on whatever connection the client keeps."""
    with raw_server(sends) as url:
        endpoint = Endpoint(url=url, tries=2, in_flight=1, **{"key_env": "", **settings})
        client = OpenAIEngine(endpoint, "tiny", DRAWS, wait=Clock().wait, use_n=use_n)
        try:
            return [sample for ask in asks or [Ask("a", (0,), "one")] for sample in client.generate([ask])]
        finally:
            client.close()


def test_a_second_answer_to_a_request_is_no_answer_to_the_next_one() -> None:
    def twice(body: dict[str, Any]) -> bytes:
        asked = body["messages"][-1]["content"]
        return message(answer(f"of {asked}")) + message(answer(f"once more of {asked}"))

    samples = generated(twice, *[Ask(f"{n}", (0,), f"question {n}") for n in range(4)])
    assert [sample.text for sample in samples] == [f"of question {n}" for n in range(4)]


def test_what_is_packed_is_unpacked_no_further_than_allowed() -> None:
    packed = gzip.compress(answer("fine"))
    (sample,) = generated(lambda body: message(packed, "Content-Encoding: gzip"))
    assert sample.text == "fine"
    bomb = gzip.compress(b" " * (64 << 20))
    tracemalloc.start()
    (sample,) = generated(lambda body: message(bomb, "Content-Encoding: gzip"), most_bytes=1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sample.failure, sample.detail) == ("garbage", "an answer of more than 1,048,576 bytes")
    assert most < 16 << 20


@pytest.mark.parametrize(
    ("body", "coding", "failure"),
    [
        (answer("fine"), "gzip", "garbage"),
        (gzip.compress(answer("fine"), mtime=0)[:-4], "gzip", "half_body"),
        (answer("fine"), "zebra", "garbage"),
        (gzip.compress(gzip.compress(answer("fine"), mtime=0), mtime=0), "gzip, gzip", "garbage"),
    ],
)
def test_what_cannot_be_unpacked_is_a_failure(body: bytes, coding: str, failure: str) -> None:
    (sample,) = generated(lambda request: message(body, f"Content-Encoding: {coding}"))
    assert sample.failure == failure


def test_what_follows_a_packed_answer_is_not_read() -> None:
    """It would be kept by whatever unpacks, without a bound."""
    taken = []

    async def blocks() -> AsyncIterator[bytes]:
        yield gzip.compress(answer("fine"))
        for number in range(100):
            taken.append(number)
            yield bytes(1 << 20)

    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=blocks())
    assert asyncio.run(read_body(response, 1 << 20)) == answer("fine")
    assert taken == []


def test_a_cookie_is_not_kept() -> None:
    cookie = "Set-Cookie: \xff\xfe=1; Path=/"
    samples = generated(lambda body: message(answer("fine"), cookie), Ask("a", (0,), "one"), Ask("b", (0,), "two"))
    assert [sample.text for sample in samples] == ["fine", "fine"]


def test_a_key_that_is_quoted_anywhere_stands_in_no_log_and_no_sample(monkeypatch, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_KEY", "sk-secret-0123")
    quoting = "X-Key: Bearer sk-secret-0123", "Set-Cookie: key=sk-secret-0123"
    replies = [
        message(b"{}", *quoting, status="400 sk-secret-0123"),
        message(answer("sk-secret-0123"), *quoting),
        message(answer("x", finish="sk-secret-0123"), *quoting),
    ]
    for reply in replies:
        samples = generated(lambda body, reply=reply: reply, key_env="SOME_KEY")
        assert "sk-secret" not in repr(samples) + caplog.text + repr(caplog.records)


def numbered(*indexes: Any, finishes: tuple[str, ...] = ()) -> bytes:
    choices = [
        {"index": index, "message": {"content": f"text {place}"}, "finish_reason": "stop"}
        for place, index in enumerate(indexes)
    ]
    for choice, finish in zip(choices, finishes, strict=False):
        choice["finish_reason"] = finish
    usage = {"prompt_tokens": 7, "completion_tokens": 12}
    return message(json.dumps({"choices": choices, "usage": usage}).encode())


def test_choices_stand_in_the_order_of_their_numbers_and_what_they_took_is_told_once() -> None:
    ask = Ask("a", (4, 5, 6), "one")
    samples = generated(lambda body: numbered(2, 0, 1), ask, use_n=True)
    assert [(s.sample, s.text) for s in samples] == [(4, "text 1"), (5, "text 2"), (6, "text 0")]
    assert [s.tokens for s in samples] == [4, 4, 4] and [s.requests for s in samples] == [1, 0, 0]
    assert sum(s.prompt_tokens or 0 for s in samples) == 7
    (more,) = generated(lambda body: numbered(0, 1, 2))
    assert (more.text, more.tokens, more.prompt_tokens) == ("text 0", 12, 7), "what nobody asked for was paid for"


@pytest.mark.parametrize("indexes", [(0, 0, 1), (-1, 0, 1), (None, None, None), (0, "1", 2)])
def test_choices_that_are_not_numbered_are_none(indexes: tuple[Any, ...]) -> None:
    samples = generated(lambda body: numbered(*indexes), Ask("a", (0, 1, 2), "one"), use_n=True)
    assert [sample.failure for sample in samples] == ["garbage"] * 3


def test_a_choice_that_is_none_takes_no_other_along() -> None:
    finishes = ("stop", "content_filter", "stop")
    samples = generated(lambda body: numbered(0, 1, 2, finishes=finishes), Ask("a", (0, 1, 2), "one"), use_n=True)
    assert [(s.text, s.failure) for s in samples] == [("text 0", None), (None, "refused"), ("text 2", None)]
    assert sum(s.tokens or 0 for s in samples) == 12
    fewer = generated(lambda body: numbered(0, 1), Ask("a", (0, 1, 2), "one"), use_n=True)
    assert [s.failure for s in fewer] == [None, None, "no_choice"]


def test_a_model_that_refuses_is_asked_once() -> None:
    choice = {"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}
    (sample,) = generated(lambda body: message(json.dumps({"choices": [choice]}).encode()))
    assert (sample.failure, sample.requests) == ("refused", 1)
