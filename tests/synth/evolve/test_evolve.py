"""Problems with other numbers: their answers are those of their steps, and what may not be drawn again is not."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest

from gristmill.synth.evolve.expressions import BadExpression, parsed
from gristmill.synth.evolve.template import NoTemplate, template
from gristmill.synth.evolve.variants import origin_of, variants
from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.steps.check import Steps, check_steps
from gristmill.synth.verify.verdict import AllOf, Problem

SHOP = "Ana buys 8 mugs for $15 each and pays with $1,200. She gives 25% of the change to 7 friends. How much is that?"
SOLUTION = "The mugs cost 8*15=<<8*15=120>>120. The change is <<1200-120=1080>>1080, of it <<25/100*1080=270>>270."

# Arithmetic


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20+7*2", 34),
        ("(20+7)*2", 54),
        ("100-50-30-15", 5),
        ("12/60", Fraction(1, 5)),
        ("2*(3+(4-1))/4", 3),
        (".5 x 10", 5),
        ("7", 7),
    ],
)
def test_arithmetic_is_exact(text, value):
    assert parsed(text).value({}) == value


def test_other_numbers_are_put_in():
    expression = parsed("(20+7)*2/4")
    others = {1: Fraction(9), 3: Fraction(8)}
    assert expression.value(others) == Fraction(29, 4) and expression.written(others) == "(20 + 9) * 2 / 8"


@pytest.mark.parametrize(
    "text", ["", "2+", "*2", "(2", "2)", "2 3", "x", "2^9", "10**9", "-3", "(" * 30 + "1" + ")" * 30]
)
def test_what_is_no_arithmetic(text):
    with pytest.raises(BadExpression):
        parsed(text)


# Templates


def test_numbers_of_the_question_are_free_where_steps_use_them():
    origin = template(SHOP, SOLUTION, "270")
    assert sorted(int(place.value) for place in origin.free.values()) == [8, 15, 25, 1200]
    assert origin.fixed == [7], "no step speaks of it"
    values = {name: place.value for name, place in origin.free.items()}
    assert origin.solve(values) == [120, 1080, 270], "with its own numbers it comes to its own answer"


@pytest.mark.parametrize(
    ("question", "solution", "gold", "reason"),
    [
        ("How many are 5 and 6?", "They are 11.", "11", "no_steps"),
        ("How many are 5 and 6?", "<<5+6=12>>", "12", "false_step"),
        ("How many are 5 and 6?", "<<5^6=15625>>", "15625", "unreadable_step"),
        ("How many are 5 and 6?", "<<5/0=0>>", "0", "unreadable_step"),
        ("How many are 5 and 6?", "<<5+6=11>>", "12", "answer_is_no_result"),
        (
            "She works 5 days of 20. How many weeks in 8 months?",
            "<<20-5=15>><<15*30=450>>",
            "450",
            "unexplained_number",
        ),
        ("Of 9 and 5, and 14 more?", "<<9+5=14>><<14+14=28>>", "28", "ambiguous"),
        ("Of 6 and 8 a dozen?", "<<20-8=12>>", "12", "unexplained_number"),
        ("How much are 3 and 2?", "<<3+2=5>>", "5", "nothing_free"),
        # Which 24 is the day's, and which is the result?
        ("A pump fills 9 tanks of 6 liters in an hour. In a day?", "<<24*24=576>>", "576", "unexplained_number"),
        ("A pump fills 4 tanks of 6 liters in an hour. In a day?", "<<4*6=24>><<24*24=576>>", "576", "ambiguous"),
        ("Ana works 4 hours a day, 5 days a week. In a month?", "<<4*5=20>><<20*4=80>>", "80", "nothing_free"),
        ("Of 16 pounds 8 ounces are eaten each day. For how long?", "<<16*16=256>><<256/8=32>>", "32", "nothing_free"),
        ("x" * 5000, "<<5+6=11>>", "11", "too_long"),
    ],
)
def test_what_is_no_template(question, solution, gold, reason):
    with pytest.raises(NoTemplate, match=f"^{reason}$"):
        template(question, solution, gold)


@pytest.mark.parametrize(
    "question",
    [
        "At 7:15 Ana had 40 eggs.",  # a time
        "Of 40 eggs 15/16 are sold, or 15.",
        "In room 15 are 40 eggs, 15 of them white.",  # said twice: which of them does the step mean?
        "Fifteen, or 15th, of 40.",
        "Ana sold 10-15 of 40 eggs.",
    ],
)
def test_a_number_that_may_be_something_else_stays(question):
    free = template(question, "<<40-15=25>>", "25").free.values()
    assert 15 not in {int(place.value) for place in free}


@pytest.mark.parametrize(
    ("question", "solution", "gold", "fixed"),
    [
        ("In 24 hours Ana bakes 96 buns. How many an hour?", "<<96/24=4>>", "4", 24),
        ("In 1969 Ana had 40 eggs.", "<<1969-40=1929>>", "1929", 1969),
        ("Five of 40 eggs break, and 5 are lost.", "<<40-5=35>>", "35", 5),
        ("Twenty pupils share 20 boxes of 9 pens.", "<<20*9=180>><<180/20=9>>", "9", 20),
        ("Twenty-five pupils share 25 boxes of 40 pens.", "<<25*40=1000>><<1000/25=40>>", "40", 25),
        ("Two hundred pupils share 200 boxes of 40 pens.", "<<200*40=8000>><<8000/200=40>>", "40", 200),
    ],
)
def test_what_words_and_measures_mean_stays(question, solution, gold, fixed):
    assert fixed in template(question, solution, gold).fixed


def test_steps_may_be_lines():
    question = "Omar has 39 coins. The number doubles. He sells 7. How many now?"
    origin = template(question, "39*2=78\n78 - 7 = 71\nso 1 + 1 = 3 is no line of it\n", "71")
    assert sorted(int(place.value) for place in origin.free.values()) == [7, 39] and len(origin.steps) == 2
    again = next(variants(origin, 1, 0))
    solution, _, gold = again["answer"].rpartition("####")
    assert template(again["question"], solution, gold).steps[-1].expression.tokens[1] == "-", "it evolves further"


# Variants


def numbers_of(question: str) -> list[int]:
    return [int(word.strip("$%.?").replace(",", "")) for word in question.split() if word.strip("$%.?")[:1].isdigit()]


def test_variants_tell_the_same_story_and_are_right():
    rows = list(variants(template(SHOP, SOLUTION, "270"), 20, 0))
    assert len({row["question"] for row in rows} | {SHOP}) == 21
    for row in rows:
        mugs, price, paid, share, friends = numbers_of(row["question"])
        expected = Fraction(paid - mugs * price) * share / 100
        assert row["answer"].rpartition("#### ")[2] == str(float(expected) if expected % 1 else int(expected))
        assert friends == 7 and friends < mugs < price < share <= 95 < paid, "what was larger is larger"
        assert expected % 1 == 0 and paid % 100 == 0 and f"${paid:,}" in row["question"]
        assert row["answer"].splitlines()[0] == f"{mugs} * {price} = {mugs * price}"
    assert rows[0]["source"] == f"evolved:{origin_of(SHOP)}:1"


def test_variants_depend_on_problem_and_seed_alone():
    origin = template(SHOP, SOLUTION, "270")
    first = list(variants(origin, 3, 0))
    assert list(variants(origin, 5, 0))[:3] == first != list(variants(origin, 3, 1))


def test_there_are_no_more_variants_than_make_sense():
    """Ten of 11, and no other number stands between 9 and 12."""
    tight = template("Of 9, 10, 11 and 12?", "<<11-10=1>>", "1")
    assert list(variants(tight, 2, 0)) == []


def test_variants_of_real_problems_are_right(shared_data: Path) -> None:
    """By verifiers that know nothing of templates."""
    verifier = AllOf((Maths(), Steps(at_least=1)))
    rows = templates = count = 0
    with open(shared_data / "3_math_code" / "gsm8k_train.jsonl", "rb") as file:
        for line in islice(file, 400):
            rows += 1
            row = json.loads(line)
            solution, _, gold = row["answer"].rpartition("####")
            try:
                origin = template(row["question"], solution, gold)
            except NoTemplate:
                continue
            templates += 1
            for variant in variants(origin, 2, 0):
                count += 1
                answer = final_answer(variant["answer"])
                assert answer is not None and variant["question"] != row["question"]
                assert verifier.verify(Problem("maths", "", answer.text), variant["answer"]).outcome == "accepted"
                assert check_steps(variant["answer"]).equations == len(origin.steps)
    assert templates > 0.4 * rows and count > 1.8 * templates
