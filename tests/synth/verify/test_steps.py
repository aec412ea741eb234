"""Equations in running text: which are read, which are left alone, which are false."""

from __future__ import annotations

from types import FunctionType

import pytest

from gristmill.synth.verify.answers import number as number_module
from gristmill.synth.verify.steps import equations as equations_module
from gristmill.synth.verify.steps import sides as sides_module
from gristmill.synth.verify.steps.check import Steps, check_steps, holds
from gristmill.synth.verify.steps.equations import equations
from gristmill.synth.verify.verdict import Problem

TRUE = [
    ("20 + 7 = 27 ; 27 * 2 = 54 #### 54", 2),
    ("Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.", 2),
    ("She makes 9 * 2 = $<<9*2=18>>18 every day.", 2),
    ("16 eggs - 3 eggs = 13 eggs", 1),
    ("1,200 + 300 = 1,500", 1),
    ("20% of 50 = 10", 1),
    ("1/2 of 20 + 5 = 15", 1),
    ("15/60*100 = 25%", 1),
    ("100% - 20% = 80%", 1),
    (r"\(10 \cdot 6 \text{ eggs} = 60\)", 1),
    (r"\frac{3}{4} \times 8 = 6", 1),
    (r"\[-5 \cdot 8 = -40\]", 1),
    ("10 / 3 = 3.33", 1),
    ("2 / 3 = 0.66", 1),
    ("0.1 + 0.2 = 0.30000000000000004", 1),
    ("2^3 = 8 = 16 / 2", 2),
    ("(3 + 4 = 7)", 1),
    ("1) 20 + 7 = 27", 1),
    ("- 20 + 7 = 27", 1),
    ("25 / 1/5 = 125", 1),
    ("3 x 4 = 12", 1),
    ("The last square has area $21^2 = 441\\text{ cm}^2$.", 1),
]
FALSE = [
    ("20 + 7 = 28 ; 28 * 2 = 56", "20 + 7 = 28"),
    ("She has 3 + 4 = 7 apples.\nThen 7 * 2 = 15 pears.", "7 * 2 = 15"),
    ("16 - 3 - 4 = <<16-3-4=8>>8 duck eggs", "16-3-4=8"),
    ("10 / 3 = 3", "10 / 3 = 3"),
    ("10 / 3 = 3.4", "10 / 3 = 3.4"),
    ("2^3 = 8 = 18 / 2", "8 = 18 / 2"),
    (r"so \(7 + 21 = 30\)", "7 + 21 = 30"),
    ("5 * 1.5 = $8.50", "5 * 1.5 = $8.50"),
]
NOT_READ = [
    "2x + 3 = 7",
    "x + 3 = 7",
    "f(3) = 12",
    "Day 3 = 5",
    "twice 3 + 4 = 10",
    "half of 20 + 5 = 15",
    r"\sqrt{9+16} = 5",
    "|3 - 5| = 2",
    "3! + 4 = 10",
    "4 / 3 = 1 and 1/3",
    "100 / 12 = 8 remainder 4",
    "3:30 + 0:15 = 3:45",
    "16,0000/10 = 16000",
    "2 + 3 hours = 300 minutes",
    "if 3 + 4 >= 6",
    "n == 3 + 4",
    "x = 2 and x = -3",
    "Step 1 - 20 + 7 = 27",
    "3 eggs for her husband + 2 for herself = 5",
    r"43^2 - 27^2 = (43 + 27)(43 - 27)",
    r"\frac{1}{37} = 0.\overline{027}",
    "10^10^10 = 3",
]


@pytest.mark.parametrize(("chain", "count"), TRUE)
def test_what_is_right_is_checked_and_holds(chain: str, count: int) -> None:
    check = check_steps(chain)
    assert check.false is None and check.equations == count


@pytest.mark.parametrize(("chain", "step"), FALSE)
def test_the_first_false_step_is_named(chain: str, step: str) -> None:
    check = check_steps(chain)
    assert check.false is not None and check.false.text == step
    assert chain[check.false.at :].startswith(step)
    verdict = Steps().verify(Problem("maths", ""), chain)
    assert (verdict.outcome, verdict.reason, verdict.evidence) == ("rejected", "steps.false_step", step)


@pytest.mark.parametrize("chain", NOT_READ)
def test_what_may_mean_more_than_its_numbers_is_not_checked(chain: str) -> None:
    assert [equation for equation in equations(chain) if not holds(equation)] == []


def test_a_chain_may_have_to_show_its_steps() -> None:
    problem = Problem("maths", "")
    assert Steps().verify(problem, "it is 5").outcome == "accepted"
    assert Steps(at_least=1).verify(problem, "it is 5").reason == "steps.too_few_equations"
    assert Steps(at_least=1).verify(problem, "2 + 3 = 5").outcome == "accepted"


@pytest.mark.parametrize(
    "piece", ["20 + 7 = 27 ; ", "= ", "1 + ", "(", "((1 = ", "<<", r"\frac{", "x = ", "1,111", "eggs "]
)
def test_work_grows_with_the_length_and_no_faster(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are counted, not seconds: the calls that the reading of a chain makes."""

    def calls(length: int) -> int:
        count = 0
        with monkeypatch.context() as patch:
            for module in (equations_module, sides_module, number_module):
                for name, function in list(vars(module).items()):
                    if not isinstance(function, FunctionType):
                        continue

                    def counted(*args: object, function: FunctionType = function, **kwargs: object) -> object:
                        nonlocal count
                        count += 1
                        return function(*args, **kwargs)

                    patch.setattr(module, name, counted)
            for equation in equations_module.equations(piece * (length // len(piece))):
                holds(equation)
        return count

    short, long = calls(5_000), calls(20_000)
    assert long <= 4.5 * short + 100
