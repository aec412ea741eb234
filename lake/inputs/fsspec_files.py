"""Inputs wherever fsspec reaches (`gs://`, `hf://`, `https://`, ...), where the user installed the package for it.

A place has to say something of a file that changes with its content (an etag, a checksum, a time): without it, nothing
could tell that the file is still the one that was scanned. Listings are asked for anew each time, as a cached one would
answer that question with what was. A read that meets an outage is made again where it was; what clients call by other
names, or hide behind "not found", is raised as an outage, which is waited for.
"""

from __future__ import annotations

import inspect
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import fsspec
from fsspec.registry import known_implementations

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.inputs.files import (
    BUFFER,
    InputFault,
    InputInfo,
    InputStore,
    check_offset,
    is_folder,
    matches,
    missing,
)
from gristmill.lake.inputs.patterns import MAGIC, Survey
from gristmill.lake.store.outage import brief, is_outage

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ATTEMPTS = 5
BLOCK = 4 << 20
"""Bytes of one request."""
_CONTENT = (
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "crc32c", "generation", "version_id", "blob_id", "sha"),
    *("lfs", "xet_hash", "md5", "checksum"),
)
_TIMES = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modify", "modificationTime", "created")
"""What file systems say of a file that changes with its content, under their own names; times that they give."""
_PACKAGES = {"http": "aiohttp", "https": "aiohttp"}
"""pip names of packages for schemes whose classes fsspec has itself; others name theirs in fsspec's table."""


class FsspecInputs(InputStore):
    """The inputs of one scheme.

    Raises ValueError for one that fsspec does not know or has no package for, and for one that needs more than an
    address (ftp, sftp, smb: a connection to one host, with a login).
    """

    def __init__(self, scheme: str) -> None:
        try:
            kind: Any = fsspec.get_filesystem_class(scheme)
            if needs := _required_options(kind):
                raise ValueError(f"{scheme}:// needs {', '.join(needs)}, which an address cannot say")
            self._fs: Any = kind()
        except ImportError as error:
            known: Any = known_implementations.get(scheme, {})
            package = _PACKAGES.get(scheme) or known.get("class", "").split(".")[0]
            command = "" if package == "fsspec" else f": `pip install {package}` on every node"
            raise ValueError(f"{scheme}:// needs a package that is not installed{command} ({error})") from error

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        size = self.info(uri).size
        check_offset(uri, offset, size)
        with _outages(uri):
            stream = self._fs.open(self._path(uri), "rb", block_size=BLOCK)
        reader = _Reader(uri, stream)
        if offset:
            reader.seek(offset)
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER))

    def info(self, uri: str) -> InputInfo:
        """As in InputStore. The etag is made of everything that the place says of the content: each has another name
        for it, and some have several."""
        about = self._about(uri)
        if about is None:
            raise missing(uri)
        if about["type"] == "directory":
            raise is_folder(uri)
        version = {name: about[name] for name in (*_CONTENT, *_TIMES) if about.get(name)}
        if about.get("size") is None or not version:
            lacks = "how long it is" if version else "anything that changes with its content (an etag, a time)"
            raise InputFault(f"{uri} cannot be an input: its server does not say {lacks}; copy it, and name the copy")
        etag = digest_of(*(f"{name}={value}" for name, value in sorted(version.items())))
        return InputInfo(uri, int(about["size"]), _seconds(version), etag)

    def survey(self, pattern: str) -> Survey:
        about = self._about(pattern)
        path = self._path(pattern)
        if about is not None and about["type"] == "directory":
            raise is_folder(pattern)
        if about is not None:
            return Survey([self._uri(path)], [], [])
        magic = MAGIC.search(path)
        if magic is None:
            return Survey([], [], [])
        folder = path[: magic.start()].rpartition("/")[0]
        wanted = path.split("/")
        depth = None if "**" in wanted else len(wanted) - len(folder.split("/"))
        try:
            with _outages(pattern):
                names = self._fs.find(f"{folder}/", maxdepth=depth)  # with the slash, for servers of HTTP
        except FileNotFoundError:
            return Survey([], [], [])
        hits = [name for name in names if matches(name.split("/"), wanted)]
        return Survey(sorted(self._uri(name) for name in hits), [], [])

    def _about(self, uri: str) -> dict[str, Any] | None:
        """What the file system says of an address now; None where there is nothing."""
        try:
            with _outages(uri):
                self._fs.invalidate_cache()
                about: dict[str, Any] = self._fs.info(self._path(uri))
        except FileNotFoundError:
            return None
        return about

    def _path(self, uri: str) -> str:
        return str(self._fs._strip_protocol(uri))

    def _uri(self, path: str) -> str:
        return str(self._fs.unstrip_protocol(path))


def _required_options(kind: Any) -> list[str]:
    """What the constructor of a file system cannot do without."""
    options = inspect.signature(kind.__init__).parameters.values()
    named = [option for option in options if option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)]
    return [option.name for option in named[1:] if option.default is option.empty]  # the first is `self`


def _seconds(version: dict[str, Any]) -> float:
    """The first of the times that a file system gives, in seconds since the epoch; 0 where none can be read."""
    for value in (version[name] for name in _TIMES if name in version):
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
        for read in (datetime.fromisoformat, parsedate_to_datetime):
            try:
                return read(str(value)).timestamp()
            except ValueError:
                continue
    return 0.0


@contextmanager
def _outages(uri: str) -> Iterator[None]:
    """What a client raises while its server is away, whatever it calls it, as an outage."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise ConnectionError(f"{uri}: {brief(error)}") from error
        raise


class _Reader(io.RawIOBase):
    """A file of fsspec, each read of which is a request of its own and can be made again."""

    def __init__(self, uri: str, stream: Any) -> None:
        self._uri, self._stream = uri, stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._stream.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return int(self._stream.seek(offset, whence))
        except ValueError as error:  # a stream without ranges
            raise self._no_ranges(error) from error

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """The next bytes, in up to ATTEMPTS requests from the same place. Raises ConnectionError, InputFault."""
        view = memoryview(buffer).cast("B")
        at = self._stream.tell()
        for attempt in range(ATTEMPTS):
            try:
                with _outages(self._uri):
                    data = self._stream.read(len(view))
                view[: len(data)] = data
                return len(data)
            except ConnectionError as error:
                failure = error
                time.sleep(0.05 * 2**attempt)
                self._stream.seek(at)
            except ValueError as error:
                raise self._no_ranges(error) from error
        raise failure

    def _no_ranges(self, error: ValueError) -> InputFault:
        return InputFault(f"{self._uri} cannot be an input: its server gives no parts of files ({error}); copy it")

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
