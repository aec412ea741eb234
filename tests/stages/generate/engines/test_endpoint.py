"""The client of a server that misbehaves: every failure is named, none is an answer; pauses are the server's own."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest
from aiohttp import web
from strange_server import Clock, Strange, completion, drawn, engine, good, replying, strange
from waiting import until

from gristmill.stages.generate.engines.endpoint import BadEndpoint, Endpoint
from gristmill.stages.generate.engines.protocol import Ask, Generation
from gristmill.stages.generate.engines.replies import Failed, read_reply, retry_after

HUGE = {"prompt_tokens": 1 << 31, "completion_tokens": 10**30}


def generated(server: Strange, *asks: Ask, **settings) -> list[Generation]:
    client = engine(server, **settings)
    try:
        return sorted(client.generate(asks or [Ask("a", (0,), "hello")]), key=lambda g: (g.problem, g.sample))
    finally:
        client.close()


# What is well


def test_every_sample_is_asked_for_once_with_a_seed_of_its_own_and_tokens_are_counted():
    with strange() as server:
        samples = generated(server, Ask("a", (0, 1, 5), "one", "be brief"), Ask("b", (0,), "two"))
    assert [(g.problem, g.sample) for g in samples] == [("a", 0), ("a", 1), ("a", 5), ("b", 0)]
    assert len({body["seed"] for body in server.requests}) == 4 == len({g.text for g in samples})
    assert {(g.prompt_tokens, g.tokens, g.finish, g.failure, g.requests) for g in samples} == {(7, 5, "stop", None, 1)}
    first = next(body for body in server.requests if body["messages"][-1]["content"] == "one")
    assert first["messages"][0] == {"role": "system", "content": "be brief"} and first["max_tokens"] == 16


def test_a_sample_is_the_same_whatever_else_is_asked_for():
    with strange() as server:
        (alone,) = generated(server, Ask("a", (1,), "one"))
        among = generated(server, Ask("b", (0, 1), "two"), Ask("a", (0, 1), "one"))
    assert alone.text == among[1].text != among[0].text


def test_as_many_requests_are_under_way_as_the_settings_say():
    async def held(server, body, request):
        await server.gate.wait()
        return await good(server, body, request)

    with strange(held) as server:
        client, done = engine(server, in_flight=64), list[Generation]()
        asks = [Ask("a", tuple(range(100)), "one")]
        thread = threading.Thread(target=lambda: done.extend(client.generate(asks)))
        thread.start()
        until(lambda: server.under_way == 64, "64 requests to be under way")
        server.open_gate()
        thread.join()
        client.close()
    assert server.most == 64 and len(done) == 100 and all(g.failure is None for g in done)


def test_samples_of_a_problem_may_share_a_request():
    with strange() as server:
        samples = generated(server, Ask("a", (0, 1, 2, 7), "one"), use_n=True)
    assert Counter(body.get("n", 1) for body in server.requests) == {3: 1, 1: 1}
    assert [g.sample for g in samples] == [0, 1, 2, 7] and sum(g.tokens for g in samples[:3]) == 15
    assert len({g.text for g in samples}) == 4


# What is not


async def half(server, body, request):
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "it is 4')
    request.transport.close()
    return response


async def broken_off(server, body, request):
    whole = json.dumps(completion(body, "the answer is 42")).encode()
    return web.Response(body=whole[: len(whole) // 2], content_type="application/json")


async def silent(server, body, request):
    await server.gate.wait()
    raise web.HTTPInternalServerError


async def hangs_up(server, body, request):
    request.transport.close()
    return web.Response()


def saying(**choice):
    return replying(text=json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"} | choice]}))


@pytest.mark.parametrize(
    ("answer", "failure", "requests"),
    [
        (replying(500, "<html>oops</html>"), "server_error", 3),
        (replying(503), "server_error", 3),
        (replying(429), "rate_limited", 3),
        (half, "half_body", 3),
        (broken_off, "half_body", 3),
        (hangs_up, "unreachable", 3),
        (replying(text="<html>hello</html>"), "garbage", 3),
        (replying(text="[]"), "garbage", 3),
        (replying(text='{"choices": 3}'), "garbage", 3),
        (replying(text="{'choices': []}"), "garbage", 3),
        (replying(text="[" * 200_000), "garbage", 3),
        (replying(400, "[" * 200_000), "refused", 1),
        (saying(message={"content": None}), "garbage", 3),
        (saying(message={"content": "\ud800"}), "garbage", 3),
        (saying(finish_reason=None), "garbage", 3),
        (saying(finish_reason="content_filter"), "refused", 1),
        (replying(302, Location="http://127.0.0.1:9/"), "garbage", 3),
        (replying(400, '{"error": {"message": "bad temperature"}}'), "refused", 1),
        (replying(400, '{"error": {"message": "maximum context length is 9 tokens"}}'), "too_long", 1),
        (replying(413), "too_long", 1),
        (replying(text='{"choices": []}'), "no_choice", 1),
    ],
)
def test_what_is_no_answer_is_a_failure_with_a_name(answer, failure, requests):
    with strange(answer) as server:
        (sample,) = generated(server)
    assert (sample.failure, sample.text, sample.finish) == (failure, None, None)
    assert len(server.requests) == requests == sample.requests


def test_a_server_that_says_nothing_is_a_timeout():
    with strange(silent) as server:
        (sample,) = generated(server, timeout_seconds=0.05, tries=2)
    assert (sample.failure, sample.detail) == ("timeout", "no answer in 0.05 s") and len(server.requests) == 2


def test_nobody_there_is_unreachable():
    with strange() as server:
        gone = server
    (sample,) = generated(gone)
    assert (sample.failure, sample.requests) == ("unreachable", 3)


def test_a_server_on_this_machine_is_asked_without_the_proxy_of_the_environment(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with strange() as server:
        client = engine(server, tries=1)
        (sample,) = client.generate([Ask("a", (0,), "one")])
        client.close()
    assert sample.failure is None


def test_an_answer_without_end_is_read_no_further_than_allowed():
    async def endless(server, body, request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    with strange(endless) as server:
        (sample,) = generated(server, tries=1, most_bytes=1 << 20)
    assert sample.failure == "garbage" and "more than 1,048,576 bytes" in sample.detail


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_request_would_meet_ends_the_run(status):
    with strange(replying(status, '{"error": {"message": "invalid key"}}')) as server:
        client = engine(server)
        with pytest.raises(BadEndpoint, match=f"refuses every request: HTTP {status}: invalid key"):
            list(client.generate([Ask("a", tuple(range(9)), "one")]))
        client.close()


def test_a_failure_that_passes_is_no_failure():
    async def third_time(server, body, request):
        return await good(server, body, request) if len(server.requests) > 2 else web.Response(status=503)

    with strange(third_time) as server:
        (sample,) = generated(server)
    assert (sample.failure, sample.text, sample.requests) == (None, drawn(server.requests[0]), 3)


def test_what_a_server_asks_to_wait_is_waited_and_other_pauses_double_with_jitter():
    async def busy(server, body, request):
        if len(server.requests) == 1:
            return web.Response(status=429, headers={"Retry-After": "17"})
        return web.Response(status=500)

    clock = Clock()
    with strange(busy) as server:
        generated(server, clock=clock, tries=5)
    pauses = [pause for pause in clock.slept if pause < 13]
    assert len([pause for pause in clock.slept if 17 <= pause <= 18.5]) == 1, "its own pause"
    assert any(16 < pause <= 17 for pause in clock.slept), "nobody else is sent meanwhile either"
    assert len(pauses) == 3 and 1 <= pauses[0] <= 3 and 2 <= pauses[1] <= 6 and 4 <= pauses[2] <= 12


def test_a_pause_that_a_server_asks_for_holds_no_place_among_the_requests():
    async def busy(server, body, request):
        return (
            await good(server, body, request)
            if len(server.requests) > 1
            else web.Response(status=429, headers={"Retry-After": "17"})
        )

    class Watch(Clock):
        async def wait(self, seconds: float) -> None:
            held.append(client._places.empty())
            await super().wait(seconds)

    held: list[bool] = []
    clock = Watch()
    with strange(busy) as server:
        client = engine(server, clock=clock, in_flight=1)
        (sample,) = client.generate([Ask("a", (0,), "one")])
        client.close()
    assert sample.failure is None and len(clock.slept) == 2 and held == [False, False]


def test_a_count_of_tokens_that_no_column_takes_is_none():
    with strange(replying(text=json.dumps(dict(completion({"model": "tiny"}, "x"), usage=HUGE)))) as server:
        (sample,) = generated(server)
    assert (sample.failure, sample.tokens, sample.prompt_tokens) == (None, None, None)


def test_retry_after_is_a_number_or_a_date():
    assert retry_after({"retry-after": "3.5"}) == 3.5 and retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
    now = time.time()
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + 90))
    assert 88 < retry_after({"retry-after": date}, now) <= 90
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0


def test_a_message_of_a_server_is_one_short_line():
    with pytest.raises(Failed) as failed:
        read_reply(400, {}, json.dumps({"error": {"message": "a\nb" * 999}}).encode())
    assert len(str(failed.value)) < 250 and "\n" not in str(failed.value)
    with pytest.raises(Failed) as failed:
        read_reply(500, {}, b'{"error": "half of \\ud83d"}')
    assert failed.value.detail.encode() == b"HTTP 500: half of ?", "a table takes it"


def test_a_closed_engine_leaves_nobody_waiting():
    with strange(silent) as server:
        client = engine(server)
        stream = client.generate([Ask("a", (0,), "one")])
        met: list[BaseException] = []

        def listen() -> None:
            try:
                next(stream)
            except BadEndpoint as error:
                met.append(error)

        thread = threading.Thread(target=listen)
        thread.start()
        until(lambda: server.under_way, "the request to be under way")
        client.close()
        thread.join()
    assert len(met) == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"in_flight": 0}, "in_flight=0: 1 or more"),
        ({"timeout_seconds": 0}, "a timeout above 0"),
        ({"first_pause_seconds": 9, "longest_pause_seconds": 1}, "the first not above the longest"),
        ({"url": "ftp://x"}, "begins with http"),
        ({"url": "http://"}, "it has no host"),
        ({"url": "https:///v1"}, "it has no host"),
        ({"url": "http://mill:port/v1"}, "no address of a server"),
        ({"url": "http://mill:99999999/v1"}, "no address of a server"),
        ({"url": "http://[::1/v1"}, "no address of a server"),
        ({"url": "http://a mill/v1"}, "no address of a server"),
        ({"url": "https://me:secret@x/v1"}, "a user, a password or a query"),
        ({"url": "me:secret@x/v1"}, "a user, a password or a query"),
        ({"url": "https://x/v1?key=secret"}, "a user, a password or a query"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, why):
    with pytest.raises(ValueError, match=why) as error:
        Endpoint(**settings)
    assert "secret" not in str(error.value)


def test_what_it_costs_is_told_where_prices_are_given():
    assert Endpoint().price(10, 10) is None
    assert Endpoint(prompt_price=2.0, answer_price=10.0).price(500_000, 100_000) == 2.0
