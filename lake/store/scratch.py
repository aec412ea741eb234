"""Scratch folders: where files lie on their way into the store, and what killed processes left there.

A folder is locked by its process for as long as it lives; the kernel lets go of the lock when the process dies, however
it dies. So a scratch folder that can be locked belongs to nobody, and the next process takes it away: no clock and no
process number, which a reused number or another container could fool. Where a file system knows no locks, nothing is
taken away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

PREFIX = "grist-scratch-"


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for files on their way into the store."""
    _swept(tempfile.gettempdir())
    folder, lock = _locked()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def _locked() -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock; another one where a sweeper came before the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            except OSError:  # a file system without locks, where nobody sweeps
                return folder, lock
            if os.fstat(lock).st_nlink:
                return folder, lock
            os.close(lock)


@lru_cache
def _swept(temporary: str) -> None:
    """Takes away what dead processes of this user left; once for each place in the life of a process."""
    with suppress(FileNotFoundError), os.scandir(temporary) as scan:
        for entry in scan:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # another process is faster, or its owner lives
                    _take_away(entry.path)


def _take_away(path: str) -> None:
    """Removes the folder of a process of this user that is dead. Raises OSError where it is alive."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    finally:
        os.close(lock)
