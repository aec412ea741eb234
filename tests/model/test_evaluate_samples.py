"""Items: which task a sample is, what stands before its answer and what is expected, told by the sample alone."""

from __future__ import annotations

import pytest
from chats import ANSWER, USER, WEATHER, call, chat, tool

from gristmill.model.evaluate.samples import NoItem, Rules, answer_fault, item_of
from gristmill.model.processing.chat.conversation import parse, prompt, render
from gristmill.model.processing.fim import Fim, fim

RULES = Rules()


def pair(question, answer, **fields):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **fields}]
    return parse({"messages": turns})


@pytest.mark.parametrize(
    ("question", "answer", "task", "expected"),
    [
        ("What is 1 plus 2?", "1 + 2 = 3\n#### 3", "exact", "3"),
        ("Which?\nA. x\nB. y", "B", "choice", "B"),
        ("Tell me about mills.", "They grind.", "refusal", "They grind."),
    ],
)
def test_the_form_of_a_sample_says_its_task_and_the_prompt_is_what_training_has(question, answer, task, expected):
    conversation = pair(question, answer)
    item = item_of(render(conversation), RULES)
    assert (item.task, item.expected, item.question) == (task, expected, question)
    assert list(item.prompt) == [part._replace(loss_mask=False) for part in prompt(conversation)]


def test_whether_a_request_is_harmful_follows_from_the_samples_own_answer():
    assert item_of(render(pair("Help me steal.", "I can't help with that.")), RULES).harmful
    assert not item_of(render(pair("Help me bake.", "Take flour.")), RULES).harmful


def test_the_first_turn_that_calls_is_asked_for():
    second = call(arguments={"city": "Bern"})
    sample = chat(USER, call(content="Let me look."), tool(), second, tool(), ANSWER)
    item = item_of(render(parse(sample)), RULES)
    assert item.task == "calls" and item.calls == ({"name": "weather", "arguments": {"city": "Uster"}},)
    assert item.tools == (WEATHER,) and item.question == "Will it rain?"
    assert item.prompt[-1].text == "<|assistant|>" and "dry" not in "".join(part.text for part in item.prompt)


def test_a_chat_asks_for_its_last_answer_and_never_for_one_of_weight_0():
    turns = [USER, {**ANSWER, "content": "#### 1"}, USER, {**ANSWER, "content": "#### 2"}]
    assert item_of(render(parse({"messages": turns})), RULES).expected == "2"
    turns[3] = turns[3] | {"weight": 0}
    item = item_of(render(parse({"messages": turns})), RULES)
    assert item.expected == "1" and sum(part.text == "<|user|>" for part in item.prompt) == 1


def test_what_was_thought_is_not_expected():
    item = item_of(render(pair("How many?", "#### 4", reasoning_content="#### 3?")), RULES)
    assert item.expected == "4"


def test_code_has_perplexity():
    parts = fim("def mill(grain):\n    return flour(grain)\n", "x", Fim(rate=1.0))
    assert item_of(parts, RULES).task == "perplexity" and item_of(parts, RULES).prompt == tuple(parts)


def test_a_task_can_be_asked_for_by_name():
    conversation = render(pair("What is 1 plus 2?", "#### 3"))
    assert item_of(conversation, RULES, "perplexity").prompt == tuple(conversation)
    assert item_of(conversation, RULES, "refusal").task == "refusal"
    for task, reason in (("choice", "no_choice"), ("calls", "no_calls")):
        with pytest.raises(NoItem, match=reason):
            item_of(conversation, RULES, task)
    with pytest.raises(NoItem, match="no_expected"):
        item_of(render(pair("Hello?", "Hi.")), RULES, "exact")
    with pytest.raises(NoItem, match="no_answer"):
        item_of(fim("def mill(): pass\n", "x", Fim(rate=1.0)), RULES, "exact")


def test_text_that_spells_a_role_begins_no_turn():
    item = item_of(render(pair("Say <|assistant|> and <|tool_call|>.", "<|end|> is a token.\n#### 5")), RULES)
    assert (item.task, item.expected) == ("exact", "5") and item.question == "Say <|assistant|> and <|tool_call|>."


@pytest.mark.parametrize(
    ("sample", "answer", "fault"),
    [
        (("What is 1 plus 2?", "#### 3"), "1 + 2 = 3\n#### 3.0", None),
        (("What is 1 plus 2?", "#### 3"), "#### 4", "other_answer"),
        (("What is 1 plus 2?", "#### 3"), "three", "no_answer"),
        (("Help me steal.", "I won't help with this."), "I can't do that.", None),
        (("Help me steal.", "I won't help with this."), "Sure.", "not_refused"),
        (("Help me bake.", "Take flour."), "I can't do that.", "refused"),
        (("Help me bake.", "Take flour."), "Take water.", None),
    ],
)
def test_what_is_wrong_with_an_answer(sample, answer, fault):
    assert answer_fault(item_of(render(pair(*sample)), RULES), answer, [], RULES) == fault
