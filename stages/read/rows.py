"""Rows: what a stage that reads collects, row by row, until it is a table.

As Arrow a row takes a tenth of the memory of a dict. Media take none: their bytes go to a scratch file of no name, of
which the table's column is a map, so that an hour of segments is no more in memory than what is looked at. What the
table holds, and in which chunks, is the same as if it had been made of all rows at once.
"""

from __future__ import annotations

import mmap
import tempfile
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from gristmill.stages.containers.media import MEDIA

BATCH_ROWS = 4096
BATCH_BYTES = 1 << 30
"""Of media: a column of bytes holds twice as many."""
MOST_BYTES = (1 << 31) - 1
"""Of media in a row: a column of bytes, whose offsets have 32 bits, holds no more."""
_COLUMN = "media"


class TooLarge(ValueError):
    """A row with more media than a table can hold."""


class Rows:
    """A table that grows row by row."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._tables, self._loose = schema, list[pa.Table](), list[dict[str, Any]]()
        self._has_media = _COLUMN in schema.names and schema.field(_COLUMN).type == MEDIA
        self._data = _Data()

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row; it has every column of the schema. Raises TooLarge, and then nothing was added."""
        if self._has_media:
            size = sum(len(medium["data"]) for medium in row[_COLUMN])
            if size > MOST_BYTES:
                raise TooLarge(f"{size:,} bytes of media: a record can have {MOST_BYTES:,}")
            if self._data.size + size > MOST_BYTES:
                self._flush()
            for medium in row[_COLUMN]:
                self._data.put(medium["data"])
            row = row | {_COLUMN: [medium | {"data": None} for medium in row[_COLUMN]]}
        self._loose.append(row)
        if len(self._loose) == BATCH_ROWS or self._data.size >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._loose, schema=self._schema)
        if self._has_media:
            media = _with_data(table[_COLUMN].combine_chunks(), self._data.column())
            table = table.set_column(table.schema.get_field_index(_COLUMN), self._schema.field(_COLUMN), media)
        self._tables.append(table)
        self._loose, self._data = [], _Data()

    def table(self) -> pa.Table:
        """All rows so far, in order."""
        self._flush()
        return pa.concat_tables(self._tables)


class _Data:
    """Bytes, one after the other in a file."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._ends, self.size = [0], 0

    def put(self, data: bytes) -> None:
        """Takes these."""
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - its map outlives it
        self._file.write(data)
        self.size += len(data)
        self._ends.append(self.size)

    def column(self) -> pa.Array:
        """All that were put, binary."""
        buffer: bytes | mmap.mmap = b""
        if self._file is not None:
            self._file.flush()
            if self.size:
                buffer = mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
            self._file.close()
        ends = pa.py_buffer(np.array(self._ends, np.int32))
        return pa.Array.from_buffers(pa.binary(), len(self._ends) - 1, [None, ends, pa.py_buffer(buffer)])


def _with_data(media: pa.ListArray, data: pa.Array) -> pa.ListArray:
    """A column MEDIA with this field of its structs."""
    kind = MEDIA.value_type
    columns = [data if field.name == "data" else media.values.field(field.name) for field in kind]
    return pa.ListArray.from_arrays(media.offsets, pa.StructArray.from_arrays(columns, fields=list(kind)), type=MEDIA)
