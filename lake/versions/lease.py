"""Live runs: what a run is about to produce, so that gc does not take it away half made.

A run writes the keys of the work of each stage before it starts it, and touches its lease once a minute. A lease
that was not touched for LEASE_SECONDS belongs to a dead run and protects nothing. Leases are a matter of storage
only: no result ever depends on one.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from gristmill.lake.store.base import Info, NotFound, Store
from gristmill.lake.store.sealed import read_note, write_note

log = logging.getLogger("gristmill")

LEASE_SECONDS = 900.0
"""Age, by the store's clock, at which a lease is a dead run's: fifteen beats, so that a slow store or a stopped process
does not lose its run."""
RUN_FOLDER = re.compile(r"runs/([0-9a-f]{64})/")
"""Where long work keeps its state until it has a receipt, by its key (stages/train/folder.py)."""
_BEAT = 60.0
"""Seconds between two touches."""


class Lease:
    """`with Lease(store, "web") as lease: lease.announce("extract", keys)`."""

    def __init__(self, store: Store, dataset: str) -> None:
        self.store, self.dataset = store, dataset
        self.run = uuid.uuid4().hex
        self.prefix = f"runs/{self.run}/"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._count = 0

    def __enter__(self) -> Lease:
        """Says when it began, once and for all: what is written from now on, as a Work or not, gc leaves alone."""
        self.announce("began", [])
        self._touch()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        try:
            for info in list(self.store.list(self.prefix)):
                self.store.delete(info.key)
        except Exception as failed:  # never in place of the run's own error; an old lease dies by its age
            log.warning("lease %s was not removed: %s", self.prefix, failed)

    def announce(self, title: str, keys: Sequence[str]) -> None:
        """Names the work that is about to run."""
        key = f"{self.prefix}{self._count:04d}.json"
        self._count += 1
        self.store.put(key, write_note(about_of(key), stage=title, work=list(keys)))

    def _touch(self) -> None:
        """Writes the lease: its age in the store is what counts, its content is for people."""
        key = f"{self.prefix}lease.json"
        holder = {"dataset": self.dataset, "host": platform.node(), "pid": os.getpid()}
        self.store.put(key, write_note(about_of(key), **holder))

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            try:
                self._touch()
            except Exception as error:  # a thread that ended here would let gc at a live run; 15 beats are spare
                log.warning("lease %s was not renewed, trying again in %g s: %s", self.prefix, _BEAT, error)


def about_of(key: str) -> dict[str, Any]:
    """What a file of a live run says of itself."""
    _, run, name = key.split("/")
    return {"run": run, "file": name.removesuffix(".json")}


class LiveRun(NamedTuple):
    """`folder` is its place under `runs/`; `started` when it first announced work, by the store's clock."""

    folder: str
    started: float
    work: frozenset[str]


def live_runs(store: Store, now: float | None = None) -> list[LiveRun]:
    """Runs whose lease was touched within LEASE_SECONDS. Raises ValueError for an announcement that is no JSON."""
    now = time.time() if now is None else now
    folders: dict[str, list[Info]] = {}
    for info in store.list("runs/"):
        folders.setdefault(info.key.rpartition("/")[0], []).append(info)
    runs = []
    # A folder without a lease is of a run that ended or never began, and its announcements protect nothing.
    for folder, infos in folders.items():
        lease = next((info for info in infos if info.key == f"{folder}/lease.json"), None)
        if lease is None or now - lease.modified >= LEASE_SECONDS:
            continue
        work: set[str] = set()
        for info in infos:
            if info != lease:
                work.update(_announced(store, info.key))
        runs.append(LiveRun(folder, min(info.modified for info in infos), frozenset(work)))
    return runs


def live_work(store: Store, now: float | None = None) -> set[str]:
    """Work keys announced by runs that are alive."""
    return {key for run in live_runs(store, now) for key in run.work}


def _announced(store: Store, key: str) -> list[str]:
    try:
        return list(read_announcement(store, key)["work"])
    except NotFound:  # the run ended meanwhile
        return []


def read_announcement(store: Store, key: str) -> dict[str, Any]:
    """What a run announced. Raises Unreadable, NotFound."""
    help = (
        "it announces work of a run; if a newer gristmill wrote it, upgrade this one, or delete it if its run is over"
    )
    return read_note(store, key, about_of(key), help, work=list)
