"""Which accepted chains become fine-tuning samples: distinct ones, a few of each problem, groups in shares.

A sampler finds the same chain again and again: of 13,789 right samples 1,979 were distinct. So equal chains count
once; a problem has at most `per_problem`; then, where shares are asked for, groups that have more than theirs
give up rows until the shares hold, and it is counted what that cost. Which rows stay is drawn by a hash of seed and id:
the same whatever the order of the input, and not the earliest, which are the easiest.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from typing import NamedTuple

DIMENSIONS = ("domain", "difficulty", "length", "language", "pronouns", "names")
"""What can be balanced: see `synth.groups`."""
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Balance:
    """`by`: one of DIMENSIONS. `shares`: group -> its share of the rows, together 1; empty: of all groups that are
    there the share that they have of the problems, so that selection thins none of them out."""

    by: str = "difficulty"
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.by not in DIMENSIONS:
            raise ValueError(f"by={self.by!r}: one of {', '.join(DIMENSIONS)}")
        if any(not 0 <= share <= 1 for share in self.shares.values()):
            raise ValueError(f"shares={dict(self.shares)}: each from 0 to 1")
        if self.shares and abs(sum(self.shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares={dict(self.shares)}: they come to {sum(self.shares.values()):g}, not to 1")


@dataclass(frozen=True)
class Selection:
    """`per_problem`: chains of one problem at most. `balance`: shares of groups; None: as they come. `seed`: of what is
    drawn where there is too much."""

    per_problem: int = 4
    balance: Balance | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_problem < 1:
            raise ValueError(f"per_problem={self.per_problem}: 1 or more")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")


class Candidate(NamedTuple):
    """A sample: ids of it and its problem, its verdict with the reason, its text, the groups of its problem."""

    id: str
    problem: str
    verdict: str
    reason: str | None
    text: str
    groups: Mapping[str, str]
    contaminated: bool = False


@dataclass(frozen=True)
class Cost:
    """What a share cost a group: rows that it had before, and rows that are left."""

    group: str
    share: float
    before: int
    after: int


def same_chain(text: str) -> str:
    """What makes two chains the same: their words, however they are spaced."""
    return _SPACES.sub(" ", text).strip()


def select(candidates: Sequence[Candidate], selection: Selection) -> tuple[dict[str, str | None], list[Cost]]:
    """The reason of each sample by id, None: it is selected; and what shares cost.

    Reasons: rejected, undecided, contaminated, empty, duplicate_chain, per_problem, balance.
    """
    reasons: dict[str, str | None] = {}
    by_problem: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if reason := _refused(candidate):
            reasons[candidate.id] = reason
        else:
            by_problem[candidate.problem].append(candidate)
    left: list[Candidate] = []
    for members in by_problem.values():
        chosen, dropped = _of_problem(members, selection)
        left += chosen
        reasons |= dropped
    if selection.balance is None:
        return reasons | dict.fromkeys((candidate.id for candidate in left), None), []
    kept, costs = _balanced(left, candidates, selection.balance, selection.seed)
    reasons |= {candidate.id: None if candidate.id in kept else "balance" for candidate in left}
    return reasons, costs


def _refused(candidate: Candidate) -> str | None:
    if candidate.verdict != "accepted":
        return candidate.verdict
    if candidate.contaminated:
        return "contaminated"
    return None if same_chain(candidate.text) else "empty"


def _of_problem(members: Sequence[Candidate], selection: Selection) -> tuple[list[Candidate], dict[str, str | None]]:
    """Distinct chains, as many as a problem may have; the reasons of the others."""
    dropped: dict[str, str | None] = {}
    distinct: dict[str, Candidate] = {}
    for candidate in sorted(members, key=lambda candidate: _drawn(candidate.id, selection.seed)):
        if distinct.setdefault(same_chain(candidate.text), candidate) is not candidate:
            dropped[candidate.id] = "duplicate_chain"
    chosen = list(distinct.values())
    dropped |= dict.fromkeys((candidate.id for candidate in chosen[selection.per_problem :]), "per_problem")
    return chosen[: selection.per_problem], dropped


def _balanced(
    left: Sequence[Candidate], proposed: Iterable[Candidate], balance: Balance, seed: int
) -> tuple[set[str], list[Cost]]:
    """The ids that stay so that every group has its share: as many rows as the scarcest group allows."""
    rows: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in left:
        rows[candidate.groups[balance.by]].append(candidate)
    shares = dict(balance.shares) or _shares_proposed(proposed, balance.by, rows)
    wanted = {group: share for group, share in shares.items() if share > 0}
    total = min((len(rows.get(group, ())) / share for group, share in wanted.items()), default=0.0)
    kept: set[str] = set()
    costs: list[Cost] = []
    for group in sorted(rows.keys() | wanted.keys()):
        members = sorted(rows.get(group, ()), key=lambda candidate: _drawn(candidate.id, seed))
        count = min(len(members), floor(total * wanted.get(group, 0.0) + 1e-9))
        kept.update(candidate.id for candidate in members[:count])
        costs.append(Cost(group, round(wanted.get(group, 0.0), 6), len(members), count))
    return kept, costs


def _shares_proposed(
    proposed: Iterable[Candidate], by: str, rows: Mapping[str, Sequence[Candidate]]
) -> dict[str, float]:
    """Of the problems of the groups of which something is left: a group without any cannot be held. Not of samples, of
    which a hard problem has many, since it is drawn for until enough are right."""
    groups = {candidate.problem: group for candidate in proposed if (group := candidate.groups[by]) in rows}
    counts = Counter(groups.values())
    return {group: count / counts.total() for group, count in counts.items()}


def _drawn(id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{id}".encode(), digest_size=8).digest()
