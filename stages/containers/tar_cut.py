"""TarCut: where the samples of a tar stand (POSIX.1-1988 ustar and its GNU and pax additions; webdataset's grouping).

Members that follow one another and share a key, the path up to the first dot of the file's name, are one sample and one
span. A span begins with the first header of its first member, those of long names included; directories, links and the
zero blocks at the end belong to the sample before them, as newlines do in other formats.
A header whose checksum is wrong ends what can be trusted: the sample before it may go on in there and the one behind it
may have begun in there, so both carry the error. The next header is searched by its magic, at any address: the bytes
that a damaged gzip member lost need not be whole blocks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gristmill.stages.containers.block_cut import Emit

BLOCK = 512
MAX_META = 16 << 10
"""Bytes of a long name or a pax header. Paths have 4,096 at most; tarfile's expressions are quadratic in it."""
MAX_METAS = 4
"""Headers of long names and pax records before one member: there are two kinds, and a link's name."""
_MAGIC, _MAGIC_AT = b"ustar", 257
_PAX = re.compile(rb"(\d{1,5}) (path|size)=")
_REGULAR, _LONG_NAME, _LONG_LINK, _PAX_LOCAL, _PAX_GLOBAL = (b"0", b"\0", b"7"), b"L", b"K", b"x", b"g"
METAS = (_LONG_NAME, _LONG_LINK, _PAX_LOCAL, _PAX_GLOBAL)
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes


class Head(NamedTuple):
    """What a header says: the type flag, the bytes of data, the name."""

    flag: bytes
    size: int
    name: bytes


def key_of(name: str) -> tuple[str, str]:
    """(key, extension) of a member, as webdataset has it: `a/b.seg.png` is `seg.png` of the sample `a/b`.

    A name without a dot, or with none but its first character, is a key of its own.
    """
    folder, slash, file = name.rpartition("/")
    dot = file.find(".", 1)
    if dot < 0:
        return name, ""
    return folder + slash + file[:dot], file[dot + 1 :].lower()


def head_of(block: bytes) -> Head | None:
    """The header in a block of 512 bytes; None where it is none."""
    # The checksum is the sum of all bytes of the header, those of the checksum itself (148 to 155) taken for blanks.
    if len(block) < BLOCK or _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
        return None
    size = _number(block[124:136])
    if size is None:
        return None
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:  # POSIX: the folders of a long path stand apart
        name = block[345:500].split(b"\0")[0] + b"/" + name
    return Head(block[156:157], size, name)


def _number(field: bytes) -> int | None:
    """Octal digits; or, of GNU, a number in base 256 where 8 GiB are not enough. None: neither, or below 0."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big") if len(field) == 12 else None
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]{1,11}", digits) else None


class TarCut:
    """The cutter of tar: fed with decompressed pieces in any sizes, it emits (start, length, error) spans."""

    held = 0  # every span is emitted as it is cut

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._buf = bytearray()  # from the address _at on
        self._at = self._start = 0  # addresses: of what comes next, of the open span
        self._skip = 0  # bytes of data and padding that are still to come
        self._member = 0  # address of the first header of the open member, those of long names included
        self._meta: Head | None = None  # the long name or pax header whose data come next
        self._long: dict[bytes, bytes] = {}  # path and size of the next member by such headers: they override its own
        self._metas = 0
        self._key: str | None = None  # of the open span
        self._ended = False  # zero blocks follow the open span
        self._fault: str | None = None  # why the open span cannot be trusted
        self._lost = False  # no header is known to come next: one is searched

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        """The next piece; where compressed members begin means nothing to a tar."""
        self._buf += data
        while self._step():
            pass

    def close(self, message: str | None = None) -> None:
        """Nothing more belongs to the open span: the data end, or break off because of `message`."""
        end = self._at + len(self._buf)
        fault = self._fault
        if fault is None and (self._skip or self._buf or self._meta is not None or self._metas):
            fault = "the archive is cut off in a member"
        elif fault is None and self._key is None:
            fault = "no sample, only empty blocks"
        elif fault is None and not self._ended:
            fault = "the archive breaks off without its end: this sample may lack members"
        if fault is not None and message is not None:
            fault = f"{fault}; {message}"
        self._buf.clear()
        self._cut(end, fault)
        self._at, self._skip = end, 0
        if message is not None:  # what follows does so behind a gap of unknown length
            self._lose("no tar member starts here")

    def _step(self) -> bool:
        """One header, or the data of one; False: more bytes are needed."""
        if self._skip:
            size = min(self._skip, len(self._buf))
            self._skip -= size
            self._take(size)
            return size > 0
        if self._lost:
            return self._search()
        if self._meta is not None:
            return self._read_meta(self._meta)
        if len(self._buf) < BLOCK:
            return False
        block = bytes(self._buf[:BLOCK])
        if not any(block):
            self._ended = self._ended or self._key is not None
            self._take(BLOCK)
            return True
        head = head_of(block)
        if head is None:
            self._lose("no tar member starts here")
        else:
            self._header(head)
        return True

    def _take(self, size: int) -> bytes:
        data = bytes(self._buf[:size])
        del self._buf[:size]
        self._at += size
        return data

    def _header(self, head: Head) -> None:
        """A header at the position: of a member, or of a long name or pax records for the next one."""
        if not self._metas:
            self._member = self._at
        self._take(BLOCK)  # always: a search after a fault must not come upon this very header again
        if head.flag in METAS:
            self._metas += 1
            if head.size > MAX_META or self._metas > MAX_METAS:
                self._lose(f"what is said about a member is longer than {MAX_META} bytes or {MAX_METAS} headers")
                return
            self._meta = head
            return
        if head.flag not in (*_REGULAR, *_WITHOUT_DATA):
            self._lose("a member is sparse, or of an unknown type")
            return
        size = int(self._long.get(b"size", b"%d" % head.size))
        name = self._long.get(b"path", head.name)
        self._long, self._metas = {}, 0
        if head.flag in _REGULAR:
            self._open(key_of(name.decode("utf-8", "surrogateescape"))[0])
            self._skip = size + -size % BLOCK

    def _read_meta(self, head: Head) -> bool:
        padded = head.size + -head.size % BLOCK
        if len(self._buf) < padded:
            return False
        data = self._take(padded)[: head.size]
        if head.flag == _LONG_NAME:
            self._long[b"path"] = data.split(b"\0")[0]
        elif head.flag == _PAX_LOCAL:
            self._long |= _pax(data)
        self._meta = None
        return True

    def _open(self, key: str) -> None:
        """A regular member of the sample `key` begins at `_member`."""
        if self._key is not None and (key != self._key or self._ended):
            self._cut(self._member, self._fault)
        self._key = key

    def _lose(self, fault: str) -> None:
        """What follows cannot be read as members, up to the next header that a search comes upon."""
        self._fault = self._fault or fault  # the first fault explains the others
        self._lost, self._meta, self._metas, self._long = True, None, 0, {}

    def _search(self) -> bool:
        """To the next header with the magic; what is passed over belongs to the open span, whose error it is."""
        magic = self._buf.find(_MAGIC, _MAGIC_AT)
        if magic < 0:
            self._take(max(0, len(self._buf) - _MAGIC_AT - len(_MAGIC)))
            return False
        first = magic - _MAGIC_AT
        if len(self._buf) < first + BLOCK:
            self._take(first)
            return False
        if head_of(bytes(self._buf[first : first + BLOCK])) is None:  # the word in a member's data: no checksum fits
            self._take(first + 1)
            return True
        self._take(first)
        self._lost = False
        # Two spans: what stood before and is lost, and the sample that may have begun in there.
        fault = self._fault
        self._cut(self._at, fault)
        self._fault = f"members of this sample may be lost: before it, {fault}"
        return True

    def _cut(self, end: int, error: str | None) -> None:
        if end > self._start:
            self._emit(self._start, end - self._start, error)
        self._start, self._key, self._ended, self._fault = end, None, False, None


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Path and size of a pax header: records `LENGTH KEY=VALUE\\n`, LENGTH being that of the whole record."""
    fields, at = {}, 0
    while at < len(data):
        digits = re.match(rb"\d{1,5}", data[at : at + 5])
        length = int(digits.group()) if digits else 0
        if not length:
            break
        field = _PAX.match(data, at)
        value = data[field.end() : at + length - 1] if field else b""  # without the newline, which LENGTH counts
        if field and (field.group(2) == b"path" or re.fullmatch(rb"\d{1,18}", value)):
            fields[field.group(2)] = value
        at += length
    return fields
