"""Tar: the members of a sample to one Record, read by tarfile (webdataset's archives, and folders of media).

`.json` is a row, `.txt` its text where the row has none, what begins like an image, a clip or a video is a medium,
in the order of the archive. The key is the id of a sample that names none. Other members are read and left: a sample of
nothing else is "other".
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

from gristmill.stages.containers.media import Media, medium
from gristmill.stages.containers.record import ReadConfig, Record, RecordError
from gristmill.stages.containers.rows import json_object, row_record, text_record
from gristmill.stages.containers.sequential import Sequential
from gristmill.stages.containers.tar_cut import BLOCK, TarCut, head_of, key_of

TEXTS = ("txt", "text", "caption")
_FAULTS = (tarfile.TarError, ValueError, EOFError, OSError, OverflowError, RecursionError)
"""What tarfile raises over bytes that are no tar; there is no input or output here but in memory."""


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span. Raises RecordError."""
    row, media = _sample(data, config)
    item = empty._replace(record_type="tar", media=media)
    if config.text in row:
        return text_record(item, row, config)
    return row_record(item, row, config)._replace(kind="other", row=None)


def parse_row(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """The same with all fields of the row. A medium stands in it as its number, from 1, under its extension."""
    row, media = _sample(data, config)
    return row_record(empty._replace(record_type="tar", media=media), row, config)


def _sample(data: bytes, config: ReadConfig) -> tuple[dict[str, Any], tuple[Media, ...]]:
    """The row of a sample and its media."""
    # Rows first, wherever the archive has them: whether a .txt is the text depends on what the .json says.
    members = _members(data)
    row: dict[str, Any] = {}
    for name, content in members.items():
        if key_of(name)[1] == "json":
            row |= json_object(content, "the .json member")
    media: list[Media] = []
    key = ""
    for name, content in members.items():
        key, extension = key_of(name)
        if extension in TEXTS:
            field = extension if config.text in row else config.text
            row.setdefault(field, _text(content, extension))
        elif (item := medium(content, name.encode("utf-8", "replace").decode())) is not None:
            media.append(item)
            row.setdefault(extension, len(media))
    row.setdefault(config.id, key)
    return row, tuple(media)


def _members(data: bytes) -> dict[str, bytes]:
    """Name and content of the regular members. Raises RecordError unless they are one sample, whole."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                stream = archive.extractfile(member)
                content = stream.read() if stream is not None and not member.issparse() else b""
                if len(content) != member.size:
                    raise RecordError("a member is sparse, or shorter than its header says")
                if member.name in members:
                    raise RecordError("two members of the sample have one name")
                members[member.name] = content
            end = archive.offset
    except _FAULTS as error:
        raise RecordError(f"tarfile: {type(error).__name__}") from None
    if len({key_of(name)[0] for name in members}) != 1 or data[end:].strip(b"\0"):
        raise RecordError("the scan found one sample here, tarfile another or more")
    return members


def _text(content: bytes, extension: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"the .{extension} member is not UTF-8: byte {error.start} ({error.reason})") from None


TAR = Sequential(
    name="tar",
    suffixes=(".tar", ".tgz"),
    begins=lambda head: head_of(head[:BLOCK]) is not None,
    member_begins=bool,
    cut=TarCut,
    parse=parse,
    parse_row=parse_row,
)
