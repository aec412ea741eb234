"""Conversations: from the field's common forms to turns, and from turns to the chat template of Phi-4-Mini.

system? user assistant (tool+ assistant | user assistant)*: whatever else is no sample, and says why. Tools answer the
calls of a turn, each call at most once, before anybody else speaks. The template is `<|role|>content<|end|>` a message,
no line ends between, <|endoftext|> after the last. Only what the assistant says is learned: its content, its calls, and
the <|end|> with which it stops.
Source: the chat template of microsoft/Phi-4-mini-instruct; arXiv 2503.01743, section 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.processing.text import END_OF_TEXT, Part
from model.processing.tools import BadSample, canonical, check_arguments, read_arguments, read_json, read_schema

__all__ = ["BadSample", "Call", "Conversation", "Turn", "from_json", "parse", "prompt", "render", "to_json"]

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
    "observation": "tool",
}
"""Names of roles in OpenAI's and ShareGPT's forms."""

_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_TOKENS: Mapping[Role, str] = {
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "tool": "<|tool_response|>",
}
_END = "<|end|>"


@dataclass(frozen=True)
class Call:
    """A call of a tool, its arguments a JSON object."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One message. `calls` are the assistant's; with calls, content may be empty."""

    role: Role
    content: str
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """`tools`: what the system message offers, as `{name, description, parameters}`."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()


def parse(sample: Mapping[str, Any]) -> Conversation:
    """A conversation from `messages` (OpenAI) or `conversations` (ShareGPT), with `tools`.

    Raises BadSample, in this order: no_turns, bad_tools, bad_tool_schema; turn by turn unknown_role, not_text,
    unsupported_content, unknown_tool, bad_arguments, lone_surrogate, empty_turn; then system_not_first, no_assistant,
    bad_order, last_turn_not_assistant.
    """
    turns, tools = _read(sample)
    _check_order(turns)
    return Conversation(turns, tools)


def _read(sample: Mapping[str, Any]) -> tuple[tuple[Turn, ...], tuple[dict[str, Any], ...]]:
    messages = _either(sample, "messages", "conversations")
    if not isinstance(messages, list) or not messages:
        raise BadSample("no_turns", "" if messages is None or messages == [] else f"a {type(messages).__name__}")
    tools = _tools(_either(sample, "tools", "functions"))
    if _torn(canonical(tools)):
        raise BadSample("lone_surrogate", "tools")
    return tuple(_turn(message, tools) for message in messages), tools


def _either(fields: Mapping[str, Any], one: str, other: str) -> Any:
    """Tables of several forms have all columns, and nulls in those of the other form."""
    return fields[one] if fields.get(one) is not None else fields.get(other)


def _turn(message: Any, tools: Sequence[Mapping[str, Any]]) -> Turn:
    if not isinstance(message, Mapping):
        raise BadSample("not_text", f"a turn is a {type(message).__name__}")
    name = _either(message, "role", "from")
    if not isinstance(name, str) or name not in ROLES:
        raise BadSample("unknown_role", name if isinstance(name, str) else f"a {type(name).__name__}")
    role, content = ROLES[name], _content(_either(message, "content", "value"))
    calls = message.get("tool_calls")
    if name == "function_call":  # ShareGPT: the call is the text
        content, calls = "", _called(content)
    elif message.get("function_call") is not None:  # OpenAI before tools
        calls = [message["function_call"]]
    found_calls = _calls(calls, tools)
    if found_calls and role != "assistant":
        raise BadSample("bad_order", f"a call by {role}")
    if _torn(content) or any(_torn(canonical([call.name, call.arguments])) for call in found_calls):
        raise BadSample("lone_surrogate", role)
    if not content.strip() and not found_calls:
        raise BadSample("empty_turn", role)
    return Turn(role, content, found_calls)


def _called(text: str) -> list[Any]:
    found = read_json(text, "bad_arguments", "function_call: no JSON")
    return found if isinstance(found, list) else [found]


def _tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Tools in OpenAI's form or flat, or either as a JSON string, as `{name, description, parameters}`; other fields
    are left out. Raises BadSample: bad_tools, bad_tool_schema."""
    if isinstance(value, str):
        value = read_json(value, "bad_tools", "no JSON") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSample("bad_tools", f"a {type(value).__name__}")
    tools: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(value):
        name, tool = _named(item)
        if not name:
            raise BadSample("bad_tools", f"tool {number} has no name")
        if name in tools:
            raise BadSample("bad_tools", f"two tools {name}")
        if not isinstance(tool.get("description", ""), str | None):
            raise BadSample("bad_tools", f"description of {name}")
        told = {key: tool[key] for key in ("description", "parameters") if tool.get(key) is not None}
        if "parameters" in told:
            told["parameters"] = read_schema(name, told["parameters"])
        tools[name] = {"name": name, **told}
    return tuple(tools.values())


def _calls(value: Any, tools: Iterable[Mapping[str, Any]]) -> tuple[Call, ...]:
    """Calls in OpenAI's form or flat, arguments as an object or as its JSON, checked against the tools' schemas.

    Raises BadSample: not_text, unknown_tool, bad_arguments (value: the tool and the JSON path of the first error).
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSample("not_text", f"tool_calls is a {type(value).__name__}")
    schemas = {tool["name"]: tool.get("parameters") for tool in tools}
    calls = []
    for item in value:
        name, call = _named(item)
        if not name:
            raise BadSample("not_text", "a call without a name")
        if name not in schemas:
            raise BadSample("unknown_tool", name)
        arguments = read_arguments(name, call.get("arguments"))
        if (parameters := schemas[name]) is not None:
            check_arguments(name, parameters, arguments)
        calls.append(Call(name, arguments))
    return tuple(calls)


def _named(item: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and fields of a tool or call, also where OpenAI's form wraps them in `function`; "" if it has no name."""
    fields = item if isinstance(item, Mapping) else {}
    fields = inner if isinstance(inner := fields.get("function"), Mapping) else fields
    name = fields.get("name")
    return name if isinstance(name, str) and name.strip() else "", fields


def _torn(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text":
                raise BadSample("unsupported_content", kind if isinstance(kind, str) else f"a {type(part).__name__}")
            if not isinstance(part.get("text"), str):
                raise BadSample("not_text", "a part without text")
        return "".join(part["text"] for part in content)
    raise BadSample("not_text", f"content is a {type(content).__name__}")


def _check_order(turns: Sequence[Turn]) -> None:
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise BadSample("system_not_first", f"turn {roles.index('system', 1)}")
    if "assistant" not in roles:
        raise BadSample("no_assistant")
    before, calls = "", 0  # calls without an answer
    for number, turn in enumerate(turns):
        if turn.role not in _FOLLOWS[before]:
            raise BadSample("bad_order", f"turn {number}: {turn.role} after {before or 'nothing'}")
        if turn.role == "tool" and not calls:
            raise BadSample("bad_order", f"turn {number}: an answer that nothing called for")
        if turn.role == "user" and calls:
            raise BadSample("bad_order", f"turn {number}: user after a call")
        before, calls = turn.role, calls - 1 if turn.role == "tool" else len(turn.calls)
    if before != "assistant":
        raise BadSample("last_turn_not_assistant", before)


def to_json(conversation: Conversation) -> str:
    """One line, the same for equal conversations; `from_json` gives the conversation back."""
    turns = [_message(turn) for turn in conversation.turns]
    return canonical({"messages": turns} | ({"tools": list(conversation.tools)} if conversation.tools else {}))


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    return message | ({"tool_calls": _plain(turn)} if turn.calls else {})


def _plain(turn: Turn) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.calls]


def from_json(text: str) -> Conversation:
    """Raises BadSample as `parse`, but the order of turns is free, so that a prompt can be kept; ValueError for what is
    no JSON object."""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {type(data).__name__}")
    return Conversation(*_read(data))


def render(conversation: Conversation) -> list[Part]:
    """The whole conversation, for training."""
    return [*_rendered(conversation), Part(END_OF_TEXT, special=True)]


def prompt(conversation: Conversation) -> list[Part]:
    """What stands before the assistant's next turn, for generation; before its last one where that ends it all."""
    turns = conversation.turns
    if turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return [*_rendered(Conversation(turns, conversation.tools)), Part(_TOKENS["assistant"], special=True)]


def _rendered(conversation: Conversation) -> list[Part]:
    turns = list(conversation.turns)
    if conversation.tools and (not turns or turns[0].role != "system"):
        turns.insert(0, Turn("system", ""))  # somebody has to offer the tools
    parts: list[Part] = []
    for turn in turns:
        learn = turn.role == "assistant"
        parts += [Part(_TOKENS[turn.role], special=True), Part(turn.content, learn=learn)]
        if turn.role == "system" and conversation.tools:
            parts += _between("tool", conversation.tools, learn=False)
        if turn.calls:
            parts += _between("tool_call", _plain(turn), learn=True)
        parts.append(Part(_END, special=True, learn=learn))
    return [part for part in parts if part.text]


def _listed(items: Iterable[Mapping[str, Any]]) -> str:
    """Calls or tools as a JSON list: the fields of each in their order, so a call's name first, all within sorted."""
    fields = ([f"{canonical(name)}:{canonical(value)}" for name, value in item.items()] for item in items)
    return "[" + ",".join("{" + ",".join(one) + "}" for one in fields) + "]"


def _between(token: str, items: Sequence[Mapping[str, Any]], learn: bool) -> list[Part]:
    return [
        Part(f"<|{token}|>", special=True, learn=learn),
        Part(_listed(items), learn=learn),
        Part(f"<|/{token}|>", special=True, learn=learn),
    ]
