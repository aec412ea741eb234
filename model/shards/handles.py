"""Streams kept open between reads, for several threads and forked processes, from wherever `open` gets them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

HANDLES = 64
"""Tars kept open between reads; every thread that reads has one more."""


class Handles:
    """Streams by name, each lent to one thread at a time; of those not lent the HANDLES used last stay open."""

    def __init__(self, open: Callable[[str], BinaryIO]) -> None:
        self.open = open
        self._resting: dict[str, list[BinaryIO]] = {}  # no list is empty
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, name: str) -> Iterator[BinaryIO]:
        """The stream of a name, this thread's own within the block. Raises what `open` raises."""
        with self._lock:
            stream = self._take(name) if name in self._resting else None
        if stream is None:
            stream = self.open(name)
        try:
            yield stream
        except BaseException:
            stream.close()  # nobody knows what state an error left it in
            raise
        with self._lock:
            self._resting[name] = [*self._resting.pop(name, ()), stream]  # last in the dict: used last
            self._count += 1
            oldest = self._take(next(iter(self._resting))) if self._count > HANDLES else None
        if oldest is not None:
            oldest.close()

    def _take(self, name: str) -> BinaryIO:
        streams = self._resting[name]
        stream = streams.pop()
        if not streams:
            del self._resting[name]
        self._count -= 1
        return stream

    def close(self) -> None:
        """Closes the streams that are not lent."""
        with self._lock:
            leaving: list[BinaryIO] = []
            while self._resting:
                leaving.append(self._take(next(iter(self._resting))))
        for stream in leaving:
            stream.close()

    def __del__(self) -> None:  # of a reader that was dropped, not closed
        self.close()


def read_at(stream: BinaryIO, offset: int, length: int) -> bytearray:
    """The range, or less where the stream ends. By place where that can be: processes forked off share the cursor."""
    data = bytearray()
    raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
    while len(data) < length:
        at, rest = offset + len(data), length - len(data)
        if isinstance(stream, pa.NativeFile):
            block = stream.read_at(rest, at)
        elif isinstance(raw, io.FileIO):
            block = os.pread(raw.fileno(), rest, at)
        else:
            stream.seek(at)
            block = stream.read(rest)
        if not block:
            break
        data += block
    return data
