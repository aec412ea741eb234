"""A folder as one input (`folder::PATH`): it is read as the tar that would be made of it.

Members are the files below it in the order of their paths, without hidden ones; headers hold path and size and nothing
of owner or time. So the digest of the input is that of every path inside, size and byte, in a fixed order: moving the
folder, or touching a file, changes nothing. No tar is written: its headers are made, and its members opened, as they
are asked for.
"""

from __future__ import annotations

import glob
import io
import tarfile
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.inputs.files import BUFFER, InputFault, InputInfo, InputStore, check_offset
from gristmill.lake.inputs.patterns import Survey

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PREFIX = "folder::"
_END = bytes(2 * tarfile.BLOCKSIZE)


class _Part(NamedTuple):
    """Bytes of the tar, from `start` on: `data` (headers, padding), or `size` bytes of the file `uri`."""

    start: int
    size: int
    uri: str
    data: bytes


class FolderInputs(InputStore):
    """Folders in places that `store_of` finds by address; `folder_of` makes an address absolute."""

    def __init__(self, store_of: Callable[[str], InputStore], folder_of: Callable[[str], str]) -> None:
        self._store_of, self._folder_of = store_of, folder_of

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        parts = _parts(self._members(uri), self._folder(uri))
        check_offset(uri, offset, parts[-1].start + parts[-1].size)
        reader = _TarReader(uri, parts, self._store_of(self._folder(uri)))
        reader.seek(offset)
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER))

    def info(self, uri: str) -> InputInfo:
        """As in InputStore: its size is the tar's, its etag covers what is known of each member."""
        members, folder = self._members(uri), self._folder(uri)
        last = _parts(members, folder)[-1]
        known = (f"{info.uri[len(folder) :]}\0{info.size}\0{info.modified!r}\0{info.etag}" for info in members)
        changed = max(info.changed for info in members)
        return InputInfo(
            uri, last.start + last.size, max(info.modified for info in members), digest_of(*known), changed
        )

    def survey(self, pattern: str) -> Survey:
        """The folder itself. What in it cannot be looked at is a fault, as for files."""
        folder = self._folder(pattern)
        below = self._store_of(folder).survey(_all_below(folder))
        return Survey([PREFIX + folder] if below.files and not below.faults else [], below.faults, below.again)

    def _folder(self, uri: str) -> str:
        return self._folder_of(uri.removeprefix(PREFIX)).rstrip("/")

    def _members(self, uri: str) -> list[InputInfo]:
        """The files, in order. Raises InputFault where one cannot be looked at, or there is none."""
        folder = self._folder(uri)
        store = self._store_of(folder)
        below = store.survey(_all_below(folder))
        if below.faults or not below.files:
            raise InputFault(f"{uri} cannot be read: {'; '.join(below.faults) or 'it holds no file'}")
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(store.info, sorted(below.files)))


def _all_below(folder: str) -> str:
    scheme, colon, rest = folder.rpartition("://")
    return f"{scheme}{colon}{glob.escape(rest)}/**/*"


def _parts(members: list[InputInfo], folder: str) -> list[_Part]:
    """The tar, end to end."""
    parts: list[_Part] = []
    at = 0  # where the next part begins: what a tar holds is known from names and sizes, without a byte of a file
    for info in members:
        member = tarfile.TarInfo(info.uri[len(folder) + 1 :])
        member.size = info.size
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        padding = bytes(-info.size % tarfile.BLOCKSIZE)
        for size, uri, data in ((len(header), "", header), (info.size, info.uri, b""), (len(padding), "", padding)):
            if size:
                parts.append(_Part(at, size, uri, data))
                at += size
    parts.append(_Part(at, len(_END), "", _END))
    return parts


class _TarReader(io.RawIOBase):
    """The bytes of the tar; the member that is being read is open, and no other."""

    def __init__(self, uri: str, parts: list[_Part], store: InputStore) -> None:
        self._uri, self._parts, self._store = uri, parts, store
        self._at = 0
        self._member: BinaryIO | None = None
        self._member_part = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._parts[-1].start + self._parts[-1].size
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: end}[whence]
        self._leave()
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Bytes up to the end of the part that the position lies in: a header, a file, its padding."""
        view = memoryview(buffer).cast("B")
        number = bisect_right(self._parts, self._at, key=lambda part: part.start) - 1  # the part that it lies in
        part = self._parts[number]
        inside = self._at - part.start
        size = min(len(view), part.size - inside)
        if size <= 0:
            return 0
        data = part.data[inside : inside + size] if part.data else self._read(number, inside, size)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, number: int, inside: int, size: int) -> bytes:
        """At most `size` bytes of a member, from `inside` on; it stays open for the next read."""
        part = self._parts[number]
        if self._member is None or self._member_part != number:
            self._leave()
            self._member, self._member_part = self._store.open(part.uri, inside), number
        data = self._member.read(size)
        if not data:
            raise OSError(
                f"{part.uri} became shorter while {self._uri} was read: run again when the folder is complete"
            )
        return data

    def _leave(self) -> None:
        if self._member is not None:
            self._member.close()
            self._member = None

    def close(self) -> None:
        self._leave()
        super().close()
