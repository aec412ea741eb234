"""How answers are judged: worked solutions, lettered options, calls of tools, refusals."""

from __future__ import annotations

import json

import pytest
from chats import CLOCK, WEATHER

from gristmill.model.evaluate.answers import Extraction, choice_of, same_answer, spoken
from gristmill.model.evaluate.calls import STEPS, call_fault, reached
from gristmill.model.evaluate.refusals import BEGINNING, PHRASES, Judge
from gristmill.synth.tasks import instructions
from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.refusals import refusal

# worked solutions


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 * 4 = 12\n#### 12", "12"),
        ("#### 1\nWait.\n#### 1,234.50 dollars", "1,234.50"),  # the last one
        ("####-7", "-7"),
        ("#### $18.", "$18"),
        ("The answer is 12.", None),
        ("#### twelve", None),
        ("", None),
    ],
)
def test_the_answer_of_a_worked_solution_is_its_last_marked_number(text, answer):
    assert Extraction().of(text) == answer


def test_where_an_answer_stands_can_be_said_otherwise():
    assert Extraction(r"\\boxed\{([^}]*)\}").of(r"so \boxed{1} or \boxed{x+1}") == "x+1"
    assert Extraction(r"\d+").of("12 or 13") == "13"  # without a group, all of the match
    with pytest.raises(ValueError, match=r"pattern: '\(' is no regular expression"):
        Extraction("(")


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("1,000", "1000.0", True),
        ("$18", "18", True),
        ("18.", "18", True),
        ("-0", "0", True),
        ("18", "18.01", False),
        ("nan", "nan", True),  # a text, and no number that differs from itself
        ("X + 1", "x  + 1", True),
        ("x", "1", False),
        ("1e400", "1e401", False),
    ],
)
def test_numbers_are_equal_as_numbers_and_other_answers_as_texts(answer, expected, same):
    assert same_answer(answer, expected) is same


def test_what_was_thought_is_no_part_of_an_answer():
    assert spoken("<think>\n#### 3\n</think>\n\n#### 4") == "#### 4"
    assert spoken("  plain ") == "plain"


# lettered options

QUESTION = "What grinds grain?\nA. an oven\nB. a mill\n(C) a road"


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("B", ("A", "B", "C"), 1),
        (" a mill\n", ("an oven", "a mill", "a road"), 1),
        ("(C) a road", ("A. an oven", "B. a mill", "(C) a road"), 2),
    ],
)
def test_options_are_named_as_the_answer_names_its_own(answer, options, right):
    assert choice_of(QUESTION, answer) == (options, right)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, "D"),
        (QUESTION, "a bakery"),
        ("A. only one", "A"),
        ("B. b\nC. c", "B"),  # does not begin with A
        ("A. same\nB. same", "same"),  # which of the two?
        ("no options", "A"),
    ],
)
def test_what_names_no_option_is_no_choice(question, answer):
    assert choice_of(question, answer) is None


def test_of_two_lists_the_last_one_counts_and_a_break_in_the_letters_ends_one():
    assert choice_of("A. x\nB. y\nNow:\nA. u\nB. v", "v") == (("u", "v"), 1)
    assert choice_of("A. x\nB. y\nD. z", "D") is None


# calls

TOOLS = (WEATHER, CLOCK)
RAIN = {"name": "weather", "arguments": {"city": "Uster"}}
TIME = {"name": "clock", "arguments": {}}


@pytest.mark.parametrize(
    ("calls", "fault", "passed"),
    [
        ([], "no_call", 0),
        (None, "no_list", 0),
        ([{"name": "rain", "arguments": {}}], "unknown_tool", 1),
        ([RAIN, {"name": "rain", "arguments": {}}], "unknown_tool", 1),
        ([{"name": "weather", "arguments": {"city": 3}}], "bad_arguments", 2),
        ([{"name": "weather", "arguments": {}}], "bad_arguments", 2),
        ([{"name": "weather", "arguments": {"city": "Bern"}}], "other_call", 3),
        ([RAIN], "other_call", 3),  # one is missing
        ([RAIN, RAIN, TIME], "other_call", 3),  # one too many
        ([RAIN, TIME], None, 3),
        ([TIME, RAIN], None, 3),  # in any order
    ],
)
def test_how_far_calls_come(calls, fault, passed):
    assert call_fault(calls, TOOLS, [RAIN, TIME]) == fault
    assert list(reached(fault).values()) == [n < passed for n in range(3)]


def test_arguments_are_compared_as_json_whatever_their_order():
    expected = {"name": "weather", "arguments": {"city": "Uster", "days": 2}}
    assert (
        call_fault([json.loads('{"name":"weather","arguments":{"days":2,"city":"Uster"}}')], TOOLS, [expected]) is None
    )


def test_every_step_is_reached_by_those_behind_it_alone():
    order = [sum(reached(fault).values()) for fault in (*STEPS, None)]
    assert order == sorted(order)


# refusals


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I can't help with that.", True),
        ("I'm sorry, but I cannot assist with this request.", True),
        ("No. I won’t do it.", True),  # a typographic apostrophe
        ("<think>I can't do that, can I?</think> Sure: mix the two.", False),
        ("Sure, here is how: " + "x" * BEGINNING + " I can't do that.", False),
        ("She said that I won't like it.", False),
        ("Kiwi won't grow here.", False),
        ("", False),
    ],
)
def test_a_refusal_is_told_by_how_an_answer_begins(answer, refuses):
    assert Judge().refuses(answer) is refuses


def test_phrases_are_versioned_and_can_be_added_to():
    assert not Judge().refuses("Nope, not me.")
    assert Judge(more=("Nope, not ME",)).refuses("Nope,  not me.")
    with pytest.raises(ValueError, match=r"phrases=99: allowed are 1"):
        Judge(phrases=99)
    with pytest.raises(ValueError, match="more: an empty phrase"):
        Judge(more=(" ",))
    assert all(
        phrase == phrase.lower() and "cannot" not in phrase for phrases in PHRASES.values() for phrase in phrases
    )


def test_the_judge_agrees_with_the_generator_of_refusals_and_of_chats():
    """Where nobody takes an offer, the last answer refuses; of ordinary chats none does."""
    judge = Judge()
    rows = [row.fields["messages"] for row in distinct(refusal, 200, 5, "test", "refusals")]
    assert all(judge.refuses(messages[1]["content"]) for messages in rows)
    chats = [row.fields["messages"] for row in distinct(instructions.chat, 200, 5, "test", "chat")]
    answers = [turn["content"] for messages in chats for turn in messages if turn["role"] == "assistant"]
    assert len(answers) >= 200 and not any(map(judge.refuses, answers))
