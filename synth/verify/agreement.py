"""The gold answer of a problem that has none: what most of its first samples agree on.

The vote is over the first samples and no others, so that it is final once they are there, whatever is drawn later. As
long as one of them is lost, and could change it, nothing is known; where they do not agree, nothing ever will be: such
a problem is drawn for no more, and nothing of it is trained on.
Source: Wang et al. 2022 (arXiv 2203.11171); Huang et al. 2022, fine-tuning on what samples agree on (arXiv 2210.11610).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.choice import LETTERS, option
from gristmill.synth.verify.verdict import Named, Problem, Verdict
from gristmill.synth.verify.votes import Majority, clear_answer

VOTES = Named("votes", 1)
NO_AGREEMENT, OPEN = f"{VOTES.name}.no_agreement", f"{VOTES.name}.open"


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


def agreement(votes: Majority, problem: Problem, chains: Sequence[str | None], complete: bool) -> Agreement:
    """What the first samples of a problem agree on. `chains`: of each of them; None: one that was cut off, or lost, and
    votes for nothing. `complete`: none of them may still be had."""
    vote = votes.among([None if chain is None else _answer(problem, chain) for chain in chains])
    return Agreement(vote.answer, vote.votes, vote.samples, complete or vote.answer is not None)


def _answer(problem: Problem, chain: str) -> str | None:
    """What a chain votes for."""
    if problem.kind != "choice":
        return clear_answer(chain)
    answer = final_answer(chain)
    named = {option(text, problem.choices) for text in (*answer.others, answer.text)} if answer else set()
    number = named.pop() if len(named) == 1 else None
    return LETTERS[number] if isinstance(number, int) else None
