"""A lake's store: named immutable-by-convention objects in a local folder or below an S3 prefix.

Everything above builds its guarantees on one verb, `create` (put-if-absent): a receipt, a commit, a tag
is one create. So a store that cannot refuse a second create is refused here, when it is opened.
Backends hold an address and nothing else: they travel by pickle and make clients where they are used.
boto3 is imported only for `s3://`: half a second that `grist ls` on a folder should not pay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

MARKER = "lake.json"
CREATE_ATTEMPTS = 7
TEMPORARY = ".tmp"
"""Folder of half-written files in a local lake. Reserved on S3 too: a lake can be copied to a folder."""


ALLOWED = (
    "Allowed: an absolute folder on a file system with hard links (ext4, xfs, zfs, APFS, NFS), AWS S3, "
    "Cloudflare R2, or a MinIO, Ceph RGW or SeaweedFS release that answers 412 to `If-None-Match: *` "
    "(SeaweedFS 4.48 does; rclone and s3rver do not). Upgrade the store, or keep the lake elsewhere"
)


OBJECT_LOST = (
    "Copy it from another lake, or run the command that made it, which makes it again. `grist verify` names the"
    " versions that it harms"
)
"""What to do about an object that a version holds and the lake has lost."""


class NotFound(KeyError):
    """No object under this key."""

    def __init__(self, uri: str, key: str) -> None:
        super().__init__(uri, key)
        self.uri, self.key = uri, key

    def __str__(self) -> str:
        message = f"no object {self.key!r} in {self.uri}"
        return f"{message}. {OBJECT_LOST}" if self.key.startswith("objects/") else message


class UnsafeStore(RuntimeError):
    """The store cannot promise put-if-absent, so two commits could both succeed and one would be lost."""


class UnknownFormat(RuntimeError):
    """`lake.json` is not one this version reads."""


class Info(NamedTuple):
    """`size` in bytes, `modified` in seconds since the epoch by the store's clock."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Objects by key. Keys are relative POSIX paths; anything else is a ValueError (see `check_key`)."""

    uri: str

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""

    def open(self, key: str) -> Any:
        """A `pyarrow.NativeFile` with random access. Raises NotFound."""

    def put(self, key: str, data: bytes) -> None:
        """Writes or overwrites; atomic, and durable on return."""

    def put_file(self, key: str, path: str | Path) -> None:
        """`put` of a local file, which is handed over: `path` is gone on return, on every backend.

        The object's age counts from now, not from when the file was written.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Put-if-absent; atomic, and durable on return.

        True: the key holds `data`. False: the key holds something else, which is now durable and final.
        A retry of a request whose answer was lost is told "exists" though it won: equal bytes count as this call's.
        A caller who must know that it was *this* call puts a nonce in the data.
        """

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """One conditional write and the store's bare answer to it. `create` is what callers want."""

    def info(self, key: str) -> Info | None:
        """Size and age, or None when absent."""

    def list(self, prefix: str = "") -> Iterator[Info]:
        """Objects whose key starts with `prefix` (characters, not path segments), sorted by key."""

    def delete(self, key: str) -> None:
        """No error if absent."""


def settle_create(store: Store, key: str, data: bytes) -> bool:
    """`Store.create` from `put_if_absent`: when refused, the content says whose the key is.

    Refused and yet absent: the winner is in flight (409) or was deleted meanwhile; asked again, with pauses.
    """
    for attempt in range(CREATE_ATTEMPTS):
        if store.put_if_absent(key, data):
            return True
        # Clients repeat a request whose answer was lost, and are refused by what they wrote themselves.
        with suppress(NotFound):
            return store.get(key) == data
        time.sleep(0.05 * 2**attempt)
    raise RuntimeError(
        f"creating {key!r} in {store.uri} was refused {CREATE_ATTEMPTS} times with nothing there to read; "
        "another writer keeps creating and deleting it. Find it, or try again"
    )


def check_key(key: str) -> str:
    """The key itself. Raises ValueError for one that is empty, absolute, not normal, or reserved."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"store key {key!r} is not allowed: keys are relative POSIX paths such as 'objects/ab/abcd', "
            "without '..', '.', empty parts, or a slash at either end"
        )
    if not key.isprintable():
        raise ValueError(f"store key {key!r} is not allowed: it has a control or unprintable character; rename it")
    if parts[0] == TEMPORARY:
        raise ValueError(f"store key {key!r} is not allowed: {TEMPORARY}/ is the store's own; use another folder")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, which may end anywhere in a key. Raises ValueError."""
    whole, _, _ = prefix.rpartition("/")
    if whole or prefix.startswith("/"):
        check_key(whole)
    if not prefix.isprintable():
        raise ValueError(f"store prefix {prefix!r} is not allowed: it has an unprintable character")
    return prefix
