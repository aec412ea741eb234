"""What a verifier is asked, and what it answers.

Only a wrong answer is rejected, and one that nobody can read. What says nothing about the answer (a timeout, a server
that is down, a gold answer that nobody can read) is undecided: it may be tried again, and is never trained on, neither
as right nor as wrong.
A verdict names its verifier with its version, so that a ledger tells which rule judged; the words of an outcome are
those of the ledger of children (`lake/accounts/fan.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["accepted", "rejected", "undecided"]
Kind = Literal["maths", "choice", "code", "seed"]

EVIDENCE = 300
"""Characters of evidence that a verdict keeps at most."""


@dataclass(frozen=True)
class Problem:
    """What a chain answers; a `seed` is a text that a problem is to be written from. `gold`: the known answer, as a
    text; a letter, or the option's text, of a choice.

    `choices`: the options of a choice, without their letters. `tests`: Python statements that raise where a program is
    wrong; `prelude`: what stands before a program (imports, the beginning of a function); `entry_point`: the function
    that `tests` call as `candidate`, if they do. `language` (`en`) and `domain` (`algebra`) are for reports.
    """

    kind: Kind
    question: str
    gold: str = ""
    choices: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    prelude: str = ""
    entry_point: str = ""
    language: str = "en"
    domain: str = ""


@dataclass(frozen=True)
class Verdict:
    """`reason`: `<verifier>.<what>` of a rejected or undecided chain, None of an accepted one.

    `verifier`: `name@version`. `evidence`: what was compared, cut to EVIDENCE characters.
    """

    outcome: Outcome
    reason: str | None
    verifier: str
    evidence: str = ""

    def __post_init__(self) -> None:
        if (self.outcome == "accepted") != (self.reason is None):
            raise ValueError(f"Verdict: a reason stands beside all but an accepted outcome, not {self}")
        if len(self.evidence) > EVIDENCE:
            object.__setattr__(self, "evidence", self.evidence[: EVIDENCE - 1] + "…")


class Verifier(Protocol):
    """A judge of chains. It may be called from several threads, and returns within a bounded time."""

    @property
    def id(self) -> str:
        """`name@version`; a rule that can decide otherwise has another version."""

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Whether the chain answers the problem. Raises for a problem of a kind that is not this verifier's."""


@dataclass(frozen=True)
class Named:
    """A verifier's name and version, and verdicts in its name."""

    name: str
    version: int

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def accept(self, evidence: str) -> Verdict:
        """The answer is right."""
        return Verdict("accepted", None, self.id, evidence)

    def reject(self, what: str, evidence: str) -> Verdict:
        """The answer is wrong, in this way."""
        return Verdict("rejected", f"{self.name}.{what}", self.id, evidence)

    def undecided(self, what: str, evidence: str) -> Verdict:
        """Nothing is known about the answer, for this reason."""
        return Verdict("undecided", f"{self.name}.{what}", self.id, evidence)


@dataclass(frozen=True)
class ByKind:
    """The verifier of a problem's kind."""

    verifiers: Mapping[Kind, Verifier]

    @property
    def id(self) -> str:
        """`maths@2|choice@2`."""
        return "|".join(verifier.id for verifier in self.verifiers.values())

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """The verdict of that verifier, in its name. Raises ValueError for a kind that has none."""
        if problem.kind not in self.verifiers:
            raise ValueError(f"no verifier for problems of the kind {problem.kind!r}, only {', '.join(self.verifiers)}")
        return self.verifiers[problem.kind].verify(problem, chain)


@dataclass(frozen=True)
class AllOf:
    """Accepts what all accept. The first that rejects decides; then the first that cannot decide."""

    verifiers: Sequence[Verifier]

    @property
    def id(self) -> str:
        """`maths@2+steps@1`."""
        return "+".join(verifier.id for verifier in self.verifiers)

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """The verdict that decides, in the name of its verifier; of an accepted chain, in the name of all."""
        verdicts = []
        for verifier in self.verifiers:
            verdict = verifier.verify(problem, chain)
            if verdict.outcome == "rejected":
                return verdict
            verdicts.append(verdict)
        for verdict in verdicts:
            if verdict.outcome == "undecided":
                return verdict
        return Verdict(
            "accepted", None, self.id, "; ".join(verdict.evidence for verdict in verdicts if verdict.evidence)
        )
