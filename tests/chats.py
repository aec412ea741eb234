"""Conversations to test with: messages and calls, one conversation in several forms, the reason of a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gristmill.model.processing.chat.conversation import BadSample, Call, Conversation, Turn, parse

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Wetter, heute", "parameters": CITY}
CLOCK = {"name": "clock"}
USER = {"role": "user", "content": "Will it rain?"}
ANSWER = {"role": "assistant", "content": "No."}


def call(name: str = "weather", arguments: Any = '{"city": "Uster"}', **fields: Any) -> dict[str, Any]:
    """A message that calls a tool."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]} | fields


def tool(content: str = "dry") -> dict[str, Any]:
    """What the tool answers."""
    return {"role": "tool", "content": content}


def chat(*messages: dict[str, Any], tools: Any = (WEATHER,), **fields: Any) -> dict[str, Any]:
    """A sample of these messages, with the tools that are offered."""
    return {"messages": list(messages), "tools": list(tools) if isinstance(tools, tuple) else tools} | fields


def reason(sample: dict[str, Any]) -> tuple[str, str]:
    """(reason, value) for which a sample is refused."""
    with pytest.raises(BadSample) as caught:
        parse(sample)
    assert len(caught.value.value) <= 100
    caught.value.value.encode()
    return caught.value.reason, caught.value.value


FULL = Conversation(
    (
        Turn("system", "Be short."),
        Turn("user", "Will it rain?"),
        Turn("assistant", "Let me look.", (Call("weather", {"city": "Uster", "days": 2}),)),
        Turn("tool", "dry"),
        Turn("assistant", "No."),
    ),
    (WEATHER,),
)


OPENAI = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Will it "}, {"type": "text", "text": "rain?"}]},
        call(arguments='{"days": 2, "city": "Uster"}', content="Let me look."),
        {"role": "tool", "tool_call_id": "1", "content": "dry"},
        {"role": "assistant", "content": "No.", "tool_calls": None},
    ],
    "tools": [{"type": "function", "function": WEATHER | {"strict": True}}],
}
FLAT = {
    "messages": [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Will it rain?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"name": "weather", "arguments": {"city": "Uster", "days": 2}}],
        },
        {"role": "function", "content": "dry"},
        {"role": "assistant", "content": "No.", "tool_calls": []},
    ],
    "tools": json.dumps([WEATHER]),
    "conversations": None,
}
LEGACY = {
    "messages": [
        *FLAT["messages"][:2],
        {
            "role": "assistant",
            "content": "Let me look.",
            "function_call": {"name": "weather", "arguments": '{"city": "Uster", "days": 2}'},
        },
        {"role": "tool_response", "content": "dry"},
        ANSWER,
    ],
    "functions": [WEATHER],
}
