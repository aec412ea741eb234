"""Spans: one pass over a file, its digest, and a table of spans that tile its decompressed bytes.

Every span is one record to be, or one stretch of damage (`error` set): both get one fate later. What was lost in the
compressed bytes and yielded nothing is a span too, of length 0. Only a member that reached its checksum is trusted,
so all spans that touch a corrupt one carry its error; a file that merely ends early keeps its whole records.
`c_start` is where a reader may start: the offset of the member that holds the first byte, `skip` bytes into it (for
a file that is one large member that means inflating from the top: recompress such files, a member a record).
What a file may expand to is bounded, in bytes and in records, in proportion to its size as stored.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_right
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from stages.containers import KINDS, Compression, Kind, compression
from stages.containers.members import RETAIN, Damage, Members
from stages.containers.raw import FEED, Raw
from stages.containers.warc_cut import Emit, WarcCut, looks_like_record

SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # decompressed bytes
        pa.field("length", pa.int64(), nullable=False),
        pa.field("c_start", pa.int64(), nullable=False),  # bytes as stored
        pa.field("skip", pa.int64(), nullable=False),  # decompressed bytes
        pa.field("error", pa.string()),
    ]
)
FORMAT = b"1"
STEP = 256 << 10  # decompressed bytes, after which the bounds are looked at
EXPANSION, EXPANSION_ANYWAY = 1100, 64 << 20
"""Decompressed bytes per stored byte, and for any file. More than gzip can (1,032); text has 3 to 20."""
RECORDS_ANYWAY = 1 << 20
"""Records that any file may have; beyond that one per stored byte. Lines of text take 30 stored bytes and more."""


class ScanResult(NamedTuple):
    """`sha256`, `size` of the bytes as stored; `spans` as SCHEMA, its metadata naming format and compression."""

    sha256: str
    size: int
    spans: pa.Table


class Cut(Protocol):
    """`held`: spans that were cut, but not emitted yet."""

    @property
    def held(self) -> int: ...
    def feed(self, data: bytes, begins_member: bool = False) -> None: ...
    def close(self, message: str | None = None) -> None: ...


def scan(stream: BinaryIO, kind: Kind) -> ScanResult:
    """Cut `stream` (raw bytes from the beginning; only `read` is used) into spans. Damage never raises."""
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {KINDS}")
    digest = hashlib.sha256()
    raw = Raw(stream, retain=RETAIN, seen=digest.update)
    how = compression(raw.peek(4))
    rows = _Rows(plain=how == "none")
    cut: Cut = WarcCut(rows.add) if kind == "warc" else JsonlCut(rows.add)
    members = Members(raw, how, looks_like_record if kind == "warc" else bool)
    for event in members:
        if isinstance(event, Damage):
            rows.damage(event, cut)
            continue
        if event.begins is not None:
            rows.member(event.begins)
        begins_member = event.begins is not None and how != "none"
        for at in range(0, len(event.data), STEP):
            part = event.data[at : at + STEP]
            rows.end += len(part)
            cut.feed(part, begins_member and at == 0)
            if (bomb := _bomb(rows.end, len(rows) + cut.held, raw.pos)) is not None:
                break
        else:
            continue
        rows.damage(Damage(raw.pos, _drained(raw), bomb, False), cut)
        break
    cut.close()
    spans = rows.table(how)
    check_tiles(spans, rows.end)
    return ScanResult(digest.hexdigest(), raw.pos, spans)


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


def check_tiles(spans: pa.Table, length: int) -> None:
    """Raise AssertionError unless the spans follow one another from 0 to `length`, only damage being empty."""
    ordinal, start, size = (spans[name].to_numpy() for name in ("ordinal", "start", "length"))
    harmless = spans["error"].is_null().to_numpy()
    ends = np.concatenate([[0], np.cumsum(size)])
    wrong = (ordinal != np.arange(len(size))) | (start != ends[:-1]) | (size < 0) | ((size == 0) & harmless)
    if wrong.any():
        row = int(wrong.argmax())
        raise AssertionError(f"span {row}, {spans.slice(row, 1).to_pylist()[0]}, does not tile at {ends[row]}")
    if ends[-1] != length:
        raise AssertionError(f"spans end at {ends[-1]}, the data at {length}")


class _Rows:
    """The table while it grows: four integers a span, errors apart."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._start, self._length, self._c_start, self._skip = (array("q") for _ in range(4))
        self._errors: dict[int, str] = {}
        self._member_at: list[int] = []  # decompressed address of each member that open spans may begin in
        self._member_c: list[int] = []
        self.end = 0  # decompressed bytes so far

    def __len__(self) -> int:
        return len(self._start)

    def member(self, c_start: int) -> None:
        self._member_at.append(self.end)
        self._member_c.append(c_start)

    def add(self, start: int, length: int, error: str | None) -> None:
        if self._plain:
            self._append(start, length, start, 0, error)
            return
        i = bisect_right(self._member_at, start) - 1
        self._append(start, length, self._member_c[i], start - self._member_at[i], error)
        if i > 1024:
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
        yielded = bool(self._member_c) and self._member_c[-1] == event.first  # the failed member gave some bytes
        if event.corrupt and yielded:
            row = len(self._start) - 1
            while row >= 0 and self._start[row] + self._length[row] > self._member_at[-1]:
                self._errors.setdefault(row, message)
                row -= 1
        if len(self._errors) == before:
            self._append(self.end, 0, event.first, 0, message)

    def table(self, how: Compression) -> pa.Table:
        numbers = [pa.array(memoryview(a), pa.int64()) for a in (self._start, self._length, self._c_start, self._skip)]
        n = len(self._start)
        errors = pa.array((self._errors.get(row) for row in range(n)), pa.string(), size=n)
        schema = SCHEMA.with_metadata({b"gristmill.spans": FORMAT, b"gristmill.compression": how.encode()})
        return pa.table([pa.array(np.arange(n)), *numbers, errors], schema=schema)


_NOT_BLANK = re.compile(rb"\S")


class JsonlCut:
    """One line one span; blank lines belong to the line before them, leading ones to the first."""

    held = 0  # every span is emitted as it is cut

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._start = self._line = self._end = 0  # addresses: open span, open line, data so far
        self._content = False  # the open line is not blank
        self._done = False  # the open span has its line, what follows are blank lines

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        i, n = 0, len(data)
        while i < n:
            if not self._content:
                text = _NOT_BLANK.search(data, i)
                newline = data.rfind(b"\n", i, text.start() if text else n)
                if newline >= 0:
                    self._line = self._end + newline + 1
                if text is None:
                    break
                if self._done:
                    self._cut(self._line, None)
                self._content, i = True, text.start()
            newline = data.find(b"\n", i)
            if newline < 0:
                break
            self._content, self._done = False, True
            i = newline + 1
            self._line = self._end + i
        self._end += n

    def close(self, message: str | None = None) -> None:
        if self._content:
            self._cut(self._end, None if message is None else f"line is cut off; {message}")
        elif self._done:
            self._cut(self._end, None)
        elif self._end > self._start:
            self._cut(self._end, "no record, only blank lines")
        self._line, self._content = self._end, False

    def _cut(self, end: int, error: str | None) -> None:
        self._emit(self._start, end - self._start, error)
        self._start, self._done = end, False
