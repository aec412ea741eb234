"""The gold answer of a problem that has none: what most of its first samples agree on.

The vote is over the samples 0..n-1 and no others, so that it is final once they are there, whatever is drawn later.
As long as one of them is lost, and could change it, nothing is known; where they do not agree, nothing ever will be:
such a problem is drawn for no more, and nothing of it is trained on.
Source: Wang et al. 2022 (arXiv 2203.11171); Huang et al. 2022, fine-tuning on what samples agree on (arXiv 2210.11610).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.stages.generate.protocol import LASTING
from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.choice import LETTERS, option
from gristmill.synth.verify.verdict import Named, Problem, Verdict
from gristmill.synth.verify.votes import Majority, clear_answer

VOTES = Named("votes", 1)
NO_AGREEMENT = f"{VOTES.name}.no_agreement"


@dataclass(frozen=True)
class Agreement:
    """Of a problem: the `gold` answer, and by how many of how many samples; None: there is none; `final`: for good."""

    gold: str | None
    votes: int
    samples: int
    final: bool

    @property
    def verdict(self) -> Verdict:
        """Of every sample of a problem without a gold answer."""
        counted = f"{self.votes} of {self.samples} samples agree"
        return VOTES.undecided("no_agreement" if self.final else "open", counted)


def agreement(votes: Majority, problem: Problem, samples: Mapping[int, Mapping[str, Any]]) -> Agreement:
    """What the first samples of a problem agree on. `samples`: rows by number, as an engine gave them."""
    first = [samples.get(number) for number in range(votes.at_least)]
    vote = votes.among([None if row is None else _answer(problem, row) for row in first])
    waiting = sum(row is None or (row["failure"] is not None and row["failure"] not in LASTING) for row in first)
    final = vote.answer is not None or not waiting
    return Agreement(vote.answer, vote.votes, vote.samples, final)


def _answer(problem: Problem, row: Mapping[str, Any]) -> str | None:
    """What a sample votes for; one that was cut off, or lost, for nothing."""
    if row["failure"] is not None or row["finish"] == "length":
        return None
    if problem.kind != "choice":
        return clear_answer(row["text"])
    answer = final_answer(row["text"])
    named = {option(text, problem.choices) for text in (*answer.others, answer.text)} if answer else set()
    number = named.pop() if len(named) == 1 else None
    return LETTERS[number] if isinstance(number, int) else None


def without_agreement(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The problems of judged rows whose samples do not agree."""
    return {row["problem"] for row in rows if row["reason"] == NO_AGREEMENT}
