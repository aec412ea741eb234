"""One answer in many forms, and forms that look like it and say something else: right by construction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gristmill.synth.verify.answers.numerals import numeral
from gristmill.synth.verify.answers.symbolic import Symbolic
from gristmill.synth.verify.answers.units import Unit, differ, unit
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.verdict import Problem


@pytest.fixture(scope="module")
def maths() -> Iterator[Maths]:
    symbolic = Symbolic()
    yield Maths(symbolic)
    symbolic.close()


def outcome(maths: Maths, gold: str, chain: str) -> str:
    return maths.verify(Problem("maths", "", gold), chain).outcome


RIGHT = {
    "3/8": [r"\boxed{\frac38}", r"\boxed{\frac{6}{16}}", "#### .375", r"\boxed{3\div 8}"],
    "-3/8": [r"\boxed{\frac{-3}{8}}", r"\boxed{\frac{3}{-8}}", "#### −3/8", "#### －3/8", "#### —3/8"],
    "1/2": ["#### ½", "#### one half", "#### half a cup", "#### 50%", "#### 0,5"],
    "3.14": ["#### 3,14 cm"],
    "12.5%": ["#### 12,5%"],
    "-1, 2": [r"\boxed{(-1, 2)}"],
    "3/4": ["#### three quarters", "#### three fourths", "#### ¾"],
    "11/2": ["#### 5½", "#### 5 1/2", "#### 5 and 1/2", r"\boxed{5\frac{1}{2}}"],
    "1500000": ["#### 1.5e6", "#### 1.5E+6", "#### 1.5 x 10^6", r"\boxed{1.5 \times 10^{6}}", "#### 1.5 · 10⁶"],
    "0.0015": ["#### 1.5e-3", r"\boxed{1.5 \times 10^{-3}}", "#### 1.5×10⁻³"],
    "1234567": [
        "#### 1,234,567", "#### 1 234 567", "#### 1.234.567", "#### 1_234_567", "#### 1\u00a0234\u00a0567 eggs",
        "#### 1\u202f234\u202f567", r"\boxed{1\,234\,567}",
    ],
    "9": ["#### 3²"],
    "342": ["#### three hundred forty-two", "#### three hundred and forty-two eggs"],
    "21": ["#### twenty-one", "#### Twenty one"],
    "-5": ["#### negative five", "#### minus 5", "#### ‐5", "#### ‑5", "#### ﹣5"],
    "36": ["#### 3 dozen", "#### three dozen"],
    "5 cm^2": [r"\boxed{5 \text{ cm}^2}", "#### 5 square cm", "#### 500 mm^2", "#### 5 cm²", "#### 5"],
    "18 km/h": ["#### 5 m/s", "#### 18 km per hour", "#### 18 kmh", "#### 18"],
    "60 mph": ["#### 60 miles per hour"],
    "2 years": ["#### 24 months", "#### 2"],
    "20 degrees Celsius": ["#### 20°C", "#### 20 degrees", "#### 20"],
    "$0.05": ["#### 5¢", "#### 5 cents"],
    r"\{1,2,3\}": ["#### 1, 2, and 3", "#### 3, 2 and 1", r"\boxed{\{3,2,1\}}"],
    "1, 1, 2": ["#### 2, 1, 1"],
    "3:8": ["#### 3 : 8"],
    "101_2": [r"\boxed{101_{2}}", "#### 101"],
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}": [
        r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}",
        r"\boxed{\begin{bmatrix}1&2\\3&\frac{8}{2}\end{bmatrix}}",
    ],
    r"\emptyset": [r"\boxed{\varnothing}", "#### ∅"],
    "18": [
        "####18",
        "<answer>18</answer>", r"\boxed{\boxed{18}}", r"\boxed{\underline{18}}", r"\boxed{\textcolor{red}{18}}",
        r"\boxed{A = 18}", r"\boxed{S_n = 18}", r"\boxed{\angle A = 18}", "#### number 18", "Answer: 9 * 2 = 18",
        "#### 18 miles I drove",
        "The answer is that she may have 18 eggs after a quarter.",
        "#### 18 more apples", "#### a total of 18 eggs",
    ],
    "24": [r"\boxed{4!}"],
}  # fmt: skip

WRONG = {
    "3/8": ["#### 3:8", "#### 8/3", "#### 0.38"],
    "1/2": ["#### 0,6", "#### -0,5", "#### 0,5 or 1"],
    "3.14": ["#### 3,14,0", "#### 3,15"],
    "25": ["#### 2,5"],
    "1, 2": [r"\boxed{(2, 1)}", "#### (1, 2, 2)"],
    "1, 0": ["#### (1,000)"],
    "2/3": ["#### one third", "#### 2 thirds of 5"],
    "2": ["#### two thirds", "#### half of 2"],
    "1": ["#### one half", "#### one hundred", "#### twenty-one", "#### one is 5", "#### one times x"],
    "15": ["#### fifty", "#### five or six"],
    "1.5": ["#### 1.5e6", "#### 1.5 × 10⁶"],
    "3": [
        "#### 3²", "#### x > 3", "#### > 3", "#### x ≥ 3", r"#### x \geq 3", "#### x ≠ 3", "#### 3 or more", "#### 3+",
        "#### almost 3", "#### anything but 3", "#### 3 is wrong", "#### 3 remainder 1", "#### 3-5", "#### 3 mod 5",
        r"\boxed{x < 3}", r"\boxed{(3, \infty)}",
    ],
    "5": [
        "#### 5 squared", "#### the square root of 5", "#### a fifth of 5", "#### root 5", "#### √5", "#### f(5)",
        "#### 5 plus x", "#### 5 divided by x", "#### arctan 5", "#### π5", "#### P5", "#### 5‰", "#### 5 tenths",
        "#### 5 halves", "#### 5 gross", "#### 5 factorial", "#### 5-", "#### July 5", "The answer is unknown: 5",
        "the answer is 5 if x is odd", "#### 5∞", r"\boxed{5_3}",
    ],
    "18": [
        r"\boxed{17 = 18}", r"\boxed{y - 2 = 18}", r"\boxed{2x = 18}", r"\boxed{x^2 = 18}", r"\boxed{|x| = 18}",
        r"\boxed{-x = 18}", r"\boxed{n! = 18}", "#### 9 * 2 = 19", r"\boxed{18_9}", r"\boxed{x=18\text{ or so}}",
    ],
    "x_2": [r"\boxed{x}"],
    "19": ["Answer: 9 * 2 = 19"],
    "5 cm^2": ["#### 5 cm", "#### 5 m^2", r"\boxed{5 \text{ cm}^3}"],
    "5 cm": ["#### 5 cm^2", "#### 5 square centimeters", "#### 5 seconds"],
    "5 km/h": ["#### 5 m/s", "#### 5 km", "#### 5 miles per hour"],
    "18 years": ["#### 18 months", "#### 18 days"],
    "20 degrees Celsius": ["#### 20 degrees Fahrenheit", "#### 20°F"],
    r"45^\circ": [r"\boxed{45 \text{ radians}}"],
    "$5": ["#### €5", "#### 5 euros", "#### 5 cents"],
    "5 pm": ["#### 5 am", "#### 5 a.m."],
    "0.5": ["#### 0.5%"],
    "0.6": ["#### .6 percent"],
    "50": ["#### 0.5%", "#### 0.5"],
    "1, 1, 2": ["#### 1, 2", "#### 1, 2, 2"],
    "2,3,3": ["#### 2, 2, 3"],
    "3:8": ["#### 8:3"],
    "10:30": ["#### 10:31"],
    "10_2": [r"\boxed{10_3}", "#### 11"],
    "x = 2": [r"\boxed{y = 2}"],
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}": [
        r"\boxed{\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}}", r"\boxed{\begin{pmatrix} 1 & 2 \end{pmatrix}}",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("gold", "chain"), [(gold, chain) for gold, chains in RIGHT.items() for chain in chains])
def test_the_answer_in_another_form_is_accepted(maths: Maths, gold: str, chain: str) -> None:
    assert outcome(maths, gold, chain) == "accepted"


@pytest.mark.parametrize(("gold", "chain"), [(gold, chain) for gold, chains in WRONG.items() for chain in chains])
def test_what_only_looks_like_the_answer_is_rejected(maths: Maths, gold: str, chain: str) -> None:
    assert outcome(maths, gold, chain) == "rejected"


@pytest.mark.parametrize("gold", list(RIGHT))
def test_every_gold_answer_is_its_own(maths: Maths, gold: str) -> None:
    assert outcome(maths, gold, rf"\boxed{{{gold}}}") == "accepted"


def test_numbers_in_words_are_read_to_their_end() -> None:
    ones = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    small = [*ones.split(), "seventeen", "eighteen", "nineteen"]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

    def words(n: int) -> str:
        if n < 20:
            return small[n]
        if n < 100:
            return tens[n // 10] + (f"-{small[n % 10]}" if n % 10 else "")
        for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
            if n >= size:
                rest = n % size
                joint = " and " if rest and rest < 100 and n % 2 else " "
                return f"{words(n // size)} {name}" + (f"{joint}{words(rest)}" if rest else "")
        raise AssertionError

    for n in (*range(0, 1200), 1999, 20_020, 342_018, 1_000_000, 12_345_678, 999_999_999_999):
        assert numeral(words(n)) == (n, ""), words(n)
        assert numeral(f"minus {words(n)} eggs".replace("minus ", "-")) == (-n, "eggs")
    assert numeral("twenty five hundred") == (2500, "")
    for text in ("five or six", "one two", "hundred", "eggs", "", "five and a half", "five of"):
        assert numeral(text) is None, text


def test_units_have_powers_and_rates() -> None:
    assert unit("square meters") == unit("m^2") == unit("m²") == unit("sq. m") != unit("m")
    assert unit("km per hour") == unit("km/h") == unit("kmh") and unit("meters per lap") is None
    assert unit("eggs") is None and unit("") is None
    assert differ(Unit("length", 1), Unit("length^2", 1)) and not differ(Unit("angle", 1), Unit("celsius", 1))
