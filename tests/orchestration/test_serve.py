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

from gristmill.model.processing.segments import Segment


def test_n_samples_are_distinct_and_counted(server: Running) -> None:
    answer = chat(server, n=8)
    assert len(set(texts(answer))) == 8 and [choice.index for choice in answer.choices] == list(range(8))
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
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

    assert [texts(answer) for answer in asyncio.run(crowd())[1::2]] == [expected] * 4


def test_temperature_zero_is_greedy(server: Running) -> None:
    answers = [chat(server, temperature=0, n=2, logprobs=True, top_logprobs=3) for _ in range(2)]
    assert len({content for answer in answers for content in texts(answer)}) == 1
    for token in answers[0].choices[0].logprobs.content:
        likeliest = token.top_logprobs[0]
        assert (token.token, token.logprob) == (likeliest.token, likeliest.logprob)


def test_logprobs_are_those_of_the_tokens(server: Running) -> None:
    choice = chat(server, seed=3, logprobs=True, top_logprobs=20).choices[0]
    logprobs = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in logprobs).decode("utf-8", "replace") == choice.message.content
    for token in logprobs:
        chances = [math.exp(other.logprob) for other in token.top_logprobs]
        assert len(chances) == 20 and sorted(chances, reverse=True) == chances and 0 < sum(chances) < 1
        assert token.logprob <= token.top_logprobs[0].logprob
        same = [other.logprob for other in token.top_logprobs if other.bytes == token.bytes]
        assert same in ([], [token.logprob])
    assert chat(server, seed=3).choices[0].logprobs is None
    bare = chat(server, seed=3, logprobs=True).choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in bare] == [0] * len(logprobs)


def test_logprobs_of_completions(server: Running) -> None:
    server.script(["the été 12", "<|end|>"])
    choice = text(server, logprobs=4).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text == "the été 12"
    assert [
        choice.text[a:][: len(name)] for a, name in zip(logprobs.text_offset, logprobs.tokens, strict=True)
    ] == logprobs.tokens
    assert all(len(top) == 4 for top in logprobs.top_logprobs) and max(logprobs.token_logprobs) < 0


def test_stop_texts_and_end_tokens(server: Running) -> None:
    server.script(["the cat sat on the mat", "<|end|>"])
    whole = text(server, max_tokens=60).choices[0]
    assert (whole.text, whole.finish_reason) == ("the cat sat on the mat", "stop")
    for stop in (" sat", ["never", "at on"], ["on the sea", " sa"]):
        choice = text(server, max_tokens=60, stop=stop).choices[0]
        assert choice.finish_reason == "stop" and choice.text == "the cat" + (" s" if "at on" in stop else "")
    assert text(server, max_tokens=2).choices[0].finish_reason == "length"


def streamed(chunks: Any) -> tuple[dict[int, str], dict[int, list[str]], list[Any], Any]:
    """Texts, finish reasons, log-probabilities of index 0, and usage."""
    contents: dict[int, str] = {}
    ends: dict[int, list[str]] = {}
    logprobs: list[Any] = []
    usage = None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            piece = choice.delta.content if hasattr(choice, "delta") else choice.text
            contents[choice.index] = contents.get(choice.index, "") + (piece or "")
            if choice.finish_reason:
                ends.setdefault(choice.index, []).append(choice.finish_reason)
            if choice.index == 0 and choice.logprobs is not None:
                logprobs.append(choice.logprobs)
    return contents, ends, logprobs, usage


@pytest.mark.parametrize("create", [chat, text])
def test_a_stream_is_the_whole_text_in_pieces(server: Running, create: Any) -> None:
    for seed in range(6):
        settings = {"seed": seed, "n": 3, "stop": ["the", "|>", "a"], "max_tokens": 40, "logprobs": create is chat or 2}
        whole = create(server, **settings)
        contents, ends, logprobs, usage = streamed(
            create(server, **settings, stream=True, stream_options={"include_usage": True})
        )
        assert list(dict(sorted(contents.items())).values()) == texts(whole)
        assert {index: [choice.finish_reason] for index, choice in enumerate(whole.choices)} == ends
        assert usage == whole.usage
        for name in ("content",) if create is chat else ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            joined = [entry for of_chunk in logprobs for entry in getattr(of_chunk, name)]
            assert joined == getattr(whole.choices[0].logprobs, name)


def test_the_events_of_a_stream(server: Running) -> None:
    server.script(["l'été finit the", "<|end|>"])
    body = {"model": "tiny", "messages": HELLO, "stream": True, "stop": ["the sea"], "n": 2}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream") and lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert all("usage" not in chunk for chunk in chunks) and len({chunk["id"] for chunk in chunks}) == 1
    for index in range(2):
        own = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant" and own[-1]["finish_reason"] == "stop"
        pieces = [choice["delta"].get("content", "") for choice in own]
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
    choice = chat(server, tools=[WEATHER], max_tokens=200).choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content == "wait "
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Orléans"}

    chunks = list(chat(server, tools=[WEATHER], max_tokens=200, stream=True))
    contents, ends, _, _ = streamed(chunks)
    called = [part for chunk in chunks for choice in chunk.choices for part in choice.delta.tool_calls or ()]
    assert contents == {0: "wait "} and ends == {0: ["tool_calls"]}
    assert [(part.index, part.function.arguments) for part in called] == [(0, call.function.arguments)]

    again = [*HELLO, choice.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    server.engine.script = ()
    assert chat(server, messages=again, tools=[WEATHER]).usage.prompt_tokens > 40


@pytest.mark.parametrize("written", ['[{"name":"weather"}]', "[]", '{"name":', "[[1]]"])
def test_a_call_that_cannot_be_read_is_shown(server: Running, written: str) -> None:
    server.script(["<|tool_call|>", written, "<|/tool_call|>", "<|end|>"])
    for answer in (chat(server, tools=[WEATHER], max_tokens=200), chat(server, max_tokens=200)):
        choice = answer.choices[0]
        assert choice.message.content == f"<|tool_call|>{written}<|/tool_call|>"
        assert choice.finish_reason == "stop" and choice.message.tool_calls is None
    shown = streamed(chat(server, tools=[WEATHER], max_tokens=200, stream=True))
    assert shown[0][0] == f"<|tool_call|>{written}<|/tool_call|>"


def test_ids_that_stand_for_nothing_are_no_text(server: Running) -> None:
    server.script(["the cat"])
    nothing = server.tokenizer.vocab_size + 3
    server.engine.script = (nothing, *server.engine.script, nothing)
    choice = text(server, max_tokens=len(server.engine.script), stop="zzz", logprobs=1).choices[0]
    assert choice.text == "the cat" and choice.logprobs.tokens[0] == ""


def test_a_client_that_goes_away_frees_its_slots(server: Running) -> None:
    server.engine.delay, before = 0.05, server.engine.steps  # 400 tokens would take 20 seconds
    body = {"model": "tiny", "prompt": "the cat", "max_tokens": 400, "n": 4}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body | {"stream": True}, timeout=PATIENCE) as answer:
        lines = answer.iter_lines()  # kept: closing it closes the answer
        assert next(lines).startswith("data: ")
        assert server.health().json()["samples"] > 0
    idle = {"status": "ok", "samples": 0, "waiting": 0, "bytes": 0}
    assert server.until(lambda health: health["samples"] == 0) == idle
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=httpx.Timeout(PATIENCE, read=0.5))
    server.until(lambda health: health["samples"] == 0)
    assert server.engine.steps < before + 400, "both went on to their ends, though nobody listened"
