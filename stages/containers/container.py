"""Container: the contract of a format in which records come (WARC, ARC, JSON lines, Parquet, tar).

Two codes on purpose: `scan` finds where each record stands, `read` says what it is; neither calls the other's parser,
so that one can contradict the other. A new format is one file with an object of this shape, and one line in the table
of `stages.containers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import pyarrow as pa

from gristmill.stages.containers.record import Item, ReadConfig
from gristmill.stages.containers.span_table import OpenAt, ScanResult


class Container(Protocol):
    """One format. Both halves are linear in the bytes of the file and bounded in memory, whatever stands in it."""

    @property
    def name(self) -> str:
        """As receipts and ledgers store it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of names, lower case, without those of compressions; asked where the content does not tell."""
        ...

    @property
    def begins(self) -> Callable[[bytes], bool]:
        """Whether a file whose first plain (decompressed) bytes are these is of this format; at most 512 are given."""
        ...

    @property
    def reads_along(self) -> bool:
        """Whether records can be read while the file is scanned (`Sequential.scan_along`)."""
        ...

    def scan(self, stream: BinaryIO) -> ScanResult:
        """The digest of a file and its spans, which tile its decompressed bytes. Damage never raises."""
        ...

    def read(self, open_at: OpenAt, spans: pa.Table, config: ReadConfig, *, rows: bool = False) -> Iterator[Item]:
        """One item for each row of `spans`, a contiguous slice of a scan's table, its metadata kept.

        A span's own fault becomes an Unreadable. Raises OSError when the file does not hold what was scanned. `rows`:
        every field of a row is wanted, and none has to be the text.
        """
        ...
