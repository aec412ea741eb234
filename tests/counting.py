"""A store that notes what is read from it."""

from __future__ import annotations

from typing import Any

from gristmill.lake.store.base import Store


class Counting:
    """`read`: the key of each object that was read, in order. Listings are not reads."""

    def __init__(self, store: Store) -> None:
        self._store, self.uri = store, store.uri
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str) -> bytes:
        """As the store does."""
        self.read.append(key)
        return self._store.get(key)

    def open(self, key: str) -> Any:
        """As the store does."""
        self.read.append(key)
        return self._store.open(key)
