"""Where the rows of a Parquet file stand, by its footer and the headers of its pages, without decoding a value.

The bytes that spans tile are the decompressed pages, row group by row group. Rows lie in many columns and have no bytes
of their own, so the rows of a group share its bytes evenly: a span can be empty, and none is outside its group.
`c_start` is where the group begins in the file, `skip` the row in it. A group whose pages do not follow one another,
or that holds fewer values than it says it has rows, is one stretch of damage, and so is a file without its footer.
Sizes are believed only as far as the headers of pages carry them, as it is these that a decoder allocates.
(Format: apache/parquet-format, README.md and parquet.thrift.)
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from stages.containers.span_table import (
    EXPANSION,
    EXPANSION_ANYWAY,
    FORMAT,
    RECORDS_ANYWAY,
    SCHEMA,
    ScanResult,
    check_tiles,
)
from stages.containers.thrift import Thrift, ThriftError

MAGIC = b"PAR1"
MAX_FOOTER = 64 << 20
MAX_PAGES = 512 << 20
"""Bytes of the largest decompressed pages of a group's columns together: a decoder holds one page of each."""
PAGE_HEADER, MAX_PAGE_HEADER = 4 << 10, 1 << 20
"""Bytes that are read to find a page's header, doubled where statistics make it longer."""
_DELTA_BYTE_ARRAY = 7
_DATA, _DATA_V2 = 5, 8  # fields of a page's header
_STEP = 1 << 20


class Chunk(NamedTuple):
    """A column of a row group, as the footer has it: bytes [start, end) of the file."""

    start: int
    end: int


@dataclass
class Group:
    """A row group: rows as the footer has them; what the headers of its pages come to."""

    rows: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    bytes: int = 0
    largest: int = 0
    """Of the largest page of each column."""
    shared: int = 0
    """Of the largest page in which values begin with parts of others: decoded, each can be as long as the page."""

    @property
    def start(self) -> int:
        return min(chunk.start for chunk in self.chunks)

    @property
    def end(self) -> int:
        return max(chunk.end for chunk in self.chunks)


class LayoutError(ValueError):
    """A file or a row group is not laid out as Parquet is; the message quotes no value."""


def scan(stream: BinaryIO) -> ScanResult:
    """The digest of a file and its spans. `stream` can seek."""
    size = stream.seek(0, io.SEEK_END)
    rows, passing = _Rows(), _Passing(stream)
    try:
        groups = _footer(stream, size)
    except (LayoutError, ThriftError) as error:
        rows.damage(0, f"no Parquet file: {error}")
    else:
        stream.seek(0)
        _add_groups(rows, passing, groups, size)
    stream.seek(passing.end)
    digest = passing.digest_of_all()
    if not rows.spans and not rows.groups:
        rows.damage(0, "no record, no row in any row group")
    spans = rows.table()
    check_tiles(spans, rows.end, empty_records=True)
    return ScanResult(digest, size, spans)


def _add_groups(rows: _Rows, passing: _Passing, groups: list[Group], size: int) -> None:
    behind = len(MAGIC)  # the byte behind the group before
    for number, group in enumerate(groups):
        if not group.rows:
            continue
        try:
            if not group.chunks or group.start < behind:
                raise LayoutError("it begins inside the one before it")
            _walk(passing, group)
        except (LayoutError, ThriftError) as error:
            rows.damage(behind, f"row group {number} of {group.rows} rows: {error}")
        else:
            if rows.end + group.bytes > EXPANSION * size + EXPANSION_ANYWAY:
                rows.damage(group.start, f"row group {number}: the file expands more than {EXPANSION} times")
                return
            if rows.count + group.rows > size + RECORDS_ANYWAY:
                rows.damage(group.start, f"row group {number}: more than {size + RECORDS_ANYWAY} rows in {size} bytes")
                return
            rows.add(group)
        behind = max(behind, group.end if group.chunks else 0)


def _footer(stream: BinaryIO, size: int) -> list[Group]:
    """The row groups that the footer names, each column's bytes inside the file and outside the others'."""
    tail = _bytes_at(stream, max(0, size - 8), 8)
    if tail[4:] == b"PARE":
        raise LayoutError("its footer is encrypted")
    if tail[4:] != MAGIC:
        raise LayoutError("it does not end as one; it may be cut off")
    length = int.from_bytes(tail[:4], "little")
    if length > min(MAX_FOOTER, size - 12):
        raise LayoutError(f"its footer of {length} bytes is longer than the file, or than {MAX_FOOTER}")
    thrift = Thrift(_bytes_at(stream, size - 8 - length, length))
    groups: list[Group] = []
    for number, kind in thrift.fields():
        if number == 4:
            groups = [_group(thrift, size - 8 - length) for _ in thrift.items()]
        elif number == 8:
            raise LayoutError("it is encrypted")
        else:
            thrift.skip(kind)
    return groups


def _group(thrift: Thrift, end: int) -> Group:
    group = Group()
    for number, kind in thrift.fields():
        if number == 1:
            group.chunks = [_chunk(thrift, end) for _ in thrift.items()]
        elif number == 3:
            group.rows = thrift.integer()
        else:
            thrift.skip(kind)
    group.chunks.sort()
    if group.rows < 0 or any(after.start < chunk.end for chunk, after in pairwise(group.chunks)):
        raise LayoutError("columns of a row group overlap, or it has less than no rows")
    return group


def _chunk(thrift: Thrift, end: int) -> Chunk:
    """ColumnChunk: 1 is another file that holds it, 3 ColumnMetaData: 7 bytes as stored, 9 and 11 where pages begin."""
    size = data = dictionary = 0
    for number, kind in thrift.fields():
        if number == 1:
            if thrift.binary():
                raise LayoutError("its columns are in other files")
            continue
        if number != 3:
            thrift.skip(kind)
            continue
        for inner, inner_kind in thrift.fields():
            if inner == 7:
                size = thrift.integer()
            elif inner == 9:
                data = thrift.integer()
            elif inner == 11:
                dictionary = thrift.integer()
            else:
                thrift.skip(inner_kind)
    start = min(data, dictionary) if dictionary > 0 else data
    if not (len(MAGIC) <= start <= start + size <= end):
        raise LayoutError("a column is outside the file")
    return Chunk(start, start + size)


class Page(NamedTuple):
    """What the header of a page says. `values`: 0 for a dictionary; `data`: where its bytes begin; sizes in bytes."""

    values: int
    decompressed: int
    data: int
    end: int
    shares_prefixes: bool


def _walk(passing: _Passing, group: Group) -> None:
    """Adds up the pages of a group. Raises LayoutError or ThriftError."""
    for chunk in group.chunks:
        values = largest = 0
        for page in _pages(passing, chunk):
            values += page.values
            largest = max(largest, page.decompressed)
            group.bytes += page.decompressed
            if page.shares_prefixes:
                group.shared = max(group.shared, page.decompressed)
        group.largest += largest
        if values < group.rows:
            raise LayoutError(f"a column has {values} values for {group.rows} rows")
    if group.largest > MAX_PAGES:
        raise LayoutError(f"its largest pages have {group.largest} bytes, more than {MAX_PAGES} together")


def _pages(passing: _Passing, chunk: Chunk) -> Iterator[Page]:
    at = chunk.start
    while at < chunk.end:
        page = _page(passing, at, chunk.end)
        if page.end > chunk.end:
            raise LayoutError("a page runs past the end of its column")
        yield page
        at = page.end


def _page(passing: _Passing, at: int, end: int) -> Page:
    """The page whose header stands at this offset."""
    size = PAGE_HEADER
    while True:
        data = passing.bytes_at(at, min(size, end - at))
        try:
            return _page_header(data, at)
        except ThriftError:
            if size >= min(end - at, MAX_PAGE_HEADER):
                raise
            size *= 4


def _page_header(data: bytes, at: int) -> Page:
    """PageHeader: 2 and 3 are the bytes of the page decompressed and as stored, 5 and 8 headers of data pages."""
    thrift = Thrift(data)
    decompressed = stored = -1
    values = encoding = 0
    for number, kind in thrift.fields():
        if number == 2:
            decompressed = thrift.integer()
        elif number == 3:
            stored = thrift.integer()
        elif number in (_DATA, _DATA_V2):
            for inner, inner_kind in thrift.fields():
                if inner == 1:
                    values = thrift.integer()
                elif inner == (2 if number == _DATA else 4):
                    encoding = thrift.integer()
                else:
                    thrift.skip(inner_kind)
        else:
            thrift.skip(kind)
    if min(decompressed, stored, values) < 0:
        raise LayoutError("a page has no size, or one below 0")
    first = at + thrift.at
    return Page(values, decompressed, first, first + stored, encoding == _DELTA_BYTE_ARRAY)


def _bytes_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


class _Passing:
    """The bytes of a file, which goes by once: the pages are looked at while it is digested."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self._held, self._at = b"", 0  # bytes at hand, and the offset of the first

    @property
    def end(self) -> int:
        """The offset of what was not read yet."""
        return self._at + len(self._held)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Fewer only at the end of the file. Offsets never go back, which is what columns without overlap give."""
        while self.end < offset + size and self._next():
            self._drop(min(offset, self.end))
        self._drop(min(offset, self.end))
        return self._held[:size]

    def _drop(self, offset: int) -> None:
        """What stands before the offset is asked for no more."""
        if offset > self._at:
            self._held, self._at = self._held[offset - self._at :], offset

    def digest_of_all(self) -> str:
        """The sha256 (hex) of the file, the rest of which is read."""
        while self._next():
            self._drop(self.end)
        return self._digest.hexdigest()

    def _next(self) -> bytes:
        data = self._stream.read(_STEP)
        self._digest.update(data)
        self._held += data
        return data


class _Rows:
    """The table of spans while it grows, a row group at a time."""

    def __init__(self) -> None:
        self.spans: list[pa.Table] = []
        self.groups: dict[int, tuple[int, int]] = {}
        self.count = self.end = 0

    def add(self, group: Group) -> None:
        edges = self.end + _shares(group.bytes, group.rows)
        self.groups[group.start] = (group.bytes, group.shared)
        self._append(edges[:-1], np.diff(edges), group.start, np.arange(group.rows), None)
        self.end += group.bytes

    def damage(self, offset: int, error: str) -> None:
        empty = np.zeros(1, np.int64)
        self._append(empty + self.end, empty, offset, empty, f"from byte {offset} as stored: {error}")

    def _append(self, start: np.ndarray, length: np.ndarray, offset: int, skip: np.ndarray, error: str | None) -> None:
        n = len(start)
        ordinal = np.arange(self.count, self.count + n)
        columns = [pa.array(values, pa.int64()) for values in (ordinal, start, length, np.full(n, offset), skip)]
        self.spans.append(pa.table([*columns, pa.array([error] * n, pa.string())], schema=SCHEMA))
        self.count += n

    def table(self) -> pa.Table:
        about = {b"gristmill.spans": FORMAT, b"gristmill.row_groups": json.dumps(self.groups).encode()}
        return pa.concat_tables(self.spans).combine_chunks().replace_schema_metadata(about)


def _shares(size: int, rows: int) -> np.ndarray:
    """rows + 1 edges over `size` bytes, in whole numbers that do not overflow where both are large."""
    share, rest = divmod(size, rows)
    number = np.arange(rows + 1)
    return number * share + number * rest // rows
