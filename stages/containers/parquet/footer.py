"""The footer of a Parquet file and the headers of its pages, as far as they say where things stand.

Sizes are believed only as far as the headers of pages carry them, as it is these that a decoder allocates. The numbers
of fields are those of parquet.thrift (apache/parquet-format). No value is decoded, and no message quotes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from gristmill.stages.containers.parquet.thrift import Thrift, ThriftError

MAGIC = b"PAR1"
MAX_FOOTER = 64 << 20
MAX_COLUMNS = 1 << 20
"""Columns of all row groups, and row groups: a decoder makes an object of each, and one can take a byte of a footer."""
MAX_PAGES = 512 << 20
"""Bytes of the largest decompressed pages of a group's columns together: a decoder holds one page of each."""
PAGE_HEADER, MAX_PAGE_HEADER = 4 << 10, 1 << 20
"""Bytes that are read to find a page's header; four times as many where statistics make it longer."""
_DELTA_BYTE_ARRAY = 7
_DATA, _DATA_V2 = 5, 8  # fields of a page's header

BytesAt = Callable[[int, int], bytes]
"""(offset, size): bytes of the file; offsets that are asked for never go back."""


class Chunk(NamedTuple):
    """A column of a row group, as the footer has it: bytes [start, end) of the file."""

    start: int
    end: int


@dataclass
class Group:
    """A row group: rows as the footer has them; what the headers of its pages come to."""

    rows: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    """Of its columns, by where they stand in the file."""
    encodings: list[frozenset[int]] = field(default_factory=list)
    """Of its columns, in the schema's order (the enumeration `Encoding` of parquet.thrift)."""
    bytes: int = 0
    largest: int = 0
    """Of the largest page of each column."""
    shared: int = 0
    """Of the largest page in which values begin with parts of others: decoded, each can be as long as the page."""

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        return min(chunk.start for chunk in self.chunks)

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return max(chunk.end for chunk in self.chunks)


class LayoutError(ValueError):
    """A file or a row group is not laid out as Parquet is; the message quotes no value."""


def read_footer(stream: BinaryIO, size: int) -> list[Group]:
    """The row groups that the footer names, each column's bytes inside the file and outside the others'.

    A file ends with the footer, its length in 4 bytes and the magic. FileMetaData: 3 is the number of rows, 4 the row
    groups, 8 how it is encrypted. Raises LayoutError, ThriftError.
    """
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
    rows = -1
    for number, kind in thrift.fields():
        if number == 3:
            rows = thrift.integer()
        elif number == 4:
            groups = list(_groups(thrift, size - 8 - length))
        elif number == 8:
            raise LayoutError("it is encrypted")
        else:
            thrift.skip(kind)
    if rows != sum(group.rows for group in groups):
        raise LayoutError(f"its footer counts {rows} rows, and its row groups {sum(group.rows for group in groups)}")
    return groups


def _groups(thrift: Thrift, end: int) -> Iterator[Group]:
    """Raises ThriftError for more than MAX_COLUMNS of groups and columns, before they are built."""
    left = MAX_COLUMNS
    for _ in thrift.items(left):
        group = _group(thrift, end, left)
        left -= 1 + len(group.chunks)
        yield group


def _group(thrift: Thrift, end: int, most: int) -> Group:
    """RowGroup: 1 are the columns, at most `most`, 3 is the number of rows. `end`: where the footer begins."""
    group = Group()
    for number, kind in thrift.fields():
        if number == 1:
            columns = [_chunk(thrift) for _ in thrift.items(most)]
            group.chunks, group.encodings = [chunk for chunk, _ in columns], [encodings for _, encodings in columns]
        elif number == 3:
            group.rows = thrift.integer()
        else:
            thrift.skip(kind)
    group.chunks.sort()
    if group.rows:  # columns without a row may stand anywhere
        _check(group, end)
    return group


def _check(group: Group, end: int) -> None:
    """Raises LayoutError unless the columns lie before the footer, and not in one another."""
    if group.rows < 0:
        raise LayoutError("a row group has less than no rows")
    if any(not len(MAGIC) <= chunk.start <= chunk.end <= end for chunk in group.chunks):
        raise LayoutError("a column is outside the file")
    if any(after.start < chunk.end for chunk, after in pairwise(group.chunks)):
        raise LayoutError("columns of a row group overlap")


def _chunk(thrift: Thrift) -> tuple[Chunk, frozenset[int]]:
    """ColumnChunk: 1 is another file that holds it, 3 ColumnMetaData: 2 encodings, 7 bytes as stored, 9 and 11 where
    pages begin."""
    size = data = dictionary = 0
    encodings: frozenset[int] = frozenset()
    for number, kind in thrift.fields():
        if number == 1:
            if thrift.binary():
                raise LayoutError("its columns are in other files")
            continue
        if number != 3:
            thrift.skip(kind)
            continue
        for inner, inner_kind in thrift.fields():
            if inner == 2:
                encodings = frozenset(thrift.integer() for _ in thrift.items())
            elif inner == 7:
                size = thrift.integer()
            elif inner == 9:
                data = thrift.integer()
            elif inner == 11:
                dictionary = thrift.integer()
            else:
                thrift.skip(inner_kind)
    # The page of the dictionary comes first, where there is one; old writers noted its offset as 0 where there is none.
    start = min(data, dictionary) if dictionary > 0 else data
    return Chunk(start, start + size), encodings


class Page(NamedTuple):
    """What the header of a page says. `values`: 0 for a dictionary; `data`: where its bytes begin; sizes in bytes."""

    values: int
    decompressed: int
    data: int
    end: int
    shares_prefixes: bool


def add_pages(bytes_at: BytesAt, group: Group) -> None:
    """Adds up the pages of a group. Raises LayoutError or ThriftError."""
    for chunk in group.chunks:
        values = largest = 0
        for page in _pages(bytes_at, chunk):
            values += page.values
            largest = max(largest, page.decompressed)
            group.bytes += page.decompressed
            if page.shares_prefixes:
                group.shared = max(group.shared, page.decompressed)
        group.largest += largest
        if values < group.rows:  # more there may be: a row of a list column has several
            raise LayoutError(f"a column has {values} values for {group.rows} rows")
    if group.largest > MAX_PAGES:
        raise LayoutError(f"its largest pages have {group.largest} bytes, more than {MAX_PAGES} together")


def _pages(bytes_at: BytesAt, chunk: Chunk) -> Iterator[Page]:
    at = chunk.start
    while at < chunk.end:
        page = _page(bytes_at, at, chunk.end)
        if page.end > chunk.end:
            raise LayoutError("a page runs past the end of its column")
        yield page
        at = page.end


def _page(bytes_at: BytesAt, at: int, end: int) -> Page:
    """The page whose header stands at this offset. Nothing says how long a header is but the header."""
    size = PAGE_HEADER
    while True:
        data = bytes_at(at, min(size, end - at))
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
