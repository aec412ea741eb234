"""The verifier of mathematics: one final answer, compared with the gold answer by the cheapest tier that can tell.

Equal texts, then numbers (compare.py), then math-verify in a child (symbolic.py): on GSM8K's labelled solutions the
first two decide all, and are some hundred times faster than the last. An answer that nobody can read is rejected, since
asking again would not help whoever wrote it; what says nothing about the answer (a gold answer that nobody can read, a
limit of time) is undecided.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gristmill.synth.verify.answers.compare import compare
from gristmill.synth.verify.answers.final import LONGEST_ANSWER, final_answer
from gristmill.synth.verify.answers.reading import Reading, read
from gristmill.synth.verify.answers.symbolic import Symbolic
from gristmill.synth.verify.answers.units import parted
from gristmill.synth.verify.verdict import Named, Problem, Verdict

MATHS = Named("maths", 4)
_SET_BUILDER = ("|", r"\mid", r"\vert", ":")
_WORD = re.compile(
    r"(?<![\\a-zA-Z])(?!sqrt|sin|cos|tan|cot|sec|csc|log|arc|exp|infty|frac|max|min|gcd|lcm)[a-zA-Z]{3,}"
)
_NAME = re.compile(r"(?:\\?(?:angle|overline|vec|triangle) ?\{?)?[a-zA-Z]{1,3}'?\}?(?:_\{?\w{1,3}\}?)?(?:\([a-z]\))?")
"""What an equation may say the value of."""
_MATRIX = re.compile(r"\\(?:begin|end)\{[pbvBV]?matrix\}")
_UNDECIDED = {
    "failed": "symbolic_failed",
    "timeout": "symbolic_timeout",
    "hung": "symbolic_hung",
    "crashed": "symbolic_crashed",
    "unparseable_gold": "unparseable_gold",
}
_UNREADABLE = {"unparseable_answer": "unparseable_answer", "too_long": "answer_too_long"}


@dataclass(frozen=True)
class Maths:
    """`symbolic`: the last tier; without it, what is no number is undecided unless the texts are equal."""

    symbolic: Symbolic | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """`maths@4`; without the symbolic tier `maths-numeric@4`."""
        return self._named.id

    @property
    def _named(self) -> Named:
        return MATHS if self.symbolic is not None else Named("maths-numeric", MATHS.version)

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Accepted: the chain has one final answer, and it is the gold answer."""
        named = self._named
        gold = read(problem.gold)
        if not gold.plain:
            return named.undecided("unparseable_gold", repr(problem.gold))
        answer = final_answer(chain)
        if answer is None:
            return named.reject("no_answer", chain[-80:])
        value = read(answer.text)
        for other in answer.others:
            if not self._is_one(read(other), value):
                return named.reject("several_answers", f"{other} and {answer.text}")
        comparison = compare(gold, value)
        evidence = f"{answer.text} for {problem.gold}"
        if comparison.relation == "same":
            return named.accept(f"{comparison.how}: {evidence}")
        if comparison.relation == "different":
            return named.reject(comparison.how, evidence)
        return self._beyond_numbers(gold, value, evidence, (problem.gold, answer.text))

    def _is_one(self, other: Reading, answer: Reading) -> bool:
        """Whether two answers that a chain gives are the same, compared as with a gold answer."""
        if other.key == answer.key:
            return True
        relation = compare(other, answer).relation
        if relation in ("same", "different") or self.symbolic is None:
            return relation == "same"
        texts = _braced(other), _braced(answer)
        if any(_has_words(text) or len(text) > LONGEST_ANSWER for text in texts):
            return False
        return self.symbolic.relation(*texts) == "same"

    def _beyond_numbers(self, gold: Reading, answer: Reading, evidence: str, typeset: tuple[str, str]) -> Verdict:
        """By the symbolic tier. `typeset`: both as they were written."""
        named = self._named
        if self.symbolic is None:
            return named.undecided("beyond_numbers", evidence)
        gold_text, answer_text = _braced(gold), _braced(answer)
        (gold_bare, gold_unit), (answer_bare, answer_unit) = (
            parted(gold_text, typeset[0]),
            parted(answer_text, typeset[1]),
        )
        if gold_unit == answer_unit or not gold_unit or not answer_unit:  # either may leave its unit to the question
            gold_text, answer_text = gold_bare, answer_bare
        if any(mark in gold_text for mark in _SET_BUILDER):  # math-verify reads the 1 of `{x | x < 1}`
            return named.undecided("unparseable_gold", evidence)
        if _has_words(gold_text) or len(gold_text) > LONGEST_ANSWER:  # of which it would make a product of letters
            return named.undecided("unparseable_gold", evidence)
        if _has_words(answer_text) or answer_text.endswith(("+", "-")):
            return named.reject("unparseable_answer", evidence)
        relation = self._by_sides(gold_text, answer_text)
        if relation == "same":
            return named.accept(f"symbolic: {evidence}")
        if relation == "different":
            return named.reject("wrong_answer", evidence)
        if relation in _UNREADABLE:
            return named.reject(_UNREADABLE[relation], evidence)
        return named.undecided(_UNDECIDED[relation], evidence)

    def _by_sides(self, gold: str, answer: str) -> str:
        """As `Symbolic.relation`. Of an equation, where the gold answer is none, every side has to be it: computer
        algebra would take the last one alone (`x^2 = 18` for 18)."""
        assert self.symbolic is not None
        relation = self.symbolic.relation(gold, answer)
        if relation != "same" or "=" in gold or "=" not in answer:
            return relation
        sides = [side for side in answer.split("=") if not _NAME.fullmatch(side.strip())]
        relations = [self.symbolic.relation(gold, side) for side in sides]
        return next((other for other in relations if other != "same"), "same")


def _has_words(text: str) -> bool:
    return _WORD.search(_MATRIX.sub("", text)) is not None


def _braced(reading: Reading) -> str:
    """Several answers as a set, which computer algebra compares whatever their order."""
    if not reading.several:
        return reading.plain
    return r"\{" + ", ".join(part.plain for part in reading.several) + r"\}"
