"""A lake's store: named immutable-by-convention objects in a local folder or below an S3 prefix.

Everything above builds its guarantees on one verb, `create` (put-if-absent): a receipt, a commit, a tag
is one create. So a store that cannot refuse a second create is refused here, when it is opened.
Backends hold an address and nothing else: they travel by pickle and make clients where they are used.
boto3 is imported only for `s3://`: half a second that `grist ls` on a folder should not pay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

FORMAT = 1
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
        A retry of a request whose answer was lost is told "exists" though it won: equal bytes count as ours.
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


def open_store(uri: str, *, probe: bool = True) -> Store:
    """Opens the lake at "/abs/dir", "file:///abs/dir" or "s3://bucket[/prefix]".

    With `probe`, an empty place becomes a lake and the store is made to show that it refuses a second create.
    Without, nothing is written; an existing `lake.json` is still checked.
    Endpoint, region and credentials come from the usual AWS environment and profiles.
    Raises ValueError (address), UnknownFormat, UnsafeStore.
    """
    store = _backend(uri)
    if probe:
        _establish(store)
    else:
        with suppress(NotFound):  # nothing written yet: an empty lake reads as one
            _check_format(store.uri, store.get(MARKER))
    return store


def _backend(uri: str) -> Store:
    scheme, colon, _ = uri.partition("://")
    if colon and scheme == "s3":
        from lake.store_s3 import S3Store

        return S3Store(uri)
    path = uri
    if colon and scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"lake address {uri!r} names a host; write file:///abs/dir with three slashes")
        path = unquote(parts.path)
    elif colon:
        raise ValueError(
            f"lake address {uri!r} has the scheme {scheme!r}; allowed are an absolute folder, file:// and s3://"
        )
    if not path.startswith("/"):
        raise ValueError(
            f"lake address {uri!r} is relative, and a job on another machine would resolve it elsewhere; "
            f"give an absolute folder (here: {Path(path).absolute()}) or s3://bucket/prefix"
        )
    from lake.store_local import LocalStore

    return LocalStore(path)


def _establish(store: Store) -> None:
    """Makes `lake.json` if absent, checks its format, and that the store refuses to create it again."""
    try:
        marker = store.get(MARKER)
    except NotFound:
        store.create(MARKER, (json.dumps({"format": FORMAT, "lake": "gristmill"}) + "\n").encode())
        marker = store.get(MARKER)
    _check_format(store.uri, marker)
    # The same bytes again: a store that ignores the condition does no harm by what we are about to learn.
    if store.put_if_absent(MARKER, marker):
        raise UnsafeStore(
            f"{store.uri} ignores conditional writes: a second PUT of {MARKER} with `If-None-Match: *` was "
            "answered with success, so of two commits at once one would be lost without a trace. "
            f"{ALLOWED}"
        )


def _check_format(uri: str, marker: bytes) -> None:
    try:
        fields = json.loads(marker)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or fields.get("lake") != "gristmill":
        raise UnknownFormat(
            f"{uri}/{MARKER} is not a gristmill lake's ({marker[:60]!r}); "
            f'expected {{"format": {FORMAT}, "lake": "gristmill"}}. Give another folder or prefix; if it is a lake '
            "and the file was damaged, write that line into it"
        )
    if fields.get("format") != FORMAT:
        raise UnknownFormat(
            f"the lake {uri} has format {fields.get('format')!r}; "
            f"this version of gristmill reads format {FORMAT}. "
            "Use the gristmill release that wrote it, or another lake"
        )
