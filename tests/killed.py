"""Runs that are killed, one after the other, until one of them ends; stores that die at a write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions


def kills_until(done: Callable[[], Any], run: Callable[[], Any], receipts: int = 2) -> int:
    """How many runs died before `done()`: each, in a process of its own, writes so many receipts more than were there,
    then dies of a signal."""
    kills, link = 0, os.link
    while not done():
        pid = os.fork()
        if not pid:
            written = 0

            def dying(*args: Any, **kwargs: Any) -> None:
                nonlocal written
                written += "receipts" in str(args[1])
                if written > receipts:
                    os.kill(os.getpid(), signal.SIGKILL)
                link(*args, **kwargs)

            os.link = dying
            try:
                run()
            finally:
                os._exit(0)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return kills


class Killed(Exception):
    """What a store that dies raises."""


def steps(store: Store, act: Callable[[Store], Any]) -> list[str]:
    """What the act writes, in order."""
    seen: list[str] = []
    act(Killing(store, -1, seen))
    return seen


class Killing:
    """A store that dies at its n-th write; `late`: the write is done, and the answer never comes."""

    def __init__(self, store: Store, n: int, seen: list[str], late: bool = False) -> None:
        self.store, self.n, self.seen, self.late = store, n, seen, late

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.store, name)
        if name not in ("create", "put", "put_file"):
            return attribute

        def call(key: str, *args: Any) -> Any:
            if key.startswith("runs/"):
                return attribute(key, *args)
            self.seen.append(key)
            fatal = len(self.seen) - 1 == self.n
            if fatal and not self.late:
                raise Killed(key)
            result = attribute(key, *args)
            if fatal:
                raise Killed(key)
            return result

        return call


def state(store: Store) -> dict[str, Any]:
    """Of each dataset the digests of its versions, and which are withdrawn."""
    versions = Versions(store)
    return {name: ([m.digest for m in versions.manifests(name)], versions.withdrawn(name)) for name in versions.names()}
