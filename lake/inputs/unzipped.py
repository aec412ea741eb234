"""A gzip stream of foreign bytes, as long as it may be: one that expands further, or is cut off or damaged, breaks off.

Who reads it line by line has the lines before, and an error that says why there are no more."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, cast

EXPANSION, ANYWAY = 64, 1 << 20
"""Bytes that a compressed one may become, and that any file may have. Manifests have 5 to 25."""
_GZIP = b"\x1f\x8b"
_MEMBER = 31
"""zlib's word for members of gzip, with their checksums."""
_BLOCK = 16 << 10


class Broken(Exception):
    """No more can be read; the message says why, and quotes nothing."""


def unzipped(stream: BinaryIO) -> BinaryIO:
    """Its decompressed bytes, all members of it; a stream that is not compressed as it is. Reading raises Broken."""
    plain = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream)))
    if not cast(io.BufferedReader, plain).peek(2).startswith(_GZIP):
        return plain
    return cast(BinaryIO, io.BufferedReader(_Unzipped(plain), 1 << 16))


class _Unzipped(io.RawIOBase):
    """What is decompressed is given out before an error behind it is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._member = stream, zlib.decompressobj(_MEMBER)
        self._input, self._taken, self._size = b"", 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        while True:
            if self._member.eof:
                if not self._at_next_member():
                    return 0
                self._member = zlib.decompressobj(_MEMBER)
            elif not self._filled():
                raise self._broken("it is cut off")
            try:
                data = self._member.decompress(self._input, len(view))
            except zlib.error:
                raise self._broken("it is damaged") from None
            self._input = self._member.unconsumed_tail
            if data:
                break
        self._size += len(data)
        if self._size > EXPANSION * self._taken + ANYWAY:
            raise Broken(f"the compressed file expands more than {EXPANSION} times: the rest is not read")
        view[: len(data)] = data
        return len(data)

    def _at_next_member(self) -> bool:
        """Whether something stands behind a member, and behind the zeros that may follow it."""
        self._input = self._member.unused_data.lstrip(b"\0")
        while not self._input and self._filled():
            self._input = self._input.lstrip(b"\0")
        return bool(self._input)

    def _filled(self) -> bool:
        """Whether there is input, which is read where there is none."""
        if not self._input:
            self._input = self._stream.read(_BLOCK)
            self._taken += len(self._input)
        return bool(self._input)

    def _broken(self, why: str) -> Broken:
        return Broken(f"the compressed file breaks off after {self._size} bytes: {why}")
