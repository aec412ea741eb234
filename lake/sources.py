"""Input files before they are anybody's objects: expand patterns, ask size and age, stream bytes.

Inputs may be local paths or `s3://` objects, and nothing above needs to know which.
A pattern means the same in both places (`*` `?` `[..]` in a name, `**` over folders, no hidden names).
What matches nothing is an error that names it: an empty crawl must not pass for a finished one.
Streams are raw and sequential; decompression and record boundaries are the reader's business.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from lake.patterns import MAGIC, Found, find

BUFFER = 1 << 20


class InputInfo(NamedTuple):
    """`size` in bytes, `modified` in seconds since the epoch, `etag` as the store gives it (None: local).

    `changed`: when a local file's content, time or name was last touched, which `cp -p` and `touch -d` cannot set back.
    """

    uri: str
    size: int
    modified: float
    etag: str | None
    changed: float = 0.0

    @property
    def stamp(self) -> tuple[str, int, float, str | None]:
        """What every node sees alike; some mounts make `changed` up."""
        return self.uri, self.size, self.modified, self.etag


def open_input(uri: str, offset: int = 0) -> BinaryIO:
    """Buffered bytes of the input from `offset` on; `tell` is the position in the input as stored.

    Raises FileNotFoundError, ValueError (an offset outside the file; another scheme), and on S3 OSError when
    the object is replaced while it is read. Dropped connections are resumed, a bounded number of times.
    """
    path = local_path(uri)
    if path is not None:
        stream = open(path, "rb", buffering=BUFFER)  # noqa: SIM115  (the caller closes it)
        size = os.fstat(stream.fileno()).st_size
        if not 0 <= offset <= size:
            stream.close()
            raise ValueError(f"offset {offset} is outside {path} of {size} bytes")
        stream.seek(offset)
        return stream
    from lake.s3 import RangeReader, connect, split_uri

    reader = RangeReader(connect().client, *split_uri(uri), offset)
    return cast(BinaryIO, io.BufferedReader(reader, BUFFER))


def input_info(uri: str) -> InputInfo:
    """Raises FileNotFoundError when there is no such file or object, ValueError for another scheme."""
    path = local_path(uri)
    if path is not None:
        if os.path.isdir(path):
            raise _is_folder(path)
        status = os.stat(path)
        return InputInfo(path, status.st_size, status.st_mtime, None, status.st_ctime)
    from lake.s3 import connect, head, split_uri

    info = head(connect().client, *split_uri(uri))
    if info is None:
        raise FileNotFoundError(f"input {uri!r} does not exist; check the path, or give a pattern such as folder/*")
    return InputInfo(uri, info.size, info.modified, info.etag.strip('"'))


def expand(pattern: str) -> list[str]:
    """Sorted inputs that a path or pattern names; local ones absolute, to mean the same in a worker.

    Raises what `survey` raises, and OSError for what could not be looked at.
    """
    matches = survey(pattern)
    if matches.faults:
        raise OSError(f"input {pattern!r}: {'; '.join(matches.faults)}")
    return matches.files


def survey(pattern: str) -> Found:
    """The same, with what could not be looked at beside it.

    A file whose name has `*` or `[` in it is found by its own name.
    Raises FileNotFoundError when nothing matches, IsADirectoryError (a folder), ValueError (another scheme).
    """
    path = local_path(pattern)
    where = pattern if path is None else os.path.abspath(path)
    matches = Found(sorted(_expand_s3(where)), [], []) if path is None else _expand_local(where)
    if not matches.files and not matches.faults:
        what = "matches no file" if MAGIC.search(where) else "does not exist"
        raise FileNotFoundError(
            f"input {where!r} {what}; check the path, or give a pattern such as folder/*.warc.gz or folder/**/*.jsonl"
        )
    return matches


def local_path(uri: str) -> str | None:
    """The path of a local input, None for `s3://`. Raises ValueError for any other scheme."""
    scheme, colon, _ = uri.partition("://")
    if not colon:
        return uri
    if scheme == "s3":
        return None
    parts = urlsplit(uri)
    if scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ValueError(
            f"input {uri!r}: allowed are a local path, file:///path and s3://bucket/key; copy it there first"
        )
    return unquote(parts.path)


def _is_folder(where: str) -> IsADirectoryError:
    where = where.rstrip("/")
    return IsADirectoryError(
        f"input {where!r} is a folder; write {where}/* for its files, {where}/**/* for all below it"
    )


def _expand_local(where: str) -> Found:
    if os.path.isfile(where):
        return Found([where], [], [])
    if os.path.isdir(where):
        raise _is_folder(where)
    return find(where)


def _expand_s3(where: str) -> list[str]:
    from lake.s3 import connect, head, split_uri

    client = connect().client
    bucket, key = split_uri(where)
    if key and not key.endswith("/") and head(client, bucket, key) is not None:
        return [where]
    magic = MAGIC.search(key)
    if magic is None:
        folder = key.rstrip("/") + "/" if key else ""
        if client.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1).get("Contents"):
            raise _is_folder(where)
        return []
    wanted = key.split("/")
    return [
        f"s3://{bucket}/{name}"
        for name in _names(client, bucket, key[: magic.start()])
        if _matches(name.split("/"), wanted)
    ]


def _names(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield item["Key"]


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """`glob.glob(recursive=True)`'s rules over the parts of a key: which places in `wanted` each part may lead to."""
    end = len(wanted)
    places = _and_behind({0}, wanted)
    for part in parts:
        visible, reached = not part.startswith("."), set[int]()
        for place in places - {end}:
            name = wanted[place]
            if name == "**":
                reached |= {place, *([end] if place + 1 == end else [])} if visible else set()
            elif fnmatchcase(part, name) and (visible or name.startswith(".") or not MAGIC.search(name)):
                reached.add(place + 1)
        places = _and_behind(reached, wanted)
    return end in places


def _and_behind(places: set[int], wanted: Sequence[str]) -> set[int]:
    """Also the places behind each `**`, which may stand for no folder; a last `**` stands for one name at least."""
    for place in range(len(wanted) - 1):
        if place in places and wanted[place] == "**":
            places.add(place + 1)
    return places
