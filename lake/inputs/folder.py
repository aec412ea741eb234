"""A folder as one input (`folder::PATH`): it is read as the tar that would be made of it.

Members are the files below it in the order of their paths, without hidden ones; headers hold path and size and nothing
of owner or time. So the digest of the input is that of every path inside, size and byte, in a fixed order: moving the
folder, or touching a file, changes nothing. No tar is written: its headers are made, and its members opened, as they
are asked for. `folder::PATH/NAME.jsonl` is the tar with a sample a line: the line, and the files of the folder that it
names (lake/inputs/folder_lines.py). Manifests of clips are read as such lines (lake/inputs/manifests.py). Rows that
follow one another and speak of parts of one file have it once: behind the first they hold a hard link to it.
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
from gristmill.lake.inputs.folder_lines import SUFFIXES, quoted
from gristmill.lake.inputs.manifests import is_manifest, parts_of, rows_of
from gristmill.lake.inputs.patterns import Survey

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PREFIX = "folder::"
LINKED = "GRISTMILL.linked"
"""Of a hard link in a pax header: where the header of its member stands, in bytes of the tar, in decimal digits."""
_END = bytes(2 * tarfile.BLOCKSIZE)


class _Part(NamedTuple):
    """Bytes of the tar, from `start` on: `data` (headers, padding), or `size` bytes of the file `uri` from `at` on."""

    start: int
    size: int
    uri: str
    data: bytes
    at: int = 0


class _Member(NamedTuple):
    """A member of the tar: `size` bytes of the file `uri` from `at` on, or `data`, or a link to the member `link`."""

    name: str
    size: int
    uri: str
    at: int = 0
    data: bytes = b""
    link: str | None = None


class _Listing(NamedTuple):
    """The members in order, and the files that they are of."""

    members: list[_Member]
    files: list[InputInfo]


class FolderInputs(InputStore):
    """Folders in places that `store_of` finds by address; `folder_of` makes an address absolute."""

    def __init__(self, store_of: Callable[[str], InputStore], folder_of: Callable[[str], str]) -> None:
        self._store_of, self._folder_of = store_of, folder_of

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        folder = self._folder(uri)
        parts = _parts(self._listing(uri).members)
        check_offset(uri, offset, parts[-1].start + parts[-1].size)
        reader = _TarReader(uri, parts, self._store_of(folder))
        reader.seek(offset)
        return cast(BinaryIO, io.BufferedReader(reader, BUFFER))

    def info(self, uri: str) -> InputInfo:
        """As in InputStore: its size is the tar's, its etag covers what is known of each file in it."""
        (members, files), folder = self._listing(uri), self._folder(uri)
        last = _parts(members)[-1]
        known = (f"{info.uri[len(folder) :]}\0{info.size}\0{info.modified!r}\0{info.etag}" for info in files)
        changed = max(info.changed for info in files)
        return InputInfo(uri, last.start + last.size, max(info.modified for info in files), digest_of(*known), changed)

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
        """The folder, or the file of lines."""
        return self._folder_of(uri.removeprefix(PREFIX)).rstrip("/")

    def _folder(self, uri: str) -> str:
        where = self._where(uri)
        return where.rpartition("/")[0] if is_manifest(where) else where

    def _listing(self, uri: str) -> _Listing:
        """What the tar holds. Raises InputFault where something cannot be looked at, or there is nothing."""
        where, folder = self._where(uri), self._folder(uri)
        store = self._store_of(folder)
        below = store.survey(_all_below(folder))
        if below.faults or not below.files:
            raise InputFault(f"{uri} cannot be read: {'; '.join(below.faults) or 'it holds no file'}")
        if where != folder:
            return _of_rows(store, where, {path[len(folder) + 1 :]: path for path in below.files})
        with ThreadPoolExecutor(16) as pool:
            files = list(pool.map(store.info, sorted(below.files)))
        return _Listing([_Member(info.uri[len(folder) + 1 :], info.size, info.uri) for info in files], files)


def _all_below(folder: str) -> str:
    scheme, colon, rest = folder.rpartition("://")
    return f"{scheme}{colon}{glob.escape(rest)}/**/*"


def _of_rows(store: InputStore, where: str, below: dict[str, str]) -> _Listing:
    """A sample a row of the manifest `where`: the row as `.json`, and the files that it names. `below`: path in the
    folder -> address."""
    name = where.rpartition("/")[2]
    manifest = parts_of(name, below)
    # No list of rows is part of a sample: a row that names its own would hold all of them.
    media = {path: uri for path, uri in below.items() if not path.endswith(SUFFIXES) and path not in manifest}
    rows = list(rows_of(manifest, media, lambda path: store.open(below[path])))
    wanted = sorted({path for row in rows for path in row.files})
    with ThreadPoolExecutor(16) as pool:
        infos = dict(zip(wanted, pool.map(store.info, [media[path] for path in wanted]), strict=True))
    members: list[_Member] = []
    before: dict[str, str] = {}  # of the row before that speaks of a part: path -> the member that holds the file
    stem = name.rpartition(".")[0]
    for number, row in enumerate(rows):
        key = f"{stem}/{number:09d}"
        if row.at is None:
            members.append(_Member(f"{key}.json", row.size, "", data=row.data))
        else:
            members.append(_Member(f"{key}.json", row.size, where, row.at))
        held: dict[str, str] = {}
        for path in row.files:
            own = f"{key}.{quoted(path)}"
            link = before.get(path) if row.is_part else None
            members.append(_Member(own, 0 if link else infos[path].size, infos[path].uri, link=link))
            held[path] = link or own
        before = held if row.is_part else {}
    return _Listing(members, [*(store.info(below[part]) for part in manifest), *infos.values()])


def _parts(members: list[_Member]) -> list[_Part]:
    """The tar, end to end."""
    parts: list[_Part] = []
    start = 0  # of the next part: what a tar holds is known from names and sizes, without a byte of a file
    begins: dict[str, int] = {}
    for member in members:
        begins[member.name] = start
        info = tarfile.TarInfo(member.name)
        info.size = member.size
        if member.link is not None:
            info.type, info.linkname = tarfile.LNKTYPE, member.link
            info.pax_headers = {LINKED: str(begins[member.link])}
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        padding = bytes(-member.size % tarfile.BLOCKSIZE)
        for part in (
            _Part(start, len(header), "", header),
            _Part(start + len(header), member.size, member.uri, member.data, member.at),
            _Part(start + len(header) + member.size, len(padding), "", padding),
        ):
            if part.size:
                parts.append(part)
                start += part.size
    parts.append(_Part(start, len(_END), "", _END))
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
            self._member, self._member_part = self._store.open(part.uri, part.at + inside), number
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
