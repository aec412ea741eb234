"""`grist serve`, judged by OpenAI's own client against a real server: honoured, or refused by name; never ignored."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx
import openai
import pytest
from serving import HELLO, WEATHER, Running, chat, text, texts
from waiting import PATIENCE

from model.processing.segments import Segment


def test_n_samples_are_distinct_and_counted(server: Running) -> None:
    answer = chat(server, n=8)
    assert len(set(texts(answer))) == 8 and [one.index for one in answer.choices] == list(range(8))
    assert {one.finish_reason for one in answer.choices} <= {"stop", "length"}
    usage = answer.usage
    assert 8 < usage.completion_tokens <= 8 * 24 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens == chat(server, n=1).usage.prompt_tokens > 10
    assert set(texts(chat(server, n=2))).isdisjoint(texts(chat(server, n=2)))  # without a seed, new ones


def test_a_seed_reproduces_whatever_else_runs(server: Running) -> None:
    expected = texts(chat(server, seed=7, n=3))
    assert texts(chat(server, seed=8, n=3)) != expected
    assert texts(chat(server, seed=7, n=1)) == expected[:1]
    noise = [{"role": "user", "content": "numbers " * 20}]

    async def crowd() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            jobs: list[dict[str, Any]] = [{"messages": noise, "n": 2}, {"messages": HELLO, "seed": 7, "n": 3}] * 4
            create = client.chat.completions.create
            return await asyncio.gather(*(create(model="tiny", max_tokens=24, **job) for job in jobs))

    assert [texts(one) for one in asyncio.run(crowd())[1::2]] == [expected] * 4


def test_temperature_zero_is_greedy(server: Running) -> None:
    answers = [chat(server, temperature=0, n=2, logprobs=True, top_logprobs=3) for _ in range(2)]
    assert len({one for answer in answers for one in texts(answer)}) == 1
    for one in answers[0].choices[0].logprobs.content:
        assert one.token == one.top_logprobs[0].token and one.logprob == one.top_logprobs[0].logprob


def test_logprobs_are_those_of_the_tokens(server: Running) -> None:
    one = chat(server, seed=3, logprobs=True, top_logprobs=20).choices[0]
    told = one.logprobs.content
    assert b"".join(bytes(token.bytes) for token in told).decode("utf-8", "replace") == one.message.content
    for token in told:
        chances = [math.exp(other.logprob) for other in token.top_logprobs]
        assert len(chances) == 20 and sorted(chances, reverse=True) == chances and 0 < sum(chances) < 1
        assert token.logprob <= token.top_logprobs[0].logprob
        same = [other.logprob for other in token.top_logprobs if other.bytes == token.bytes]
        assert same in ([], [token.logprob])
    assert chat(server, seed=3).choices[0].logprobs is None
    bare = chat(server, seed=3, logprobs=True).choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in bare] == [0] * len(told)


def test_logprobs_of_completions(server: Running) -> None:
    server.script(["the été 12", "<|end|>"])
    one = text(server, logprobs=4).choices[0]
    told = one.logprobs
    assert "".join(told.tokens) == one.text == "the été 12"
    assert [one.text[a:][: len(name)] for a, name in zip(told.text_offset, told.tokens, strict=True)] == told.tokens
    assert all(len(top) == 4 for top in told.top_logprobs) and max(told.token_logprobs) < 0


def test_stop_texts_and_end_tokens(server: Running) -> None:
    server.script(["the cat sat on the mat", "<|end|>"])
    whole = text(server, max_tokens=60).choices[0]
    assert (whole.text, whole.finish_reason) == ("the cat sat on the mat", "stop")
    for stop in (" sat", ["never", "at on"], ["on the sea", " sa"]):
        one = text(server, max_tokens=60, stop=stop).choices[0]
        assert one.finish_reason == "stop" and one.text == "the cat" + (" s" if "at on" in stop else "")
    assert text(server, max_tokens=2).choices[0].finish_reason == "length"


def streamed(chunks: Any) -> tuple[dict[int, str], dict[int, list[str]], list[Any], Any]:
    """Texts, finish reasons, log-probabilities of index 0, and usage."""
    found: dict[int, str] = {}
    ends: dict[int, list[str]] = {}
    logprobs: list[Any] = []
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for one in chunk.choices:
            piece = one.delta.content if hasattr(one, "delta") else one.text
            found[one.index] = found.get(one.index, "") + (piece or "")
            if one.finish_reason:
                ends.setdefault(one.index, []).append(one.finish_reason)
            if one.index == 0 and one.logprobs is not None:
                logprobs.append(one.logprobs)
    return found, ends, logprobs, usage


@pytest.mark.parametrize("create", [chat, text])
def test_a_stream_is_the_whole_text_in_pieces(server: Running, create: Any) -> None:
    for seed in range(6):
        settings = {"seed": seed, "n": 3, "stop": ["the", "|>", "a"], "max_tokens": 40, "logprobs": create is chat or 2}
        whole = create(server, **settings)
        found, ends, logprobs, usage = streamed(
            create(server, **settings, stream=True, stream_options={"include_usage": True})
        )
        assert list(dict(sorted(found.items())).values()) == texts(whole)
        assert {index: [one.finish_reason] for index, one in enumerate(whole.choices)} == ends
        assert usage == whole.usage
        for name in ("content",) if create is chat else ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            told = [one for part in logprobs for one in getattr(part, name)]
            assert told == getattr(whole.choices[0].logprobs, name)


def test_the_events_of_a_stream(server: Running) -> None:
    server.script(["l'été finit the", "<|end|>"])
    body = {"model": "tiny", "messages": HELLO, "stream": True, "stop": ["the sea"], "n": 2}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream") and lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert all("usage" not in chunk for chunk in chunks) and len({chunk["id"] for chunk in chunks}) == 1
    for index in range(2):
        own = [one for chunk in chunks for one in chunk["choices"] if one["index"] == index]
        assert own[0]["delta"]["role"] == "assistant" and own[-1]["finish_reason"] == "stop"
        pieces = [one["delta"].get("content", "") for one in own]
        assert "".join(pieces) == "l'été finit the" and not any("\ufffd" in piece for piece in pieces)
        assert pieces[-2].endswith("the"), "held until it could be no stop text"


def test_prompts_of_completions(server: Running) -> None:
    ids = server.tokenizer.encode([[Segment("the cat")]]).ids.tolist()
    as_text = text(server, seed=1)
    assert texts(text(server, seed=1, prompt=ids)) == texts(as_text) == texts(text(server, seed=1, prompt=["the cat"]))
    assert as_text.usage.prompt_tokens == len(ids)
    assert text(server, max_tokens=openai.omit).usage.completion_tokens <= 16
    special = text(server, prompt="<|end|>").usage.prompt_tokens
    assert special > 1, "text never becomes a special token"


def test_tools_are_offered_and_calls_come_back(server: Running) -> None:
    assert chat(server, tools=[WEATHER]).usage.prompt_tokens > chat(server).usage.prompt_tokens + 20
    written = '[{"name":"weather","arguments":{"city":"Orléans"}}]'
    server.script(["wait ", "<|tool_call|>", written, "<|/tool_call|>", "<|end|>"])
    one = chat(server, tools=[WEATHER], max_tokens=200).choices[0]
    call = one.message.tool_calls[0]
    assert one.finish_reason == "tool_calls" and one.message.content == "wait "
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Orléans"}

    chunks = list(chat(server, tools=[WEATHER], max_tokens=200, stream=True))
    found, ends, _, _ = streamed(chunks)
    called = [it for chunk in chunks for choice in chunk.choices for it in choice.delta.tool_calls or ()]
    assert found == {0: "wait "} and ends == {0: ["tool_calls"]}
    assert [(it.index, it.function.arguments) for it in called] == [(0, call.function.arguments)]

    again = [*HELLO, one.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    server.engine.script = ()
    assert chat(server, messages=again, tools=[WEATHER]).usage.prompt_tokens > 40


@pytest.mark.parametrize("written", ['[{"name":"weather"}]', "[]", '{"name":', "[[1]]"])
def test_a_call_that_cannot_be_read_is_shown(server: Running, written: str) -> None:
    server.script(["<|tool_call|>", written, "<|/tool_call|>", "<|end|>"])
    for one in (chat(server, tools=[WEATHER], max_tokens=200), chat(server, max_tokens=200)):
        assert one.choices[0].message.content == f"<|tool_call|>{written}<|/tool_call|>"
        assert one.choices[0].finish_reason == "stop" and one.choices[0].message.tool_calls is None
    shown = streamed(chat(server, tools=[WEATHER], max_tokens=200, stream=True))
    assert shown[0][0] == f"<|tool_call|>{written}<|/tool_call|>"


def test_ids_that_stand_for_nothing_are_no_text(server: Running) -> None:
    server.script(["the cat"])
    nothing = server.tokenizer.vocab_size + 3
    server.engine.script = (nothing, *server.engine.script, nothing)
    one = text(server, max_tokens=len(server.engine.script), stop="zzz", logprobs=1).choices[0]
    assert one.text == "the cat" and one.logprobs.tokens[0] == ""


def test_a_client_that_goes_away_frees_its_slots(server: Running) -> None:
    server.engine.delay, before = 0.05, server.engine.steps  # 400 tokens would take 20 seconds
    body = {"model": "tiny", "prompt": "the cat", "max_tokens": 400, "n": 4}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body | {"stream": True}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()  # kept: closing it closes the answer
        assert next(lines).startswith("data: ")
        assert server.health().json()["samples"] > 0
    assert server.until(lambda said: said["samples"] == 0) == {"status": "ok", "samples": 0, "waiting": 0}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=httpx.Timeout(PATIENCE, read=0.5))
    server.until(lambda said: said["samples"] == 0)
    assert server.engine.steps < before + 400, "both went on to their ends, though nobody listened"
