"""Histories: what the model has said is taken back, whatever it was; what training would show is what is shown."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from chats import CITY
from hypothesis import given
from hypothesis import strategies as st
from serving import HELLO, WEATHER, Running, chat
from waiting import PATIENCE

from gristmill.model.processing.chat.conversation import parse, prompt
from gristmill.model.processing.chat.served import read_history
from gristmill.model.processing.chat.template import answered

CALLED = ["<|tool_call|>", '[{"name":"weather","arguments":{"city":"Ulm"}}]', "<|/tool_call|>", "<|end|>"]
SAID = {
    "nothing": ["<|end|>"],
    "blanks": [" \n", "<|end|>"],
    "a call": CALLED,
    "text, a call, text": ["wait ", *CALLED[:3], " there", "<|end|>"],
    "two calls in two blocks": [*CALLED[:3], *CALLED],
    "arguments that break the schema": [CALLED[0], '[{"name":"weather","arguments":{"town":[1]}}]', *CALLED[2:]],
    "a tool that there is not": [CALLED[0], '[{"name":"hammer","arguments":{}}]', *CALLED[2:]],
    "a tool without a name": [CALLED[0], '[{"name":"","arguments":{}}]', *CALLED[2:]],
    "no number": [CALLED[0], '[{"name":"weather","arguments":{"city":NaN}}]', *CALLED[2:]],
    "half a character": [CALLED[0], '[{"name":"weather","arguments":{"city":"\\ud800"}}]', *CALLED[2:]],
    "a number without end": [CALLED[0], '[{"name":"w","arguments":{"n":1e999}}]', *CALLED[2:]],
    "nested": [CALLED[0], '[{"name":"w","arguments":{"n":' + "[" * 60 + "]" * 60 + "}}]", *CALLED[2:]],
    "a call cut short": CALLED[:2],
    "tokens of other roles": ["<|user|>", "hi", "<|system|>", "<|tool|>", "x", "<|/tool|>", "<|end|>"],
    "thoughts": ["<think>", "hm", "</think>", "It rains.", "<|end|>"],
}


@pytest.mark.parametrize("written", SAID.values(), ids=list(SAID))
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_was_said_is_taken_back(server: Running, written: list[str], streamed: bool) -> None:
    server.script(written)
    limit = len(server.engine.script)
    message = message_of(chat(server, tools=[WEATHER], max_tokens=limit, stream=streamed), streamed)
    server.engine.script = ()
    calls = message.get("tool_calls") or []
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": ""} for call in calls]
    for history, more in (
        ([message], {}),
        ([message, *answers[::-1], HELLO[1]], {"tools": [WEATHER]}),
        ([message, HELLO[1], message, *answers], {"tools": [WEATHER], "tool_choice": "none"}),
    ):
        again = chat(server, messages=[HELLO[1], *history], max_tokens=1, **more)
        assert again.usage.prompt_tokens > 4


def message_of(answer: Any, streamed: bool) -> dict[str, Any]:
    if not streamed:
        return answer.choices[0].message.model_dump()
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    for chunk in answer:
        delta = chunk.choices[0].delta
        message["content"] += delta.content or ""
        for call in delta.tool_calls or ():
            message.setdefault("tool_calls", []).append(call.model_dump())
    return message


CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
OTHER = {"id": "b", "type": "function", "function": {"name": "gone", "arguments": "no JSON"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER], "refusal": None, "audio": None}
ODD: dict[str, list[dict[str, Any]]] = {
    "a second system message": [*HELLO, {"role": "system", "content": "Be long."}, HELLO[1]],
    "a developer's": [HELLO[1], {"role": "developer", "content": "Be long."}],
    "names": [HELLO[1] | {"name": "ann"}, {"role": "assistant", "content": "hi", "name": "bob"}, HELLO[1]],
    "empty turns": [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": []},
    ],
    "the assistant alone": [{"role": "assistant", "content": "hi"}],
    "two users in a row": [HELLO[1], HELLO[1]],
    "an answer that nothing called for": [HELLO[1], {"role": "tool", "tool_call_id": "x", "content": "7"}],
    "calls without answers": [HELLO[1], ASKED, HELLO[1]],
    "a refusal": [HELLO[1], {"role": "assistant", "content": None, "refusal": "I cannot."}, HELLO[1]],
    "reasoning": [HELLO[1], {"role": "assistant", "content": "x", "reasoning_content": "hm"}, HELLO[1]],
    "an old call": [
        HELLO[1],
        {"role": "assistant", "function_call": CALL["function"]},
        {"role": "function", "name": "weather", "content": "7"},
    ],
}


@pytest.mark.parametrize("messages", ODD.values(), ids=list(ODD))
def test_histories_of_any_order_are_taken(server: Running, messages: list[Any]) -> None:
    body = {"model": "tiny", "messages": messages, "max_tokens": 1}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text


def shown(messages: list[dict[str, Any]], tools: list[dict[str, Any]] = []) -> str:  # noqa: B006
    return "".join(part.text for part in answered(read_history(messages, tools)))


def test_answers_stand_in_the_order_of_the_calls() -> None:
    first, second = ({"role": "tool", "tool_call_id": key, "content": f"to {key}"} for key in "ab")
    expected = shown([HELLO[1], ASKED, first, second])
    assert expected == shown([HELLO[1], ASKED, second, first])
    assert expected.endswith("<|tool_response|>to a<|end|><|tool_response|>to b<|end|><|assistant|>")
    assert '{"name":"gone","arguments":"no JSON"}' in expected
    lost = {"role": "tool", "tool_call_id": "x", "content": "to x"}
    assert shown([HELLO[1], ASKED, second, lost, first]).count("<|tool_response|>") == 3


def test_all_that_is_said_is_shown_where_it_was_said() -> None:
    for messages in ODD.values():
        text = shown(messages)
        for message in messages:
            for part in (message.get("content"), message.get("refusal"), message.get("reasoning_content")):
                assert not part or part in text
    system = shown(ODD["a second system message"], [WEATHER])
    assert system.startswith("<|system|>Be brief.<|tool|>[") and system.count("<|tool|>") == 1
    assert shown([HELLO[1]], [WEATHER]).startswith("<|system|><|tool|>[")


TEXTS = st.text(min_size=1, max_size=20).filter(str.strip)


@given(TEXTS, st.lists(st.tuples(TEXTS, st.lists(st.text(max_size=5), max_size=2), TEXTS), max_size=3), TEXTS)
def test_what_training_shows_is_what_is_shown(system: str, rounds: list[Any], question: str) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    for asked, cities, content in rounds:
        messages.append({"role": "user", "content": asked})
        if cities:
            calls = [
                {"id": f"c{i}", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
                for i, city in enumerate(cities)
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "7"} for call in calls]
        messages.append({"role": "assistant", "content": content, "reasoning_content": "hm"})
    messages.append({"role": "user", "content": question})
    tools = [{"type": "function", "function": {"name": "weather", "description": "x", "parameters": CITY}}]
    training = parse({"messages": [*messages, {"role": "assistant", "content": "x"}], "tools": tools})
    assert answered(read_history(messages, tools)) == prompt(training)


def test_one_call_where_one_is_asked_for(server: Running) -> None:
    server.script([*CALLED[:3], *CALLED])
    for more, count in (({}, 2), ({"parallel_tool_calls": True}, 2), ({"parallel_tool_calls": False}, 1)):
        for streamed in (False, True):
            answer = chat(server, tools=[WEATHER], max_tokens=200, stream=streamed, **more)
            assert len(message_of(answer, streamed)["tool_calls"]) == count


def test_tools_that_are_not_to_be_called_are_not_shown(server: Running) -> None:
    bare = chat(server, max_tokens=1).usage.prompt_tokens
    assert chat(server, max_tokens=1, tools=[WEATHER], tool_choice="none").usage.prompt_tokens == bare
    server.script(CALLED)
    choice = chat(server, max_tokens=200, tools=[WEATHER], tool_choice="none").choices[0]
    assert choice.message.tool_calls is None and choice.message.content.startswith("<|tool_call|>[")
