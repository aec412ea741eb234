"""Record: what any container yields for a span, and what may be asked of its reader.

A record has text, or the body of a page, or a row of fields, or media; often two of them. A span that gives none is an
Unreadable that says why, in one line and without quoting the text, which may be personal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from gristmill.stages.containers.media import Media

PageKind = Literal["page", "text", "other"]


@dataclass(frozen=True)
class ReadConfig:
    """`max_record_bytes` bounds a record as it stands in the container, and its body after content decoding.

    `verify_digests` checks WARC-Block-Digest (off: it costs a SHA-1 a record, and gzip has a checksum already).
    The others name the fields of rows (JSON lines, Parquet, the .json of a tar's sample); url, id, date and source may
    be absent from a row.
    """

    max_record_bytes: int = 20_000_000
    verify_digests: bool = False
    text: str = "text"
    url: str = "url"
    id: str = "id"
    date: str = "date"
    source: str = "source"

    def __post_init__(self) -> None:
        if self.max_record_bytes < 1:
            raise ValueError(f"max_record_bytes={self.max_record_bytes}: at least 1 byte is needed")
        names = (self.text, self.url, self.id, self.date, self.source)
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"JSON field names {names}: they must be non-empty and differ from one another")

    @property
    def declared(self) -> Mapping[str, str]:
        """What is taken of a row besides: name in `Record.declared` -> field (`a.b`: field b of the object a)."""
        return MappingProxyType({})


@dataclass(frozen=True)
class ReadDeclared(ReadConfig):
    """Also what rows declare of their use: (name in `Record.declared`, field of rows)."""

    fields: tuple[tuple[str, str], ...] = ()

    @property
    def declared(self) -> Mapping[str, str]:
        """As `fields`."""
        return dict(self.fields)


class Record(NamedTuple):
    """A record that could be read. `start`, `length`: its bytes in the decompressed container.

    kind: "page" (payload = body of an HTTP response, or of a resource), "text" (`text` is it), "other" (neither).
    record_type: the WARC type, or "arc", "jsonl", "parquet", "tar". date: ISO 8601 as it stands there. content_type:
    media type in lower case as declared, charset its parameter. identity: what makes it itself wherever it stands
    (None: it has nothing of its own): b"warc\\0" + WARC-Record-ID + b"\\0" + SHA-256 of its block. id, source: of rows.
    row: all fields, where whole rows were asked for. truncated: what tells that the end of its body is missing; None:
    nothing. media: images, audio and video that the record has, in the order in which it has them. declared: what its
    source says of its use, in order: header fields of HTTP in lower case, and of rows what ReadConfig asks for.
    """

    ordinal: int
    start: int
    length: int
    kind: PageKind
    record_type: str
    warc_id: str | None = None
    url: str | None = None
    date: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    charset: str | None = None
    payload: bytes = b""
    text: str | None = None
    identity: bytes | None = None
    id: str | None = None
    source: str | None = None
    row: dict[str, Any] | None = None
    truncated: str | None = None
    media: tuple[Media, ...] = ()
    declared: tuple[tuple[str, str], ...] = ()

    @property
    def source_key(self) -> str | None:
        """What the record is filed under: its URL, else its id; None: the caller has to make one up."""
        return self.url or self.id

    def without_content(self) -> Record:
        """What a stage needs of a record that was judged: who it is. Media keep their digests."""
        media = tuple(item.without_data() for item in self.media)
        return self._replace(payload=b"", text=None, row=None, media=media)


UNREADABLE_RECORD, WHOLE_FILE = "read.unreadable", "read.unreadable_file"
"""Reasons: of a record or stretch of damage, and of a file that is of no format or holds nothing."""


class Unreadable(NamedTuple):
    """A record or stretch that could not be read, or a whole file; `error` is one line and holds nothing of the text.

    `reason`: under which it is quarantined."""

    ordinal: int
    start: int
    length: int
    error: str
    url: str | None = None
    warc_id: str | None = None
    reason: str = UNREADABLE_RECORD


Item = Record | Unreadable


class RecordError(Exception):
    """One record is not what it should be; its container's `read` turns this into Unreadable."""

    def __init__(self, message: str, *, url: str | None = None, warc_id: str | None = None) -> None:
        super().__init__(message)
        self.url, self.warc_id = url, warc_id


def one_line(text: str) -> str:
    """An error as the ledger has it."""
    return " ".join(text.split())[:500]
