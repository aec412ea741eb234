"""The folder of a run in the lake, `runs/<work key>/`: who trains what, metrics of every step, checkpoints.

It is where a run that was killed goes on, and where others look at one that runs. Named by the key of its Work, it is
found by whoever does that Work again, and gc leaves it alone as long as a live run announces that key. It is no proof
of anything: when the receipt is written its metrics are an object and the folder goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.sealed import read_note, write_note
from gristmill.lake.versions.lease import RUN_FOLDER

BEAT = 10.0
"""Seconds between two signs of life."""
ABOUT, METRICS, CHECKPOINTS = "run.json", "metrics.jsonl", "checkpoints"
_REMEDY = "if its run is over, delete it; a live one writes it anew"


class RunsElsewhere(RuntimeError):
    """Another process trains this very stage now."""


@dataclass(frozen=True)
class RunAbout:
    """What a run says of itself. `key`: of its Work; `dataset`: that its result becomes a version of; `world`: ranks;
    `started`, `alive` (its last sign of life): seconds since 1970, by the clock of its host."""

    key: str
    stage: str
    dataset: str
    steps: int
    world: int
    host: str = ""
    pid: int = 0
    started: float = 0.0
    alive: float = 0.0


class RunFolder:
    """`RunFolder(store, work.key)`. `local`: the folder of checkpoints and metrics on this machine's disk."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self.prefix = f"runs/{key}/"
        self._about: RunAbout | None = None
        self._beaten = 0.0

    @property
    def local(self) -> Path:
        """In a local lake, the folder itself."""
        if self.store.uri.startswith("s3://"):
            raise NotImplementedError("a lake on S3 has its folder of a run on a local disk: not yet there")
        return Path(self.store.uri, self.prefix)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.local / CHECKPOINTS

    @property
    def metrics_file(self) -> Path:
        """Where a line for each step is written."""
        return self.local / METRICS

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this process trains: two in one folder would spoil each other's checkpoints. Raises RunsElsewhere."""
        self.local.mkdir(parents=True, exist_ok=True)
        # The kernel lets go of the lock when the process dies, however it dies.
        descriptor = os.open(self.local, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunsElsewhere(self._holder()) from None
            yield
        finally:
            os.close(descriptor)

    def _holder(self) -> str:
        about = read_about(self.store, self.key)
        who = "" if about is None else f" (process {about.pid} on {about.host}, stage {about.stage!r})"
        return f"another process trains this very stage{who}: wait for its end, or stop it. `grist runs` lists runs"

    def announce(self, about: RunAbout) -> None:
        """Says that the run begins, or goes on, here."""
        now = time.time()
        self._about = replace(about, host=platform.node(), pid=os.getpid(), started=now)
        self._beaten = float("-inf")
        self.alive()

    def alive(self) -> None:
        """A sign of life, written at most every BEAT seconds. Called once a step."""
        assert self._about is not None, "announced before"
        if time.monotonic() - self._beaten < BEAT:
            return
        self._beaten = time.monotonic()
        fields_now = asdict(replace(self._about, alive=time.time()))
        self.store.put(self.prefix + ABOUT, write_note({}, **fields_now))

    def metrics(self) -> list[dict[str, Any]]:
        """What was measured, a dict a step, in order. A last line that is being written is left out."""
        try:
            text = self.store.get(self.prefix + METRICS).decode()
        except NotFound:
            return []
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def close(self, done: bool) -> None:
        """The end of a run in this process. `done`: its receipt is written, so that nobody goes on here."""
        if not done:
            return
        for info in list(self.store.list(self.prefix)):
            self.store.delete(info.key)
        shutil.rmtree(self.local, ignore_errors=True)


def read_about(store: Store, key: str) -> RunAbout | None:
    """What the run of a work says of itself; None: it says nothing. Raises Unreadable."""
    try:
        note = read_note(store, f"runs/{key}/{ABOUT}", {"key": key}, _REMEDY, stage=str)
    except NotFound:
        return None
    return RunAbout(**{field.name: note[field.name] for field in fields(RunAbout)})


def runs(store: Store) -> list[RunAbout]:
    """Every run that has a folder, the newest first: those that run now, and those that were stopped on the way."""
    keys = {match[1] for info in store.list("runs/") if (match := RUN_FOLDER.match(info.key))}
    abouts = (read_about(store, key) for key in keys)
    return sorted((about for about in abouts if about is not None), key=lambda about: -about.started)
