"""The problems of a round: a share of all, so that a policy that learns from its own samples meets others in the next.

Where a problem stands is drawn from seed and id; a round takes an arc of that circle, the next one the arc behind it.
So each problem comes once before any comes twice, whatever the order of the input, and nobody has to know them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, Passed, put_verdicts
from gristmill.stages.core.work import Outcome, Stage, Work
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
        is_in = [self.takes(problem) for problem in rows["id"].to_pylist()]
        reason = pa.array([None if own else OTHER_ROUND for own in is_in], pa.string())
        verdicts = rows.select(list(KEYS)).append_column("reason", reason)
        fates = Fates()
        for own, record in zip(is_in, verdicts.to_pylist(), strict=True):
            if not own:
                fates.add(record, "dropped", OTHER_ROUND)
        written, counts = fates.write(store)
        kept = rows.filter(pc.is_null(reason))
        return Outcome(
            outputs=(put_verdicts(store, verdicts), written),
            received=ledger.tally(rows) if work.received is None else None,
            passed=ledger.tally(kept),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Passed(pc.sum(pc.binary_length(kept["text"])).as_py() or 0),
        )

    def takes(self, problem: str) -> bool:
        """Whether a problem, by its id, is in."""
        digest = hashlib.blake2b(f"{self.seed}/{problem}".encode(), digest_size=4).digest()
        width = round(self.share * _CIRCLE)
        return (int.from_bytes(digest, "little") - self.round * width) % _CIRCLE < width


def share_works(stage: TakeShare, posings: Sequence[Posing]) -> Iterator[Work[Posing]]:
    """One Work a chunk."""
    for posing in posings:
        yield Work(stage, posing.digests, posing, posing.received, posing.chunk.label)
