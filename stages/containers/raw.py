"""Raw: the bytes of a file as stored, with offsets and a bounded past; and the one gzip member that stands next.

Feeds to the inflater have one fixed size, so that what a failed member yielded before it failed does not depend on
how the stream hands out its bytes. Shared by scan and reader: decompression is the one thing they have in common.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

FEED = 32 << 10


class MemberError(Exception):
    def __init__(self, message: str, *, corrupt: bool) -> None:
        super().__init__(message)
        self.corrupt = corrupt


class Raw:
    """Sequential stream with a bounded past (`retain` bytes) and offsets as in the file."""

    def __init__(
        self,
        stream: BinaryIO,
        offset: int = 0,
        *,
        retain: int = 0,
        seen: Callable[[bytes], Any] | None = None,
    ) -> None:
        self._stream, self._seen, self._retain = stream, seen, retain
        self._buffer = bytearray()
        self.base = self.pos = offset  # offsets of the first byte kept, and of the next byte to hand out
        self._ended = False

    @classmethod
    def of_bytes(cls, data: bytes) -> Raw:
        return cls(io.BytesIO(data))

    def _fill(self, n: int) -> None:
        past = self.pos - self.base - self._retain
        if past > FEED:
            del self._buffer[:past]
            self.base += past
        while not self._ended and len(self._buffer) - (self.pos - self.base) < n:
            data = self._stream.read(max(n, 4 * FEED))
            if not data:
                self._ended = True
                break
            if self._seen is not None:
                self._seen(data)
            self._buffer += data

    def peek(self, n: int) -> bytes:
        """The next n bytes; fewer only at the end of the file."""
        self._fill(n)
        at = self.pos - self.base
        return bytes(self._buffer[at : at + n])

    def advance(self, n: int) -> None:
        self.pos += n

    def take(self, n: int) -> bytes:
        data = self.peek(n)
        self.pos += len(data)
        return data

    def skip_to(self, offset: int) -> None:
        while self.pos < offset:
            if not self.take(min(offset - self.pos, FEED)):
                raise EOFError(f"the file ends at byte {self.pos}, before byte {offset}")

    def back_to(self, offset: int) -> None:
        self.pos = max(offset, self.base)


def gzip_member(raw: Raw) -> Iterator[bytes]:
    """Pieces of the member at raw.pos, which then stands behind it. Raises MemberError."""
    inflater = zlib.decompressobj(31)
    first = raw.pos
    while not inflater.eof:
        block = raw.peek(FEED)
        if not block:
            raise MemberError(f"gzip member at {first} is cut off by the end of the file", corrupt=False)
        before = inflater.copy() if raw.pos > first else zlib.decompressobj(31)
        try:
            data = inflater.decompress(block)
        except zlib.error as error:
            yield _up_to_the_fault(before, block)
            raise MemberError(f"gzip member at {first}: {error}", corrupt=True) from None
        raw.advance(len(block) - len(inflater.unused_data))
        if data:
            yield data


def _up_to_the_fault(inflater: Any, block: bytes) -> bytes:
    """What a failing feed yields: zlib drops it with the error, but records were in it that must be counted."""
    parts = []
    with contextlib.suppress(zlib.error):
        for n in range(len(block)):
            parts.append(inflater.decompress(block[n : n + 1]))
    return b"".join(parts)
