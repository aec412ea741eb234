"""Suppress: what was asked to be forgotten is left out of every later run, before anything is compared or signed.

It stands between the screen and the duplicates, so that a suppressed page outlives no other, and nothing of it enters a
version. One Work a chunk reads keys and URLs, no text; what it drops is said in a table of
losers, as by the stages after it. Its config is the digest of the list as it was when the run began; without a list
there is no Work at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lake import ledger
from lake.balance import Tally
from lake.objects import ObjectRef
from lake.receipt import StageId
from lake.store import Store
from lake.suppress import Suppression
from stages.fates import KEYS, Fates
from stages.losers import put_losers
from stages.screen import passed_rows
from stages.work import Outcome, Work, stage_id

REASON = "forget.suppressed"
_COLUMNS = [*KEYS, "url"]


@dataclass(frozen=True)
class Suppress:
    """`suppression` is the digest of the list (`Suppression.load(store).digest`)."""

    name: ClassVar[str] = "suppress"
    VERSION: ClassVar[int] = 1

    suppression: str

    def identity(self) -> tuple[StageId, ...]:
        """Nothing without a list: run keys of a lake in which nothing was ever forgotten stay as they are."""
        return (stage_id(self),) if self.suppression else ()

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: text, screened (of a chunk), suppression (the list as an object). Outputs `losers` and fates."""
        p = work.payload
        listed = Suppression.read(store, ObjectRef(**p["suppression"]), self.suppression)
        rows = passed_rows(store, ObjectRef(**p["text"]), ObjectRef(**p["screened"]), _COLUMNS)
        hit = pa.array(listed.match(rows["id"], rows["url"]))
        lost, passed = rows.filter(hit), rows.filter(pc.invert(hit))
        fates = Fates()
        fates.add_dropped(lost, pa.repeat(REASON, lost.num_rows))
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_losers(store, lost), written),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


def suppress_works(
    store: Store, listed: Suppression, chunks: Iterable[tuple[ObjectRef, ObjectRef, Tally]]
) -> list[Work]:
    """One Work a chunk (text, screened, what passed the screen); none where the list is empty."""
    if not listed:
        return []
    stage, ref = Suppress(listed.digest), listed.put(store).model_dump()
    return [
        Work(
            stage=stage,
            inputs=(text.sha256, screened.sha256),
            payload={"text": text.model_dump(), "screened": screened.model_dump(), "suppression": ref},
            came_in=passed,
            label=text.sha256[:12],
        )
        for text, screened, passed in chunks
    ]
