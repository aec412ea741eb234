"""Suppress: what was asked to be forgotten is left out of every later run, before its text is written anywhere.

It wraps the stage that reads. A piece of a crawl that was read before is not read again because the list grew: the
texts of the plain stage, or of the list of the dataset's latest version, are taken as they are, or written anew without
what is on the list now. Where nothing is on it, the plain stage's receipt is written too, so that the next list costs
no more. Only what has a text is left out: all else has its fate already, and leaves none.
Without a list there is nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId, finished, work_key, write_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.lake.takedown.suppress import Suppression
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Resources, Stage, Work, receipt_of
from gristmill.stages.read.reading import FORGOTTEN, NotedMedia, Reading, ReadPayload, ReadStage

FORGET = "forget"
REASON = f"{FORGET}.suppressed"


@dataclass(frozen=True)
class SuppressedPayload:
    """The payload of the stage that reads, the list as an object, and the digests of lists that were shorter."""

    reading: ReadPayload
    suppression: ObjectRef
    earlier: tuple[str, ...]


@dataclass(frozen=True)
class Suppressed(Stage[SuppressedPayload]):
    """`stage` without the records of the list whose digest is `suppression` (`Suppression.load(store).digest`)."""

    name: ClassVar[str] = "suppress"
    VERSION: ClassVar[int] = 2

    stage: ReadStage
    suppression: str

    def identity(self) -> tuple[StageId, ...]:
        """That of the stage, and the list."""
        own = StageId(name=self.name, version=self.VERSION, config={"suppression": self.suppression})
        return (*self.stage.identity(), own)

    @property
    def resources(self) -> Resources:
        """Those of the stage."""
        return self.stage.resources

    @property
    def deterministic(self) -> bool:
        """As the stage is."""
        return self.stage.deterministic

    def run(self, store: Store, work: Work[SuppressedPayload]) -> Outcome:
        """payload: SuppressedPayload. Outputs as the stage."""
        started, payload = time.time(), work.payload
        suppression = Suppression.read(store, payload.suppression, self.suppression)
        done = (finished(store, key) for key in keys_before(work))
        receipt = next(filter(None, done), None)
        if receipt is not None:
            return self._taken_over(store, receipt, suppression)
        reading = self.stage.records(store, payload.reading)
        outcome = self.stage.stored(store, leave_out(suppression, reading))
        if REASON not in outcome.reasons and not outcome.children.get(FORGOTTEN, Tally()).count:
            plain = Work(self.stage, work.inputs, payload.reading, work.received, work.label)
            write_receipt(store, receipt_of(plain, outcome, started))
        return outcome

    def _taken_over(self, store: Store, receipt: Receipt, suppression: Suppression) -> Outcome:
        """What was read before, without what is on the list by now."""
        text, noted = receipt.output("text"), self._noted(store, receipt)
        keys = read_table(store, text, list(self.stage.named_by))
        if suppression.match_rows(keys).any() or (noted is not None and _listed(suppression, noted.table)):
            fates = Fates(rows=[read_table(store, receipt.output("fates"))])
            reading = Reading(read_table(store, text), fates, noted)
            return self.stage.stored(store, leave_out(suppression, reading))
        return Outcome(
            outputs=receipt.outputs,
            passed=receipt.passed,
            dropped=receipt.dropped,
            quarantined=receipt.quarantined,
            reasons=receipt.reasons,
            errors=receipt.errors,
            facts=receipt.facts_as(self.stage.facts),
            machine_fates=receipt.machine_fates,
            children_in=receipt.children_in,
            children=receipt.children,
        )

    def _noted(self, store: Store, receipt: Receipt) -> NotedMedia | None:
        """The media that the stage noted, as it stored them."""
        if not self.stage.notes_media:
            return None
        table = read_table(store, receipt.output(media.KIND))
        return NotedMedia(table, receipt.children_in, receipt.children[FORGOTTEN])


def keys_before(work: Work[SuppressedPayload]) -> list[str]:
    """Of the same reading with nothing, or less, left out."""
    stage = work.stage
    assert isinstance(stage, Suppressed)
    before: list[Stage[Any]] = [stage.stage, *(replace(stage, suppression=digest) for digest in work.payload.earlier)]
    return [work_key(earlier.identity(), work.inputs or ()) for earlier in before]


def leave_out(suppression: Suppression, reading: Reading) -> Reading:
    """The rows that are not on the list; the others get their fate. Of records on the list no media stay noted."""
    table = reading.table
    hit = pa.array(suppression.match_rows(table))
    lost = table.filter(hit)
    reading.fates.add_dropped(lost, pa.repeat(REASON, lost.num_rows))
    left = table
    if lost.num_rows or any(column.num_chunks > 1 for column in table.columns):
        left = table.filter(pc.invert(hit)).combine_chunks()  # the same bytes, however the table came about
    if reading.noted is None:
        return replace(reading, table=left)
    return replace(reading, table=left, noted=_without(suppression, reading.noted, lost["id"].to_pylist()))


def _listed(suppression: Suppression, rows: pa.Table) -> list[str]:
    """The ids of the records on the list, by a table of media."""
    hit = suppression.match(rows["id"]) | suppression.match_media(rows["sha256"])
    ids: list[str] = rows["id"].filter(pa.array(hit)).to_pylist()
    return ids


def _without(suppression: Suppression, noted: NotedMedia, lost: Sequence[str]) -> NotedMedia:
    """What was noted without the media of records on the list; `lost`: those of them that had a text."""
    gone = pa.array(sorted({*lost, *_listed(suppression, noted.table)}), pa.string())
    hit = pc.is_in(noted.table["id"], gone)
    forgotten = noted.forgotten + media.tally(noted.table.filter(hit))
    return replace(noted, table=noted.table.filter(pc.invert(hit)), forgotten=forgotten)


@dataclass(frozen=True)
class Listed:
    """A list as works carry it: as an object, with its digest, and those of shorter lists under which they may have
    been done before."""

    suppression: ObjectRef
    digest: str
    earlier: tuple[str, ...]

    @classmethod
    def put(cls, store: Store, suppression: Suppression, earlier: Iterable[str] = ()) -> Listed:
        """Stores the list, for whoever does the works."""
        return cls(suppression.put(store), suppression.digest, tuple(digest for digest in earlier if digest))

    def work(self, work: Work[ReadPayload]) -> Work[SuppressedPayload]:
        """The work of a stage that reads, under the list."""
        assert isinstance(work.stage, ReadStage)
        payload = SuppressedPayload(work.payload, self.suppression, self.earlier)
        return Work(Suppressed(work.stage, self.digest), work.inputs, payload, work.received, work.label)


def suppressed(stage: ReadStage, suppression: str) -> Stage[Any]:
    """The stage as it runs under the list of this digest; itself for none, so that run keys stay as they were."""
    return Suppressed(stage, suppression) if suppression else stage


def suppressed_works(
    store: Store, works: Iterable[Work[ReadPayload]], suppression: Suppression, earlier: Iterable[str] = ()
) -> Iterator[Work[SuppressedPayload]]:
    """The works of a stage that reads, under a list. `earlier`: digests of shorter lists under which they may have been
    done before."""
    listed = Listed.put(store, suppression, earlier)
    for work in works:
        yield listed.work(work)
