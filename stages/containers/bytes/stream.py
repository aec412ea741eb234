"""Stream: the decompressed bytes of a container's spans, in order, from one stream of its bytes as stored.

It moves forward as far as it can: through healthy members, and over damage by the offset that the scan noted. A file
that does not hold what was scanned is an OSError: it was replaced, and no record's fault.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from gristmill.stages.containers.bytes.compressed import Compression
from gristmill.stages.containers.bytes.long_file import Content, LongFile, is_long
from gristmill.stages.containers.bytes.raw import MemberError, Raw, gzip_member
from gristmill.stages.containers.bytes.zstd import Dictionary, zstd_dictionary, zstd_frame
from gristmill.stages.containers.span_table import OpenAt

PIECE = 256 << 10


class InMemory:
    """A stretch of a plain file that is in memory, from an address on; it opens it as any other is opened."""

    def __init__(self, data: bytes | bytearray, start: int) -> None:
        self._data, self._start = data, start

    def __call__(self, address: int) -> BinaryIO:
        """Its bytes from an address in it on."""
        return io.BytesIO(self._data[address - self._start :])

    def part(self, address: int, length: int) -> bytes:
        """So many of its bytes. Raises OSError where it has not so many."""
        at = address - self._start
        if not 0 <= at <= at + length <= len(self._data):
            raise OSError(f"{length} bytes from {address} on are not in memory")
        with memoryview(self._data) as view:
            return bytes(view[at : at + length])


class Stream:
    """Decompressed bytes by address: on through healthy members, over damage by `c_start`. A context manager."""

    def __init__(self, open_at: OpenAt, how: Compression) -> None:
        self._open_at, self._how = open_at, how
        self._file: BinaryIO | None = None
        self._raw: Raw | None = None
        self._dictionary: Dictionary | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._piece, self._used = b"", 0
        self._address = -1  # of the next byte
        self._member = -1  # offset of the member that is being decompressed

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        # A generator of this object's own is a circle, and would hold all of its bytes until a collector comes by.
        self._pieces, self._piece, self._raw = iter(()), b"", None

    def bytes_of(self, start: int, length: int, c_start: int, skip: int) -> bytes:
        """The bytes of a span. Raises OSError when the file does not hold what was scanned."""
        if isinstance(self._open_at, InMemory):
            return self._open_at.part(start, length)
        pieces = list(self._span(start, length, c_start, skip))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def content_of(self, start: int, length: int, c_start: int, skip: int) -> Content:
        """The same; a long span lies in a file."""
        if is_long(length):
            return LongFile.of(self._span(start, length, c_start, skip))
        return self.bytes_of(start, length, c_start, skip)

    def _span(self, start: int, length: int, c_start: int, skip: int) -> Iterator[bytes]:
        try:
            if self._must_move(start, c_start):
                self._move(c_start, start - skip)
            if self._address > start:
                raise ValueError(f"spans are not in order: {start} follows {self._address}; hand them as scanned")
            for _ in self._take(start - self._address):
                pass  # what stands between two spans
            yield from self._take(length)
        except (MemberError, EOFError) as error:
            raise OSError(f"the file is not the one that was scanned ({error}): scan it again") from error

    def _must_move(self, start: int, c_start: int) -> bool:
        """To another member than the one at hand; in a plain file, past more than what is at hand."""
        if self._how != "none":
            return c_start != self._member
        return self._raw is None or start > self._raw.pos

    def _move(self, c_start: int, address: int) -> None:
        raw = self._raw
        if self._file is not None and (raw is None or raw.pos > c_start):
            self._file.close()  # a member that was cut off ran into this one: go back
            raw = None
        if raw is None:
            raw = self._open(c_start)
        raw.skip_to(c_start)
        self._pieces, self._piece, self._used = self._decompressed(raw), b"", 0
        self._address, self._member = address, c_start

    def _open(self, offset: int) -> Raw:
        if self._how == "zstd" and self._dictionary is None:
            with self._open_at(0) as top:
                self._dictionary = zstd_dictionary(Raw(top))
        self._file = self._open_at(offset)
        self._raw = Raw(self._file, offset)
        return self._raw

    def _left(self) -> int:
        return len(self._piece) - self._used

    def _decompressed(self, raw: Raw) -> Iterator[bytes]:
        while raw.peek(1):
            self._member = raw.pos
            if self._how == "gzip":
                yield from gzip_member(raw)
            elif self._how == "zstd":
                yield from zstd_frame(raw, self._dictionary)
            else:
                yield raw.take(PIECE)

    def _take(self, n: int) -> Iterator[bytes]:
        """The next bytes, in pieces."""
        while n:
            if not self._left():
                piece = next(self._pieces, None)
                if piece is None:
                    raise EOFError(f"decompressed data end at {self._address}, {n} bytes early")
                self._piece, self._used = piece, 0
            size = min(n, self._left())
            piece = self._piece[self._used : self._used + size]
            self._used += size
            self._address += size
            n -= size
            yield piece
