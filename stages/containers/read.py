"""Read: the records themselves, exactly one item for each row of a span table, in order.

The table says where to look and nothing more: what stands there is parsed by FastWARC and json, whose findings may
contradict the scan (then the row is Unreadable). One stream is opened per call and moves forward (it is
reopened only behind a member whose cut end swallowed others).
A row's own fault becomes an Unreadable that names it, without quoting the text (it may be personal); a file that is
not the one that was scanned raises OSError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow as pa

from stages.containers import KINDS, Compression, Kind, compression
from stages.containers.raw import MemberError, Raw, gzip_member
from stages.containers.zstd import Dictionary, zstd_dictionary, zstd_frame

PageKind = Literal["page", "text", "other"]
PIECE = 256 << 10


@dataclass(frozen=True)
class ReadConfig:
    """`max_record_bytes` bounds a record as it stands in the container, and its body after content decoding.

    `verify_digests` checks WARC-Block-Digest (off: it costs a SHA-1 a record, and gzip has a checksum already).
    The others name the fields of JSON lines; url, id, date and source may be absent from a line.
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


class Record(NamedTuple):
    """A record that could be read. `start`, `length`: its bytes in the decompressed container.

    kind: "page" (payload = body of an HTTP response, or of a resource), "text" (`text` is it), "other" (neither).
    record_type: the WARC type, or "jsonl". date: ISO 8601 as it stands there. content_type: media type in lower case
    as declared, charset its parameter. identity: what makes it itself wherever it stands (None: it has nothing of
    its own): b"warc\\0" + WARC-Record-ID + b"\\0" + SHA-256 of its block. id, source: of JSON lines. row: all fields of
    a line, where whole rows were asked for. truncated: what tells that the end of its body is missing; None: nothing.
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

    @property
    def source_key(self) -> str | None:
        """What the record is filed under: its URL, else its id; None: the caller has to make one up."""
        return self.url or self.id


class Unreadable(NamedTuple):
    """A record or stretch that could not be read; `error` is one line and holds nothing of the text."""

    ordinal: int
    start: int
    length: int
    error: str
    url: str | None = None
    warc_id: str | None = None


class RecordError(Exception):
    """One record is not what it should be; `read` turns this into Unreadable."""

    def __init__(self, message: str, *, url: str | None = None, warc_id: str | None = None) -> None:
        super().__init__(message)
        self.url, self.warc_id = url, warc_id


def read(
    open_at: Callable[[int], BinaryIO], spans: pa.Table, kind: Kind, config: ReadConfig, *, rows: bool = False
) -> Iterator[Record | Unreadable]:
    """One item for each row of `spans` (a contiguous slice of what `scan` found, its metadata kept).

    `open_at(offset)` gives the file's bytes as stored from `offset` on; it is closed here. `rows`: of JSON lines every
    field is wanted, and none has to be the text.
    Raises OSError when the file does not hold what was scanned.
    """
    from stages.containers import read_jsonl, read_warc  # they need Record from here

    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: allowed are {KINDS}")
    parse_line = read_jsonl.parse_row if rows else read_jsonl.parse
    parse = read_warc.parse if kind == "warc" else parse_line
    columns = (spans[name].to_pylist() for name in ("ordinal", "start", "length", "c_start", "skip", "error"))
    with _Stream(open_at, _compression(open_at, spans)) as stream:
        for ordinal, start, length, c_start, skip, error in zip(*columns, strict=True):
            if error is not None:
                yield Unreadable(ordinal, start, length, _one_line(error))
                continue
            if length > config.max_record_bytes:
                limit = f"max_record_bytes={config.max_record_bytes}"
                yield Unreadable(ordinal, start, length, f"record of {length} bytes is longer than {limit}")
                continue
            data = stream.bytes_of(start, length, c_start, skip)
            try:
                item: Record | Unreadable = parse(Record(ordinal, start, length, "other", ""), data, config)
            except RecordError as fault:
                item = Unreadable(ordinal, start, length, _one_line(str(fault)), fault.url, fault.warc_id)
            except BaseException as panic:
                if type(panic).__name__ != "PanicException":  # of Rust, as FastWARC raises it: no Exception
                    raise
                item = Unreadable(ordinal, start, length, "the parser of this record panicked")
            yield item


def digest_of(record_id: str, block: bytes) -> bytes:
    return b"warc\0" + record_id.encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(block).digest()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _compression(open_at: Callable[[int], BinaryIO], spans: pa.Table) -> Compression:
    """As the scan noted it; a table that lost its metadata makes us look at the file's first bytes."""
    noted = (spans.schema.metadata or {}).get(b"gristmill.compression", b"").decode()
    for how in ("none", "gzip", "zstd"):
        if how == noted:
            return how
    with open_at(0) as stream:
        return compression(stream.read(4))


class _Stream:
    """Decompressed bytes by address: on through healthy members, over damage by `c_start`."""

    def __init__(self, open_at: Callable[[int], BinaryIO], how: Compression) -> None:
        self._open_at, self._how = open_at, how
        self._file: BinaryIO | None = None
        self._raw: Raw | None = None
        self._dictionary: Dictionary | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._piece, self._used = b"", 0
        self._address = -1  # of the next byte
        self._member = -1  # offset of the member that is being decompressed

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def bytes_of(self, start: int, length: int, c_start: int, skip: int) -> bytes:
        try:
            if self._must_move(start, c_start):
                self._move(c_start, start - skip)
            if self._address > start:
                raise ValueError(f"spans are not in order: {start} follows {self._address}; hand them as scanned")
            self._take(start - self._address, keep=False)
            return self._take(length, keep=True)
        except (MemberError, EOFError) as error:
            raise OSError(f"the file is not the one that was scanned ({error}): scan it again") from error

    def _must_move(self, start: int, c_start: int) -> bool:
        """To another member than the one at hand; in a plain file, past more than what is at hand."""
        if self._how != "none":
            return c_start != self._member
        return self._raw is None or start > self._raw.pos

    def _move(self, c_start: int, address: int) -> None:
        raw = self._raw
        if self._file is not None and (raw is None or raw.pos > c_start):
            self._file.close()  # a member that was cut off ran into this one: go back
            raw = None
        if raw is None:
            raw = self._open(c_start)
        raw.skip_to(c_start)
        self._pieces, self._piece, self._used = self._decompressed(raw), b"", 0
        self._address, self._member = address, c_start

    def _open(self, offset: int) -> Raw:
        if self._how == "zstd" and self._dictionary is None:
            with self._open_at(0) as top:
                self._dictionary = zstd_dictionary(Raw(top))
        self._file = self._open_at(offset)
        self._raw = Raw(self._file, offset)
        return self._raw

    def _left(self) -> int:
        return len(self._piece) - self._used

    def _decompressed(self, raw: Raw) -> Iterator[bytes]:
        while raw.peek(1):
            self._member = raw.pos
            if self._how == "gzip":
                yield from gzip_member(raw)
            elif self._how == "zstd":
                yield from zstd_frame(raw, self._dictionary)
            else:
                yield raw.take(PIECE)

    def _take(self, n: int, *, keep: bool) -> bytes:
        parts = []
        while n:
            if not self._left():
                piece = next(self._pieces, None)
                if piece is None:
                    raise EOFError(f"decompressed data end at {self._address}, {n} bytes early")
                self._piece, self._used = piece, 0
            size = min(n, self._left())
            if keep:
                parts.append(self._piece[self._used : self._used + size])
            self._used += size
            self._address += size
            n -= size
        return parts[0] if len(parts) == 1 else b"".join(parts)
