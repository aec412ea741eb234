"""Checked reading: no byte of a large object is given out before the block that it lies in was hashed.

A small object is read and hashed whole. Of a large table a query wants a few row groups, and hashing all of it for
them would be most of the work; so its writer stores a digest for each block of BLOCK bytes (`sums`, an object of its
own, named by the table's pointer). Parquet's own checksums leave footer and page headers out, where one bit can
change values without an error. What is read is hashed once, whatever part of the file it is.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

BLOCK = 256 << 10
"""Bytes that a digest covers: a row group of a ledger is some four of them."""
DIGEST = 16
"""Bytes kept of the sha256 of a block."""
_KEPT = 8  # blocks: neighbouring columns share those at their ends


class ChangedBlock(OSError):
    """A block whose bytes are not those that were written."""


def digests(path: Path) -> tuple[str, bytes]:
    """The sha256 of a file, and of each of its blocks the first DIGEST bytes of its sha256, end to end."""
    whole, blocks = hashlib.sha256(), bytearray()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            whole.update(block)
            blocks += hashlib.sha256(block).digest()[:DIGEST]
    return whole.hexdigest(), bytes(blocks)


class CheckedFile(io.RawIOBase):
    """`source` (a `pyarrow.NativeFile` of `size` bytes) as a file that raises ChangedBlock for what was changed.

    `sums`: as `digests` gives them. Not for several threads at once; pyarrow's PythonFile holds a lock around a read.
    """

    def __init__(self, source: Any, size: int, sums: bytes) -> None:
        if len(sums) != DIGEST * -(-size // BLOCK):
            raise ChangedBlock(f"{len(sums)} bytes of sums do not belong to {size} bytes")
        if source.size() != size:
            raise ChangedBlock(f"it has {source.size()} bytes, its pointer says {size}")
        self._source, self._size, self._sums = source, size, sums
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is: Parquet is read from its footer, and then here and there."""
        return True

    def tell(self) -> int:
        """The byte at which the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Another byte to read from; nothing is read or checked for it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes (None or negative: all that are left), fewer at the end. Raises ChangedBlock."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if self._at >= end:
            return b""
        first, last = self._at // BLOCK, (end - 1) // BLOCK
        start = self._at - first * BLOCK
        data = b"".join(self._run(first, last))[start : start + end - self._at]
        self._at = end
        return data

    def _run(self, first: int, last: int) -> list[bytes]:
        """The blocks from `first` to `last`; those that are not at hand come in one read."""
        missing = [i for i in range(first, last + 1) if i not in self._blocks]
        fresh: dict[int, bytes] = {}
        if missing:
            start, stop = missing[0] * BLOCK, min((missing[-1] + 1) * BLOCK, self._size)
            data = memoryview(self._source.read_at(stop - start, start))
            for i in range(missing[0], missing[-1] + 1):
                block = bytes(data[(i - missing[0]) * BLOCK : (i - missing[0] + 1) * BLOCK])
                if hashlib.sha256(block).digest()[:DIGEST] != self._sums[i * DIGEST : (i + 1) * DIGEST]:
                    raise ChangedBlock(f"the bytes from {i * BLOCK} on are not those that were written")
                fresh[i] = block
        run = [fresh[i] if i in fresh else self._blocks[i] for i in range(first, last + 1)]
        # Of a long run only its end is kept: the next read goes on there, and what it read was given out already.
        for i in range(max(first, last + 1 - _KEPT), last + 1):
            self._blocks[i] = run[i - first]
            self._blocks.move_to_end(i)
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return run
