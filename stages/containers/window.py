"""Window: the decompressed bytes of a container that its scan has just cut, for a reader that goes along with it.

A span is settled when no later damage can blame it: in a plain file at once, in a compressed one when the member that
holds its last byte has reached its checksum. What is settled is handed out as what the reader knows: a piece of a plain
container, a table of its spans and its bytes by address. So the reader's code is the same in one pass and in two, and
cutter and parser still know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import pyarrow as pa

from gristmill.stages.containers.bytes.stream import InMemory

WINDOW = 32 << 20
"""Bytes that wait to be settled. More than the longest record that is read by default; a file that is one large member
has more, and is read after it was scanned."""
BATCH = 1 << 20
"""Settled bytes that are handed out together, at least: a table costs some twenty microseconds."""


class Settled(NamedTuple):
    """Some spans of a scan, in order, as of a plain container, and what opens its bytes at an address in them, until
    the next ones are asked for."""

    spans: pa.Table
    open_at: InMemory


class Growing(Protocol):
    """The table of spans while it grows."""

    @property
    def settled(self) -> int:
        """The address up to which no later damage can blame a span."""
        ...

    def __len__(self) -> int:
        """Spans so far."""
        ...

    def ends(self, row: int) -> int:
        """The address behind a span."""
        ...

    def plain(self, first: int, last: int) -> pa.Table:
        """Rows [first, last), as the table of a plain container has them."""
        ...


class Window:
    """At most `size` bytes or so, from the first span that was not handed out to where the scan stands. It is closed
    where a span cannot be settled in so many: nothing is handed out any more, and the scan goes on."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self._bytes, self._start = bytearray(), 0  # bytes at hand, address of the first
        self._given = self._ready = 0  # spans that were handed out, and that are settled
        self._open = True

    def add(self, data: bytes) -> None:
        """The next bytes that were scanned."""
        if self._open:
            self._bytes += data

    def close(self) -> None:
        """Nothing is handed out any more."""
        self._open, self._bytes = False, bytearray()

    def settled(self, rows: Growing, *, ended: bool = False) -> Iterator[Settled]:
        """What can be handed out now: nothing while it is little, unless the scan has `ended`."""
        if not self._open:
            return
        while self._ready < len(rows) and rows.ends(self._ready) <= rows.settled:
            self._ready += 1
        is_full = len(self._bytes) > self._size
        if self._ready > self._given:
            end = rows.ends(self._ready - 1)
            if ended or is_full or end - self._start >= BATCH:
                yield Settled(rows.plain(self._given, self._ready), InMemory(self._bytes, self._start))
                del self._bytes[: end - self._start]
                self._start, self._given = end, self._ready
        if len(self._bytes) > self._size:
            self.close()
