"""Fields of chat data: what each says is heeded (weights, reasoning, ids of calls), or costs the sample by its name."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from chats import ANSWER, CLOCK, USER, WEATHER, chat, reason

from gristmill.model.processing.chat.conversation import BadSample, Call, Rules, Turn, from_json, parse, render, to_json
from gristmill.model.processing.segments import Segment


def asking(*ids: str | None, names: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """A turn with one call for each id, of a tool of its own where `names` say so."""
    calls = [{"id": key, "name": name, "arguments": {"n": i}} for i, (key, name) in enumerate(_named(ids, names))]
    return {"role": "assistant", "content": "", "tool_calls": calls} | fields


def _named(ids: tuple[str | None, ...], names: tuple[str, ...]) -> list[tuple[str | None, str]]:
    return list(zip(ids, names or ("clock",) * len(ids), strict=True))


def answering(key: str | None, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": key, "content": f"to {key or fields.get('name')}"} | fields


TOOLS = ({"name": "clock"}, {"name": "bell"})


def test_calls_split_over_turns_are_one_turn() -> None:
    whole = parse(chat(USER, asking("a", "b", "c"), *map(answering, "abc"), ANSWER, tools=TOOLS))
    for runs in (("a", "bc"), ("ab", "c"), ("a", "b", "c")):
        number, turns = 0, []
        for run in runs:
            turn = asking(*run)
            for item in turn["tool_calls"]:
                item["arguments"], number = {"n": number}, number + 1
            turns.append(turn)
        assert parse(chat(USER, *turns, *map(answering, "abc"), ANSWER, tools=TOOLS)) == whole
    call = parse(chat(USER, ANSWER, asking("a"), answering("a"), ANSWER, tools=TOOLS)).turns[1]
    assert (call.content, call.calls) == ("No.", (Call("clock", {"n": 0}),))
    thinking = [asking(key, content=f"say {key}", thinking=f"think {key}") for key in "ab"]
    turn = parse(chat(USER, *thinking, *map(answering, "ab"), ANSWER, tools=TOOLS)).turns[1]
    assert (turn.content, turn.reasoning, len(turn.calls)) == ("say a\nsay b", "think a\n\nthink b", 2)
    parts = chat(USER, asking("a", weight=0), asking("b"), *map(answering, "ab"), ANSWER, tools=TOOLS)
    assert reason(parts) == ("bad_weight", "turns 1 and 2 are one")


def test_answers_stand_in_the_order_of_the_calls() -> None:
    expected = parse(chat(USER, asking("a", "b", "c"), *map(answering, "abc"), ANSWER, tools=TOOLS))
    for answers in permutations("abc"):
        assert parse(chat(USER, asking("a", "b", "c"), *map(answering, answers), ANSWER, tools=TOOLS)) == expected
    both = asking(None, None, names=("clock", "bell"))
    conversation = parse(
        chat(USER, both, answering(None, name="bell"), answering(None, name="clock"), ANSWER, tools=TOOLS)
    )
    assert [turn.content for turn in conversation.turns[2:4]] == ["to clock", "to bell"]
    same = parse(chat(USER, asking("x", "x"), answering("x"), answering("x", content="2"), ANSWER, tools=TOOLS))
    assert [turn.content for turn in same.turns[2:4]] == ["to x", "2"], "ids that tell nothing: their order"
    one_answer = parse(chat(USER, asking("a", "b"), answering("a"), ANSWER, tools=TOOLS))
    assert len(one_answer.turns) == 4


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("ax", ("unknown_call_id", "turn 3")),
        ("aa", ("bad_order", "turn 3: a call that has its answer")),
        ("b", ("bad_order", "turn 2: a call before the one it answers has no answer")),
    ],
)
def test_answers_that_belong_to_no_call(answers: str, expected: tuple[str, str]) -> None:
    assert reason(chat(USER, asking("a", "b"), *map(answering, answers), ANSWER, tools=TOOLS)) == expected


def test_weights_say_what_is_learned() -> None:
    """OpenAI's fine-tuning form; SlimOrca has weights of floats on every turn."""
    turns = [{"from": "human", "value": "x", "weight": 0.0}, {"from": "gpt", "value": "y", "weight": 0}]
    turns += [{"from": "human", "value": "z", "weight": None}, {"from": "gpt", "value": "w", "weight": 1.0}]
    conversation = parse({"conversations": turns})
    assert [turn.loss_mask for turn in conversation.turns if turn.role == "assistant"] == [False, True]
    learned = [(part.text, part.loss_mask) for part in render(conversation)]
    assert learned[3:6] == [("<|assistant|>", False), ("y", False), ("<|end|>", False)]
    assert learned[-3:-1] == [("w", True), ("<|end|>", True)]
    assert from_json(to_json(conversation)) == conversation
    assert reason({"conversations": turns[:2]}) == ("nothing_learned", "weight 0 in every turn of the assistant")


@pytest.mark.parametrize(
    ("weight", "value"),
    [(2, "2"), (-1, "-1"), (0.5, "0.5"), (True, "a bool"), ("0", "a str"), (float("nan"), "nan"), ([1], "a list")],
)
def test_other_weights_are_refused_by_name(weight: Any, value: str) -> None:
    assert reason(chat(USER, ANSWER | {"weight": weight})) == ("bad_weight", value)
    assert reason(chat(USER | {"weight": 1}, ANSWER)) == ("bad_weight", "1 of the user")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_stands_before_the_answer_and_is_learned(name: str) -> None:
    sample = chat(USER, ANSWER | {name: " It is\nsummer. "}, tools=None)
    assert render(parse(sample))[3:5] == [
        Segment("<|assistant|>", special=True),
        Segment("<think>\nIt is\nsummer.\n</think>\n\nNo.", loss_mask=True),
    ]
    assert parse(sample, Rules("omit")) == parse(chat(USER, ANSWER, tools=None))
    with pytest.raises(BadSample, match="reasoning: assistant"):
        parse(sample, Rules("refuse"))
    assert from_json(to_json(parse(sample))) == parse(sample)
    inline = "<think>\nIt is\nsummer.\n</think>\n\nNo."
    twice = chat(USER, {"role": "assistant", "content": inline, name: "It is\nsummer."}, tools=None)
    assert render(parse(twice)) == render(parse(sample)), "in the field and in the text: once"
    twice["messages"][1][name] = "Other."
    assert reason(twice) == ("two_reasonings", "content")
    calling = render(parse(chat(USER, asking("a", **{name: "Look."}), tools=TOOLS)))
    assert Segment("<think>\nLook.\n</think>", loss_mask=True) in calling
    assert parse(chat(USER | {name: None}, ANSWER | {name: ""})) == parse(chat(USER, ANSWER))


def test_no_field_is_passed_over() -> None:
    for message, value in (
        (ANSWER | {"train": False}, "train"),
        (ANSWER | {"prefix": True}, "prefix"),
        (ANSWER | {"reasoning_details": [{"type": "x"}]}, "reasoning_details"),
        (ANSWER | {"value": "other"}, "value beside content"),
        (ANSWER | {"refusal": "I cannot."}, "refusal beside content"),
        (ANSWER | {"content": [{"type": "text", "text": "x", "hidden": 1}]}, "content.hidden"),
    ):
        assert reason(chat(USER, message)) == ("unknown_field", value)
    assert reason(chat(USER | {"thinking": "x"}, ANSWER)) == ("unknown_field", "thinking of the user")
    odd_call = asking("a")
    odd_call["tool_calls"][0]["output"] = "x"
    assert reason(chat(USER, odd_call, tools=TOOLS)) == ("unknown_field", "tool_calls.output")
    assert reason(chat(USER, ANSWER, tools=[CLOCK | {"returns": "x"}])) == ("unknown_field", "tools.returns")
    two = chat(USER, ANSWER | {"reasoning": "a", "thinking": "b"})
    assert reason(two) == ("two_reasonings", "reasoning, thinking")
    harmless = {"id": 3, "timestamp": 5.0, "metadata": {"a": 1}, "annotations": [], "unheard_of": None, "audio": {}}
    assert parse(chat(USER | harmless, ANSWER | harmless)) == parse(chat(USER, ANSWER))
    marked = chat(USER | {"name": "ann"}, ANSWER | {"train": False, "mask": 1})
    assert parse(marked, Rules(harmless=frozenset(("mask", "train")))) == parse(chat(USER, ANSWER))


def test_what_forms_have_beside_the_turns() -> None:
    with_system = parse(chat({"role": "system", "content": "S"}, USER, ANSWER))
    assert parse(chat(USER, ANSWER, system="S")) == with_system
    assert parse(chat({"role": "system", "content": "S"}, USER, ANSWER, system="S")) == with_system
    assert reason(chat({"role": "system", "content": "S"}, USER, ANSWER, system="T"))[0] == "system_not_first"
    in_message = chat({"role": "system", "content": "S", "tools": json.dumps([WEATHER])}, USER, ANSWER, tools=None)
    assert parse(in_message) == with_system, "as Phi-4's own template has them"
    assert reason(in_message | {"tools": [CLOCK]})[0] == "bad_tools"
    schema = {"name": "weather", "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
    assert parse(chat(USER, ANSWER, tools=[schema])) == parse(chat(USER, ANSWER))
    declined = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert parse(chat(USER, declined)).turns[1] == Turn("assistant", "I cannot.")
