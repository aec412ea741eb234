"""Who may write the checkpoints of a run in a store that knows no locks.

Whoever takes a run writes `runs/<work key>/holders/000001.json`, the next 000002 and so on. Each is created, never
overwritten by another, so of two that come at once one is refused; the highest number holds the run. Its process
rewrites it every BEAT seconds. Whether it still does is judged by watching it, so no clocks are compared: one that
changes is alive, one that stays as it is for SILENCE seconds is dead and is followed by the next number. A process that
was only stopped learns of it before its next checkpoint.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.sealed import read_note, write_note
from gristmill.stages.train.process import Process, this_process

log = logging.getLogger("gristmill")

BEAT = 10.0
"""Seconds between two signs of life."""
SILENCE = 90.0
"""Seconds without one after which a holder is dead: nine beats."""
LOOK = 2.0
"""Seconds between two looks at a holder that may be dead."""
_NAME = re.compile(r"(\d{6,})\.json")
_REMEDY = "if its run is over, delete it"


class RunsElsewhere(RuntimeError):
    """Another process trains this very stage now."""


class Holder(NamedTuple):
    """`number`: its place in the sequence; `modified`: its last sign of life, by the store's clock."""

    number: int
    modified: float


class Hold:
    """`Hold(store, "runs/<work key>/")`. `number` is this process's, 0 before it has one; a rank, which another process
    started, is handed that one's: it writes for that holder and no later one."""

    def __init__(self, store: Store, prefix: str, number: int = 0) -> None:
        self.number = number
        self.prefix = f"{prefix}holders/"
        self._store = store
        self._nonce = uuid.uuid4().hex

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While this process holds the run. Waits for a holder that may be dead. Raises RunsElsewhere for a live one,
        and what the store does."""
        self._take()
        stop = threading.Event()
        beats = threading.Thread(target=self._beat, args=(stop,), daemon=True, name="hold")
        beats.start()
        try:
            yield
        finally:
            stop.set()
            beats.join()
            self._release()

    def check(self) -> None:
        """Raises RunsElsewhere when another process has taken the run since, or ended it."""
        newest = self._newest()
        if newest == 0:
            raise RunsElsewhere(
                f"{self._store.uri}/{self.prefix}: another process has finished this run, and its folder is gone. The"
                " same command takes its result"
            )
        if newest != self.number:
            raise RunsElsewhere(
                f"{self._store.uri}/{self.prefix}: another process has taken over this run, because this one gave no"
                f" sign of life for {SILENCE:g} s. Nothing is lost: the other one goes on from the last checkpoint"
            )

    def take_if_free(self) -> bool:
        """Takes the run, without a sign of life from then on, unless another process holds it. -> Whether it did."""
        holder = self._holder()
        note = None if holder is None else self._read(holder.number)
        if note is not None and not _has_ended(note):
            return False
        self.number = (holder.number if holder else 0) + 1
        return self._store.create(self._key(self.number), self._note(released=False))

    def _take(self) -> None:
        while True:
            holder = self._holder()
            if holder is not None:
                self._outlast(holder)
            self.number = (holder.number if holder else 0) + 1
            if self._store.create(self._key(self.number), self._note(released=False)):
                break
        for info in list(self._store.list(self.prefix)):
            if info.key < self._key(self.number):
                self._store.delete(info.key)

    def _outlast(self, holder: Holder) -> None:
        """Returns when it is released, gone or dead. Raises RunsElsewhere at its first sign of life."""
        note = self._read(holder.number)
        if note is None or _has_ended(note):
            return
        log.info("train: this run was held by %s; it is taken over after %g s of silence", _who(note), SILENCE)
        deadline = time.monotonic() + SILENCE
        while time.monotonic() < deadline:
            time.sleep(LOOK)
            if (now := self._holder()) == holder:
                continue
            note = None if now is None else self._read(now.number)
            if note is None or note["released"]:
                return
            raise RunsElsewhere(
                f"another process trains this very stage ({_who(note)}): wait for its end, or stop it. `grist runs`"
                " lists runs"
            )

    def _release(self) -> None:
        try:
            if self._newest() == self.number:
                self._write(released=True)
        except Exception as failed:  # never in place of the run's own error; the next one waits for SILENCE
            log.warning("train: the run was not released: %s", failed)

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT):
            try:
                if self._newest() != self.number:
                    return  # another one's now: `check` says so
                self._write(released=False)
            except Exception as error:  # a thread that ended here would lose the run; nine beats are spare
                log.warning("train: no sign of life was written, trying again in %g s: %s", BEAT, error)

    def _holder(self) -> Holder | None:
        holders = [
            Holder(int(match[1]), info.modified)
            for info in self._store.list(self.prefix)
            if (match := _NAME.fullmatch(info.key.removeprefix(self.prefix)))
        ]
        return max(holders, default=None)

    def _newest(self) -> int:
        holder = self._holder()
        return 0 if holder is None else holder.number

    def _key(self, number: int) -> str:
        return f"{self.prefix}{number:06d}.json"

    def _note(self, *, released: bool) -> bytes:
        about = {"holder": self._key(self.number)}
        return write_note(about, **this_process()._asdict(), nonce=self._nonce, released=released)

    def _write(self, *, released: bool) -> None:
        self._store.put(self._key(self.number), self._note(released=released))

    def _read(self, number: int) -> dict[str, Any] | None:
        key = self._key(number)
        try:
            return read_note(self._store, key, {"holder": key}, _REMEDY, host=str, pid=int, released=bool)
        except NotFound:  # it ended meanwhile
            return None


def _has_ended(note: dict[str, Any]) -> bool:
    return bool(note["released"]) or Process.of_note(note).is_gone()


def _who(note: dict[str, Any]) -> str:
    return f"process {note['pid']} on {note['host']}"
