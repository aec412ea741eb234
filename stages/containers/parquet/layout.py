"""Where the rows of a Parquet file stand, by its footer and the headers of its pages, without decoding a value.

The bytes that spans tile are the decompressed pages, row group by row group. Rows lie in many columns and have no bytes
of their own, so the rows of a group share its bytes evenly: a span can be empty, and none is outside its group.
`c_start` is where the group begins in the file, `skip` the row in it. A group whose pages do not follow one another,
or that holds fewer values than it says it has rows, is one stretch of damage, and so is a file without its footer.
The file goes by once: the headers of its pages are read while it is digested.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from gristmill.stages.containers.parquet.footer import MAGIC, Group, LayoutError, add_pages, read_footer
from gristmill.stages.containers.parquet.thrift import ThriftError
from gristmill.stages.containers.span_table import (
    EXPANSION,
    EXPANSION_ANYWAY,
    FORMAT,
    RECORDS_ANYWAY,
    SCHEMA,
    ScanResult,
    check_tiles,
)

_STEP = 1 << 20


def scan(stream: BinaryIO) -> ScanResult:
    """The digest of a file and its spans. `stream` can seek."""
    size = stream.seek(0, io.SEEK_END)
    rows, passing = _Rows(), _Passing(stream)
    try:
        groups = read_footer(stream, size)
    except (LayoutError, ThriftError) as error:
        rows.damage(0, f"no Parquet file: {error}")
    else:
        stream.seek(0)
        _add_groups(rows, passing, groups, size)
    stream.seek(passing.end)
    digest = passing.digest_of_all()
    spans = rows.table()
    check_tiles(spans, rows.end, empty_records=True)
    return ScanResult(digest, size, spans)


def _add_groups(rows: _Rows, passing: _Passing, groups: list[Group], size: int) -> None:
    """Adds the rows of each group, or the damage that it is, and no more from the first that expands too far."""
    behind = len(MAGIC)  # the byte behind the group before
    for number, group in enumerate(groups):
        if not group.rows:
            continue
        try:
            if not group.chunks or group.start < behind:
                raise LayoutError("it begins inside the one before it")
            add_pages(passing.bytes_at, group)
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


class _Passing:
    """The bytes of a file, which goes by once: headers of pages are read from it while it is digested."""

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
        # What is before it stays until more is read: pages can have ten bytes each, and to cut the held bytes for each
        # of them would copy a megabyte every time.
        first = offset - self._at
        return self._held[first : first + size]

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
        return pa.concat_tables([SCHEMA.empty_table(), *self.spans]).combine_chunks().replace_schema_metadata(about)


def _shares(size: int, rows: int) -> np.ndarray:
    """rows + 1 edges over `size` bytes, in whole numbers that do not overflow where both are large."""
    share, rest = divmod(size, rows)
    number = np.arange(rows + 1)
    return number * share + number * rest // rows
