"""Histories that clients send to a server: every one that a client can hold is shown to the model as well as may be.

What a model has said is a fact, sensible or not: a call of a tool that there is not, arguments that break a schema, an
empty turn. The rules for data to learn from (`chat`) do not apply; where they are met, the prompt is the one that
training has. Answers of tools stand in the order of the calls they name; a name of a user has no place in the template.
Images stand where the user's message has them: no text of a message becomes a placeholder, whatever it spells.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NoReturn

from gristmill.model.processing.chat.fields import Rules, absent, read_reasoning
from gristmill.model.processing.chat.messages import read_content
from gristmill.model.processing.chat.tools import BadSample, canonical
from gristmill.model.processing.chat.turns import ROLES, Call, Conversation, Shown, Turn

MEDIA_PARTS: Mapping[str, Literal["image", "audio"]] = {"image_url": "image", "input_audio": "audio"}
"""Types of parts of OpenAI's messages that are no text, and what they show."""
_ANY = Rules(harmless=frozenset(("detail", "prompt_cache_breakpoint")))


def read_history(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], kinds: Collection[str] = ()
) -> Conversation:
    """The conversation so far. `tools` in OpenAI's form, without their schemas being judged. `kinds` of media that
    users may show ("image"): parts of others are unsupported_content.

    Raises BadSample for what cannot be shown: unknown_role, not_text, unsupported_content, bad_tools.
    """
    turns: list[Turn] = []
    at = 0
    while at < len(messages):
        turn, ids = _turn(messages[at], kinds)
        turns.append(turn)
        at += 1
        answers = []
        while turn.calls and at < len(messages) and ROLES.get(str(messages[at].get("role"))) == "tool":
            answers.append(messages[at])
            at += 1
        turns += [_turn(answer, ())[0] for answer in _by_id(ids, answers)]
    return Conversation(tuple(turns), tuple(map(_tool, tools)))


def _by_id(ids: Sequence[Any], answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Answers in the order of the calls; those that name no call of this turn stay behind the one before them."""
    places: list[int] = []
    for answer in answers:
        key = answer.get("tool_call_id")
        last = places[-1] if places else 0
        places.append(ids.index(key) if key is not None and key in ids else last)
    return [answers[i] for i in sorted(range(len(answers)), key=places.__getitem__)]


def _turn(message: Mapping[str, Any], kinds: Collection[str]) -> tuple[Turn, list[Any]]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadSample("unknown_role", role if isinstance(role, str) else f"a {type(role).__name__}")
    content, media = _content(message.get("content"), kinds if ROLES[role] == "user" else ())
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        content = content or refusal
    if ROLES[role] != "assistant":
        return Turn(ROLES[role], content, media=media), []
    given = message.get("tool_calls")
    if not absent(message.get("function_call")):
        given = [{"function": message["function_call"]}]
    if given is not None and not isinstance(given, list):
        raise BadSample("not_text", f"tool_calls is a {type(given).__name__}")
    calls = tuple(map(_call, given or ()))
    ids = [item.get("id") for item in given or ()]
    return Turn("assistant", content, calls, read_reasoning(message, "assistant")), ids


def _content(content: Any, kinds: Collection[str]) -> tuple[str, tuple[Shown, ...]]:
    """The text of a message, and what is shown in it."""
    if not kinds or not isinstance(content, list):
        return read_content(content, _ANY), ()
    text, media = "", []
    for part in content:
        kind = MEDIA_PARTS.get(str(part.get("type"))) if isinstance(part, Mapping) else None
        if kind in kinds and kind is not None:
            media.append(Shown(kind, len(text), part))
        else:
            text += read_content([part], _ANY)
    return text, tuple(media)


def _call(item: Any) -> Call:
    fields = item.get("function") if isinstance(item, Mapping) else None
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        raise BadSample("not_text", "a call without function.name")
    return Call(fields["name"], _arguments(fields.get("arguments")))


def _arguments(value: Any) -> Any:
    """What the model wrote as JSON, if the client still has it so; else as it came: text."""
    if value is None:
        return {}
    try:
        arguments = json.loads(value, parse_constant=_no_json) if isinstance(value, str) else value
        canonical(arguments)
    except (ValueError, TypeError, RecursionError):
        return str(value)
    return arguments


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    fields = tool.get("function")
    name = fields.get("name") if isinstance(fields, Mapping) else None
    if not isinstance(fields, Mapping) or not isinstance(name, str) or not name:
        raise BadSample("bad_tools", "a tool without function.name")
    plain: dict[str, Any] = {"name": name}
    if not absent(description := fields.get("description")):
        if not isinstance(description, str):
            raise BadSample("bad_tools", f"description of {name}")
        plain["description"] = description
    if fields.get("parameters") is not None:
        if not isinstance(fields["parameters"], Mapping):
            raise BadSample("bad_tools", f"parameters of {name}: a {type(fields['parameters']).__name__}")
        plain["parameters"] = json.loads(canonical(fields["parameters"]))
    return plain
