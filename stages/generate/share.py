"""The problems of a round: a share of all, so that a policy that learns from its own samples meets others in the next.

Where a problem stands is drawn from seed and id; a round takes an arc of that circle, the next one the arc behind it.
So each problem comes once before any comes twice, whatever the order of the input, and nobody has to know them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.generate.screen import screened
from gristmill.stages.generate.tables import Posing

OTHER_ROUND = "share.other_round"
_CIRCLE = 1 << 32


@dataclass(frozen=True)
class TakeShare(Stage[Posing]):
    """`share` of the problems, those of round number `round`, from 0. Outputs `screened`, verdicts on problems, and
    fates."""

    name: ClassVar[str] = "share"
    VERSION: ClassVar[int] = 1

    share: float
    round: int
    seed: int

    def run(self, store: Store, work: Work[Posing]) -> Outcome:
        """Facts: Passed. Raises DamagedObject."""
        rows = work.payload.rows(store, ["text"])
        out = {row: None for row, problem in enumerate(rows["id"].to_pylist()) if not self.takes(problem)}
        return screened(store, work, rows, OTHER_ROUND, out)

    def takes(self, problem: str) -> bool:
        """Whether a problem, by its id, is in."""
        digest = hashlib.blake2b(f"{self.seed}/{problem}".encode(), digest_size=4).digest()
        width = round(self.share * _CIRCLE)
        return (int.from_bytes(digest, "little") - self.round * width) % _CIRCLE < width


def share_works(stage: TakeShare, posings: Sequence[Posing]) -> Iterator[Work[Posing]]:
    """One Work a chunk."""
    for posing in posings:
        yield Work(stage, posing.digests, posing, posing.received, posing.chunk.label)
