"""Sequential containers: one stream of bytes, plain or compressed, cut into records from its beginning to its end.

WARC, ARC, JSON lines and tar are rows of this kind: each brings a cutter, which says where a record stands, and a
parser, which is handed one span's bytes and says what it is; neither calls the other, so that one can contradict the
other. Shared are decompression (`members`, `raw`), the table of spans, and the bounds.
Only a member that reached its checksum is trusted, so all spans that touch a corrupt one carry its error; a file that
merely ends early keeps its whole records. `c_start` is the offset of the member that holds a span's first byte, `skip`
bytes into it (for a file that is one large member that means inflating from the top: recompress it, a member a record).
What a file may expand to is bounded, in bytes and in records, in proportion to its size as stored.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa

from gristmill.stages.containers.block_cut import Emit
from gristmill.stages.containers.bytes.compressed import Compression, compression
from gristmill.stages.containers.bytes.members import RETAIN, Damage, Members
from gristmill.stages.containers.bytes.raw import FEED, Raw
from gristmill.stages.containers.bytes.stream import Stream
from gristmill.stages.containers.record import Item, ReadConfig, Record, RecordError, Unreadable, one_line
from gristmill.stages.containers.span_table import (
    EXPANSION,
    EXPANSION_ANYWAY,
    FORMAT,
    RECORDS_ANYWAY,
    SCHEMA,
    OpenAt,
    ScanResult,
    check_tiles,
)
from gristmill.stages.containers.window import Settled, Window

STEP = 256 << 10  # decompressed bytes, after which the bounds are checked


class Cut(Protocol):
    """A cutter: fed with decompressed bytes, it emits spans (start, length, error) that tile them, in order."""

    @property
    def held(self) -> int:
        """Spans that were cut, but not emitted yet; they count for the bound on records."""
        ...

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        """The next piece, of any size; `begins_member`: a compressed member begins with it."""
        ...

    def close(self, message: str | None = None) -> None:
        """The data end, or break off because of `message`; what is fed after a break follows a gap."""
        ...


Parse = Callable[[Record, Any, ReadConfig], Record]
"""From a record that says only where it stands, and what `span` takes of it, to the record. Raises RecordError."""
Span = Callable[[Stream, int, int, int, int], Any]
"""What a parser is handed: of a span from where to where; `bytes`, or where a parser knows them, a long file."""


@dataclass(frozen=True)
class Sequential:
    """A row of the table of containers (the contract is `container.Container`).

    `begins` is asked about the first plain bytes of a file, `member_begins` about those of a compressed member that a
    search after damage came upon (at least 16). `parse_row` is asked in place of `parse` where whole rows are wanted.
    `reads_along`: a record is told by its own bytes, so that it can be read as soon as it is cut.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    member_begins: Callable[[bytes], bool]
    cut: Callable[[Emit], Cut]
    parse: Parse
    parse_row: Parse
    span: Span = Stream.bytes_of
    reads_along: bool = True

    def scan(self, stream: BinaryIO) -> ScanResult:
        """Only `read` is asked of the stream."""
        (result,) = self.scan_along(stream, None)
        assert isinstance(result, ScanResult)
        return result

    def scan_along(self, stream: BinaryIO, window: Window | None) -> Iterator[Settled | ScanResult]:
        """The same, the result last; before it what is settled meanwhile, if there is a window to hold it."""
        digest = hashlib.sha256()
        raw = Raw(stream, retain=RETAIN, seen=digest.update)
        how = compression(raw.peek(4))
        rows = _Rows(plain=how == "none")
        cut = self.cut(rows.add)
        for event in Members(raw, how, self.member_begins):
            if isinstance(event, Damage):
                rows.damage(event, cut)
                continue
            if event.begins is not None:
                rows.member(event.begins)
            before = rows.end
            # Of a plain file only the beginning is an event of its own; a cutter would take it for a member's edge.
            bomb = _feed(cut, rows, event.data, event.begins is not None and how != "none", raw)
            if window is not None:
                window.add(event.data[: rows.end - before])
                yield from window.settled(rows)
            if bomb is not None:
                rows.damage(Damage(raw.pos, _drained(raw), bomb, False), cut)
                break
        cut.close()
        rows.settle()
        if window is not None:
            yield from window.settled(rows, ended=True)
        spans = rows.table(how)
        check_tiles(spans, rows.end)
        yield ScanResult(digest.hexdigest(), raw.pos, spans)

    def read(self, open_at: OpenAt, spans: pa.Table, config: ReadConfig, *, rows: bool = False) -> Iterator[Item]:
        """One stream is opened per call and moves forward (it is reopened only behind a member whose cut end swallowed
        others)."""
        parse = self.parse_row if rows else self.parse
        columns = (spans[name].to_pylist() for name in ("ordinal", "start", "length", "c_start", "skip", "error"))
        with Stream(open_at, compression_of(open_at, spans)) as stream:
            for ordinal, start, length, c_start, skip, error in zip(*columns, strict=True):
                if error is not None:
                    yield Unreadable(ordinal, start, length, one_line(error))
                elif length > config.max_record_bytes:
                    limit = f"max_record_bytes={config.max_record_bytes}"
                    yield Unreadable(ordinal, start, length, f"record of {length} bytes is longer than {limit}")
                else:
                    data = self.span(stream, start, length, c_start, skip)
                    yield _parsed(parse, Record(ordinal, start, length, "other", ""), data, config)


def _parsed(parse: Parse, empty: Record, data: Any, config: ReadConfig) -> Item:
    """The record, or what is wrong with it."""
    try:
        return parse(empty, data, config)
    except RecordError as fault:
        error, url, warc_id = one_line(str(fault)), fault.url, fault.warc_id
    except BaseException as panic:
        if type(panic).__name__ != "PanicException":  # of Rust, as FastWARC raises it: no Exception
            raise
        error, url, warc_id = "the parser of this record panicked", None, None
    return Unreadable(empty.ordinal, empty.start, empty.length, error, url, warc_id)


def compression_of(open_at: OpenAt, spans: pa.Table) -> Compression:
    """How a container is compressed, by its scan; where the table lost its metadata, as its first bytes say."""
    noted = (spans.schema.metadata or {}).get(b"gristmill.compression", b"").decode()
    for how in ("none", "gzip", "zstd"):
        if how == noted:
            return how
    with open_at(0) as stream:
        return compression(stream.read(4))


def _feed(cut: Cut, rows: _Rows, data: bytes, begins_member: bool, raw: Raw) -> str | None:
    """Hands a piece to the cutter, in steps; what is wrong with the file if it expands too far, and no more of it."""
    for at in range(0, len(data), STEP):
        step = data[at : at + STEP]
        rows.end += len(step)
        cut.feed(step, begins_member and at == 0)
        bomb = _bomb(rows.end, len(rows) + cut.held, raw.pos)
        if bomb is not None:
            return bomb
    return None


def _bomb(size: int, records: int, stored: int) -> str | None:
    """What is wrong with `size` decompressed bytes or so many records out of `stored` bytes; None: nothing."""
    if size > EXPANSION * stored + EXPANSION_ANYWAY:
        return f"the first {stored} bytes of the file expand more than {EXPANSION} times: the rest is not read"
    if records > stored + RECORDS_ANYWAY:
        return f"the first {stored} bytes of the file expand to more than {records} records: the rest is not read"
    return None


def _drained(raw: Raw) -> int:
    """The end of the file, after reading it to there: its digest is of all its bytes."""
    while raw.take(FEED):
        pass
    return raw.pos


class _Rows:
    """The table while it grows: four integers a span, errors apart."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._start, self._length, self._c_start, self._skip = (array("q") for _ in range(4))
        self._errors: dict[int, str] = {}
        self._member_at: list[int] = []  # decompressed address of each member that open spans may begin in
        self._member_c: list[int] = []
        self._settled = 0  # address up to which every member reached its checksum, or was lost
        self.end = 0  # decompressed bytes so far

    def __len__(self) -> int:
        return len(self._start)

    @property
    def settled(self) -> int:
        return self.end if self._plain else self._settled

    def settle(self) -> None:
        """All that came so far: whatever damage follows blames no span of it."""
        self._settled = self.end

    def ends(self, row: int) -> int:
        return self._start[row] + self._length[row]

    def member(self, c_start: int) -> None:
        self.settle()
        self._member_at.append(self.end)
        self._member_c.append(c_start)

    def add(self, start: int, length: int, error: str | None) -> None:
        if self._plain:
            self._append(start, length, start, 0, error)
            return
        i = bisect_right(self._member_at, start) - 1  # the member in which the span's first byte stands
        self._append(start, length, self._member_c[i], start - self._member_at[i], error)
        if i > 1024:  # spans come in order, so none begins in an earlier member; seldom, as a deletion shifts the list
            del self._member_at[:i], self._member_c[:i]

    def _append(self, start: int, length: int, c_start: int, skip: int, error: str | None) -> None:
        if error is not None:
            self._errors[len(self._start)] = error
        self._start.append(start)
        self._length.append(length)
        self._c_start.append(c_start)
        self._skip.append(skip)

    def damage(self, event: Damage, cut: Cut) -> None:
        message = f"compressed bytes {event.first}-{event.last}: {event.message}"
        before = len(self._errors)
        cut.close(message)
        # A corrupt member's checksum covers all of its bytes, so every span that ends in it may be wrong, also those
        # that were cut before the fault. A member that is only cut off decoded what it has as it was written.
        yielded = bool(self._member_c) and self._member_c[-1] == event.first  # the failed member gave some bytes
        if event.corrupt and yielded:
            row = len(self._start) - 1
            while row >= 0 and self._start[row] + self._length[row] > self._member_at[-1]:
                self._errors.setdefault(row, message)
                row -= 1
        if len(self._errors) == before:  # it gave no byte that a span could blame: an empty span tells of it
            self._append(self.end, 0, event.first, 0, message)

    def table(self, how: Compression) -> pa.Table:
        columns = (self._start, self._length, self._c_start, self._skip)
        return self._table(0, len(self), [memoryview(column) for column in columns], how)

    def plain(self, first: int, last: int) -> pa.Table:
        start = self._start[first:last]
        return self._table(
            first, last, [start, self._length[first:last], start, array("q", bytes(8 * len(start)))], "none"
        )

    def _table(self, first: int, last: int, columns: Sequence[memoryview | array[int]], how: Compression) -> pa.Table:
        numbers = [pa.array(column, pa.int64()) for column in columns]
        errors = pa.array((self._errors.get(row) for row in range(first, last)), pa.string(), size=last - first)
        schema = SCHEMA.with_metadata({b"gristmill.spans": FORMAT, b"gristmill.compression": how.encode()})
        return pa.table([pa.array(np.arange(first, last)), *numbers, errors], schema=schema)
