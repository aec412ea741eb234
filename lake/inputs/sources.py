"""Input files before they are anybody's objects: expand patterns, ask size and age, stream bytes.

Inputs may be local paths, `s3://` objects, or anything that fsspec reaches, and nothing above needs to know which; a
folder of media is one input where its address begins with `folder::`.
A pattern means the same everywhere (`*` `?` `[..]` in a name, `**` over folders, no hidden names).
What matches nothing is an error that names it: an empty crawl must not pass for a finished one.
Streams are raw and can seek; decompression and record boundaries are the reader's business.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from gristmill.lake.inputs.files import BUFFER, InputInfo, InputStore, check_offset, is_folder
from gristmill.lake.inputs.folder import PREFIX, FolderInputs
from gristmill.lake.inputs.patterns import MAGIC, Survey, find


def open_input(uri: str, offset: int = 0) -> BinaryIO:
    """Buffered bytes of the input from `offset` on; `tell` is the position in the input as stored.

    Raises FileNotFoundError, ValueError (an offset outside the file; a scheme that cannot be opened), and on S3 OSError
    when the object is replaced while it is read. Dropped connections are resumed, a bounded number of times.
    """
    return _store_of(uri).open(uri, offset)


def input_info(uri: str) -> InputInfo:
    """Raises FileNotFoundError when there is no such file or object, InputFault where nothing could tell that it
    changed, ValueError for a scheme that cannot be opened."""
    return _store_of(uri).info(uri)


def unchanged(uri: str, stamp: tuple[Any, ...]) -> bool:
    """Whether what is read of the input now is what it was when it had this stamp (`InputInfo.stamp`). Raises as
    `input_info`."""
    return _store_of(uri).unchanged(uri, stamp)


def expand(pattern: str) -> list[str]:
    """Sorted inputs that a path or pattern names; local ones absolute, to mean the same in a worker.

    Raises what `survey` raises, and OSError for what could not be looked at.
    """
    matched = survey(pattern)
    if matched.faults:
        raise OSError(f"input {pattern!r}: {'; '.join(matched.faults)}")
    return matched.files


def survey(pattern: str) -> Survey:
    """The same, with what could not be looked at beside it.

    A file whose name has `*` or `[` in it is found by its own name.
    Raises FileNotFoundError when nothing matches, IsADirectoryError (a folder), ValueError (a scheme that cannot be
    opened).
    """
    matched = _store_of(pattern).survey(pattern)
    if not matched.files and not matched.faults:
        where = pattern if "://" in pattern or pattern.startswith(PREFIX) else os.path.abspath(pattern)
        what = "matches no file" if MAGIC.search(where) else "does not exist"
        raise FileNotFoundError(
            f"input {where!r} {what}; check the path, or give a pattern such as folder/*.warc.gz or folder/**/*.jsonl"
        )
    return matched


class LocalInputs(InputStore):
    """Paths, and `file:///path`."""

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        path = _local_path(uri)
        stream = open(path, "rb", buffering=BUFFER)  # noqa: SIM115  (the caller closes it)
        try:
            check_offset(path, offset, os.fstat(stream.fileno()).st_size)
        except ValueError:
            stream.close()
            raise
        stream.seek(offset)
        return stream

    def info(self, uri: str) -> InputInfo:
        path = _local_path(uri)
        if os.path.isdir(path):
            raise is_folder(path)
        status = os.stat(path)
        return InputInfo(path, status.st_size, status.st_mtime, None, status.st_ctime)

    def survey(self, pattern: str) -> Survey:
        where = os.path.abspath(_local_path(pattern))
        if os.path.isfile(where):
            return Survey([where], [], [])
        if os.path.isdir(where):
            raise is_folder(where)
        return find(where)


def is_absolute(address: str) -> bool:
    """Whether an address or pattern means the same in every process, wherever it was started."""
    where = address.removeprefix(PREFIX)
    return "://" in where or os.path.isabs(where)


def is_local(address: str) -> bool:
    """Whether it lies on a file system of this machine."""
    where = address.removeprefix(PREFIX)
    return "://" not in where or where.startswith("file://")


def _local_path(uri: str) -> str:
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"input {uri!r}: write file:///path, or the path alone; another machine's files are not read")
    return unquote(parts.path)


def _folder_of(where: str) -> str:
    """The address of a folder, absolute."""
    scheme, colon, _ = where.partition("://")
    return os.path.abspath(_local_path(where)) if not colon or scheme == "file" else where


def _store_of(uri: str) -> InputStore:
    """What reads this address. Raises ValueError for a scheme that nothing here reads."""
    if uri.startswith(PREFIX):
        return FolderInputs(_store_of, _folder_of)
    scheme, colon, _ = uri.partition("://")
    if not colon or scheme == "file":
        return LocalInputs()
    if scheme == "s3":
        from gristmill.lake.inputs.s3_files import S3Inputs  # boto3 takes half a second to import

        return S3Inputs()
    try:
        return _fsspec_inputs(scheme, os.getpid())
    except ValueError as error:
        raise ValueError(
            f"input {uri!r}: {error}; allowed are a local path, file:///path, s3://bucket/key, folder::PATH, and what"
            " fsspec reads (gs://, hf://, https://)"
        ) from error


@lru_cache(maxsize=16)
def _fsspec_inputs(scheme: str, pid: int) -> InputStore:
    """Keyed by pid because connections must not be shared over a fork."""
    from gristmill.lake.inputs.fsspec_files import FsspecInputs  # fsspec takes its time to import, and few need it

    return FsspecInputs(scheme)
