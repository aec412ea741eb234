"""The store in a folder: one file an object, visible by link or rename only when whole and on disk.

A file is written and fsynced under `.tmp/` of the same lake (one file system: link and rename are atomic).
`link` is the create: the kernel refuses an existing name, on one machine and over NFS alike. No lock files.
Then the folder is fsynced, as is every folder made on the way: durable means survives power loss.
A killed writer leaves a file in `.tmp/` only; the next probe sweeps what is older than a day.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from gristmill.lake.store.base import (
    ALLOWED,
    MARKER,
    TEMPORARY,
    Info,
    NotFound,
    Store,
    UnsafeStore,
    check_key,
    check_prefix,
    settle_create,
)

STALE_S = 86_400
"""Seconds after which a half-written file is a killed writer's."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore(Store):
    """The Store contract over an absolute folder."""

    def __init__(self, root: str) -> None:
        self.uri = os.path.normpath(root)

    def __repr__(self) -> str:
        return f"LocalStore({self.uri!r})"

    def get(self, key: str) -> bytes:
        try:
            with open(self._path(key), "rb") as stream:
                return stream.read()
        except _ABSENT as error:
            raise NotFound(self.uri, key) from error

    def open(self, key: str) -> pa.NativeFile:
        path = self._path(key)
        if not os.path.isfile(path):
            raise NotFound(self.uri, key)
        try:
            # Not a memory map: a page that cannot be read would be a SIGBUS instead of an exception.
            return pa.OSFile(path, "rb")
        except _ABSENT as error:  # deleted since
            raise NotFound(self.uri, key) from error

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._temporary() as temporary:
            _write(temporary, data)
            _make_folder(os.path.dirname(target))
            os.rename(temporary, target)
        _sync_folder(os.path.dirname(target))

    def put_file(self, key: str, path: str | Path) -> None:
        source, target = os.fspath(path), self._path(key)
        os.utime(source)  # gc measures age from here; a rename would keep the time the file was written
        os.chmod(source, self._new_mode())  # nor may it keep the mode: some writers make files that only they can read
        _sync_file(source)
        _make_folder(os.path.dirname(target))
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self._temporary() as temporary:
                shutil.copyfile(source, temporary)
                _sync_file(temporary)
                os.rename(temporary, target)
            os.unlink(source)
        _sync_folder(os.path.dirname(target))

    def create(self, key: str, data: bytes) -> bool:
        return settle_create(self, key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """As in Store; raises UnsafeStore on a file system without hard links."""
        target = self._path(key)
        folder = os.path.dirname(target)
        if key == MARKER:
            self._sweep()
        with self._temporary() as temporary:
            _write(temporary, data)
            _make_folder(folder)
            try:
                os.link(temporary, target)  # not rename, which replaces what is there without a word
                created = True
            except FileExistsError:
                created = False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise UnsafeStore(
                    f"cannot hard-link into {folder} ({error.strerror}): create-if-absent needs hard links "
                    "within one file system; FAT, exFAT and some network and FUSE mounts have none. "
                    f"{ALLOWED}"
                ) from error
        # Also when lost: whoever acts on the winner's object must not see it vanish in a power cut.
        _sync_folder(folder)
        return created

    def info(self, key: str) -> Info | None:
        try:
            status = os.stat(self._path(key))
        except _ABSENT:
            return None
        return Info(key, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str = "") -> Iterator[Info]:
        folder, _, start = check_prefix(prefix).rpartition("/")
        return self._walk(f"{folder}/" if folder else "", start)

    def _walk(self, folder: str, start: str = "") -> Iterator[Info]:
        """One folder at a time. A folder sorts as `name/`, so the order is that of whole keys, as on S3."""
        try:
            with os.scandir(os.path.join(self.uri, folder)) as scan:
                entries = [
                    (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name, entry)
                    for entry in scan
                    if entry.name.startswith(start)
                ]
        except _ABSENT:
            return
        for name, entry in sorted(entries, key=lambda pair: pair[0]):
            if name == f"{TEMPORARY}/" and not folder:
                continue
            if name.endswith("/"):
                yield from self._walk(folder + name)
                continue
            with suppress(FileNotFoundError):  # deleted between the scan and now: not listed
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield Info(folder + name, status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        path = self._path(key)
        if os.path.isdir(path):  # a folder is no object; unlink of one fails differently on each system
            return
        with suppress(*_ABSENT):
            os.unlink(path)
            _sync_folder(os.path.dirname(path))

    def _path(self, key: str) -> str:
        return os.path.join(self.uri, check_key(key))

    @contextmanager
    def _temporary(self) -> Iterator[str]:
        """A fresh name under `.tmp/`; whatever is left there is removed on leaving.

        It has a random part beside the process number: nodes that share the folder number processes alike.
        """
        folder = os.path.join(self.uri, TEMPORARY)
        _make_folder(folder)
        path = os.path.join(folder, f"{os.getpid()}-{uuid.uuid4().hex}")
        try:
            yield path
        finally:
            with suppress(FileNotFoundError):  # renamed away: the normal end of a put
                os.unlink(path)

    def _new_mode(self) -> int:
        """Permissions of a file that is made now, in this lake: by umask and default ACL, as every other object's."""
        with self._temporary() as path, open(path, "xb") as stream:
            return stat.S_IMODE(os.fstat(stream.fileno()).st_mode)

    def _sweep(self) -> None:
        """Removes what killed writers left. A day is longer than any write or clock skew."""
        with suppress(FileNotFoundError), os.scandir(os.path.join(self.uri, TEMPORARY)) as scan:
            for entry in scan:
                with suppress(FileNotFoundError):  # another opener swept it
                    if entry.stat().st_mtime < time.time() - STALE_S:
                        os.unlink(entry.path)


def _write(path: str, data: bytes) -> None:
    """A new file, on disk before it is given its name: a name must never lead to bytes that a power cut takes."""
    with open(path, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_file(path: str) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(path: str) -> None:
    """Puts the names in a folder on disk; fsync of a file alone does not (man 2 fsync)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(path: str) -> None:
    """mkdir -p; each new folder's name is on disk before anything is put in it."""
    if os.path.isdir(path):
        return
    _make_folder(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    _sync_folder(os.path.dirname(path))
