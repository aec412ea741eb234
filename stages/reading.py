"""Reading: what every stage does that takes records out of containers and judges them one by one.

A stage opens the chunk that its Work names, if the file is still the one that was scanned. A record that hangs kills
the worker (on Ray); work that killed its worker again and again comes back `careful`, and then each record is judged in
a child that may die of it, so that it costs itself alone. Ids are given here, by one rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from lake.balance import Tally
from lake.identity import record_id
from lake.objects import ObjectRef, read_table
from lake.sources import input_info, open_input
from lake.store import Store
from stages.careful import Child, ChildDied, ChildTimeout, watchdog
from stages.containers.read import Record, Unreadable
from stages.inputs import ScannedInput
from stages.work import Work

RECORD = (
    ("id", pa.string()),
    ("input", pa.string()),
    ("ordinal", pa.int64()),
    ("start", pa.int64()),
    ("length", pa.int64()),
)
"""Columns of every table of records that were read: who each is, and where it stands."""
BATCH_ROWS = 4096
Item = Record | Unreadable
OpenAt = Callable[[int], BinaryIO]
Found = TypeVar("Found")
FoundOut = TypeVar("FoundOut", covariant=True)


class Reader(Protocol, Generic[FoundOut]):
    """A stage that reads: how it takes items from a container, and what it makes of one.

    `failed` is what stands for a record that killed or hung its process, with the reason.
    """

    name: ClassVar[str]

    @property
    def seconds_per_record(self) -> float: ...

    def items(self, open_at: OpenAt, spans: pa.Table, kind: Any) -> Iterator[Item]: ...

    def found(self, item: Item) -> FoundOut: ...

    def failed(self, reason: str) -> FoundOut: ...


def judged(stage: Reader[Found], store: Store, work: Work) -> Iterator[tuple[Item, Found]]:
    """Each record of the chunk and what the stage makes of it.

    payload: uri, stamp (size, modified, etag when scanned), kind, digest, spans (ObjectRef), first, rows.
    """
    p = work.payload
    if input_info(p["uri"]).stamp != tuple(p["stamp"]):
        raise OSError(f"{p['uri']} changed since it was scanned: run the same command again")
    spans = read_table(store, ObjectRef(**p["spans"])).slice(p["first"], p["rows"])
    yield from (_carefully if work.careful else _in_turn)(stage, p["uri"], p["kind"], spans)
    watchdog.feed(0)  # what follows waits for the store, not for a record


def _in_turn(stage: Reader[Found], uri: str, kind: str, spans: pa.Table) -> Iterator[tuple[Item, Found]]:
    def open_at(offset: int) -> BinaryIO:
        return open_input(uri, offset)

    for item in stage.items(open_at, spans, kind):
        watchdog.feed(stage.seconds_per_record)
        yield item, stage.found(item)


def _carefully(stage: Reader[Found], uri: str, kind: str, spans: pa.Table) -> Iterator[tuple[Item, Found]]:
    """The same, each record in a child that may die of it."""
    with Child(stage.seconds_per_record) as child:
        for row in range(spans.num_rows):
            span = spans.slice(row, 1)
            try:
                yield from child.call(_one_span, stage, uri, kind, span)
            except (ChildDied, ChildTimeout) as error:
                ordinal, start, length = (span[name][0].as_py() for name in ("ordinal", "start", "length"))
                what = "crashed" if isinstance(error, ChildDied) else "timeout"
                yield Unreadable(ordinal, start, length, str(error)), stage.failed(f"{stage.name}.{what}")


def _one_span(stage: Reader[Found], uri: str, kind: str, span: pa.Table) -> list[tuple[Item, Found]]:
    return list(_in_turn(stage, uri, kind, span))


class Rows:
    """A table that grows row by row; what is complete is held as Arrow, of which a row takes a tenth of a dict."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._tables, self._loose = schema, list[pa.Table](), list[dict[str, Any]]()

    def append(self, row: dict[str, Any]) -> None:
        self._loose.append(row)
        if len(self._loose) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._tables.append(pa.Table.from_pylist(self._loose, schema=self._schema))
        self._loose = []

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._tables)


def read_works(stage: Any, inputs: Iterable[ScannedInput]) -> Iterator[Work]:
    """One Work a chunk of an input; what comes in is what the boundary scan counted."""
    for one in inputs:
        for first, rows in one.chunks:
            payload = {
                "uri": one.uris[0],
                "stamp": one.stamp,
                "kind": one.kind,
                "digest": one.digest,
                "spans": one.spans.model_dump(),
                "first": first,
                "rows": rows,
            }
            tally = Tally.of_records([one.digest] * rows, range(first, first + rows))
            label = f"{one.uris[0]} records {first}+{rows}"
            yield Work(stage, (one.digest, f"{first}+{rows}"), payload, tally, label)


def keys_of(item: Item, digest: str, text: str | None) -> dict[str, Any]:
    """Who a record is, and where it stands. JSON lines have no identity of their own: their row and text are it."""
    record: dict[str, Any] = {
        "input": digest,
        "ordinal": item.ordinal,
        "start": item.start,
        "length": item.length,
    }
    fallback = f"{digest}:{item.ordinal}"
    if isinstance(item, Unreadable):
        return record | {"id": record_id(url=item.url, source_key=fallback, own=fallback.encode())}
    own = item.identity or b"row\0%d\0" % item.ordinal + hashlib.sha256((text or "").encode()).digest()
    return record | {"id": record_id(url=item.url, source_key=item.id or fallback, own=own)}


def content_hash(text: str) -> str:
    """128 bits in hex: texts with the same are the same."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
