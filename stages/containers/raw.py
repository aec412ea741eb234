"""Raw: compressed bytes in, members (gzip members, zstd frames) out, damage reported and stepped over.

A member is the unit of trust: what it inflated to is good once its end (and checksum) was reached, or when the file
simply stops in it; a member that fails is bad from its first byte, as nobody can say where the flipped bit was.
After damage the next member is searched in the compressed bytes, from the byte behind the start of the failed one
(inflating past a cut eats into its successors), within the last RETAIN bytes. Feeds have one fixed size, so that
what a failed member yielded does not depend on how the stream hands out its bytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from fastwarc.stream_io import ZstdReader

from stages.containers import GZIP_MAGIC, ZSTD_MAGIC, Compression, is_skippable

FEED = 32 << 10
OUT = 128 << 10
RETAIN = 8 << 20
FIRST = 16  # bytes: the first piece of a member is never shorter, unless the member is
MAX_DICTIONARY = 64 << 20


class Piece(NamedTuple):
    """Decompressed bytes; `begins` is the compressed offset of the member of which these are the first bytes."""

    data: bytes
    begins: int | None


class Damage(NamedTuple):
    """Compressed bytes [first, last) are lost; `corrupt`: what this member yielded before is not to be trusted."""

    first: int
    last: int
    message: str
    corrupt: bool


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
        try:
            data = inflater.decompress(block)
        except zlib.error as error:
            raise MemberError(f"gzip member at {first}: {error}", corrupt=True) from None
        raw.advance(len(block) - len(inflater.unused_data))
        if data:
            yield data


class _Frame:
    """The bytes of one zstd frame, as a file: block headers tell where it ends (RFC 8878, 3.1.1)."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        head = raw.peek(18)
        flags = head[4] if len(head) > 4 else 0
        self.dictionary_id = bool(flags & 3)
        single = flags >> 5 & 1
        size = (single, 2, 4, 8)[flags >> 6]
        self._section = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + size
        self._checksum = 4 if flags & 4 else 0
        self._last = False
        self.ended = self.cut = False

    def read(self, n: int = FEED) -> bytes:
        out = bytearray()
        while len(out) < n and not (self.ended or self.cut):
            if self._section == 0:
                self._next_block()
            data = self._raw.take(min(self._section, n - len(out)))
            self.cut = not data and self._section > 0
            self._section -= len(data)
            out += data
            if self._section == 0 and self._last:
                self.ended = True
        return bytes(out)

    def _next_block(self) -> None:
        head = self._raw.peek(3)
        header = int.from_bytes(head, "little")
        how, size = header >> 1 & 3, header >> 3
        self._section = 3 + (1 if how == 1 else size)
        if how == 3:
            raise OSError("reserved block type")
        if len(head) == 3 and header & 1:
            self._last = True
            self._section += self._checksum


def zstd_frame(raw: Raw, dictionary: bytes | None) -> Iterator[bytes]:
    """As `gzip_member`, for a zstd frame."""
    first = raw.pos
    frame = _Frame(raw)
    if frame.dictionary_id and dictionary is None:
        raise MemberError(f"zstd frame at {first} needs a dictionary that the file does not carry", corrupt=True)
    reader = ZstdReader(frame, dictionary=dictionary)  # type: ignore[arg-type]
    try:
        while data := reader.read(OUT):
            yield data
        while frame.read():
            pass
    except OSError as error:
        if not frame.cut:
            raise MemberError(f"zstd frame at {first}: {error}", corrupt=True) from None
    if frame.cut:
        raise MemberError(f"zstd frame at {first} is cut off by the end of the file", corrupt=False)


def zstd_dictionary(raw: Raw) -> bytes | None:
    """The dictionary of a .warc.zst (IIPC proposal): frame 0x184D2A5D at the start, itself possibly compressed."""
    head = raw.peek(8)
    size = int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x5d\x2a\x4d\x18" or size > MAX_DICTIONARY:
        return None
    data = raw.peek(8 + size)[8:]
    if len(data) < size:
        return None
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        return b"".join(zstd_frame(Raw.of_bytes(data), None))
    except MemberError:
        return None  # every frame that needs it then says so


def zstd_head(raw: Raw, n: int) -> bytes:
    """Up to n decompressed bytes of the beginning; b"" where they cannot be had."""
    dictionary = zstd_dictionary(raw)
    try:
        while is_skippable(raw.peek(4)):
            size = 8 + int.from_bytes(raw.peek(8)[4:8], "little")
            if len(raw.take(size)) < size:
                return b""
        return next(zstd_frame(raw, dictionary), b"")[:n] if raw.peek(4) == ZSTD_MAGIC else b""
    except MemberError:
        return b""


class Members:
    """The members of a file, one after the other; `plausible` says of the first bytes of one whether a search
    after damage may stop there."""

    def __init__(self, raw: Raw, how: Compression, plausible: Callable[[bytes], bool]) -> None:
        self._raw, self._how, self._plausible = raw, how, plausible
        self._dictionary = zstd_dictionary(raw) if how == "zstd" else None
        self._magic = GZIP_MAGIC if how == "gzip" else ZSTD_MAGIC

    def __iter__(self) -> Iterator[Piece | Damage]:
        raw = self._raw
        if self._how == "none":
            begins: int | None = raw.pos
            while data := raw.take(2 * OUT):
                yield Piece(data, begins)
                begins = None
            return
        while head := raw.peek(8):
            first = raw.pos
            if self._how == "zstd" and is_skippable(head) and self._skip(head):
                continue
            if head.startswith(self._magic):
                try:
                    yield from first_pieces(self._member(raw), first)
                    continue
                except MemberError as error:
                    bad = error
                found = self._search(first + 1, whole=not bad.corrupt)
                yield Damage(first, raw.pos, str(bad), bad.corrupt)
            else:
                found, blank = self._search(first, whole=False), False
                if not found:
                    raw.back_to(first)
                    blank = self._only_zeros()
                if not blank:  # zero padding behind the last member is what tapes and block devices leave
                    yield Damage(first, raw.pos, f"no {self._how} member starts at {first}", False)

    def _skip(self, head: bytes) -> bool:
        """Over a skippable frame; False when it is longer than the file."""
        first, size = self._raw.pos, 8 + int.from_bytes(head[4:8], "little")
        try:
            self._raw.skip_to(first + size)
        except EOFError:
            self._raw.back_to(first)
            return False
        return True

    def _only_zeros(self) -> bool:
        zeros = True
        while data := self._raw.take(FEED):
            zeros = zeros and not data.strip(b"\0")
        return zeros

    def _member(self, raw: Raw) -> Iterator[bytes]:
        return gzip_member(raw) if self._how == "gzip" else zstd_frame(raw, self._dictionary)

    def _search(self, offset: int, *, whole: bool) -> bool:
        """Move to the next member at or behind `offset` that inflates plausibly; else to the end of the file.

        `whole`: the member must be good to its end: the file ended inside another, so most likely there is none.
        """
        raw = self._raw
        raw.back_to(offset)
        while True:
            window = raw.peek(2 * FEED)
            at = window.find(self._magic)
            if at < 0:
                if len(window) < 2 * FEED:
                    raw.advance(len(window))
                    return False
                raw.advance(len(window) - len(self._magic) + 1)
                continue
            raw.advance(at)
            if self._starts_here(raw.peek(RETAIN if whole else FEED), whole):
                return True
            raw.advance(1)

    def _starts_here(self, data: bytes, whole: bool) -> bool:
        if self._how == "gzip" and data[3:4] > b"\x1f":  # reserved flags (RFC 1952, 2.3.1)
            return False
        start, size = b"", 0
        try:
            for piece in self._member(Raw.of_bytes(data)):
                start, size = start[:FIRST] + piece[:FIRST], size + len(piece)
        except MemberError as error:
            if error.corrupt or whole:
                return False
        return size > 0 and self._plausible(start)


def first_pieces(member: Iterator[bytes], begins: int) -> Iterator[Piece]:
    """Pieces of a member, the first one at least FIRST bytes long if the member is."""
    held, started = b"", False
    try:
        for data in member:
            held += data
            if started or len(held) >= FIRST:
                yield Piece(held, None if started else begins)
                held, started = b"", True
    except MemberError:
        if held:
            yield Piece(held, begins)
        raise
    if held:
        yield Piece(held, begins)
