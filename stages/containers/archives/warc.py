"""WARC, WET and WAT: one record's bytes to a Record, parsed by FastWARC; bodies decoded as a browser would.

A span must hold one record, whole, and nothing else, or scan and reader disagree and the row is Unreadable. FastWARC
wants CRLF, so header lines that end in LF or in CR CR LF are mended before; the block is never touched.
Pages are HTTP responses and resources; WET's conversions are text; requests, revisits, warcinfo, metadata are "other".
The identity hashes the block as stored, so two records under one mis-issued id stay two, and a recompressed copy of
a record stays one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping

from fastwarc.warc import ArchiveIterator, WarcRecord

from gristmill.stages.containers.archives.http_page import http_page, typed
from gristmill.stages.containers.archives.warc_cut import WarcCut
from gristmill.stages.containers.block_cut import MAX_HEADER
from gristmill.stages.containers.record import ReadConfig, Record, RecordError
from gristmill.stages.containers.sequential import Sequential

_TYPES = frozenset(("warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation"))
_TRUNCATED = frozenset(("length", "time", "disconnect", "unspecified"))  # WARC 1.1, 5.13
_END = re.compile(rb"\n[ \t]{0,32}\r{0,2}\n")
_LENGTH = re.compile(rb"content-length[ \t]{0,32}:", re.IGNORECASE)
_SIZES: Mapping[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span. Raises RecordError."""
    record, block = _only_record(data)
    headers = record.headers
    warc_id = _bare(headers.get("WARC-Record-ID"))
    url = _bare(headers.get("WARC-Target-URI"))
    try:
        if config.verify_digests:
            _verify(headers.get("WARC-Block-Digest"), block)
        kind = (headers.get("WARC-Type") or "").strip().lower()
        item = empty._replace(
            record_type=kind if kind in _TYPES else "unknown",  # it enters the ledger, and could be anything
            warc_id=warc_id,
            url=url,
            date=headers.get("WARC-Date"),
            identity=digest_of(warc_id, block) if warc_id else None,
            truncated=_truncated(headers.get("WARC-Truncated")),
        )
        declared = headers.get("Content-Type") or ""
        declared_item = typed(item, declared)
        if kind == "conversion":
            return declared_item._replace(kind="text", text=_text(block))
        is_http = declared.lower().replace(" ", "").startswith("application/http")
        if kind == "resource" and not is_http:
            return declared_item._replace(kind="page", payload=block)
        if kind in ("response", "resource") and (is_http or (url or "").lower().startswith("http")):
            return http_page(item, block, config.max_record_bytes)
        return declared_item._replace(payload=block)
    except RecordError as error:
        error.url, error.warc_id = url, warc_id
        raise


def _only_record(data: bytes) -> tuple[WarcRecord, bytes]:
    stream = io.BytesIO(_as_fastwarc_reads(data.lstrip(b"\r\n")))
    try:
        records = ArchiveIterator(stream, parse_http=False, stream_detect=False, max_header_len=MAX_HEADER)
        record = next(records)
        block = record.reader.read()
        length = (record.headers.get("Content-Length") or "").strip()
        if length != str(len(block)) and length.lstrip("0") != str(len(block)):
            declared = length[:20] if length.isdecimal() else "no number"
            raise RecordError(f"block has {len(block)} bytes, Content-Length says {declared}")
        if next(records, None) is not None:
            raise RecordError("the scan found one record here, FastWARC more")
    except StopIteration:
        raise RecordError("the scan found a record here, FastWARC none") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"FastWARC: {error}") from None
    return record, block


def _as_fastwarc_reads(data: bytes) -> bytes:
    """The record with every line of its header ended by CRLF, and its length named as FastWARC spells it: names of
    fields are case-insensitive (WARC 1.1, 4), but FastWARC reads no byte of a block behind `content-length`."""
    end = _END.search(data, 0, MAX_HEADER + 2)
    if end is None:
        return data
    lines = data[: end.start()].split(b"\n")
    is_crlf = all(line.endswith(b"\r") and not line.endswith(b"\r\r") for line in lines) and end.group() == b"\n\r\n"
    named = [_LENGTH.sub(b"Content-Length:", line, 1) if _LENGTH.match(line) else line for line in lines]
    if is_crlf and named == lines:
        return data
    return b"".join(line.rstrip() + b"\r\n" for line in named) + b"\r\n" + data[end.end() :]


def _truncated(declared: str | None) -> str | None:
    reason = (declared or "").strip().lower()
    if not reason:
        return None
    return f"WARC-Truncated: {reason if reason in _TRUNCATED else 'unspecified'}"


def _text(block: bytes) -> str:
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"text is not UTF-8: byte {error.start} of the block ({error.reason})") from None


def _bare(value: str | None) -> str | None:
    """Without the angle brackets that ids have and that old wget put around URLs; blank is absent."""
    return (value or "").strip().removeprefix("<").removesuffix(">") or None


def _verify(declared: str | None, block: bytes) -> None:
    """Digests are `algorithm:value`, value in hex or base32. Unknown algorithms are not checked."""
    name, _, value = (declared or "").partition(":")
    name, value = name.strip().lower().replace("-", ""), value.strip()
    if name not in _SIZES:
        return
    digest = hashlib.new(name, block, usedforsecurity=False).digest()
    if value.lower() != digest.hex() and value.upper().rstrip("=") != base64.b32encode(digest).decode().rstrip("="):
        raise RecordError(f"WARC-Block-Digest ({name}) is not that of the block")


def digest_of(record_id: str, block: bytes) -> bytes:
    """The identity of a record: two records under one mis-issued id stay two, a recompressed copy stays one."""
    return b"warc\0" + record_id.encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(block).digest()


WARC = Sequential(
    name="warc",
    suffixes=(".warc", ".wet", ".wat"),
    begins=lambda head: re.match(rb"WARC/\d", head.lstrip(b"\xef\xbb\xbf \t\r\n")) is not None,
    member_begins=WarcCut.begins,
    cut=WarcCut,
    parse=parse,
    parse_row=parse,
)
