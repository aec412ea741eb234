"""Distances against a table, attributes by hand, VQA's accuracy by its own definition."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from gristmill.model.evaluate.reading import attributes, edits, plain_answer, reading, vqa_accuracy


def by_table(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def test_edits_are_those_of_the_table() -> None:
    pick = random.Random(0)
    for _ in range(500):
        a, b = ("".join(pick.choices("abc", k=pick.randrange(0, 12))) for _ in range(2))
        assert edits(a, b) == by_table(a, b), (a, b)
    assert edits("x" * 200 + "abc", "x" * 200 + "axc" + "y" * 70) == 71


def test_a_reading_counts_words_and_characters_whatever_the_blanks() -> None:
    assert reading("a red  circle\n", "a red circle") == (3, 0, 12, 0)
    assert reading("a red square", "a red circle") == (3, 1, 12, by_table("square", "circle"))
    assert reading("", "two words") == (2, 2, 9, 9)
    assert not reading("A red circle", "a red circle").exact


COLOURS = {"colour": ["red", "green", "blue"], "digits": ["#"]}


@pytest.mark.parametrize(
    ("answer", "expected", "rows"),
    [
        ("a red circle, 473", "a red circle, 473", [("colour", 1, 1), ("digits", 1, 1)]),
        ("Red, then blue.", "red above green", [("colour", 1, 2)]),
        ("red green blue", "a red circle", [("colour", 1, 3)]),
        ("nothing", "red above green: 7 8", [("colour", 0, 2), ("digits", 0, 2)]),
        ("green red", "red green", [("colour", 0, 2)]),
        ("bored", "a red 12", [("colour", 0, 1), ("digits", 0, 1)]),
        ("red 5", "no attribute", []),
    ],
)
def test_attributes_are_compared_place_by_place(answer: str, expected: str, rows: list[tuple[str, int, int]]) -> None:
    assert attributes(answer, expected, COLOURS) == rows


@pytest.mark.parametrize("count", range(11))
def test_vqa_accuracy_is_the_mean_over_nine_of_ten(count: int) -> None:
    people = ["yes"] * count + ["no"] * (10 - count)
    nines = [min(1.0, nine.count("yes") / 3) for nine in combinations(people, 9)]
    assert vqa_accuracy("Yes.", people) == pytest.approx(sum(nines) / 10)


def test_answers_of_fewer_than_four_people_are_each_right() -> None:
    assert [vqa_accuracy(answer, ["a cat", "dog"]) for answer in ("cat", "The dog!", "cow")] == [1, 1, 0]
    with pytest.raises(ValueError, match="no answer"):
        vqa_accuracy("cat", [])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  two dogs.", "2 dogs"), ("1,000", "1000"), ("3.5 m.", "3.5 m"), ("dont", "don't"), ("U.S.A.", "usa"),
        ("red/blue", "red blue"), ("None", "0"), ("it's", "it's"), ("a", ""),
    ],
)  # fmt: skip
def test_plain_answers(text: str, plain: str) -> None:
    assert plain_answer(text) == plain
