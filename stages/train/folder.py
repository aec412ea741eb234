"""The folder of a run in the lake, `runs/<work key>/`: who trains what, metrics of every step, checkpoints.

It is where a run that was killed goes on, and where others look at one that runs. Named by the key of its Work, it is
found by whoever does that Work again, and gc leaves it alone as long as a live run announces that key. It is no proof
of anything: when the receipt is written its metrics are an object and the folder goes. In a lake on S3 a process works
in a scratch folder, from which each checkpoint goes into the lake with the metrics until then.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.scratch import scratch
from gristmill.lake.store.sealed import read_note, write_note
from gristmill.lake.versions.lease import RUN_FOLDER
from gristmill.model.train.checkpoint_files import checked
from gristmill.stages.train.hold import Hold, RunsElsewhere
from gristmill.stages.train.mirror import CheckpointMirror
from gristmill.stages.train.process import this_process

BEAT = 10.0
"""Seconds between two signs of life."""
LAST_WRITES = 120.0
"""Seconds that a writer of checkpoints is waited for whose driver was killed: Ray ends it in less."""
ABOUT, METRICS, CHECKPOINTS = "run.json", "metrics.jsonl", "checkpoints"
_REMEDY = "if its run is over, delete it; a live one writes it anew"


@dataclass(frozen=True)
class RunAbout:
    """What a run says of itself. `key`: of its Work; `dataset`: that its result becomes a version of; `world`: ranks;
    `host`, `pid`, `boot`, `namespace`: as of a Process; `started`, `alive` (its last sign of life): seconds since 1970,
    by the clock of its host."""

    key: str
    stage: str
    dataset: str
    steps: int
    world: int
    host: str = ""
    pid: int = 0
    boot: str = ""
    namespace: str = ""
    started: float = 0.0
    alive: float = 0.0


class RunFolder:
    """`RunFolder(store, work.key)`. Within `placed` it has a folder of this machine: `local`, for checkpoints and
    metrics; in a lake in a folder that is the run's own. `holder`: in a rank, that of the run it belongs to."""

    def __init__(self, store: Store, key: str, holder: int = 0) -> None:
        self.store, self.key = store, key
        self.prefix = f"runs/{key}/"
        self._remote = store.uri.startswith("s3://")
        self._local = None if self._remote else Path(store.uri, self.prefix)
        self._hold = Hold(store, self.prefix, holder)
        self._about: RunAbout | None = None
        self._beaten = 0.0

    @property
    def local(self) -> Path:
        """The folder of this machine. Raises RuntimeError outside `placed`."""
        if self._local is None:
            raise RuntimeError(f"{self.prefix} of {self.store.uri} has no place on this machine before `placed`")
        return self._local

    @property
    def holder(self) -> int:
        """Which holder of the run this process is, or belongs to; 0 where a lock of the folder says who holds it."""
        return self._hold.number

    @property
    def mirror(self) -> CheckpointMirror | None:
        """What takes checkpoints into the lake; None where they are written there."""
        if not self._remote:
            return None
        prefix = f"{self.prefix}{CHECKPOINTS}/"
        return CheckpointMirror(self.store, prefix, {self.metrics_key: self.metrics_file}, self._hold.check)

    @property
    def metrics_key(self) -> str:
        """Where the metrics lie in the store."""
        return self.prefix + METRICS

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.local / CHECKPOINTS

    @property
    def metrics_file(self) -> Path:
        """Where a line for each step is written."""
        return self.local / METRICS

    @contextmanager
    def placed(self) -> Iterator[None]:
        """While this process has the folder on its disk, with the metrics that there are."""
        if not self._remote:
            self.local.mkdir(parents=True, exist_ok=True)
            yield
            return
        with scratch() as folder:
            self._local = folder
            try:
                self._fetch_metrics()
                yield
            finally:
                self._local = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """`placed` while this run goes on: two runs in one folder would spoil each other's checkpoints. Raises
        RunsElsewhere."""
        with ExitStack() as stack:
            if self._remote:  # first: whom it waits for may write metrics until then
                stack.enter_context(self._hold.taken())
            stack.enter_context(self.placed())
            if not self._remote and not stack.enter_context(_locked(self.local)):
                raise RunsElsewhere(self._holder())
            yield

    @contextmanager
    def written(self) -> Iterator[None]:
        """While this process writes checkpoints, be it the run's own or one of its ranks. A killed run may leave a rank
        that writes on until Ray ends it: in a lake in a folder that is waited for, on S3 its checkpoints are refused.
        Raises RunsElsewhere."""
        self.checkpoints.mkdir(exist_ok=True)
        with ExitStack() as stack:
            if self._remote:
                self._hold.check()
            elif not stack.enter_context(_locked(self.checkpoints, LAST_WRITES)):
                raise RunsElsewhere(self._holder())
            yield

    def fetch(self, step: int) -> None:
        """Puts the checkpoint of a step, which another process wrote, and all metrics into `local`.

        Raises ValueError for a checkpoint that is not what was written.
        """
        if self.mirror is not None:
            place = self.checkpoints / f"step-{step:09d}"
            place.mkdir(parents=True)
            self.mirror.fetch(place.name, place)
            self._fetch_metrics()
            checked(place, self.mirror.address(place.name))

    def _fetch_metrics(self) -> None:
        with suppress(NotFound):  # none were written yet
            self.metrics_file.write_bytes(self.store.get(self.metrics_key))

    def _holder(self) -> str:
        about = read_about(self.store, self.key)
        who = "" if about is None else f" (process {about.pid} on {about.host}, stage {about.stage!r})"
        return f"another process trains this very stage{who}: wait for its end, or stop it. `grist runs` lists runs"

    def announce(self, about: RunAbout) -> None:
        """Says that the run begins, or goes on, here."""
        now = time.time()
        self._about = replace(about, **this_process()._asdict(), started=now)
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
            text = self.store.get(self.metrics_key).decode()
        except NotFound:
            return []
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def close(self, done: bool) -> None:
        """The end of a run in this process. `done`: its receipt is written, so that nobody goes on here. Another
        process that has taken the run meanwhile keeps the folder, and closes it at its own end."""
        if not done:
            return
        with ExitStack() as stack:
            free = self._hold.take_if_free() if self._remote else stack.enter_context(_locked(self.local))
            if not free:
                return
            keys = [info.key for info in self.store.list(self.prefix)]
            # holders last: until then nobody else takes the run
            for key in sorted(keys, key=lambda key: (key.startswith(self._hold.prefix), key)):
                self.store.delete(key)
            if not self._remote:
                shutil.rmtree(self.local, ignore_errors=True)


@contextmanager
def _locked(folder: Path, patience: float = 0.0) -> Iterator[bool]:
    """Whether this process has the lock of a folder, which it waits for so many seconds. Of one that is gone nobody has
    it."""
    deadline = time.monotonic() + patience
    # The kernel lets go of the lock when the process dies, however it dies.
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        while not (locked := _lock(descriptor)) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield locked
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_about(store: Store, key: str) -> RunAbout | None:
    """What the run of a work says of itself; None: it says nothing. Raises Unreadable."""
    try:
        note = read_note(store, f"runs/{key}/{ABOUT}", {"key": key}, _REMEDY, stage=str)
    except NotFound:
        return None
    return RunAbout(**{field.name: note[field.name] for field in fields(RunAbout) if field.name in note})


def runs(store: Store) -> list[RunAbout]:
    """Every run that has a folder, the newest first: those that run now, and those that were stopped on the way."""
    keys = {match[1] for info in store.list("runs/") if (match := RUN_FOLDER.match(info.key))}
    abouts = (read_about(store, key) for key in keys)
    return sorted((about for about in abouts if about is not None), key=lambda about: -about.started)
