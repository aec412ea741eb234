"""Long files: bytes of a record that are too many to be held in memory lie in a file of no name, and are read from it.

A recording of hours is looked at block by block, whoever looks at it; so it goes from its container to a scratch file,
which is gone when nobody holds it any more, or when the process dies. Others are bytes in memory, as ever.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

IN_MEMORY = 16 << 20
"""Bytes that are held in memory."""
_BLOCK = 1 << 20


class LongFile:
    """A stretch of a scratch file. Streams of it have positions of their own."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length = file, start, length

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> LongFile:
        """All bytes of these pieces."""
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it lives as long as who holds the stretch
        for piece in pieces:
            file.write(piece)
        file.flush()
        return cls(file, 0, file.tell())

    def __len__(self) -> int:
        return self._length

    def part(self, start: int, length: int) -> LongFile:
        """So many bytes from `start` on. Raises ValueError for some that it has not."""
        if not 0 <= start <= start + length <= self._length:
            raise ValueError(f"{length} bytes from {start} on: there are {self._length}")
        return LongFile(self._file, self._start + start, length)

    def open(self) -> BinaryIO:
        """A stream of its bytes, from their beginning."""
        return cast(BinaryIO, io.BufferedReader(_Stretch(self._file, self._start, self._length), _BLOCK))

    def head(self, length: int) -> bytes:
        """The first bytes."""
        return os.pread(self._file.fileno(), min(length, self._length), self._start)

    def read(self) -> bytes:
        """All bytes."""
        return self.open().read()


Content = bytes | LongFile
"""Of a file that a record has."""


def is_long(size: int) -> bool:
    """Whether so many bytes are too many to be held in memory."""
    return size > IN_MEMORY


def stream_of(content: Content) -> BinaryIO:
    """Its bytes, from their beginning."""
    return content.open() if isinstance(content, LongFile) else io.BytesIO(content)


def head_of(content: Content, length: int) -> bytes:
    """Its first bytes."""
    return content.head(length) if isinstance(content, LongFile) else content[:length]


def sha256_of(content: Content) -> str:
    """In hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    for block in blocks_of(content.open(), len(content)):
        digest.update(block)
    return digest.hexdigest()


def blocks_of(stream: BinaryIO, length: int) -> Iterable[bytes]:
    """So many bytes of a stream, or those that it has, in pieces."""
    while length and (block := stream.read(min(_BLOCK, length))):
        yield block
        length -= len(block)


class _Stretch(io.RawIOBase):
    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._at))
        size = os.preadv(self._file.fileno(), [memoryview(buffer)[:wanted]], self._start + self._at)
        self._at += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if at < 0:
            raise ValueError(f"byte {at} of a file")
        self._at = at
        return at
