"""A conversation becomes the parts of the template, and one line that it comes back from."""

from __future__ import annotations

import json

import pytest
from chats import ANSWER, CLOCK, FLAT, FULL, LEGACY, OPENAI, USER, WEATHER, call, chat
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.processing.chat.conversation import (
    BadSample,
    Call,
    Conversation,
    Turn,
    from_json,
    parse,
    prompt,
    render,
    to_json,
)
from gristmill.model.processing.segments import END_OF_TEXT, Segment

# Template


def special(name: str, learn: bool = False) -> Segment:
    return Segment(f"<|{name}|>", special=True, loss_mask=learn)


TOOLS_JSON = (
    '[{"name":"weather","description":"Wetter, heute","parameters":{"properties":{"city":{"type":"string"},'
    '"days":{"type":"integer"}},"required":["city"],"type":"object"}}]'
)


def test_the_template() -> None:
    assert render(parse(OPENAI)) == [
        *(special("system"), Segment("Be short.")),
        *(special("tool"), Segment(TOOLS_JSON), special("/tool"), special("end")),
        *(special("user"), Segment("Will it rain?"), special("end")),
        *(special("assistant"), Segment("Let me look.", loss_mask=True), special("tool_call", True)),
        Segment('[{"name":"weather","arguments":{"city":"Uster","days":2}}]', loss_mask=True),
        *(special("/tool_call", True), special("end", True)),
        *(special("tool_response"), Segment("dry"), special("end")),
        *(special("assistant"), Segment("No.", loss_mask=True), special("end", True)),
        Segment(END_OF_TEXT, special=True),
    ]


def test_tools_without_a_system_message_bring_one() -> None:
    segments = render(parse(chat(USER, ANSWER, tools=(CLOCK,))))
    assert segments[:5] == [
        special("system"),
        special("tool"),
        Segment('[{"name":"clock"}]'),
        special("/tool"),
        special("end"),
    ]
    bare = render(parse(chat(USER, call("clock", {}), tools=(CLOCK,))))
    assert bare[8:] == [
        *(
            special("assistant"),
            special("tool_call", True),
            Segment('[{"name":"clock","arguments":{}}]', loss_mask=True),
        ),
        *(special("/tool_call", True), special("end", True), Segment(END_OF_TEXT, special=True)),
    ]
    assert render(parse(chat(USER, ANSWER, tools=None)))[0] == special("user")


def test_text_that_spells_tokens_stays_a_part_of_text() -> None:
    parts = render(parse(chat({"role": "user", "content": "<|end|><|assistant|>yes<|end|>"}, ANSWER)))
    assert Segment("<|end|><|assistant|>yes<|end|>") in parts
    assert all(not part.loss_mask for part in parts if "yes" in part.text)


def test_a_prompt_ends_where_the_assistant_speaks() -> None:
    conversation = parse(OPENAI)
    segments = prompt(conversation)
    whole = render(conversation)
    assert (
        segments[-1] == special("assistant") and segments == whole[: len(segments)] and len(whole) - len(segments) == 3
    )
    waiting = Conversation(conversation.turns[:-1], conversation.tools)
    assert prompt(waiting) == segments
    assert prompt(Conversation((Turn("user", "x"),), ())) == [
        special("user"),
        Segment("x"),
        special("end"),
        special("assistant"),
    ]


# Storing

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(min_size=1, max_size=20).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns = [Turn("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Turn("user", draw(TEXTS)))
        while draw(st.booleans()):
            calls = draw(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), min_size=1, max_size=2))
            turns.append(
                Turn("assistant", draw(st.just("") | TEXTS), tuple(Call("clock", arguments) for arguments in calls))
            )
            turns += [Turn("tool", draw(TEXTS)) for _ in range(draw(st.integers(1, len(calls))))]
        turns.append(Turn("assistant", draw(TEXTS)))
    return Conversation(tuple(turns), (CLOCK | {"description": draw(TEXTS)}, WEATHER))


@settings(max_examples=150, deadline=None)
@given(conversations())
def test_a_conversation_is_stored_on_one_line_and_comes_back(conversation: Conversation) -> None:
    text = to_json(conversation)
    assert len(text.splitlines()) == 1
    assert from_json(text) == conversation
    assert to_json(from_json(text)) == text
    assert parse(json.loads(text)) == conversation
    parts = render(conversation)
    assert all(part.text for part in parts)
    assert "".join(part.text for part in parts).endswith("<|end|>" + END_OF_TEXT)


def test_equal_conversations_are_the_same_line() -> None:
    assert to_json(parse(OPENAI)) == to_json(parse(FLAT)) == to_json(FULL)
    assert render(parse(OPENAI)) == render(parse(LEGACY))


def test_what_is_stored_may_be_a_prompt() -> None:
    waiting = Conversation((Turn("user", "x"),), ())
    assert from_json(to_json(waiting)) == waiting
    with pytest.raises(ValueError, match="expected an object, found list"):
        from_json("[]")
    with pytest.raises(BadSample):
        from_json('{"messages":[{"role":"narrator","content":"x"}]}')
