"""Suppress: what was asked to be forgotten is left out of every later run, before its text is written anywhere.

It wraps the stage that reads. A piece of a crawl that was read before is not read again because the list grew: the
texts of the plain stage, or of the list that the dataset's latest version was made with, are taken as they are, or
written anew without what is on the list now. Where nothing is on it, the plain stage's receipt is written too, so that
the next list costs no more. Only what has a text is left out: all else has its fate already, and leaves none.
Without a list there is nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lake.objects import ObjectRef, read_table
from lake.receipt import Receipt, StageId, finished, work_key, write_receipt
from lake.store import Store
from lake.suppress import Suppression
from stages.fates import Fates
from stages.work import Outcome, Work, receipt_of

REASON = "forget.suppressed"


class Writes(Protocol):
    """A stage that reads records and stores the texts of those that go on."""

    def written(self, store: Store, table: pa.Table, fates: Fates) -> Outcome:
        """Stores both. `table` has id and url; its object is of kind `text`, that of the fates of kind `fates`."""
        ...


@dataclass(frozen=True)
class Suppressed:
    """`stage` without the records of the list whose digest is `suppression` (`Suppression.load(store).digest`)."""

    name: ClassVar[str] = "suppress"
    VERSION: ClassVar[int] = 2

    stage: Any  # Writes
    suppression: str

    def identity(self) -> tuple[StageId, ...]:
        own = StageId(name=self.name, version=self.VERSION, config={"suppression": self.suppression})
        return (*self.stage.identity(), own)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: that of the stage, suppression (the list as an object), earlier (digests of lists that were
        shorter). Outputs as the stage."""
        started = time.time()
        done = (finished(store, key) for key in keys_before(work))
        receipt = next(filter(None, done), None)
        if receipt is not None:
            return self._without(store, work, receipt)
        outcome: Outcome = self.stage.run(store, work)
        if REASON not in outcome.reasons:
            write_receipt(store, receipt_of(replace(work, stage=self.stage), outcome, started))
        return outcome

    def _without(self, store: Store, work: Work, receipt: Receipt) -> Outcome:
        listed, text = listed_in(store, work), receipt.output("text")
        assert listed is not None
        keys = read_table(store, text, ["id", "url"])
        if listed.match(keys["id"], keys["url"]).any():
            fates = Fates(rows=[read_table(store, receipt.output("fates"))])
            table = leave_out(store, work, read_table(store, text), fates)
            outcome: Outcome = self.stage.written(store, table, fates)
            return outcome
        return Outcome(
            outputs=receipt.outputs,
            passed=receipt.passed,
            dropped=receipt.dropped,
            quarantined=receipt.quarantined,
            reasons=receipt.reasons,
            errors=receipt.errors,
            facts=receipt.facts,
            machine_fates=receipt.machine_fates,
        )


def keys_before(work: Work) -> list[str]:
    """Of the same reading with nothing, or less, left out."""
    if not isinstance(work.stage, Suppressed):
        return []
    stages = [work.stage.stage, *(replace(work.stage, suppression=digest) for digest in work.payload["earlier"])]
    return [work_key(stage.identity(), work.inputs or ()) for stage in stages]


def listed_in(store: Store, work: Work) -> Suppression | None:
    """The list that this work goes by, as it was when the run began."""
    if not isinstance(work.stage, Suppressed):
        return None
    return Suppression.read(store, ObjectRef(**work.payload["suppression"]), work.stage.suppression)


def leave_out(store: Store, work: Work, table: pa.Table, fates: Fates) -> pa.Table:
    """The rows that are not on the work's list; the others get their fate."""
    listed = listed_in(store, work)
    if listed is None:
        return table
    hit = pa.array(listed.match(table["id"], table["url"]))
    lost = table.filter(hit)
    fates.add_dropped(lost, pa.repeat(REASON, lost.num_rows))
    return table.filter(pc.invert(hit)).combine_chunks()  # the same bytes, however the table came about


def suppressed(stage: Any, suppression: str) -> Any:
    """The stage as it runs under the list of this digest; itself for none, so that run keys stay as they were."""
    return Suppressed(stage, suppression) if suppression else stage


def suppressed_works(
    store: Store, listed: Suppression, works: Iterable[Work], earlier: Iterable[str] = ()
) -> Iterator[Work]:
    """The works of a stage that reads, under a list; as they are where it is empty. `earlier`: digests of shorter lists
    under which they may have been done before."""
    ref, before = listed.put(store).model_dump() if listed else {}, [digest for digest in earlier if digest]
    for work in works:
        if listed:
            payload = {**work.payload, "suppression": ref, "earlier": before}
            work = replace(work, stage=suppressed(work.stage, listed.digest), payload=payload)
        yield work
