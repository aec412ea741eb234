"""Another verifier for what a rule cannot compare: a gold answer that is a sentence, a proof, a name.

A rule is cheap and says the same again, so it is asked first, and what it decides stays decided. Only what it can never
decide goes on to the other, a language model as a judge (`synth.verify.judge`).
"""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.synth.verify.verdict import Problem, Verdict, Verifier

BEYOND = (".unparseable_gold", ".beyond_numbers", ".symbolic_failed", ".symbolic_timeout")
"""What a rule says of answers that it cannot compare, whenever it is asked."""


@dataclass(frozen=True)
class Resort:
    """`first` decides; `last` is asked where the first can never decide."""

    first: Verifier
    last: Verifier

    @property
    def id(self) -> str:
        """`maths@4>judge:MODEL@1`."""
        return f"{self.first.id}>{self.last.id}"

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """The verdict of the one that decided, in its name."""
        verdict = self.first.verify(problem, chain)
        if verdict.outcome == "undecided" and str(verdict.reason).endswith(BEYOND):
            return self.last.verify(problem, chain)
        return verdict
