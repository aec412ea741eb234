"""Tar: the members of a sample to one Record, read by tarfile (webdataset's archives, and folders of media).

`.json` is a row, `.txt` its text where the row has none, what begins like an image, a clip or a video is a medium,
in the order of the archive. The key is the id of a sample that names none. Other members are read and left: a sample of
nothing else is "other". Links are left, but for those that say where in the archive their member stands, as the tars
of manifests have them (lake/inputs/folder.py): to the member that was met last, or, at the beginning of a piece of
work, to one before it, which is read once, whether or not it can be. So each byte of a file is read once a piece,
however many parts of it are records.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from gristmill.lake.inputs.folder import LINKED
from gristmill.stages.containers.bytes.long_file import Content, LongFile, blocks_of, is_long, stream_of
from gristmill.stages.containers.bytes.stream import Stream
from gristmill.stages.containers.media import Media, medium
from gristmill.stages.containers.record import Item, ReadConfig, Record, RecordError
from gristmill.stages.containers.rows import json_object, row_record, text_record
from gristmill.stages.containers.sequential import Sequential, compression_of
from gristmill.stages.containers.span_table import OpenAt
from gristmill.stages.containers.tar_cut import BLOCK, MAX_META, MAX_METAS, METAS, TarCut, head_of, key_of

TEXTS = ("txt", "text", "caption")
_FAULTS = (tarfile.TarError, ValueError, EOFError, OSError, OverflowError, RecursionError)
"""What tarfile raises over bytes that are no tar; there is no input or output here but in memory."""


class _Member(NamedTuple):
    """`content` of a regular member whose header begins at byte `start` of the span; or `link`: the name of the member
    that it is, whose header is at byte `start` of the archive."""

    start: int
    content: Content
    link: str | None = None


class _Target(NamedTuple):
    """A member that links can be to: where its header begins in the archive, its name, its bytes, what medium they are
    (None: none); or in `error` why it cannot be read, so that it is tried once."""

    start: int
    name: str
    content: Content = b""
    item: Media | None = None
    error: str | None = None


class _Reading:
    """Samples of a tar in order, and the last member that was met beside a row: what a link can name.

    `open_at`: of the archive where its bytes are stored plain, so that a member before the first sample, which stands
    at byte `first`, can be read; else None.
    """

    def __init__(self, open_at: OpenAt | None, first: int) -> None:
        self._open_at, self._first = open_at, first
        self._last: _Target | None = None

    def parse(self, empty: Record, data: Content, config: ReadConfig) -> Record:
        """`data`: the span. Raises RecordError."""
        row, media = self._sample(empty.start, data, config)
        item = empty._replace(record_type="tar", media=media)
        if config.text in row:
            return text_record(item, row, config)
        return row_record(item, row, config)._replace(kind="other", row=None)

    def parse_row(self, empty: Record, data: Content, config: ReadConfig) -> Record:
        """The same with all fields of the row. A medium stands in it as its number, from 1, under its extension."""
        row, media = self._sample(empty.start, data, config)
        return row_record(empty._replace(record_type="tar", media=media), row, config)

    def _sample(self, start: int, data: Content, config: ReadConfig) -> tuple[dict[str, Any], tuple[Media, ...]]:
        """The row of a sample, which begins at byte `start` of the archive, and its media."""
        # Rows first, wherever the archive has them: whether a .txt is the text depends on what the .json says.
        members = _members(data)
        row: dict[str, Any] = {}
        for name, member in members.items():
            if key_of(name)[1] == "json" and member.link is None:
                row |= json_object(_bytes(member.content), "the .json member")
        media: list[Media] = []
        key = ""
        for name, member in members.items():
            key, extension = key_of(name)
            if extension == "json" and member.link is None:
                continue
            target = self._target(name, member, start, config)
            if extension in TEXTS:
                field = extension if config.text in row else config.text
                row.setdefault(field, _text(_bytes(target.content), extension))
            elif target.item is not None:
                media.append(target.item._replace(url=_shown(name)))
                row.setdefault(extension, len(media))
        row.setdefault(config.id, key)
        return row, tuple(media)

    def _target(self, name: str, member: _Member, start: int, config: ReadConfig) -> _Target:
        """A member, or what it is a link to. Raises RecordError."""
        if member.link is None:
            self._last = _Target(start + member.start, name, member.content, _medium(name, member.content))
            return self._last
        if self._last is None and self._open_at is not None and member.start < self._first:
            self._last = _before(self._open_at, member.start, member.link, config.max_record_bytes)
        if self._last is None or self._last[:2] != (member.start, member.link):
            raise RecordError("a link of the sample is to no member before it that could be read")
        if self._last.error is not None:
            raise RecordError(self._last.error)
        return self._last


def _before(open_at: OpenAt, start: int, name: str, most: int) -> _Target:
    """The member that begins at byte `start`, before the first sample, if it is called `name`. What stands there is
    whatever a foreign tar says: headers are bounded before tarfile parses them, and data by `most` bytes."""
    with open_at(start) as stream:
        info = _member_info(_headers(stream))
        if info is None or info.name != name or not info.isreg() or info.issparse():
            return _Target(start, name, error="a link of the sample is to another member than stands where it says")
        if info.size > most:
            text = f"the file of {info.size} bytes that the sample is a part of exceeds max_record_bytes={most}"
            return _Target(start, name, error=text)
        content = _content(stream, info.size)
    if len(content) != info.size:
        return _Target(start, name, error="a link of the sample is to a member that is cut off")
    return _Target(start, name, content, _medium(name, content))


def _headers(stream: BinaryIO) -> bytes:
    """The header at the beginning, behind those of long names and pax records, of MAX_META bytes each at most; nothing
    where there is no such header."""
    read = b""
    for _ in range(MAX_METAS + 1):
        block = stream.read(BLOCK)
        head = head_of(block)
        if head is None:
            break
        read += block
        if head.flag not in METAS:
            return read
        if head.size > MAX_META:
            break
        read += stream.read(head.size + -head.size % BLOCK)
    return b""


def _member_info(headers: bytes) -> tarfile.TarInfo | None:
    """What tarfile makes of the headers of a member."""
    try:
        with tarfile.open(fileobj=io.BytesIO(headers), mode="r:") as archive:
            return archive.next()
    except _FAULTS:
        return None


def _members(data: Content) -> dict[str, _Member]:
    """By name the regular members and the links that say where their member is. Raises RecordError unless they are one
    sample, whole."""
    members: dict[str, _Member] = {}
    try:
        with tarfile.open(fileobj=stream_of(data), mode="r:") as archive:
            for member in archive:
                linked = member.pax_headers.get(LINKED, "") if member.islnk() else ""
                if not member.isreg() and not re.fullmatch(r"\d{1,18}", linked, re.ASCII):
                    continue
                if member.name in members:
                    raise RecordError("two members of the sample have one name")
                if member.islnk():
                    members[member.name] = _Member(int(linked), b"", member.linkname)
                    continue
                content = b"" if member.issparse() else _member(archive, member, data)
                if len(content) != member.size:
                    raise RecordError("a member is sparse, or shorter than its header says")
                members[member.name] = _Member(member.offset, content)
            end = archive.offset
    except _FAULTS as error:
        raise RecordError(f"tarfile: {type(error).__name__}") from None
    regular = {key_of(name)[0] for name, member in members.items() if member.link is None}
    if len(regular) != 1 or not _is_zero(data, end):
        raise RecordError("the scan found one sample here, tarfile another or more")
    return {name: member for name, member in members.items() if key_of(name)[0] in regular}


def _content(stream: BinaryIO, size: int) -> Content:
    """So many bytes of a stream, or those that it has."""
    return LongFile.of(blocks_of(stream, size)) if is_long(size) else stream.read(size)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, span: Content) -> Content:
    """What a regular member of the span has."""
    if isinstance(span, LongFile) and is_long(member.size):
        return span.part(member.offset_data, min(member.size, len(span) - member.offset_data))
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _is_zero(span: Content, start: int) -> bool:
    """Whether nothing but zeros stands in a span from `start` on."""
    stream = stream_of(span)
    stream.seek(start)
    return not any(block.strip(b"\0") for block in blocks_of(stream, len(span)))


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read()


def _shown(name: str) -> str:
    """A name that need not be UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _medium(name: str, content: Content) -> Media | None:
    return medium(content, _shown(name))


def _text(content: bytes, extension: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"the .{extension} member is not UTF-8: byte {error.start} ({error.reason})") from None


def parse(empty: Record, data: Content, config: ReadConfig) -> Record:
    """A sample by itself: links in it are faults. Raises RecordError."""
    return _Reading(None, 0).parse(empty, data, config)


def parse_row(empty: Record, data: Content, config: ReadConfig) -> Record:
    """The same with all fields of the row."""
    return _Reading(None, 0).parse_row(empty, data, config)


@dataclass(frozen=True)
class Tar(Sequential):
    """Reads samples in the order in which they lie, so that links find what they are to."""

    def read(self, open_at: OpenAt, spans: pa.Table, config: ReadConfig, *, rows: bool = False) -> Iterator[Item]:
        """As of every sequential container."""
        plain = compression_of(open_at, spans) == "none"
        reading = _Reading(open_at if plain else None, spans["start"][0].as_py() if spans.num_rows else 0)
        in_order = replace(self, parse=reading.parse, parse_row=reading.parse_row)
        return Sequential.read(in_order, open_at, spans, config, rows=rows)


TAR = Tar(
    name="tar",
    suffixes=(".tar", ".tgz"),
    begins=lambda head: head_of(head[:BLOCK]) is not None,
    member_begins=bool,
    cut=TarCut,
    parse=parse,
    parse_row=parse_row,
    span=Stream.content_of,
    reads_along=False,  # a link may be to a file before it
)
