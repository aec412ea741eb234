"""The audit of a verifier: its verdicts against labels, as a confusion table, precision and recall with intervals.

Precision is how many of the accepted are right: the rest is trained on. Recall is how many of the right are accepted:
the rest is thrown away. Undecided chains are neither, and are counted apart. Disagreements are listed,
so that each can be read: a label may be wrong, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gristmill.synth.audit.samples import Labelled
from gristmill.synth.intervals import wilson
from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.verdict import Outcome, Verifier

ENDING = 100
"""Characters of the end of a chain that a disagreement shows."""


@dataclass(frozen=True)
class Share:
    """`part` of `whole`, and the 95% interval of the share by Wilson's score; None of nothing."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """The share."""
        return self.part / self.whole if self.whole else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its bounds."""
        return wilson(self.part, self.whole) if self.whole else None

    def to_json(self) -> dict[str, object]:
        """Counts, share and interval."""
        return {"part": self.part, "whole": self.whole, "value": self.value, "interval": self.interval}


@dataclass(frozen=True)
class Row:
    """Chains of a kind: how many are labelled right and wrong by each outcome."""

    accepted_right: int = 0
    accepted_wrong: int = 0
    rejected_right: int = 0
    rejected_wrong: int = 0
    undecided_right: int = 0
    undecided_wrong: int = 0

    @property
    def disagreements(self) -> int:
        """Wrong chains that were accepted, and right chains that were rejected."""
        return self.accepted_wrong + self.rejected_right


@dataclass(frozen=True)
class Disagreement:
    """A chain that verifier and label judge differently. `ending`: how it ends."""

    at: str
    right: bool
    outcome: Outcome
    reason: str | None
    evidence: str
    ending: str


@dataclass(frozen=True)
class Audit:
    """`forms`: the table by the form in which a chain gives its answer (`line`, `boxed`, ..., `none`); `table`: of all.

    `reasons`: how often each reason was given, or each tier accepted. `disagreements`: in the order of the file.
    """

    verifier: str
    samples: int
    table: Row
    forms: dict[str, Row]
    reasons: dict[str, int]
    precision: Share
    recall: Share
    undecided: Share
    disagreements: tuple[Disagreement, ...]


def audit(verifier: Verifier, samples: Iterable[Labelled]) -> Audit:
    """Judges every sample and compares with its label. Raises ValueError if there is none."""
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    disagreements = []
    for sample in samples:
        verdict = verifier.verify(sample.problem, sample.chain)
        answer = final_answer(sample.chain)
        form = answer.form if answer else "none"
        counts.setdefault(form, Counter())[f"{verdict.outcome}_{'right' if sample.right else 'wrong'}"] += 1
        reasons[verdict.reason or f"accepted: {verdict.evidence.partition(':')[0]}"] += 1
        if verdict.outcome == ("rejected" if sample.right else "accepted"):
            ending = sample.chain.rstrip()[-ENDING:]
            about = (sample.at, sample.right, verdict.outcome, verdict.reason, verdict.evidence, ending)
            disagreements.append(Disagreement(*about))
    table = Row(**sum(counts.values(), Counter()))
    if not counts:
        raise ValueError("there is no labelled sample in the file")
    total = sum(table.__dict__.values())
    return Audit(
        verifier=verifier.id,
        samples=total,
        table=table,
        forms={form: Row(**counts[form]) for form in sorted(counts)},
        reasons=dict(reasons.most_common()),
        precision=Share(table.accepted_right, table.accepted_right + table.accepted_wrong),
        recall=Share(table.accepted_right, table.accepted_right + table.rejected_right + table.undecided_right),
        undecided=Share(table.undecided_right + table.undecided_wrong, total),
        disagreements=tuple(disagreements),
    )
