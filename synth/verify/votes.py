"""What most samples answer: an answer for a problem that has none, or a second opinion on one that has.

Votes are counted by value (`1/2`, `0.5` and `\\frac12` are one answer), in sample order, so the same samples give the
same answer. Samples without one clear answer vote for nothing, but count: a majority is of all samples. That nothing
can be said is no answer, however many say it.
Source: Wang et al. 2022, self-consistency (arXiv 2203.11171).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.answers.reading import read

_SAYS_NOTHING = re.compile(
    r"\b(?:unknown|unclear|undetermined|indeterminate|cannot|can't|could not|unable|insufficient|not enough|not sure"
    r"|not (?:be )?(?:given|provided|specified|known|determined)|not know|don't know|nan|n/a|your answer|answer here)\b"
    r"|/ ?0(?![\d.])|\\frac\{[^{}]*\}\{0\}|\{\{|^[^\w∅∞\\]*$",
    re.IGNORECASE,
)
"""Refusals, blanks of a form, and what has no value."""


@dataclass(frozen=True)
class Vote:
    """`answer`: as the first sample wrote it; None: none has `share` of the samples. `votes` of `samples` agree."""

    answer: str | None
    votes: int
    samples: int


@dataclass(frozen=True)
class Majority:
    """`share`: of all samples, what an answer needs more than; `at_least`: samples that there have to be."""

    share: float = 0.5
    at_least: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"Majority: share={self.share}: allowed is between 0 and 1")
        if self.at_least < 1:
            raise ValueError(f"Majority: at_least={self.at_least}: at least 1")

    def vote(self, chains: Sequence[str]) -> Vote:
        """The answer of most chains, if more than `share` of them give it and no other is given as often."""
        return self.among([clear_answer(chain) for chain in chains])

    def among(self, answers: Sequence[str | None]) -> Vote:
        """As `vote`, of answers; None: a sample without a clear one."""
        votes: dict[object, int] = {}
        texts: dict[object, str] = {}
        for answer in answers:
            if answer is not None:
                key = read(answer).key
                votes[key] = votes.get(key, 0) + 1
                texts.setdefault(key, answer)
        most = max(votes.values(), default=0)
        leaders = [key for key, count in votes.items() if count == most]
        is_clear = len(leaders) == 1 and len(answers) >= self.at_least and most > self.share * len(answers)
        return Vote(texts[leaders[0]] if is_clear else None, most, len(answers))


def clear_answer(chain: str) -> str | None:
    """The only answer of a chain; None: it gives none, several, or hedges, or says that there is none to give."""
    answer = final_answer(chain)
    if answer is None:
        return None
    value = read(answer.text)
    agree = all(read(other).key == value.key for other in answer.others)
    return answer.text if agree and value.plain and not _SAYS_NOTHING.search(value.plain) else None
