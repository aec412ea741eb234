"""Reading: what every stage does that takes records out of containers and judges them one by one.

A stage opens the chunk that its Work names, if the file is still the one that was scanned. Records are read and judged
in a child process, wherever the Work runs: one that kills it, or takes longer than it may, costs itself alone, and that
time once. Ids are given here, by one rule.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import is_record_id, own_identity, record_id
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.inputs.sources import unchanged
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.containers import UNREADABLE, Item, OpenAt, ReadConfig, Record, Unreadable
from gristmill.stages.containers.media import digests
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.isolated import ChildDied, ChildTimeout, child, watchdog
from gristmill.stages.read.untimed import open_untimed

RECORD = (
    ("id", pa.string()),
    ("input", pa.string()),
    ("ordinal", pa.int64()),
    ("start", pa.int64()),
    ("length", pa.int64()),
)
"""Columns of every table of records that were read: who each is, and where it stands."""
Judged = TypeVar("Judged")
JudgedOut = TypeVar("JudgedOut", covariant=True)


@dataclass(frozen=True)
class ReadPayload:
    """Some records of an input: where it lies, what it was like when it was scanned (`stamp`: size, modified, etag),
    its kind and digest, and which rows of its spans to read. `keeps_ids`: its rows are records of a version of this
    lake, and stay these records. `answers`: what became of the first ones already, or of all (stages/read/along.py);
    they are in one process and travel nowhere."""

    uri: str
    stamp: tuple[Any, ...]
    kind: str
    digest: str
    spans: ObjectRef
    first: int
    rows: int
    keeps_ids: bool = False
    answers: Iterator[tuple[Item, Any]] | None = field(default=None, repr=False, compare=False)


KEEPS_IDS = "keeps ids"
"""In the key of work on rows of a version: of the same bytes in a file each record would get another id."""
LISTED, FORGOTTEN = "listed", "forgotten"
"""Verdicts of media: they stand in the table of media, or were taken down."""


@dataclass(frozen=True)
class NotedMedia:
    """Which media the records of a chunk have, whatever became of them: rows of `lake.accounts.media.SCHEMA`, and the
    tallies of what came in and of what of it was taken down."""

    table: pa.Table
    came: Tally
    forgotten: Tally = Tally()

    def put(self, store: Store) -> Outcome:
        """Stores the table; its part of an outcome."""
        table = media.sort(self.table)
        return Outcome(
            outputs=(put_table(store, media.KIND, table, sorted_by="sha256"),),
            children_in=self.came,
            children={LISTED: media.tally(table), FORGOTTEN: self.forgotten},
        )


@dataclass(frozen=True)
class Reading:
    """Records that go on, with `id` and `url`, in order of the input; fates of the others; media of both, if any."""

    table: pa.Table
    fates: Fates
    noted: NotedMedia | None = None


class ReadStage(Stage[ReadPayload]):
    """A stage that reads records and stores the texts of those that go on, in two steps: what was taken down is left
    out between them (stages/read/suppress.py).

    `facts`: the class of what it hands out beside its outputs. `read`: what the fields of a row are called, and how
    large a record may be.
    """

    facts: ClassVar[type[Any]]
    read: ReadConfig  # a field of every such stage
    named_by: ClassVar[tuple[str, ...]] = ("id", "url")
    """Columns by which a takedown finds a record: also `digests`, of its media, where it has any."""

    reads_along: ClassVar[bool] = False
    """Whether it can judge records while their file is scanned: by `Reader`'s methods, and in `records` by `judged`."""

    unwanted_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons with which it drops what is a record of its kind, and could have been read."""

    notes_media: ClassVar[bool] = False
    """Whether it notes the media of all records, from which a version has a table (stages/read/list_media.py)."""

    @abstractmethod
    def records(self, store: Store, payload: ReadPayload) -> Reading:
        """The records of a chunk, read and judged."""

    @abstractmethod
    def written(self, store: Store, table: pa.Table, fates: Fates) -> Outcome:
        """Stores both: the table as an object of kind `text`, the fates as one of kind `fates`."""

    @abstractmethod
    def text_bytes(self, receipt: Receipt) -> int:
        """How many bytes of text went on, for shards of about equal size."""

    def run(self, store: Store, work: Work[ReadPayload]) -> Outcome:
        """Reads, then stores."""
        return self.stored(store, self.records(store, work.payload))

    def stored(self, store: Store, reading: Reading) -> Outcome:
        """Stores what was read."""
        outcome = self.written(store, reading.table, reading.fates)
        if reading.noted is None:
            return outcome
        own = reading.noted.put(store)
        outputs = (*outcome.outputs, *own.outputs)
        return replace(outcome, outputs=outputs, children_in=own.children_in, children=own.children)


class Reader(Protocol, Generic[JudgedOut]):
    """A stage that reads: how it takes items from a container, and how it judges one.

    With `seconds_per_record` None there is no limit and no child process (for debuggers).
    """

    name: ClassVar[str]

    @property
    def seconds_per_record(self) -> float | None:
        """Seconds after which a record is taken to hang."""
        ...

    def items(self, open_at: OpenAt, spans: pa.Table, kind: str) -> Iterator[Item]:
        """One item a row of `spans`, in order, from a container of this `kind` (`stages.containers.read`)."""
        ...

    def judge(self, item: Item) -> JudgedOut:
        """What becomes of an item. It may crash or hang, and raises only what is a defect of the stage."""
        ...

    def failed(self, reason: str) -> JudgedOut:
        """The judgement on a record whose process died; `reason`: `STAGE.timeout` or `STAGE.crashed`."""
        ...


def judged(stage: Reader[Judged], store: Store, payload: ReadPayload) -> Iterator[tuple[Item, Judged]]:
    """Each record of the chunk and what the stage makes of it. Raises OSError if the input is not what was scanned."""
    answered = 0
    for answer in payload.answers or ():
        answered += 1
        yield answer
    if answered == payload.rows:
        return
    if not unchanged(payload.uri, tuple(payload.stamp)):
        raise OSError(f"{payload.uri} changed since it was scanned: run the same command again")
    spans = read_table(store, payload.spans).slice(payload.first + answered, payload.rows - answered)
    judge_all = _in_turn if stage.seconds_per_record is None else _isolated
    yield from judge_all(stage, payload.uri, payload.kind, spans)
    if not unchanged(payload.uri, tuple(payload.stamp)):  # not every store notices it in the middle of a stream
        raise OSError(f"{payload.uri} changed while it was read: run the same command again")


def _in_turn(stage: Reader[Judged], uri: str, kind: str, spans: pa.Table) -> Iterator[tuple[Item, Judged]]:
    for item in stage.items(partial(open_untimed, uri), spans, kind):
        yield item, stage.judge(item)


def _isolated(stage: Reader[Judged], uri: str, kind: str, spans: pa.Table) -> Iterator[tuple[Item, Judged]]:
    """The same in the child. A death is tried once more: it may have been the machine's, short of memory.

    What was answered stays answered: a new child is sent the spans from the first one without an answer, which is the
    one at fault. A timeout is not tried again, as it would cost the same time once more.
    """
    first, suspect = 0, -1  # spans with an answer; the one at which a child died already
    while first < spans.num_rows:
        try:
            for answer in child().iterate(_timed, stage, uri, kind, spans.slice(first)):
                first += 1
                yield answer
            return
        except ChildTimeout:
            yield hung(stage, spans, first)
        except ChildDied as error:
            if suspect != first:
                suspect = first
                continue
            yield _lost(stage, spans, first, "crashed", str(error))
        first += 1


def hung(stage: Reader[Judged], spans: pa.Table, row: int) -> tuple[Item, Judged]:
    """The answer on the span of a record that takes longer than it may."""
    return _lost(stage, spans, row, "timeout", f"no answer in {stage.seconds_per_record:g} s")


def _lost(stage: Reader[Judged], spans: pa.Table, row: int, what: str, error: str) -> tuple[Item, Judged]:
    ordinal, start, length = (spans[name][row].as_py() for name in ("ordinal", "start", "length"))
    return Unreadable(ordinal, start, length, error), stage.failed(f"{stage.name}.{what}")


def _timed(stage: Reader[Judged], uri: str, kind: str, spans: pa.Table) -> Iterator[tuple[Item, Judged]]:
    """What the child does: each record has its time from when the one before it was answered."""
    watchdog.feed(stage.seconds_per_record or 0)
    for item, answer in _in_turn(stage, uri, kind, spans):
        yield item.without_content() if isinstance(item, Record) else item, answer
        watchdog.feed(stage.seconds_per_record or 0)
    watchdog.feed(0)


def read_works(stage: Stage[ReadPayload], inputs: Iterable[ScannedInput]) -> Iterator[Work[ReadPayload]]:
    """One Work a chunk of an input; what comes in is what the boundary scan counted."""
    for scanned in inputs:
        uri, digest = scanned.uris[0], scanned.digest
        keeps_ids = bool(scanned.shard_of)
        named_by: tuple[str, ...] = (KEEPS_IDS,) if keeps_ids else ()
        if scanned.kind == UNREADABLE:  # under another name the same bytes may be records; and faults differ
            named_by = (UNREADABLE, scanned.spans.sha256)
        for first, rows in scanned.chunks:
            payload = ReadPayload(uri, scanned.stamp, scanned.kind, digest, scanned.spans, first, rows, keeps_ids)
            tally = Tally.of_records([digest] * rows, range(first, first + rows))
            place = f"{scanned.shard_of or uri} records {first}+{rows}"
            yield Work(stage, (digest, f"{first}+{rows}", *named_by), payload, tally, place)


def keys_of(item: Item, payload: ReadPayload, text: str | None) -> dict[str, Any]:
    """Who a record is, and where it stands. Rows have no identity of their own: their place and text are it; unless
    they are records of a version, which have an id."""
    digest = payload.digest
    record: dict[str, Any] = {
        "input": digest,
        "ordinal": item.ordinal,
        "start": item.start,
        "length": item.length,
    }
    if payload.keeps_ids and isinstance(item, Record):
        if item.id is None or not is_record_id(item.id):  # the frame reads only versions that have such ids
            raise ValueError(f"row {item.ordinal} of a version has {item.id!r} for an id, not 32 hex digits")
        return record | {"id": item.id}
    fallback = f"{digest}:{item.ordinal}"
    if isinstance(item, Unreadable):
        return record | {"id": record_id(url=item.url, source_key=fallback, own=fallback.encode())}
    own = item.identity or b"row\0%d\0" % item.ordinal + hashlib.sha256((text or "").encode()).digest()
    own = own_identity(own, digests(item.media))
    return record | {"id": record_id(url=item.url, source_key=item.id or fallback, own=own)}


def content_hash(text: str) -> str:
    """128 bits in hex: texts with the same are the same."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
