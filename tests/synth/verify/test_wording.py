"""Problems that a model has written: which part of a reply they are, and what is none."""

from __future__ import annotations

import pytest

from gristmill.synth.verify.verdict import Problem
from gristmill.synth.verify.wording import Wording, worded

SEED = Problem("seed", "A mill grinds 12 sacks in 3 hours. How many sacks does it grind in 5 hours?")
ASKED = "A baker fills 9 trays with 8 buns each. How many buns are there?"


@pytest.mark.parametrize(
    "reply",
    [
        f"Problem: {ASKED}",
        f"I think of buns.\n\n**Problem:** {ASKED}\n\n**Solution:** 9 * 8 = 72",
        f"Problem: a first try\nQuestion: {ASKED}\nAnswer: 72",
        f"<think>Problem: nine trays</think>\n### New problem: {ASKED}  \nHint: multiply.",
    ],
)
def test_the_problem_of_a_reply(reply):
    assert worded(reply) == ASKED
    verdict = Wording().verify(SEED, reply)
    assert (verdict.outcome, verdict.evidence, verdict.verifier) == ("accepted", ASKED, "wording@1")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ASKED, "no_problem"),
        ("Problem:", "no_problem"),
        ("Problem: \n\nAnswer: 72", "no_problem"),
        ("Problem: How many?", "too_short"),
        (f"Problem: {'buns and ' * 300}how many?", "too_long"),
        ("Problem: A baker fills 9 trays with 8 buns each.", "asks_nothing"),
        (f"Problem: {SEED.question.upper()}", "copied"),
        ("Problem: How many sacks does it grind in 5 hours?", "copied"),
    ],
)
def test_what_is_no_problem_of_its_own(reply, reason):
    verdict = Wording().verify(SEED, reply)
    assert (verdict.outcome, verdict.reason) == ("rejected", f"wording.{reason}")


def test_other_numbers_make_another_problem():
    reply = f"Problem: {SEED.question.replace('12', '20')}"
    assert Wording().verify(SEED, reply).outcome == "accepted"
