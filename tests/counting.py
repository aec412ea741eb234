"""A store that notes what is read from it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gristmill.lake.store.base import Store


class Counting:
    """`read`: the key of each object that was read, in order; `bytes`: how many of all of them. Listings are not
    reads."""

    def __init__(self, store: Store) -> None:
        self._store, self.uri = store, store.uri
        self.read: list[str] = []
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        """As the store does."""
        self.read.append(key)
        data = self._store.get(key)
        self.bytes += len(data)
        return data

    def open(self, key: str) -> Any:
        """As the store does; what is read of the file counts as it happens."""
        self.read.append(key)
        return pa.PythonFile(_File(self._store.open(key), self), mode="r")


class _File:
    """No more than `pa.PythonFile` needs: shown a `read_buffer`, it would read past the count."""

    def __init__(self, file: Any, owner: Counting) -> None:
        self._file, self._owner = file, owner
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._owner.bytes += len(data)
        return data
