"""Rows of the data sets that there are become problems: what is asked, what is right, what tests a program."""

from __future__ import annotations

import re

import pytest

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.stages.generate.problems import Problems, prompt_of
from gristmill.stages.text.options import options_of, place_of
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.sandbox import Sandbox
from gristmill.synth.verify.code import Code
from gristmill.synth.verify.verdict import Problem

LETTERS = list("ABCDEFGHIJ")
DOUBLE = "def double(n):\n    '''Doubles n.'''\n"


def formed(row: dict[str, object], **settings: str) -> Problem:
    problem = Problems(**settings).formed(None, row).problem  # type: ignore[arg-type]
    assert problem is not None
    return problem


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("16 - 3 = <<16-3=13>>13 eggs.\n#### 13", "13"),
        (r"Factor: $(x-2)(x+3)$, so there are $\boxed{2}$ asymptotes.", "2"),
        (r"First $\boxed{1}$, no: it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("1,234", "1,234"),
        (27.0, "27.0"),
    ],
)
def test_the_gold_answer_of_gsm8k_and_of_math(answer, gold):
    assert formed({"question": "How many?", "answer": answer}).gold == gold


def test_an_empty_mark_takes_the_answer_as_it_is():
    row = {"question": "Which?", "answer": r"\boxed{2}"}
    assert formed(row, gold_after="").gold == r"\boxed{2}"


SHOP = {
    "question": "Ana buys 6 mugs at $12 each and pays with $200. How much is left?",
    "answer": "They cost <<6*12=72>>72.\nLeft are <<200-72=128>>128.\n#### 128",
}


def test_a_variant_stands_in_for_its_problem():
    """Of a run over rows there is so a run over rows like them, and the version's ledger names the rows."""
    first, second = (Problems(variant=n).formed(None, SHOP) for n in (1, 2))  # type: ignore[arg-type]
    for posed in (first, second):
        assert posed.problem is not None
        mugs, price, paid = (int(n) for n in re.findall(r"\d+", posed.problem.question))
        assert int(posed.problem.gold) == paid - mugs * price != 128
    assert len({first.content, second.content}) == 2
    (origin, number), (again, other) = (str(posed.source).rsplit(":", 1) for posed in (first, second))
    assert origin == again and origin.startswith("evolved:") and (number, other) == ("1", "2")
    assert Problems(variant=1, variant_seed=1).formed(None, SHOP).content != first.content  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "How many?", "answer": "5"}, "no_solution"),
        ({"question": "Of 9, 10, 11 and 12?", "answer": "<<11-10=1>>1\n#### 1"}, "no_variant"),
        ({"question": "How many are 3 and 4?", "answer": "It is clear.\n#### 7"}, "no_steps"),
    ],
)
def test_what_has_no_variant_says_why(row, reason):
    with pytest.raises(BadSample) as refused:
        Problems(variant=1).formed(None, row)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "settings", [{"variant": -1}, {"variant": 1, "kind": "choice"}, {"variant": 1, "answer": None}]
)
def test_variants_are_of_worked_problems(settings):
    with pytest.raises(ValueError, match="worked solution before `gold_after`"):
        Problems(**settings)


def test_a_text_stands_before_the_question_where_a_row_has_one():
    row = {"Body": "There are 87 oranges. ", "Question": "How many are left?", "Answer": 3}
    fields = {"question": "Question", "answer": "Answer", "context": "Body"}
    assert formed(row, **fields).question == "There are 87 oranges.\nHow many are left?"
    assert formed(row | {"Body": None}, **fields).question == "How many are left?"


@pytest.mark.parametrize(
    ("given", "options", "labels"),
    [
        (["a mill", "a weir"], ["a mill", "a weir"], LETTERS),
        (["A)5(√3 + 1)", "B) 6", "C)None of these"], ["5(√3 + 1)", "6", "None of these"], LETTERS),
        (["A)5", "6"], ["A)5", "6"], LETTERS),
        ({"text": ["rain", "sun"], "label": ["1", "2"]}, ["rain", "sun"], ["1", "2"]),
        ({"A": "$x>1$", "B": "$x<1$"}, ["$x>1$", "$x<1$"], ["A", "B"]),
        ("A) $f(-6)=0$ B) $f(6)=-6$ C) A. M.", ["$f(-6)=0$", "$f(6)=-6$", "A. M."], LETTERS),
    ],
)
def test_options_as_data_sets_write_them(given, options, labels):
    assert options_of(given, "choices") == (options, labels)


@pytest.mark.parametrize("given", [None, [], ["one"], "no options", "so A) one B) two", {"A": "one"}, ["x"] * 11])
def test_what_is_no_list_of_options(given):
    with pytest.raises(BadSample, match="no_choices"):
        options_of(given, "choices")


def test_an_answer_names_an_option():
    options = ["rain", "sun", "A and B"]
    assert [place_of(name, options, ["1", "2", "3"]) for name in (2, "2", "B", "sun")] == [2, 1, 1, 1]
    with pytest.raises(BadSample, match="unknown_choice"):
        place_of("D", options, LETTERS)


# Programs


@pytest.fixture(scope="module")
def verifier():
    sandbox = Sandbox(Limits(), "process")
    yield Code(sandbox)
    sandbox.close()


def outcomes(verifier, problem: Problem, *programs: str) -> list[str]:
    return [verifier.verify(problem, f"```python\n{program}```").outcome for program in programs]


def test_humaneval_calls_the_check_that_it_defines(verifier):
    """Its tests are a function, which nothing in the row calls."""
    test = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n"
    row = {"task_id": "0", "prompt": DOUBLE, "entry_point": "double", "test": test}
    problem = formed(row, kind="code")
    assert problem.question == DOUBLE
    programs = (f"{DOUBLE}    return 2 * n\n", f"{DOUBLE}    return None\n")
    assert outcomes(verifier, problem, *programs) == ["accepted", "rejected"]
    called = formed(row | {"test": f"{test}\ncheck(double)"}, kind="code")
    assert len(called.tests) == 1 and outcomes(verifier, called, *programs) == ["accepted", "rejected"]
    with pytest.raises(BadSample, match="no_tests"):
        formed(row | {"entry_point": ""}, kind="code")


def test_what_mbpp_sets_up_may_use_the_program(verifier):
    row = {
        "text": "Write a class for a node.",
        "test_list": ["assert root.value == 3"],
        "test_setup_code": "root = Node(3)",
    }
    problem = formed(row, kind="code", question="text", tests="test_list")
    right = "class Node:\n    def __init__(self, value):\n        self.value = value\n"
    assert outcomes(verifier, problem, right, right.replace("= value", "= 0")) == ["accepted", "rejected"]
    asked = prompt_of(problem, "{question}\nIt has to pass:\n{tests}")
    assert asked == "Write a class for a node.\nIt has to pass:\nroot = Node(3)\nassert root.value == 3"


def test_a_question_is_no_template():
    problem = Problem("code", "What does {tests} mean?", tests=("assert f()",))
    assert prompt_of(problem, "{question} {other}") == "What does {tests} mean? {other}"
