"""Opening a lake by its address, and the proof that its store refuses a second create.

boto3 is imported only for `s3://`: half a second that `grist ls` on a folder should not pay.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gristmill.lake.store.base import ALLOWED, MARKER, NotFound, Store, UnknownFormat, UnsafeStore

FORMAT = 1


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
    """The store at an address, unopened. Raises ValueError."""
    scheme, colon, _ = uri.partition("://")
    if colon and scheme == "s3":
        from gristmill.lake.store.s3 import S3Store

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
    from gristmill.lake.store.local import LocalStore

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
    """Raises UnknownFormat unless `marker` is the `lake.json` of a lake that this release reads."""
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
