"""Problems of what is left over: chains that are right, held-out numbers that nothing else has, answers alone."""

from __future__ import annotations

import json
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.leftovers import leftover, leftover_files
from gristmill.synth.tasks.stories import is_held_out
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.steps.check import check_steps
from gristmill.synth.verify.verdict import Problem


def numbers(question: str) -> list[int]:
    """What a problem begins with, the operands of its events, and by how many is packed."""
    digits = question.replace("doubles", "2").replace("triples", "3")
    return [int(number) for number in re.findall(r"\d+", digits)]


def answered(question: str) -> tuple[int, int]:
    """(how many there are after the events, how many are left over)."""
    opening, *events, packed = re.split(r"(?<=[.?]) ", question)
    value = numbers(opening)[0]
    for event in events:
        (operand,) = numbers(event)
        if "number" in event:
            value *= operand
        else:
            value += -operand if re.search("gives|loses|sells|lends", event) else operand
    return value, value % numbers(packed)[0]


@pytest.mark.parametrize("held_out", [False, True])
def test_chains_are_right_and_every_step_of_them_can_be_checked(held_out: bool) -> None:
    for row in distinct(partial(leftover, held_out=held_out), 60, 3, "leftovers"):
        question, chain = row.fields["question"], row.fields["answer"]
        total, left = answered(question)
        *steps, last = chain.splitlines()
        assert last == f"#### {left}" and steps[-1].endswith(f"+{left}={total}")
        assert Maths().verify(Problem("maths", question, str(left)), chain).outcome == "accepted"
        check = check_steps(chain)
        assert check.false is None and check.equations == len(steps) == int(row.fields["domain"][0]) + 1
        wrong = chain.replace(f"={total}", f"={total + 1}")
        assert check_steps(wrong).false is not None, "nothing but its steps tells that this chain is wrong"
        assert Maths().verify(Problem("maths", question, str(left)), wrong).outcome == "accepted"


def test_no_two_numbers_and_no_13_words_in_a_row_are_in_held_out_problems_and_in_others() -> None:
    runs: dict[bool, set[tuple[str, ...]]] = {False: set(), True: set()}
    for held_out in (False, True):
        for row in distinct(partial(leftover, held_out=held_out), 300, 3, "leftovers"):
            _, *operands = numbers(row.fields["question"])
            assert all(is_held_out(*pair) == held_out for pair in pairwise(operands))
            words = re.findall(r"\w+", f"{row.fields['question']} {row.fields['answer']}".lower())
            runs[held_out] |= {tuple(words[i : i + 13]) for i in range(len(words) - 12)}
    assert not runs[False] & runs[True]


def test_files_have_chains_answers_alone_and_words_without_larger_numbers() -> None:
    files, kinds = leftover_files(5, worked=30, problems=20, held_out=10)
    rows = {Path(name).stem: [json.loads(line) for line in data.splitlines()] for name, data in files.items()}
    counts = {name: len(lines) for name, lines in rows.items()}
    assert counts == {"worked": 30, "first": 20, "second": 20, "held-out": 10, "words": 30}
    assert kinds.total() == sum(counts.values())
    questions = [row["question"] for name in ("worked", "first", "second", "held-out") for row in rows[name]]
    assert len(set(questions)) == 80
    assert all(re.fullmatch(r"#### \d", row["answer"]) for row in rows["first"] + rows["second"])
    assert all("=" in row["answer"] for row in rows["worked"] + rows["held-out"])
    assert not any(re.search(r"\d\d", row["text"]) for row in rows["words"])
    assert leftover_files(5, worked=30, problems=20, held_out=10) == (files, kinds)
