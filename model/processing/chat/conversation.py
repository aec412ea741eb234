"""Conversations to learn from: in what order turns may stand, and which answer belongs to which call.

system? user assistant (tool+ assistant | user assistant)*: whatever else is no sample, and says why. Turns of the
assistant that end in calls and follow each other are one, as the model would write it; tools answer its calls, each at
most once, before anybody else speaks. The template shows answers by their order alone, so they are put in the order of
the calls. What a server is sent keeps to none of this and is read by `served`.
Source: OpenAI's chat completions and fine-tuning forms; gpt-oss for calls split over turns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gristmill.model.processing.chat.fields import REASONING, Reasoning, Rules, absent, either
from gristmill.model.processing.chat.messages import Message, read_content, read_message, read_tools, torn
from gristmill.model.processing.chat.template import plain_calls, prompt, render
from gristmill.model.processing.chat.tools import BadSample, canonical
from gristmill.model.processing.chat.turns import ROLES, Call, Conversation, Turn

__all__ = ["REASONING", "ROLES", "BadSample", "Call", "Conversation", "Reasoning", "Rules", "Turn"]
__all__ += ["from_json", "parse", "prompt", "read_turns", "render", "to_json"]

_FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


def parse(sample: Mapping[str, Any], rules: Rules | None = None) -> Conversation:
    """A conversation from `messages` (OpenAI) or `conversations` (ShareGPT), with `tools` and `system`.

    Raises BadSample, in this order: no_turns, bad_tools, bad_tool_schema; turn by turn unknown_role, unknown_field,
    bad_weight, not_text, unsupported_content, two_reasonings, reasoning, unknown_tool, bad_arguments, lone_surrogate,
    empty_turn; then system_not_first, no_assistant, bad_order, unknown_call_id, last_turn_not_assistant,
    nothing_learned.
    """
    messages, tools = _read(sample, rules or Rules())
    messages = _joined(messages)
    _check_order(messages)
    turns = tuple(message.turn for message in _in_order_of_calls(messages))
    if not any(turn.loss_mask for turn in turns if turn.role == "assistant"):
        raise BadSample("nothing_learned", "weight 0 in every turn of the assistant")
    return Conversation(turns, tools)


def read_turns(sample: Mapping[str, Any], rules: Rules | None = None) -> tuple[Turn, ...]:
    """The turns of a part of a conversation, a prompt say, as `parse` would have them in the whole; their order is
    free. Raises BadSample: what `parse` says of messages and tools, bad_weight."""
    messages, _ = _read(sample, rules or Rules())
    return tuple(message.turn for message in _joined(messages))


def _read(sample: Mapping[str, Any], rules: Rules) -> tuple[list[Message], tuple[dict[str, Any], ...]]:
    given = either(sample, "messages", "conversations")
    if not isinstance(given, list) or not given:
        raise BadSample("no_turns", "" if given is None or given == [] else f"a {type(given).__name__}")
    tools = read_tools(_tools_of(sample, given), rules)
    messages = [read_message(number, message, tools, rules) for number, message in enumerate(given)]
    return _with_system(sample.get("system"), messages, rules), tools


def _tools_of(sample: Mapping[str, Any], messages: Sequence[Any]) -> Any:
    """Tools of the sample, or of its system message, where Phi-4's own form has them."""
    tools, first = either(sample, "tools", "functions"), messages[0]
    own = first.get("tools") if isinstance(first, Mapping) else None
    if absent(own) or (isinstance(own, str) and not own.strip()):
        return tools
    if not absent(tools) and tools != own:
        raise BadSample("bad_tools", "of the sample and of its system message")
    return own


def _with_system(value: Any, messages: list[Message], rules: Rules) -> list[Message]:
    """LLaMA-Factory's column `system` stands before the turns."""
    if absent(value):
        return messages
    text = read_content(value, rules)
    if torn(text):
        raise BadSample("lone_surrogate", "system")
    if not text.strip():
        return messages
    if messages[0].turn.role != "system":
        return [Message(-1, Turn("system", text)), *messages]
    if messages[0].turn.content != text:
        raise BadSample("system_not_first", "one beside the turns, one in them")
    return messages


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Turns of the assistant of which the later one ends in calls, and which nobody has spoken between, as one."""
    joined: list[Message] = []
    for message in messages:
        turn = message.turn
        before = joined[-1] if joined else None
        if before is None or turn.role != "assistant" or not turn.calls or before.turn.role != "assistant":
            joined.append(message)
            continue
        # One turn has one weight: to learn half of it would teach a text that no model is asked to write.
        if before.turn.loss_mask != turn.loss_mask:
            raise BadSample("bad_weight", f"turns {before.number} and {message.number} are one")
        whole = replace(
            turn,
            content="\n".join(filter(None, (before.turn.content, turn.content))),
            reasoning="\n\n".join(filter(None, (before.turn.reasoning, turn.reasoning))),
            calls=before.turn.calls + turn.calls,
        )
        joined[-1] = before._replace(turn=whole, ids=before.ids + message.ids)
    return joined


def _check_order(messages: Sequence[Message]) -> None:
    roles = [message.turn.role for message in messages]
    if "system" in roles[1:]:
        raise BadSample("system_not_first", f"turn {messages[roles.index('system', 1)].number}")
    if "assistant" not in roles:
        raise BadSample("no_assistant")
    before, calls = "", 0  # calls without an answer
    for message in messages:
        role, number = message.turn.role, message.number
        if role not in _FOLLOWS[before]:
            raise BadSample("bad_order", f"turn {number}: {role} after {before or 'nothing'}")
        if role == "tool" and not calls:
            raise BadSample("bad_order", f"turn {number}: an answer that nothing called for")
        if role == "user" and calls:
            raise BadSample("bad_order", f"turn {number}: user after a call")
        before, calls = role, calls - 1 if role == "tool" else len(message.turn.calls)
    if before != "assistant":
        raise BadSample("last_turn_not_assistant", before)


def _in_order_of_calls(messages: Sequence[Message]) -> list[Message]:
    """The answers to each turn's calls in the order of those calls. Raises BadSample."""
    ordered: list[Message] = []
    at = 0
    while at < len(messages):
        calling = messages[at]
        end = at + 1
        while end < len(messages) and messages[end].turn.role == "tool":
            end += 1
        answers = messages[at + 1 : end]
        places = _places(calling, answers) if answers else []
        for place, (expected, answer) in enumerate(sorted(zip(places, answers, strict=True), key=lambda pair: pair[0])):
            if expected != place:  # the template would show it as the answer to an earlier call
                raise BadSample("bad_order", f"turn {answer.number}: a call before the one it answers has no answer")
        ordered += [calling, *(answers[i] for i in sorted(range(len(answers)), key=places.__getitem__))]
        at = end
    return ordered


def _places(calling: Message, answers: Sequence[Message]) -> list[int]:
    """Which call each answer belongs to: by the calls' ids, else by the names of their tools, else in their order."""
    # Ids count only where every call has one and an answer names one: many sets of data have them on one side alone.
    ids: Sequence[str | None] = calling.ids
    names = [call.name for call in calling.turn.calls]
    if None not in ids and len(set(ids)) == len(names) and any(answer.answers for answer in answers):
        keys, asked = ids, [answer.answers for answer in answers]
    elif len(set(names)) == len(names) and all(answer.name in names for answer in answers):
        keys, asked = names, [answer.name for answer in answers]
    else:
        return list(range(len(answers)))
    places: list[int] = []
    for answer, key in zip(answers, asked, strict=True):
        if key not in keys:
            raise BadSample("unknown_call_id", f"turn {answer.number}")
        place = keys.index(key)
        if place in places:
            raise BadSample("bad_order", f"turn {answer.number}: a call that has its answer")
        places.append(place)
    return places


def to_json(conversation: Conversation) -> str:
    """One line, the same for equal conversations; `from_json` gives the conversation back."""
    turns = [_message(turn) for turn in conversation.turns]
    return canonical({"messages": turns} | ({"tools": list(conversation.tools)} if conversation.tools else {}))


def _message(turn: Turn) -> dict[str, Any]:
    assert not turn.media, "media are of histories that a server reads, and are not stored"
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.calls:
        message["tool_calls"] = plain_calls(turn)
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    return message if turn.loss_mask else message | {"weight": 0}


def from_json(text: str) -> Conversation:
    """Raises BadSample as `parse`, but the order of turns is free, so that a prompt can be kept; ValueError for what is
    no JSON object."""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {type(data).__name__}")
    messages, tools = _read(data, Rules())
    return Conversation(tuple(message.turn for message in messages), tools)
