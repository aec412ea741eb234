"""Tar: the members of a sample to one Record, read by tarfile (webdataset's archives, and folders of media).

`.json` is a row, `.txt` its text where the row has none, what begins like an image, a clip or a video is a medium,
in the order of the archive. The key is the id of a sample that names none. Other members are read and left: a sample of
nothing else is "other". Links are left, but for those that say where in the archive their member stands, as the tars
of manifests have them (lake/inputs/folder.py): to the member with a medium that was met last, or, at the beginning of a
piece of work, to one before it, which is read once. So each byte of a file is read once a piece, however many parts of
it are records.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.lake.inputs.folder import LINKED
from gristmill.stages.containers.media import Media, medium
from gristmill.stages.containers.record import Item, ReadConfig, Record, RecordError
from gristmill.stages.containers.rows import json_object, row_record, text_record
from gristmill.stages.containers.sequential import Sequential, compression_of
from gristmill.stages.containers.span_table import OpenAt
from gristmill.stages.containers.tar_cut import BLOCK, TarCut, head_of, key_of

TEXTS = ("txt", "text", "caption")
_FAULTS = (tarfile.TarError, ValueError, EOFError, OSError, OverflowError, RecursionError)
"""What tarfile raises over bytes that are no tar; there is no input or output here but in memory."""


class _Member(NamedTuple):
    """`content` of a regular member whose header begins at byte `start` of the span; or `link`: the name of the member
    that it is, whose header is at byte `start` of the archive."""

    start: int
    content: bytes
    link: str | None = None


class _Reading:
    """Samples of a tar in order, and the last member with a medium that was met: what a link can name.

    `open_at`: of the archive where its bytes are stored plain, so that a member before the first sample, which stands
    at byte `first`, can be read; else None.
    """

    def __init__(self, open_at: OpenAt | None, first: int) -> None:
        self._open_at, self._first = open_at, first
        self._last: tuple[int, Media] | None = None

    def parse(self, empty: Record, data: bytes, config: ReadConfig) -> Record:
        """`data`: the span. Raises RecordError."""
        row, media = self._sample(empty.start, data, config)
        item = empty._replace(record_type="tar", media=media)
        if config.text in row:
            return text_record(item, row, config)
        return row_record(item, row, config)._replace(kind="other", row=None)

    def parse_row(self, empty: Record, data: bytes, config: ReadConfig) -> Record:
        """The same with all fields of the row. A medium stands in it as its number, from 1, under its extension."""
        row, media = self._sample(empty.start, data, config)
        return row_record(empty._replace(record_type="tar", media=media), row, config)

    def _sample(self, start: int, data: bytes, config: ReadConfig) -> tuple[dict[str, Any], tuple[Media, ...]]:
        """The row of a sample, which begins at byte `start` of the archive, and its media."""
        # Rows first, wherever the archive has them: whether a .txt is the text depends on what the .json says.
        members = _members(data)
        row: dict[str, Any] = {}
        for name, member in members.items():
            if key_of(name)[1] == "json" and member.link is None:
                row |= json_object(member.content, "the .json member")
        media: list[Media] = []
        key = ""
        for name, member in members.items():
            key, extension = key_of(name)
            if extension in TEXTS and member.link is None:
                field = extension if config.text in row else config.text
                row.setdefault(field, _text(member.content, extension))
            elif (item := self._medium(name, member, start, config)) is not None:
                media.append(item)
                row.setdefault(extension, len(media))
        row.setdefault(config.id, key)
        return row, tuple(media)

    def _medium(self, name: str, member: _Member, start: int, config: ReadConfig) -> Media | None:
        url = name.encode("utf-8", "replace").decode()
        if member.link is not None:
            return self._linked(member, config)._replace(url=url)
        item = medium(member.content, url)
        if item is not None:
            self._last = start + member.start, item
        return item

    def _linked(self, member: _Member, config: ReadConfig) -> Media:
        """The medium that a link names. Raises RecordError."""
        if self._last is None and self._open_at is not None and member.start < self._first:
            self._last = member.start, self._before(self._open_at, member, config)
        if self._last is None or self._last[0] != member.start:
            raise RecordError("a link of the sample is to no member before it that could be read")
        return self._last[1]

    def _before(self, open_at: OpenAt, member: _Member, config: ReadConfig) -> Media:
        """The medium of a member before the first sample."""
        try:
            with open_at(member.start) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                target = archive.next()
                if target is None or target.name != member.link or not target.isreg():
                    raise RecordError("a link of the sample is to another member than stands where it says")
                if target.size > config.max_record_bytes:
                    limit = f"max_record_bytes={config.max_record_bytes}"
                    raise RecordError(f"the file of {target.size} bytes that the sample is a part of exceeds {limit}")
                content = archive.extractfile(target)
                item = medium(b"" if content is None else content.read(), None)
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            raise RecordError(f"a link of the sample: {type(error).__name__}") from None
        if item is None:
            raise RecordError("a link of the sample is to a member that is no medium")
        return item


def _members(data: bytes) -> dict[str, _Member]:
    """By name the regular members and the links that say where their member is. Raises RecordError unless they are one
    sample, whole."""
    members: dict[str, _Member] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                linked = member.pax_headers.get(LINKED, "") if member.islnk() else ""
                if not member.isreg() and not re.fullmatch(r"\d{1,18}", linked, re.ASCII):
                    continue
                if member.name in members:
                    raise RecordError("two members of the sample have one name")
                if member.islnk():
                    members[member.name] = _Member(int(linked), b"", member.linkname)
                    continue
                stream = archive.extractfile(member)
                content = stream.read() if stream is not None and not member.issparse() else b""
                if len(content) != member.size:
                    raise RecordError("a member is sparse, or shorter than its header says")
                members[member.name] = _Member(member.offset, content)
            end = archive.offset
    except _FAULTS as error:
        raise RecordError(f"tarfile: {type(error).__name__}") from None
    regular = {key_of(name)[0] for name, member in members.items() if member.link is None}
    if len(regular) != 1 or data[end:].strip(b"\0"):
        raise RecordError("the scan found one sample here, tarfile another or more")
    return {name: member for name, member in members.items() if key_of(name)[0] in regular}


def _text(content: bytes, extension: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"the .{extension} member is not UTF-8: byte {error.start} ({error.reason})") from None


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """A sample by itself: links in it are faults. Raises RecordError."""
    return _Reading(None, 0).parse(empty, data, config)


def parse_row(empty: Record, data: bytes, config: ReadConfig) -> Record:
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
)
