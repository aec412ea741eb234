"""Conversations: each form of the field gives the same turns, and each rule has its own reason."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from chats import ANSWER, CLOCK, FLAT, FULL, LEGACY, OPENAI, USER, WEATHER, call, chat, reason, tool
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.processing.chat.conversation import BadSample, Call, Conversation, Turn, parse

# Forms

SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be short."},
        {"from": "human", "value": "Will it rain?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Uster", "days": 2}}'},
        {"from": "observation", "value": "dry"},
        {"from": "gpt", "value": "No."},
    ],
    "messages": None,
    "tools": [WEATHER],
}


@pytest.mark.parametrize("sample", [OPENAI, FLAT, LEGACY], ids=["openai", "flat", "legacy"])
def test_the_forms_of_openai_are_one_conversation(sample: dict[str, Any]) -> None:
    assert parse(sample) == FULL


def test_sharegpt_is_the_same_but_for_the_text_beside_a_call() -> None:
    first, second, third, *rest = FULL.turns
    assert parse(SHAREGPT) == Conversation((first, second, Turn("assistant", "", third.calls), *rest), FULL.tools)
    both = {"from": "function_call", "value": json.dumps([{"name": "clock", "arguments": {}}] * 2)}
    several = [*SHAREGPT["conversations"][:2], both]
    several += [{"from": "tool", "value": "1"}, {"from": "tool", "value": "2"}, {"from": "gpt", "value": "x"}]
    assert len(parse({"conversations": several, "tools": [CLOCK]}).turns[2].calls) == 2
    # roles and contents under the other form's names, as some files have them
    mixed = [{"role": "user", "value": "a", "from": None}, {"from": "gpt", "content": "b"}]
    assert [turn.content for turn in parse({"conversations": mixed}).turns] == ["a", "b"]


def test_tools_without_parameters_take_any_object() -> None:
    conversation = parse(chat(USER, call("clock", {"zone": [1, None]}), tools=(CLOCK,)))
    assert conversation.tools == ({"name": "clock"},) and conversation.turns[1].calls == (
        Call("clock", {"zone": [1, None]}),
    )
    assert parse(chat(USER, ANSWER, tools="[]")).tools == parse(chat(USER, ANSWER, tools=None)).tools == ()


# Rules

GOOD_ORDERS = ["ua", "sua", "uaua", "uc", "ucta", "sucta", "uctctaua", "uCta", "uCtta", "uctaucta"]
BAD_ORDERS = {
    "a": "bad_order",
    "sa": "bad_order",
    "aua": "bad_order",
    "uca": "bad_order",
    "uaa": "bad_order",
    "uuaa": "bad_order",
    "suua": "bad_order",
    "uata": "bad_order",
    "uctta": "bad_order",
    "uCttta": "bad_order",
    "ucua": "bad_order",
    "uCtua": "bad_order",
    "tua": "bad_order",
    "uta": "bad_order",
    "us": "system_not_first",
    "usa": "system_not_first",
    "ssua": "system_not_first",
    "u": "no_assistant",
    "su": "no_assistant",
    "uau": "last_turn_not_assistant",
    "uct": "last_turn_not_assistant",
}


def order(letters: str) -> dict[str, Any]:
    both = call("clock", {}) | {"tool_calls": [{"name": "clock", "arguments": {}}] * 2}
    turns = {
        "u": USER,
        "a": ANSWER,
        "c": call("clock", {}),
        "C": both,
        "t": tool(),
        "s": {"role": "system", "content": "S"},
    }
    return chat(*(turns[letter] for letter in letters), tools=(CLOCK,))


@pytest.mark.parametrize("letters", GOOD_ORDERS)
def test_orders_that_are_conversations(letters: str) -> None:
    roles = {"u": "user", "s": "system", "t": "tool"}
    assert [turn.role for turn in parse(order(letters)).turns] == [roles.get(letter, "assistant") for letter in letters]


@pytest.mark.parametrize(("letters", "expected"), BAD_ORDERS.items())
def test_orders_that_are_none(letters: str, expected: str) -> None:
    assert reason(order(letters))[0] == expected


@settings(max_examples=300)
@given(st.text("uacCts", max_size=9))
def test_the_grammar_of_orders(letters: str) -> None:
    """Against a regular expression over calls: a run of turns that end in calls is one turn with all of them, <xxx>."""
    calls = re.sub("a?([cC]+)", lambda run: "<" + run[1].replace("C", "xx").replace("c", "x") + ">", letters)
    good = bool(re.fullmatch(r"s?(u(<x+>t+)*(a|<x+>$))+", calls))
    good = good and all(len(run[2]) <= len(run[1]) for run in re.finditer("<(x+)>(t*)", calls))
    try:
        parse(order(letters))
        assert good
    except BadSample:
        assert not good


PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
HALF = "a\ud800"
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "no_turns", ""),
    (chat(), "no_turns", ""),
    ({"messages": None}, "no_turns", ""),
    ({"messages": "hello"}, "no_turns", "a str"),
    (chat(USER, {"role": "narrator", "content": "x"}), "unknown_role", "narrator"),
    (chat(USER, {"role": 3, "content": "x"}), "unknown_role", "a int"),
    (chat(USER, {"content": "x"}), "unknown_role", "a NoneType"),
    (chat(USER, {"role": HALF, "content": "x"}), "unknown_role", "a?"),
    (chat(USER, {"role": "r" * 999, "content": "x"}), "unknown_role", "r" * 100),
    (chat(USER, {"role": "assistant", "content": " \n"}), "empty_turn", "assistant"),
    (chat(USER, {"role": "assistant", "content": None, "tool_calls": []}), "empty_turn", "assistant"),
    (chat({"role": "user"}, ANSWER), "empty_turn", "user"),
    (chat({"role": "system", "content": ""}, USER, ANSWER), "empty_turn", "system"),
    (chat(USER, call("clock", {}), tool(""), ANSWER, tools=(CLOCK,)), "empty_turn", "tool"),
    (chat(PICTURE, ANSWER), "unsupported_content", "image_url"),
    (chat({"role": "user", "content": ["x"]}, ANSWER), "unsupported_content", "a str"),
    (chat({"role": "user", "content": [{"type": "text", "text": 5}]}, ANSWER), "not_text", "a part without text"),
    (chat({"role": "user", "content": 5}, ANSWER), "not_text", "content is a int"),
    (chat("x", ANSWER), "not_text", "a turn is a str"),  # type: ignore[arg-type]
    (chat(USER, ANSWER | {"tool_calls": "x"}), "not_text", "tool_calls is a str"),
    (chat(USER, ANSWER | {"tool_calls": ["x"]}), "not_text", "a call without a name"),
    (chat(USER, call(None)), "not_text", "a call without a name"),  # type: ignore[arg-type]
    (
        chat(USER | {"tool_calls": [{"name": "clock", "arguments": {}}]}, ANSWER, tools=(CLOCK,)),
        "bad_order",
        "a call by user",
    ),
    (chat(USER, ANSWER, tools=5), "bad_tools", "a int"),
    (chat(USER, ANSWER, tools={"name": "x"}), "bad_tools", "a dict"),
    (chat(USER, ANSWER, tools="[{]"), "bad_tools", "no JSON"),
    (chat(USER, ANSWER, tools=["x"]), "bad_tools", "tool 0 has no name"),
    (chat(USER, ANSWER, tools=[CLOCK, {"name": ""}]), "bad_tools", "tool 1 has no name"),
    (chat(USER, ANSWER, tools=[CLOCK, CLOCK]), "bad_tools", "two tools clock"),
    (chat(USER, ANSWER, tools=[{"name": "x", "description": 5}]), "bad_tools", "description of x"),
    (chat(USER, call("hammer")), "unknown_tool", "hammer"),
    (chat(USER, call(), tools=None), "unknown_tool", "weather"),
    (chat(USER, call(arguments="{")), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments="")), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments="[" * 100_000)), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments='{"city": NaN}')), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments='{"city": "x", "days": 1e999}')), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments={"city": float("inf")})), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments={"city": {1, 2}})), "bad_arguments", "weather: no JSON"),
    (chat(USER, call(arguments="[1]")), "bad_arguments", "weather: no object"),
    (chat(USER, call(arguments=None)), "bad_arguments", "weather: no object"),
    (chat(USER, call(arguments={})), "bad_arguments", "weather $"),
    (chat(USER, call(arguments={"city": "secret", "days": "secret"})), "bad_arguments", "weather $.days"),
    (chat(USER, {"from": "function_call", "value": "weather(Uster)"}), "bad_arguments", "function_call: no JSON"),
    (chat({"role": "user", "content": HALF}, ANSWER), "lone_surrogate", "user"),
    (chat(USER, call(arguments={"city": HALF})), "lone_surrogate", "assistant"),
    (chat(USER, call(arguments='{"city": "\\ud800"}')), "lone_surrogate", "assistant"),
    (chat(USER, ANSWER, tools=[{"name": "x", "description": HALF}]), "lone_surrogate", "tools"),
]


@pytest.mark.parametrize(("sample", "expected", "value"), BAD, ids=[f"{i}-{row[1]}" for i, row in enumerate(BAD)])
def test_each_rule_has_its_reason(sample: dict[str, Any], expected: str, value: str) -> None:
    assert reason(sample) == (expected, value)


def test_a_reason_survives_its_way_between_processes() -> None:
    error = BadSample("unknown_role", "x")
    again = pickle.loads(pickle.dumps(error))
    assert (again.reason, again.value, str(again)) == (error.reason, error.value, "unknown_role: x")
    assert str(BadSample("no_turns")) == "no_turns"
