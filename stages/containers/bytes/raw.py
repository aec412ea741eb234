"""Raw: the bytes of a file as stored, with offsets and a bounded past; and the one gzip member that stands next.

Feeds to the inflater have one fixed size, so that what a failed member yielded before it failed does not depend on
how the stream hands out its bytes. Shared by scan and reader: decompression is the one thing they have in common.
zlib-ng takes half of zlib's time for it, and gives the same bytes up to the same faults (tests/stages/test_inflate.py).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from zlib_ng import zlib_ng

_inflate = cast(Any, zlib_ng)  # its stubs lack `copy`, and have `error` as an instance
FEED = 32 << 10
FIRST_FEED = 2 << 10  # a file can be members of 20 bytes each: what is fed past the end of one is fed again
COPY_AFTER = 16  # feeds after which an inflater is copied: a fault costs no more than inflating these anew


class MemberError(Exception):
    """A member breaks off, or is `corrupt`: then what it yielded before is not to be trusted either."""

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
        block: int = 4 * FEED,
    ) -> None:
        self._stream, self._seen, self._retain, self._block = stream, seen, retain, block
        self._buffer = bytearray()
        self.base = self.pos = offset  # offsets of the first byte kept, and of the next byte to hand out
        self._ended = False

    @classmethod
    def of_bytes(cls, data: bytes) -> Raw:
        """The same over bytes at hand."""
        return cls(io.BytesIO(data), block=FIRST_FEED)

    def ahead(self, limit: int) -> Raw:
        """What follows, at most `limit` bytes of it, read without moving."""
        return Raw(cast(BinaryIO, _Ahead(self, limit)), self.pos, block=FIRST_FEED)

    def _fill(self, n: int) -> None:
        past = self.pos - self.base - self._retain
        if past > FEED:  # not at every byte: what is deleted from the front is paid for by moving the rest
            del self._buffer[:past]
            self.base += past
        while not self._ended and len(self._buffer) - (self.pos - self.base) < n:
            data = self._stream.read(max(n, self._block))
            if not data:
                self._ended = True
                break
            if self._seen is not None:
                self._seen(data)
            self._buffer += data

    def peek(self, n: int) -> bytes:
        """The next n bytes; fewer only at the end of the file."""
        self._fill(n)
        return self._copied(self.pos - self.base, n)

    def bytes_at(self, offset: int, n: int) -> bytes:
        """As `peek`, from an offset at or behind the position."""
        self._fill(offset - self.pos + n)
        return self._copied(offset - self.base, n)

    def _copied(self, at: int, n: int) -> bytes:
        """Bytes of the buffer, copied once: a slice of it would be a copy already."""
        with memoryview(self._buffer) as view:
            return bytes(view[at : at + n])

    def find(self, pattern: bytes) -> bool:
        """Move to the next `pattern` at or behind the position; if there is none, to the end of the file."""
        while True:
            at = self._buffer.find(pattern, self.pos - self.base)
            if at >= 0:
                self.pos = self.base + at
                return True
            end = self.base + len(self._buffer)
            if self._ended:
                self.pos = end
                return False
            self.pos = max(self.pos, end - len(pattern) + 1)
            self._fill(end - self.pos + FEED)

    def advance(self, n: int) -> None:
        """Over n bytes that were peeked at."""
        self.pos += n

    def take(self, n: int) -> bytes:
        """The next n bytes, handed out; fewer only at the end of the file."""
        data = self.peek(n)
        self.pos += len(data)
        return data

    def skip_to(self, offset: int) -> None:
        """Raises EOFError when the file ends before the offset."""
        while self.pos < offset:
            if not self.take(min(offset - self.pos, FEED)):
                raise EOFError(f"the file ends at byte {self.pos}, before byte {offset}")

    def back_to(self, offset: int) -> None:
        """As far back as the past is kept."""
        self.pos = max(offset, self.base)


class _Ahead:
    """A stream over what follows in a Raw, which it leaves where it is."""

    def __init__(self, raw: Raw, limit: int) -> None:
        self._raw, self._at, self._end = raw, raw.pos, raw.pos + limit

    def read(self, n: int) -> bytes:
        data = self._raw.bytes_at(self._at, min(n, self._end - self._at))
        self._at += len(data)
        return data


def gzip_member(raw: Raw) -> Iterator[bytes]:
    """Pieces of the member at raw.pos, which then stands behind it. Raises MemberError."""
    return deflated(raw, 31)


def deflated(raw: Raw, window: int) -> Iterator[bytes]:
    """The same; `window` as zlib has it: 31 gzip, 15 zlib, -15 neither header nor checksum."""
    inflater, feed = _inflate.decompressobj(window), FIRST_FEED
    first, what = raw.pos, "gzip member" if window == 31 else "deflate stream"
    before: Any = None  # for `_up_to_the_fault`: a copy of the inflater, and what it was fed since
    since: list[bytes] = []
    while not inflater.eof:
        block = raw.peek(feed)
        if not block:
            raise MemberError(f"{what} at {first} is cut off by the end of the file", corrupt=False)
        if len(since) == COPY_AFTER:
            before, since = inflater.copy(), []
        try:
            data = inflater.decompress(block)
        except _inflate.error as error:
            yield _up_to_the_fault(before or _inflate.decompressobj(window), since, block)
            raise MemberError(f"{what} at {first}: {error}", corrupt=True) from None
        since.append(block)
        raw.advance(len(block) - len(inflater.unused_data))
        feed = min(2 * feed, FEED)
        if data:
            yield data


def _up_to_the_fault(inflater: Any, since: Iterable[bytes], block: bytes) -> bytes:
    """The output of a feed that fails: zlib drops it with the error, but records in it must be counted. So the feed is
    given once more, byte by byte, to an inflater that was fed what came `since` it was made and before the feed; once a
    member, since a fault ends it."""
    for fed in since:
        inflater.decompress(fed)
    parts = []
    with contextlib.suppress(_inflate.error):
        for n in range(len(block)):
            parts.append(inflater.decompress(block[n : n + 1]))
    return b"".join(parts)
