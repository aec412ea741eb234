"""Zstd frames: their bounds from their own headers, their bytes from libzstd (RFC 8878).

Block headers give the length of a frame without decompressing it, so each frame is handed to the decoder alone and
its offset is known. The dictionary of a .warc.zst stands in a skippable frame at the top of the file; one that is
damaged, or that inflates without end, costs the frames that need it and nothing else.
A frame without a checksum (pyarrow writes none) cannot show every flipped bit: that is the writer's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from gristmill.stages.containers.bytes.compressed import ZSTD_MAGIC, is_skippable
from gristmill.stages.containers.bytes.raw import FEED, MemberError, Raw

OUT = 128 << 10
MAX_DICTIONARY = 16 << 20
"""Bytes, stored and inflated. Dictionaries in use have some hundred kB."""
_EMPTY_FRAME = zstandard.ZstdCompressor().compress(b"")


class FrameError(Exception):
    """A frame is not built as frames are."""


class _Frame:
    """The bytes of one zstd frame, as a file: block headers tell where it ends (RFC 8878, 3.1.1)."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        # Frame_Header_Descriptor, the byte behind the magic (RFC 8878, 3.1.1.1.1): bits 0-1 how long the dictionary's
        # id is, 2 whether a checksum follows the last block, 5 single segment (no window byte), 6-7 how long the size.
        head = raw.peek(18)
        flags = head[4] if len(head) > 4 else 0
        self.dictionary_id = bool(flags & 3)
        single = flags >> 5 & 1
        size = (single, 2, 4, 8)[flags >> 6]
        self._section = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + size  # bytes up to the next header of a block
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
        # Block_Header (3.1.1.2): bit 0 whether it is the last, 1-2 its type, 3-23 its size.
        head = self._raw.peek(3)
        header = int.from_bytes(head, "little")
        how, size = header >> 1 & 3, header >> 3
        self._section = 3 + (1 if how == 1 else size)  # RLE: one byte is stored, `size` is how often it is repeated
        if how == 3:
            raise FrameError("reserved block type")
        if len(head) == 3 and header & 1:
            self._last = True
            self._section += self._checksum


class Dictionary:
    """What the frames of a .warc.zst were compressed with. `fault`: why it cannot be used; `data` is None then."""

    def __init__(self, content: bytes, fault: str = "") -> None:
        self.data, self.fault = None, fault
        if not fault:
            data = zstandard.ZstdCompressionDict(content)
            try:
                zstandard.ZstdDecompressor(dict_data=data).decompress(_EMPTY_FRAME)
                self.data = data
            except zstandard.ZstdError as error:
                self.fault = f"is damaged ({error})"


def zstd_frame(raw: Raw, dictionary: Dictionary | None) -> Iterator[bytes]:
    """As `gzip_member`, for a zstd frame."""
    first = raw.pos
    frame = _Frame(raw)
    if frame.dictionary_id and (dictionary is None or dictionary.fault):
        fault = f"the dictionary of the file, which {dictionary.fault}" if dictionary else "one that the file lacks"
        raise MemberError(f"zstd frame at {first} needs a dictionary: {fault}", corrupt=True)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary.data if dictionary else None)
    reader = decompressor.stream_reader(cast(BinaryIO, frame), read_size=FEED, read_across_frames=False)
    try:
        while data := reader.read(OUT):
            yield data
        while frame.read():  # libzstd may stop before it has read the checksum: the position must be behind the frame
            pass
    except (zstandard.ZstdError, FrameError) as error:
        if not frame.cut:
            raise MemberError(f"zstd frame at {first}: {error}", corrupt=True) from None
    if frame.cut:
        raise MemberError(f"zstd frame at {first} is cut off by the end of the file", corrupt=False)


def zstd_dictionary(raw: Raw) -> Dictionary | None:
    """The dictionary of a .warc.zst (IIPC proposal): frame 0x184D2A5D at the start, itself possibly compressed."""
    head = raw.peek(8)
    size = int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x5d\x2a\x4d\x18":
        return None
    if size > MAX_DICTIONARY:
        return Dictionary(b"", f"has {size} bytes, more than {MAX_DICTIONARY}")
    data = raw.peek(8 + size)[8:]
    if len(data) < size:
        return Dictionary(b"", "is cut off by the end of the file")
    if not data.startswith(ZSTD_MAGIC):
        return Dictionary(data)
    inflated = bytearray()
    try:
        for piece in zstd_frame(Raw.of_bytes(data), None):
            inflated += piece
            if len(inflated) > MAX_DICTIONARY:
                return Dictionary(b"", f"inflates to more than {MAX_DICTIONARY} bytes")
    except MemberError as error:
        return Dictionary(b"", f"is damaged ({error})")
    return Dictionary(bytes(inflated))


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
