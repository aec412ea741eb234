"""A folder as one input (`folder::PATH`): it is read as the tar that would be made of it.

Members are the files below it in the order of their paths, without hidden ones; headers hold path and size and nothing
of owner or time. So the digest of the input is that of every path inside, size and byte, in a fixed order: moving the
folder, or touching a file, changes nothing. No tar is written: its headers are made, and its members opened, as they
are asked for; where each stands follows from names and sizes. `folder::PATH/NAME.jsonl` is the tar with a sample a
line: the line, and the files of the folder that it names (lake/inputs/folder_lines.py); manifests of clips are read as
such lines (lake/inputs/manifests.py). Rows that follow one another and speak of parts of one file, their only one, have
it once: behind the first they hold a hard link to it.
"""

from __future__ import annotations

import glob
import io
import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.inputs.files import BUFFER, InputFault, InputInfo, InputStore, check_offset
from gristmill.lake.inputs.folder_lines import SUFFIXES, ZIPPED, quoted
from gristmill.lake.inputs.manifests import is_manifest, parts_of, rows_of
from gristmill.lake.inputs.patterns import Survey

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PREFIX = "folder::"
LINKED = "GRISTMILL.linked"
"""Of a hard link in a pax header: where the header of its member stands, in bytes of the tar, in decimal digits."""
_END = bytes(2 * tarfile.BLOCKSIZE)
_LARGE = 8**11
"""Bytes from which on a size is too long for the header's own field."""


class _Member(NamedTuple):
    """A member of the tar: `size` bytes of the file `uri` from `at` on, or `data`, or a hard link to the member number
    `link`, whose name and beginning are `target`."""

    name: str
    size: int
    uri: str
    at: int = 0
    data: bytes = b""
    link: int | None = None
    target: tuple[str, int] | None = None

    @property
    def header_bytes(self) -> int:
        """How long its header is. Short plain names have one block; what others have is known by making it."""
        short = self.name.isascii() and len(self.name) <= tarfile.LENGTH_NAME and self.size < _LARGE
        return tarfile.BLOCKSIZE if short and self.target is None else len(self.header())

    def header(self) -> bytes:
        """Its header: path and size, and of a link what it is to."""
        info = tarfile.TarInfo(self.name)
        info.size = self.size
        if self.target is not None:
            info.type, (info.linkname, start) = tarfile.LNKTYPE, self.target
            info.pax_headers = {LINKED: str(start)}
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Listing:
    """The members in order, where each begins, and what is known of the files that they are of."""

    def __init__(self, members: list[_Member], files: list[InputInfo], folder: str) -> None:
        self.members = members
        self.known = {info.uri: info.stamp for info in files}
        self.starts, at = array("q"), 0
        for number, member in enumerate(members):
            if member.link is not None:
                member = member._replace(target=(members[member.link].name, self.starts[member.link]))
                members[number] = member
            self.starts.append(at)
            at += member.header_bytes + member.size + -member.size % tarfile.BLOCKSIZE
        self.end = at + len(_END)
        etags = (f"{info.uri[len(folder) :]}\0{info.size}\0{info.modified!r}\0{info.etag}" for info in files)
        self.etag = digest_of(*(etag.encode("utf-8", "surrogateescape") for etag in etags))
        self.modified = max(info.modified for info in files)
        self.changed = max(info.changed for info in files)

    def info(self, uri: str) -> InputInfo:
        """What is known of the tar: its size, and an etag that covers what is known of each file in it."""
        return InputInfo(uri, self.end, self.modified, self.etag, self.changed)


KEPT = 4
_kept: dict[str, _Listing] = {}
"""The listings of the folders that this process read last, by address. A folder is read chunk by chunk, and listing a
million files for each would take longer than reading them. Who reads a member by a kept listing checks that the file is
what it was; who asks for the folder's `info` has it listed anew."""


class FolderInputs(InputStore):
    """Folders in places that `store_of` finds by address; `folder_of` makes an address absolute."""

    def __init__(self, store_of: Callable[[str], InputStore], folder_of: Callable[[str], str]) -> None:
        self._store_of, self._folder_of = store_of, folder_of

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        # From its beginning it may be opened by anybody; from elsewhere on by who goes on with what was listed.
        listing = (_kept.get(uri) if offset else None) or self._listed(uri)
        check_offset(uri, offset, listing.end)
        reader = _TarReader(uri, listing, self._store_of(self._folder(uri)))
        reader.seek(offset)
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER))

    def info(self, uri: str) -> InputInfo:
        """As in InputStore, of the folder as it is now."""
        return self._listed(uri).info(uri)

    def unchanged(self, uri: str, stamp: tuple[Any, ...]) -> bool:
        """As in InputStore. A kept listing answers: whatever is read by it is checked file by file."""
        kept = _kept.get(uri)
        return (kept is not None and kept.info(uri).stamp == stamp) or self.info(uri).stamp == stamp

    def survey(self, pattern: str) -> Survey:
        """The folder itself, or the manifests in it, which may be a pattern (`folder::a/**/*.trans.txt`). What in it
        cannot be looked at is a fault, as for files."""
        where, folder = self._where(pattern), self._folder(pattern)
        store = self._store_of(folder)
        if where != folder:
            named = store.survey(glob.escape(where))
            named = named if named.files else store.survey(where)
            if named.files != [where]:
                return named._replace(files=[PREFIX + path for path in named.files])
        below = store.survey(_all_below(folder))
        return Survey([PREFIX + where] if below.files and not below.faults else [], below.faults, below.again)

    def _where(self, uri: str) -> str:
        """The folder, or the manifest in it."""
        return self._folder_of(uri.removeprefix(PREFIX)).rstrip("/")

    def _folder(self, uri: str) -> str:
        where = self._where(uri)
        return where.rpartition("/")[0] if is_manifest(where) else where

    def _listed(self, uri: str) -> _Listing:
        """The listing, made anew and kept."""
        listing = self._listing(uri)
        _kept.pop(uri, None)
        _kept[uri] = listing
        for oldest in list(_kept)[:-KEPT]:
            _kept.pop(oldest, None)
        return listing

    def _listing(self, uri: str) -> _Listing:
        """What the tar holds. Raises InputFault where something cannot be looked at, or there is nothing."""
        where, folder = self._where(uri), self._folder(uri)
        store = self._store_of(folder)
        below = store.survey(_all_below(folder))
        if below.faults or not below.files:
            raise InputFault(f"{uri} cannot be read: {'; '.join(below.faults) or 'it holds no file'}")
        if where != folder:
            return _of_rows(store, where, folder, {path[len(folder) + 1 :]: path for path in below.files})
        with ThreadPoolExecutor(16) as pool:
            files = list(pool.map(store.info, sorted(below.files)))
        return _Listing([_Member(info.uri[len(folder) + 1 :], info.size, info.uri) for info in files], files, folder)


def _all_below(folder: str) -> str:
    scheme, colon, rest = folder.rpartition("://")
    return f"{scheme}{colon}{glob.escape(rest)}/**/*"


def _of_rows(store: InputStore, where: str, folder: str, below: dict[str, str]) -> _Listing:
    """A sample a row of the manifest `where`: the row as `.json`, and the files that it names. `below`: path in the
    folder -> address."""
    name = where.rpartition("/")[2]
    manifest, stem = parts_of(name, below), name.rpartition(".")[0]
    # No list of rows is part of a sample: a row that names its own would hold all of them.
    media = {
        path: uri for path, uri in below.items() if not path.endswith((*SUFFIXES, *ZIPPED)) and path not in manifest
    }
    parts = [store.info(below[part]) for part in manifest]
    rows = list(rows_of(manifest, media, lambda path: store.open(below[path]), sum(part.size for part in parts)))
    named = sorted({path for row in rows for path in row.files})
    with ThreadPoolExecutor(16) as pool:
        infos = dict(zip(named, pool.map(store.info, [media[path] for path in named]), strict=True))
    members: list[_Member] = []
    # Of the row before, if it speaks of a part of its only file: path -> number of the member with the file. Who reads
    # the tar keeps one member for links to come, so rows of several files have all of them.
    before: dict[str, int] = {}
    for number, row in enumerate(rows):
        key = f"{stem}/{number:09d}"
        members.append(_Member(f"{key}.json", row.size, "" if row.at is None else where, row.at or 0, row.data))
        held: dict[str, int] = {}
        can_link = row.is_part and len(row.files) == 1
        for path in row.files:
            link = before.get(path) if can_link else None
            held[path] = len(members) if link is None else link
            size = infos[path].size if link is None else 0
            members.append(_Member(f"{key}.{quoted(path)}", size, infos[path].uri, link=link))
        before = held if can_link else {}
    return _Listing(members, [*parts, *infos.values()], folder)


class _TarReader(io.RawIOBase):
    """The bytes of the tar; the member that is being read is open, and no other."""

    def __init__(self, uri: str, listing: _Listing, store: InputStore) -> None:
        self._uri, self._listing, self._store = uri, listing, store
        self._at = 0
        self._number = -1  # of the member that the position is in
        self._header = b""
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._listing.end}[whence]
        self._leave()
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Bytes up to the end of what the position lies in: a header, a file, its padding, the end of the tar."""
        view = memoryview(buffer).cast("B")
        left = self._listing.end - self._at
        data = self._next(len(view)) if left > len(_END) else bytes(min(len(view), max(0, left)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _next(self, size: int) -> bytes:
        """At most `size` bytes of the member that the position lies in."""
        number = bisect_right(self._listing.starts, self._at) - 1
        if number != self._number:
            self._enter(number)
        member, inside = self._listing.members[number], self._at - self._listing.starts[number]
        if inside < len(self._header):
            return self._header[inside : inside + size]
        inside -= len(self._header)
        if inside < member.size:
            return self._read(member, inside, min(size, member.size - inside))
        return bytes(min(size, member.size + -member.size % tarfile.BLOCKSIZE - inside))

    def _read(self, member: _Member, inside: int, size: int) -> bytes:
        """At most `size` bytes of a file, from `inside` on; it stays open for the next read."""
        if member.data:
            return member.data[inside : inside + size]
        if self._file is None:
            self._check(member)
            self._file = self._store.open(member.uri, member.at + inside)
        data = self._file.read(size)
        if not data:
            raise OSError(
                f"{member.uri} became shorter while {self._uri} was read: run again when the folder is complete"
            )
        if inside + len(data) == member.size:
            self._check(member)
        return data

    def _check(self, member: _Member) -> None:
        """Raises OSError where the file is not what it was when the folder was listed."""
        if self._store.info(member.uri).stamp != self._listing.known[member.uri]:
            raise OSError(f"{member.uri} changed since {self._uri} was listed: run again when the folder is complete")

    def _enter(self, number: int) -> None:
        self._leave()
        self._number = number
        self._header = self._listing.members[number].header()

    def _leave(self) -> None:
        self._number = -1
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._leave()
        super().close()
