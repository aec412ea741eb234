"""Untimed: an input while records are read from it. What its store takes is no record's time."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from gristmill.lake.inputs.files import BUFFER
from gristmill.lake.inputs.sources import open_input
from gristmill.stages.read.isolated import watchdog


class _Untimed(io.RawIOBase):
    """An input while it is read: what the store takes is no record's time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with watchdog.asleep():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with watchdog.asleep():
            return self._stream.seek(offset, whence)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_untimed(uri: str, offset: int) -> BinaryIO:
    """As `open_input`. Raises as it does."""
    with watchdog.asleep():
        stream = open_input(uri, offset)
    return cast(BinaryIO, io.BufferedReader(_Untimed(stream), BUFFER))
