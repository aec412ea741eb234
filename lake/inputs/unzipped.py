"""A gzip stream of foreign bytes, as long as it may be: one that expands further, or is cut off or damaged, breaks off.

Who reads it line by line has the lines before, and an error that says why there are no more."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import BinaryIO, cast

EXPANSION, ANYWAY = 64, 1 << 20
"""Bytes that a compressed one may become, and that any file may have. Manifests have 5 to 25."""
_GZIP = b"\x1f\x8b"


class Broken(Exception):
    """No more can be read; the message says why, and quotes nothing."""


def unzipped(stream: BinaryIO) -> BinaryIO:
    """Its decompressed bytes, all members of it; a stream that is not compressed as it is. Reading raises Broken."""
    plain = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream)))
    if not cast(io.BufferedReader, plain).peek(2).startswith(_GZIP):
        return plain
    return cast(BinaryIO, io.BufferedReader(_Unzipped(plain), 1 << 16))


class _Counted(io.RawIOBase):
    """How many bytes were taken of a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.taken = stream, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.taken += len(data)
        return data


class _Unzipped(io.RawIOBase):
    def __init__(self, stream: BinaryIO) -> None:
        self._counted = _Counted(stream)
        self._file = gzip.GzipFile(fileobj=cast(BinaryIO, self._counted), mode="rb")
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        try:
            data = self._file.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise Broken(f"the compressed file breaks off after {self._size} bytes ({type(error).__name__})") from None
        self._size += len(data)
        if self._size > EXPANSION * self._counted.taken + ANYWAY:
            raise Broken(f"the compressed file expands more than {EXPANSION} times: the rest is not read")
        view[: len(data)] = data
        return len(data)
