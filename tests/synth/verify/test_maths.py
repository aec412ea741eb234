"""The maths verifier: what is the same answer, what is not, and what nobody can tell."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.answers.number import DIGITS, number
from gristmill.synth.verify.answers.symbolic import Symbolic, SymbolicLimits
from gristmill.synth.verify.answers.units import parted
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.verdict import EVIDENCE, AllOf, Problem, Verdict

NUMERIC = Maths()


@pytest.fixture(scope="module")
def algebra() -> Iterator[Symbolic]:
    symbolic = Symbolic(SymbolicLimits(children=2))
    yield symbolic
    symbolic.close()


def outcome(gold: str, chain: str, verifier: Maths = NUMERIC) -> str:
    verdict = verifier.verify(Problem("maths", "", gold), chain)
    return verdict.outcome if verdict.reason is None else verdict.reason.partition(".")[2]


SAME = [
    ("18", "She makes 9 * 2 = 18.\n#### 18"),
    ("11111100", r"\boxed{11,\! 111,\! 100}"),
    ("54", "20 + 7 = 27 ; 27 * 2 = 54 #### 54"),
    ("18", "#### 1. First step\n#### Second step\nso\n#### 18"),
    ("18", "A: 18"),
    ("18", "A: $18.00"),
    ("18", "**Answer:** 18 eggs"),
    ("18", "Final Answer: The final answer is $18$. I hope it is correct."),
    ("18", r"so she has $\boxed{18}$ left, and 5 are gone."),
    ("18", "After that the answer is 18. Then 5 more words."),
    ("18", "The answer is that Mary has 18 apples."),
    ("18", "<think>#### 7</think>#### 18"),
    ("18", "答案是18。"),
    ("18", "#### eighteen"),
    ("1450000", "#### 1,450,000"),
    ("1,450,000", "#### 1.45 million"),
    (r"900,\!000,\!000", r"\boxed{900{,}000{,}000}"),
    (r"\frac{3}{8}", "#### 3/8"),
    (r"\frac{3}{8}", "#### 0.375"),
    ("3/8", r"\boxed{\dfrac{3}{8}}"),
    (r"-\frac{40}{153}", r"\boxed{-\frac{40}{153}}"),
    ("1.5", r"\boxed{1\frac12}"),
    ("1.5", "#### 1 1/2"),
    (r"\frac{16}{3}", "#### 5.3333"),
    ("0.3", "#### 0.30000000000000004"),
    ("60", "#### 60%"),
    ("60%", "#### 0.6"),
    ("60", "#### 60 percent"),
    (r"120^\circ", r"\boxed{120}"),
    (r"5 \text{ cm}", "#### 50 mm"),
    (r"\$6", r"\boxed{6}"),
    ("$5", "#### 500 cents"),
    ("3", "#### x = 3"),
    ("2048", r"\boxed{2^{11}}"),
    ("3, 7", "#### x = 7 or x = 3"),
    (r"\{3, 7\}", r"\boxed{3} and \boxed{7}"),
    (r"\pm 2", "#### -2, 2"),
    ("18", "#### 18 or 36/2"),
    ("27", "#### 20 + 7 = 27"),
    (r"\text{Tuesday}", "The answer is Tuesday."),
    (r"\text{(B)}", r"\boxed{\text{(B)}}"),
    ("5", "```output\n3\n```\nand then\n```output\n5.0\n```\nso five."),
    ("3", r"So $\boxed{3}$. As said, the result is $\boxed{\frac{6}{2}}$."),
]

NOT_SAME = [
    ("18", "#### 19", "wrong_answer"),
    ("18", "there are 18 of them", "no_answer"),
    ("18", "", "no_answer"),
    ("3", "#### x = 3 or x = 7", "hedged"),
    ("3", r"\boxed{\pm 3}", "hedged"),
    ("3", r"\boxed{3} or \boxed{7}", "hedged"),
    ("3", "#### 3, 7", "hedged"),
    ("3, 7", "#### 3", "incomplete"),
    ("3, 7", "#### 3, 8", "wrong_answer"),
    ("3", r"It is $\boxed{7}$. No, wait, after all it is $\boxed{3}$.", "several_answers"),
    ("18", "A: 17\nA: 18", "several_answers"),
    ("15", "#### 14.666666666666666", "wrong_answer"),
    ("672", "#### .0000672", "wrong_answer"),
    ("5", "#### x = .5", "wrong_answer"),
    ("60", "#### 0.6", "wrong_answer"),
    ("1000000", "#### 1000000.5", "wrong_answer"),
    ("3.0001", "#### 3.0000", "wrong_answer"),
    (r"5 \text{ cm}", "#### 5 m", "wrong_answer"),
    ("5 cm", "#### 5 kg", "wrong_unit"),
    ("Tuesday", "The answer is Wednesday.", "wrong_answer"),
    ("1234", "#### 1,234,5", "hedged"),
]

UNDECIDED = [
    ("", "#### 18", "unparseable_gold"),
    ("18", "#### not 18", "beyond_numbers"),
    ("18", "#### less than 18", "beyond_numbers"),
    ("4", "#### 4a", "beyond_numbers"),
    ("3", r"\boxed{3s^2}", "beyond_numbers"),
    ("2", r"\boxed{2\pi}", "beyond_numbers"),
    ("2", "#### 2 sin x", "beyond_numbers"),
    ("10", "#### 10^10^10", "beyond_numbers"),
]


@pytest.mark.parametrize(("gold", "chain"), SAME)
def test_the_same_answer_in_other_words_is_accepted(gold: str, chain: str) -> None:
    assert outcome(gold, chain) == "accepted"


@pytest.mark.parametrize(("gold", "chain", "reason"), NOT_SAME)
def test_another_answer_is_rejected_with_what_is_wrong(gold: str, chain: str, reason: str) -> None:
    verdict = NUMERIC.verify(Problem("maths", "", gold), chain)
    assert (verdict.outcome, verdict.reason) == ("rejected", f"maths-numeric.{reason}")


@pytest.mark.parametrize(("gold", "chain", "reason"), UNDECIDED)
def test_what_numbers_cannot_tell_is_undecided(gold: str, chain: str, reason: str) -> None:
    verdict = NUMERIC.verify(Problem("maths", "", gold), chain)
    assert (verdict.outcome, verdict.reason) == ("undecided", f"maths-numeric.{reason}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("2(3)", 6), ("-2^2", -4), ("3 x 4", 12), ("50%", 0.5), ("2^-1", 0.5),
        (r"\frac{\frac{1}{2}}{2}", 0.25), (r"\left(1 + 1\right) \div 4", 0.5), ("1e5", None), ("3x + 2", None),
        ("1/0", None), ("0^0", None), ("", None), ("2 3", None), ("10^10^10", None), ("(" * 50 + "1" + ")" * 50, None),
        ("9^99999999999", None), ("2^2000", None), ("1" * (DIGITS + 1), None), ("1" * 1000, None),
    ],
)  # fmt: skip
def test_arithmetic_is_exact_and_bounded(text: str, value: float | None) -> None:
    result = number(text)
    assert result is None if value is None else result is not None and float(result.value) == value


@pytest.mark.parametrize(
    ("gold", "chain", "expected"),
    [
        ("4a-2", r"\boxed{-2 + 4a}", "accepted"),
        (r"\sqrt{8}", r"\boxed{2\sqrt{2}}", "accepted"),
        (r"x^2 + 2x + 1", r"\boxed{(x+1)^2}", "accepted"),
        (r"\sqrt{2}, -\sqrt{2}", r"\boxed{\pm\sqrt{2}}", "accepted"),
        (r"\left[ 0, 1 \right)", r"\boxed{[0,1)}", "accepted"),
        (r"x \in [-2,7]", r"\boxed{[-2, 7]}", "accepted"),
        ("28", r"\boxed{\sqrt{34}+3\sqrt{10}}", "wrong_answer"),
        (r"\sqrt{2}", r"\boxed{x = \sqrt{2} \text{ or } x = -\sqrt{2}}", "hedged"),
        ("28", "#### no idea at all", "unparseable_answer"),
        (r"2\sqrt{3}", r"\boxed{2\sqrt{3} \text{ meters}}", "accepted"),
        (r"6\sqrt{2} \text{ cm}", r"\boxed{\sqrt{72}}", "accepted"),
        (r"2\pi", r"\boxed{2\pi \text{ square units}}", "accepted"),
        (r"2\pi", r"\boxed{3\pi \text{ cm}^2}", "wrong_answer"),
        (r"3", r"\boxed{3 \cdot \text{width}}", "unparseable_answer"),
        ("28", "#### " + "4a + " * 90 + "1", "answer_too_long"),
        ("28", r"#### \frac{4a}{", "unparseable_answer"),
        ("4a + " * 90 + "1", "#### 5a", "unparseable_gold"),
        (r"\text{whatever it is}", "#### 4a", "unparseable_gold"),
        (r"2\pi h", r"\boxed{2\pi}", "wrong_answer"),  # a variable, which is no hour
        (r"2\pi", r"\boxed{2\pi h}", "wrong_answer"),
        (r"2\pi h", r"\boxed{2h\pi}", "accepted"),
        (r"x^2 g", r"\boxed{x^2}", "wrong_answer"),
        (r"\frac{mg}{2}", r"\boxed{\frac{1}{2}gm}", "accepted"),
        (r"2\pi\text{ h}", r"\boxed{2\pi}", "accepted"),  # set as text it is one
        (r"\sqrt{3}", r"\boxed{\sqrt{3}\,\mathrm{m}}", "accepted"),
        (r"2\pi \text{ cm}^2", r"\boxed{2\pi}", "accepted"),
        (r"x^2", r"\boxed{x^2 + y - y}", "accepted"),  # what cancels out is no variable
        (r"\{x \mid -2 \le x < 1\}", r"\boxed{1}", "unparseable_gold"),
    ],
)
def test_computer_algebra_decides_what_is_no_number(gold: str, chain: str, expected: str, algebra: Symbolic) -> None:
    assert outcome(gold, chain, Maths(algebra)) == expected


def test_a_letter_behind_a_number_is_a_variable_and_a_word_of_the_table_a_unit() -> None:
    for plain, typeset, parts in (
        (r"2\pi h", r"2\pi h", (r"2\pi h", "")),
        (r"2\pi h", r"2\pi\text{ h}", (r"2\pi", "h")),
        ("2x + 1", "2x + 1", ("2x + 1", "")),
        (r"2\pi cm ^2", r"2\pi\text{ cm}^2", (r"2\pi", "cm^2")),
        ("5 - x cm", r"5 - x \text{ cm}", ("5 - x", "cm")),
        ("5 - x apples", r"5 - x \text{ apples}", ("5 - x apples", "")),
        (r"(1 + \sqrt{2}) Feet", r"(1 + \sqrt{2}) Feet", (r"(1 + \sqrt{2})", "feet")),
    ):
        assert parted(plain, typeset) == parts


@pytest.mark.parametrize("chain", ["#### no idea at all", "#### " + "4a + " * 90 + "1"])
def test_an_answer_that_nobody_can_read_is_rejected_and_a_gold_answer_says_nothing(
    chain: str, algebra: Symbolic
) -> None:
    assert Maths(algebra).verify(Problem("maths", "", "28"), chain).outcome == "rejected"
    unreadable = Maths(algebra).verify(Problem("maths", "", chain.removeprefix("#### ")), "#### 28a")
    assert (unreadable.outcome, unreadable.reason) == ("undecided", "maths.unparseable_gold")


def test_computer_algebra_sees_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-business-of-a-child")
    symbolic = Symbolic()
    assert symbolic.relation("4a", "4a + 0") == "same"
    child = symbolic._idle.queue[0]
    assert child is not None
    environment = Path(f"/proc/{child.process.pid}/environ").read_bytes()
    symbolic.close()
    assert b"PATH=" in environment and b"no-business" not in environment


def test_a_child_that_computes_for_ever_or_dies_is_replaced() -> None:
    symbolic = Symbolic(SymbolicLimits(cpu_s=0.5))
    verifier = Maths(symbolic)
    assert outcome("4", r"\boxed{10^{10^{10}}}", verifier) == "symbolic_timeout"
    assert outcome("4a-2", r"\boxed{-2 + 4a}", verifier) == "accepted"
    child = symbolic._idle.queue[0]
    assert child is not None
    child.process.kill()
    child.process.wait()
    assert outcome("4a-2", r"\boxed{-2 + 4a}", verifier) == "symbolic_crashed"
    assert symbolic.restarts == 2
    assert outcome("4a-2", r"\boxed{-2 + 4a}", verifier) == "accepted"
    child = symbolic._idle.queue[0]
    assert child is not None
    child.process.send_signal(signal.SIGSTOP)
    child.limits = SymbolicLimits(cpu_s=0.1, wall_s=0.1)
    assert outcome("4a-2", r"\boxed{-2 + 4a}", verifier) == "symbolic_hung" and symbolic.restarts == 3
    symbolic.close()
    assert symbolic._idle.queue[0] is None and child.process.returncode is not None


def test_worker_threads_share_the_children(algebra: Symbolic) -> None:
    verifier = Maths(algebra)
    pairs = [(f"{n}a", rf"\boxed{{a \cdot {n + n % 2}}}") for n in range(12)]
    outcomes = [""] * len(pairs)

    def judge(first: int) -> None:
        for at in range(first, len(pairs), 4):
            outcomes[at] = outcome(*pairs[at], verifier)

    threads = [threading.Thread(target=judge, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["accepted" if n % 2 == 0 else "wrong_answer" for n in range(12)]


def test_all_have_to_accept() -> None:
    class Says:
        id = "says@1"

        def __init__(self, verdict: Verdict) -> None:
            self.verdict = verdict

        def verify(self, problem: Problem, chain: str) -> Verdict:
            return self.verdict

    yes = Says(Verdict("accepted", None, "yes@1", "fine"))
    no = Says(Verdict("rejected", "no.wrong", "no@1"))
    unclear = Says(Verdict("undecided", "unclear.down", "unclear@1"))
    problem = Problem("maths", "", "1")
    assert AllOf((yes, yes)).verify(problem, "").outcome == "accepted"
    assert AllOf((yes, unclear)).verify(problem, "").reason == "unclear.down"
    assert AllOf((unclear, no)).verify(problem, "").reason == "no.wrong"


def test_a_verdict_says_why_or_accepts() -> None:
    with pytest.raises(ValueError, match="a reason stands beside all but an accepted"):
        Verdict("rejected", None, "v@1")
    with pytest.raises(ValueError, match="a reason stands beside all but an accepted"):
        Verdict("accepted", "v.why", "v@1")
    assert len(Verdict("accepted", None, "v@1", "x" * 1000).evidence) == EVIDENCE


def test_an_answer_is_found_in_a_long_chain() -> None:
    answer = final_answer(r"\boxed{" * 1000 + "\n#### 18")
    assert answer is not None and answer.text == "18"
    assert final_answer(r"\boxed{5") is None


def test_answers_that_a_chain_gives_twice_are_compared_as_with_a_gold_answer(algebra: Symbolic) -> None:
    """The first pair is a solution of MATH, in which a second way comes to the same."""
    twice = r"\boxed{-3\sqrt5-5}. Alternatively, from the equation: \boxed{-3 \sqrt{5} - 5}"
    assert outcome(r"-3\sqrt5-5", twice, Maths(algebra)) == "accepted"
    assert outcome(r"-3\sqrt5-5", twice.replace("{5} - 5", "{5} + 5"), Maths(algebra)) == "several_answers"
    assert outcome(r"-3\sqrt5-5", twice) == "several_answers", "nobody can tell without computer algebra"
    assert outcome("16/3", "#### 16/3\nor, as a decimal,\n#### 5.3333") == "accepted"
    assert outcome("16/3", "#### 5.3\nor\n#### 16/3") == "several_answers"
