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
from stages.work import Outcome, Stage, Work, receipt_of

FORGET = "forget"
REASON = f"{FORGET}.suppressed"


class Reads(Stage, Protocol):
    """A stage that reads records and stores the texts of those that go on, in two steps: what was taken down is left
    out between them. `run` is the one after the other."""

    def records(self, store: Store, payload: Any) -> tuple[pa.Table, Fates]:
        """The records that go on, with `id` and `url`, in order of the input, and the fates of the others."""
        ...

    def written(self, store: Store, table: pa.Table, fates: Fates) -> Outcome:
        """Stores both: the table as an object of kind `text`, the fates as one of kind `fates`."""
        ...

    def text_bytes(self, receipt: Receipt) -> int:
        """How many bytes of text went on, for shards of about equal size."""
        ...


@dataclass(frozen=True)
class SuppressedPayload:
    """The payload of the stage that reads, the list as an object, and the digests of lists that were shorter."""

    reading: Any
    suppression: ObjectRef
    earlier: tuple[str, ...]


@dataclass(frozen=True)
class Suppressed:
    """`stage` without the records of the list whose digest is `suppression` (`Suppression.load(store).digest`)."""

    name: ClassVar[str] = "suppress"
    VERSION: ClassVar[int] = 2

    stage: Any  # Reads
    suppression: str

    def identity(self) -> tuple[StageId, ...]:
        """That of the stage, and the list."""
        own = StageId(name=self.name, version=self.VERSION, config={"suppression": self.suppression})
        return (*self.stage.identity(), own)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: SuppressedPayload. Outputs as the stage."""
        started, payload = time.time(), work.payload
        suppression = Suppression.read(store, payload.suppression, self.suppression)
        done = (finished(store, key) for key in keys_before(work))
        receipt = next(filter(None, done), None)
        if receipt is not None:
            return self._taken_over(store, receipt, suppression)
        table, fates = self.stage.records(store, payload.reading)
        outcome: Outcome = self.stage.written(store, leave_out(suppression, table, fates), fates)
        if REASON not in outcome.reasons:
            plain = replace(work, stage=self.stage, payload=payload.reading)
            write_receipt(store, receipt_of(plain, outcome, started))
        return outcome

    def _taken_over(self, store: Store, receipt: Receipt, suppression: Suppression) -> Outcome:
        """What was read before, without what is on the list by now."""
        text = receipt.output("text")
        keys = read_table(store, text, ["id", "url"])
        if suppression.match(keys["id"], keys["url"]).any():
            fates = Fates(rows=[read_table(store, receipt.output("fates"))])
            table = leave_out(suppression, read_table(store, text), fates)
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
    stages = [work.stage.stage, *(replace(work.stage, suppression=digest) for digest in work.payload.earlier)]
    return [work_key(stage.identity(), work.inputs or ()) for stage in stages]


def leave_out(suppression: Suppression, table: pa.Table, fates: Fates) -> pa.Table:
    """The rows that are not on the list; the others get their fate."""
    hit = pa.array(suppression.match(table["id"], table["url"]))
    lost = table.filter(hit)
    fates.add_dropped(lost, pa.repeat(REASON, lost.num_rows))
    return table.filter(pc.invert(hit)).combine_chunks()  # the same bytes, however the table came about


def suppressed(stage: Any, suppression: str) -> Any:
    """The stage as it runs under the list of this digest; itself for none, so that run keys stay as they were."""
    return Suppressed(stage, suppression) if suppression else stage


def suppressed_works(
    store: Store, suppression: Suppression, works: Iterable[Work], earlier: Iterable[str] = ()
) -> Iterator[Work]:
    """The works of a stage that reads, under a list; as they are where it is empty. `earlier`: digests of shorter lists
    under which they may have been done before."""
    if not suppression:
        yield from works
        return
    listed, before = suppression.put(store), tuple(digest for digest in earlier if digest)
    for work in works:
        stage = suppressed(work.stage, suppression.digest)
        yield replace(work, stage=stage, payload=SuppressedPayload(work.payload, listed, before))
