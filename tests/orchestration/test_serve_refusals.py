"""What `grist serve` refuses, and how it says so: by name, in OpenAI's form, with the status that clients act on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from serving import HELLO, WEATHER, Running, chat, serving, text, texts
from typer.testing import CliRunner
from waiting import PATIENCE

from gristmill.orchestration.cli.main import app
from gristmill.orchestration.cli.models import serve as cli_serve


def refused(server: Running, path: str, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/v1/{path}", json=fields, timeout=PATIENCE)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1},
        {"logit_bias": {"5": 100}},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema"}},
        {"tools": [WEATHER], "response_format": {"type": "json_object"}},
        {"functions": [{"name": "f"}]},
        {"audio": {"voice": "x", "format": "wav"}},
        {"modalities": ["text", "audio"]},
        {"reasoning_effort": "high"},
        {"parallel_tool_calls": "no"},
        {"web_search_options": {}},
        {"top_k": 5},
        {"n": 129},
        {"n": 0},
        {"n": "2"},
        {"temperature": -1},
        {"temperature": 101},
        {"top_p": 0},
        {"max_tokens": 0},
        {"seed": 1.5},
        {"logprobs": True, "top_logprobs": 21},
        {"top_logprobs": 2},
        {"stop": [""]},
        {"stop": ["\ufffd"]},
        {"stop": ["x"] * 17},
        {"stream_options": {"include_usage": True}},
        {"tool_choice": "required"},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"tools": [{"type": "function", "function": {"name": "x", "strict": True}}]},
        {"tools": [WEATHER, WEATHER]},
        {"messages": []},
        {"messages": "hello"},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_what_is_not_honoured_is_refused(server: Running, fields: dict[str, Any]) -> None:
    error = refused(server, "chat/completions", **{"model": "tiny", "messages": HELLO} | fields)
    assert error["param"] == list(fields)[-1] and error["param"] in error["message"]


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "text only"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "text only"),
        ([{"role": "user", "content": "x", "weight": 0}], "weight is not supported"),
        ([{"role": "assistant", "tool_calls": [{"id": "x"}]}], "a call without function.name"),
        ([{"role": "wizard", "content": "x"}], "unknown_role: wizard"),
    ],
)
def test_messages_that_cannot_be_shown_are_refused(server: Running, messages: Any, word: str) -> None:
    error = refused(server, "chat/completions", model="tiny", messages=messages)
    assert word in error["message"] and error["param"] == "messages"


def test_prompts_that_cannot_be_are_refused(server: Running) -> None:
    for prompt, word in (
        ("", "empty"),
        ([], "empty"),
        (["a", ""], "empty"),
        ([[5], []], "empty"),
        ([10**6], "ids from 0"),
        ([[5], [10**6]], "ids from 0"),
        (["x"] * 1025, "1025 prompts"),
    ):
        assert word in refused(server, "completions", model="tiny", prompt=prompt)["message"]
    assert server.health().json()["samples"] == 0, "none of several is left behind"


def test_harmless_fields_are_taken(server: Running) -> None:
    plain = texts(chat(server, seed=5))
    harmless = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "top_p": 1}
    usual = {"frequency_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}, "tool_choice": "none"}
    assert texts(chat(server, seed=5, **harmless, **usual)) == plain
    assert texts(chat(server, seed=5, max_tokens=None, max_completion_tokens=24)) == plain
    assert refused(server, "chat/completions", model="tiny", messages=HELLO, max_tokens=2, max_completion_tokens=3)


def test_bodies_that_are_none(server: Running) -> None:
    for data in (b"", b"{", b"[]", b'{"model": NaN}', b'{"model": "\\ud800"}', b"[" * 100_000):
        answer = httpx.post(f"{server.url}/v1/completions", content=data, timeout=PATIENCE)
        assert answer.status_code == 400 and answer.json()["error"]["message"]
    missing = refused(server, "chat/completions", model="tiny")
    assert missing["param"] == "messages" and "required" in missing["message"]
    lost = httpx.get(f"{server.url}/v1/nothing", timeout=PATIENCE)
    assert lost.status_code == 404 and "error" in lost.json()
    assert httpx.get(f"{server.url}/v1/completions", timeout=PATIENCE).status_code == 405


def test_overlong_requests(server: Running) -> None:
    for create, settings in ((chat, {"max_tokens": 512}), (text, {"prompt": [5] * 512}), (text, {"max_tokens": 600})):
        with pytest.raises(openai.BadRequestError) as caught:
            create(server, **settings)
        assert caught.value.code == "context_length_exceeded" and "512" in caught.value.message
    fits = text(server, prompt=[5] * 511, max_tokens=openai.omit)
    assert fits.usage.total_tokens == 512
    rest = chat(server, max_tokens=openai.omit, seed=2)
    assert (rest.usage.total_tokens == 512) == (rest.choices[0].finish_reason == "length")


def test_models_and_their_names(server: Running) -> None:
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").object == "model"
    for call in (lambda: chat(server, model="gpt-4"), lambda: server.client.models.retrieve("org/other")):
        with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
            call()


def test_a_full_queue_is_429(server: Running) -> None:
    server.hosted.max_waiting = 1
    try:
        with ThreadPoolExecutor(2) as pool:
            server.engine.delay = 0.05
            first = pool.submit(text, server, n=4, max_tokens=200)
            server.until(lambda health: health["samples"] > 0 and not health["waiting"])
            server.engine.hold()
            second = pool.submit(text, server)
            assert server.until(lambda health: health["waiting"] == 1)["waiting"] == 1
            with pytest.raises(openai.RateLimitError) as caught:
                text(server)
            assert caught.value.response.headers["retry-after"] == "1"
            server.engine.delay = 0.0
            server.engine.gate.set()
            assert len(first.result().choices) == 4 and len(second.result().choices) == 1
    finally:
        server.hosted.max_waiting = 64


def test_a_key_and_a_limit_of_the_body() -> None:
    with serving(api_key="sésame", body_limit=1000) as server:
        right = {"Authorization": "Bearer sésame".encode()}
        assert httpx.get(f"{server.url}/v1/models", headers=right, timeout=PATIENCE).json()["data"][0]["id"] == "tiny"
        with pytest.raises(openai.AuthenticationError) as caught:
            server.client.models.list()
        assert caught.value.code == "invalid_api_key"
        for header in ({}, {"Authorization": "sésame".encode()}):
            assert httpx.post(f"{server.url}/v1/chat/completions", headers=header, timeout=PATIENCE).status_code == 401
        assert server.health().status_code == 200
        large = httpx.post(f"{server.url}/v1/completions", headers=right, content=b"x" * 2000, timeout=PATIENCE)
        assert large.status_code == 413 and "1,000 bytes" in large.json()["error"]["message"]


def test_a_failed_engine_is_an_error_for_everybody() -> None:
    with serving() as server, ThreadPoolExecutor(2) as pool:
        server.engine.delay = 0.01
        whole = pool.submit(text, server, max_tokens=400)
        stream = pool.submit(lambda: list(text(server, max_tokens=400, stream=True)))
        server.until(lambda health: health["samples"] == 2)
        server.engine.broken = True
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            whole.result()
        with pytest.raises(openai.APIError, match="out of memory"):
            stream.result()
        assert server.health().status_code == 503 and "out of memory" in server.health().json()["error"]
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            chat(server)


def test_the_command_refuses_to_be_reached_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIST_API_KEY", raising=False)
    result = CliRunner().invoke(app, ["serve", "model", "--host", "0.0.0.0"])
    assert result.exit_code == 2 and "set $GRIST_API_KEY" in result.output
    absent = CliRunner().invoke(app, ["serve", "no-such-folder"])
    assert absent.exit_code == 1 and "no-such-folder: no such folder" in absent.output
    assert CliRunner().invoke(app, ["serve", "x", "--dtype", "int3"]).exit_code == 2


def test_the_command_says_how_to_call_it() -> None:
    line = cli_serve._how_to_call("127.0.0.1", 8000, "model@v1", "KEY")
    assert "\n" not in line and line.startswith("model@v1 at http://127.0.0.1:8000/v1   curl ")
    assert '-H "Authorization: Bearer $KEY"' in line and '"model": "model@v1"' in line
