"""A model is asked where a rule can compare nothing, and nowhere else."""

from __future__ import annotations

import pytest

from gristmill.synth.verify.judge import Judge
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.resort import Resort
from gristmill.synth.verify.verdict import Problem


@pytest.mark.parametrize(
    ("gold", "chain", "outcome", "verifier"),
    [
        ("18", "#### 18", "accepted", "maths-numeric@4"),
        ("18", "#### 19", "rejected", "maths-numeric@4"),
        ("18", "no answer", "rejected", "maths-numeric@4"),
        ("the empty set", "#### there are none", "accepted", "judge:m@1"),
        ("the empty set", "#### all of them", "rejected", "judge:m@1"),
        ("the empty set", "#### the empty set", "accepted", "maths-numeric@4"),
    ],
)
def test_what_a_rule_decides_stays_decided(gold: str, chain: str, outcome: str, verifier: str) -> None:
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return f"VERDICT: {'right' if 'none' in prompt else 'wrong'}"

    resort = Resort(Maths(), Judge(ask, "m"))
    verdict = resort.verify(Problem("maths", "Which?", gold), chain)
    assert (verdict.outcome, verdict.verifier) == (outcome, verifier)
    assert len(asked) == (verifier == "judge:m@1") and resort.id == "maths-numeric@4>judge:m@1"
