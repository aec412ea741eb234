"""Parquet: rows are records, read by Arrow a few at a time, of the columns that are wanted and no other.

The scan (`layout`) says how many rows a group has and where it begins, and a row that the scan has and Arrow has not is
unreadable. What the footer says of columns `footer` reads, and pyarrow is never asked: over damaged ones Arrow throws
where pyarrow expects nothing, and the process ends. A page that cannot be decoded costs the rows of its group from
there on: Arrow reads no further in it.
Bounded: pages by the scan; columns of texts stay dictionaries until a row is taken out; a row by `max_record_bytes`;
the rows of a group together by what its pages can honestly stand for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.stages.containers.parquet.footer import MAGIC, Group, LayoutError, read_footer
from gristmill.stages.containers.parquet.layout import scan
from gristmill.stages.containers.parquet.values import fields_of, holds_media, row_bytes
from gristmill.stages.containers.record import Item, ReadConfig, Record, RecordError, Unreadable, one_line
from gristmill.stages.containers.rows import row_record, text_record
from gristmill.stages.containers.span_table import OpenAt, ScanResult

BUFFER = 4 << 20
"""Bytes of a column that are read ahead."""
BATCH_ROWS, BATCH_BYTES = 1024, 64 << 20
DECODED, DECODED_ANYWAY, DECODED_VALUE = 20, 1 << 20, 64
"""Bytes that the rows of a group may come to: per byte of its pages, for any group, and per value. A dictionary makes
texts that repeat shorter than that only where they are short themselves."""
_AS_DICTIONARY = {0, 2, 3, 4, 8}  # PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY
"""Encodings of texts that Arrow reads into a dictionary; DELTA ones it does not, and the scan says how far these go."""
_FAULTS = (pa.ArrowException, OSError, ValueError, NotImplementedError)
"""What Arrow raises over bytes that it cannot read (its IOError is OSError)."""


class Parquet:
    """The row of the table of containers (the contract is `container.Container`)."""

    name = "parquet"
    suffixes = (".parquet",)
    begins: Callable[[bytes], bool] = staticmethod(lambda head: head.startswith(MAGIC))
    reads_along = False  # where its rows stand, its end tells

    def scan(self, stream: BinaryIO) -> ScanResult:
        """The stream has to seek."""
        return scan(stream)

    def read(self, open_at: OpenAt, spans: pa.Table, config: ReadConfig, *, rows: bool = False) -> Iterator[Item]:
        """The file is opened once a call, unless nothing in it can be read."""
        columns = (spans[name].to_pylist() for name in ("ordinal", "start", "length", "c_start", "skip", "error"))
        places = [
            _Place(Record(ordinal, start, length, "other", "parquet"), offset, skip, error)
            for ordinal, start, length, offset, skip, error in zip(*columns, strict=True)
        ]
        noted = json.loads((spans.schema.metadata or {}).get(b"gristmill.row_groups", b"{}"))
        if all(place.error is not None for place in places):  # Arrow is not shown a footer that the scan refused
            yield from (place.unreadable(place.error or "") for place in places)
            return
        with open_at(0) as stream:
            file = _File(stream, config, rows)
            for offset, wanted in groupby(places, key=lambda place: place.offset):
                size, shared = noted.get(str(offset), (0, BATCH_BYTES))
                yield from file.items(offset, list(wanted), size, shared)


PARQUET = Parquet()


class _Place(NamedTuple):
    """A span: the record that it is to be, where its row group begins, the row in it, and its fault by the scan."""

    empty: Record
    offset: int
    row: int
    error: str | None

    def unreadable(self, error: str) -> Unreadable:
        return Unreadable(self.empty.ordinal, self.empty.start, self.empty.length, one_line(error))


class _File:
    """A file as Arrow reads it; `fault` where it cannot."""

    def __init__(self, stream: BinaryIO, config: ReadConfig, whole_rows: bool) -> None:
        self._config, self._whole_rows = config, whole_rows
        self._source = _Source(stream)
        self._groups: dict[int, int] = {}
        self.fault: str | None = None
        try:
            self._open()
        except _FAULTS as error:
            self._source.check()
            self.fault = f"Arrow cannot read the file: {type(error).__name__}"

    def _open(self) -> None:
        groups = read_footer(cast(BinaryIO, self._source), self._source.seek(0, io.SEEK_END))
        metadata = pq.read_metadata(self._source)
        if metadata.num_row_groups != len(groups):
            raise LayoutError(f"{len(groups)} row groups, {metadata.num_row_groups} by Arrow")
        self._parquet = pq.ParquetFile(
            self._source,
            metadata=metadata,
            read_dictionary=_texts(metadata.schema, groups),
            buffer_size=BUFFER,
            pre_buffer=False,  # it would hold a whole row group
            page_checksum_verification=True,
            arrow_extensions_enabled=False,
        )
        schema = self._parquet.schema_arrow
        names = {getattr(self._config, name) for name in ("text", "url", "id", "date", "source")}
        for field in self._config.declared.values():
            names |= {field, field.partition(".")[0]}
        self._columns = [
            field.name for field in schema if self._whole_rows or field.name in names or holds_media(field.type)
        ] or schema.names[:1]  # rows have to be counted, even without a field that is wanted
        self._groups = {group.start: number for number, group in enumerate(groups) if group.rows and group.chunks}

    def items(self, offset: int, wanted: list[_Place], size: int, shared: int) -> Iterator[Item]:
        """One item for each place in the row group that begins at `offset`; `size`, `shared`: as the scan noted."""
        number = self._groups.get(offset)
        at = 0  # of the first place that has no item yet; places and batches are both in order of rows
        try:
            if number is not None and wanted[0].error is None:
                for batch, before, sizes, too_many in self._batches(number, size, shared):
                    while at < len(wanted) and wanted[at].row < before + batch.num_rows:
                        row = wanted[at].row - before
                        item = self._item(wanted[at], batch.slice(row, 1), int(sizes[row]), bool(too_many[row]))
                        at += 1  # it has its item, whatever happens behind it
                        yield item
                    if at == len(wanted):
                        return
            fault = self.fault or "the scan found a row here, Arrow none"
        except _FAULTS as error:
            self._source.check()
            fault = f"Arrow cannot decode its pages: {type(error).__name__}"
        for place in wanted[at:]:
            yield place.unreadable(place.error or f"row {place.row} of the row group at byte {offset}: {fault}")

    def _batches(
        self, number: int, size: int, shared: int
    ) -> Iterator[tuple[pa.RecordBatch, int, np.ndarray, np.ndarray]]:
        """Batches of a row group, each with the rows before it, the bytes of each row (of a slice of one row it would
        cost a look at its whole dictionaries), and whether the group expands too far with it."""
        rows = self._parquet.metadata.row_group(number).num_rows
        # A row has its share of the group's bytes; of a page whose values begin with parts of others it can have all.
        batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // (size // rows + shared + 1)))
        allowed = DECODED * size + DECODED_ANYWAY + DECODED_VALUE * rows * len(self._columns)
        before = decoded = 0
        for batch in self._parquet.iter_batches(batch_rows, [number], self._columns, use_threads=False):
            sizes = np.sum([row_bytes(column) for column in batch.columns], axis=0)
            upto = decoded + np.cumsum(sizes)
            yield batch, before, sizes, upto > allowed
            before, decoded = before + batch.num_rows, decoded + int(sizes.sum())

    def _item(self, place: _Place, only: pa.RecordBatch, size: int, too_many: bool) -> Item:
        """The record of a batch of one row, which has `size` bytes."""
        if too_many:
            return place.unreadable(f"the rows of its row group expand more than {DECODED} times: the rest is not read")
        if size > self._config.max_record_bytes:
            limit = f"max_record_bytes={self._config.max_record_bytes}"
            return place.unreadable(f"row of {size} bytes is longer than {limit}")
        try:
            fields, media = fields_of(only, 0)
            to_record = row_record if self._whole_rows else text_record
            return to_record(place.empty._replace(media=media), fields, self._config)
        except RecordError as error:
            return place.unreadable(str(error))._replace(url=error.url)


def _texts(schema: pq.ParquetSchema, groups: list[Group]) -> list[str]:
    """The columns of texts that Arrow can keep as dictionaries."""
    paths = []
    for number in range(len(schema)):
        column = schema.column(number)
        encodings = set[int]().union(*(group.encodings[number] for group in groups if number < len(group.encodings)))
        if column.physical_type == "BYTE_ARRAY" and encodings <= _AS_DICTIONARY:
            paths.append(column.path)
    return paths


class _Source:
    """An input as Arrow reads it. What the store fails in is remembered: it must not pass for damage of the file."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._fault: BaseException | None = None

    def check(self) -> None:
        """Raises what reading raised."""
        if self._fault is not None:
            raise self._fault

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except BaseException as fault:
            self._fault = fault
            raise

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """The stream belongs to who opened it."""
