"""Extract: read a chunk of a container and turn its pages into text.

Reading and extraction are fused in one Work, and fusion ends here: the text is stored, so that a changed filter
never costs an extraction. What is no page (requests, images, errors) is dropped with its reason, what cannot be
read is quarantined with the error and its byte range, and the count must match what the boundary scan found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa

from lake import ledger
from lake.identity import record_id
from lake.objects import ObjectRef, put_table, read_table
from lake.receipt import StageId
from lake.sources import input_info, open_input
from lake.store import Store
from stages.containers.read import ReadConfig, Record, Unreadable, read
from stages.fates import Fates
from stages.html import ExtractConfig, decode, extract, is_html
from stages.work import Outcome, Work, stage_id

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input", pa.string()),
        ("ordinal", pa.int64()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("source", pa.string()),
        ("content", pa.string()),  # 128-bit hash of the text
        ("text", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
HEAD_BYTES = 2048


@dataclass(frozen=True)
class Extract:
    """`read` and `html` decide the text; `http_statuses` which responses count as pages."""

    name: ClassVar[str] = "extract"
    VERSION: ClassVar[int] = 1

    read: ReadConfig = field(default_factory=ReadConfig)
    html: ExtractConfig = field(default_factory=ExtractConfig)
    http_statuses: tuple[int, ...] = (200,)

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: uri, stamp (size, modified, etag when scanned), kind, digest, spans (ObjectRef), first, rows."""
        p = work.payload
        if tuple(input_info(p["uri"])) != tuple(p["stamp"]):
            raise OSError(f"{p['uri']} changed since it was scanned: run the same command again")
        spans = read_table(store, ObjectRef(**p["spans"])).slice(p["first"], p["rows"])

        def open_at(offset: int) -> BinaryIO:
            return open_input(p["uri"], offset)

        fates, rows = Fates(), []
        for item in read(open_at, spans, p["kind"], self.read):
            row = self._one(item, p["digest"], fates)
            if row is not None:
                rows.append(row)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_table(store, "text", table), written),
            passed=ledger.tally(table),
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
            facts={"text_bytes": sum(len(row["text"]) for row in rows)},
        )

    def _one(self, item: Record | Unreadable, digest: str, fates: Fates) -> dict[str, Any] | None:
        record = {"input": digest, "ordinal": item.ordinal, "start": item.start, "length": item.length}
        fallback = f"{digest}:{item.ordinal}"
        if isinstance(item, Unreadable):
            record["id"] = record_id(url=item.url, source_key=fallback, own=fallback.encode())
            fates.add(record, "quarantined", "read.unreadable", error=item.error)
            return None
        text, reason, value = self._text(item)
        own = item.identity or b"row\0%d\0" % item.ordinal + hashlib.sha256((text or "").encode()).digest()
        record["id"] = record_id(url=item.url, source_key=item.id or fallback, own=own)
        if reason is not None:
            fates.add(record, "quarantined" if reason == "extract.failed" else "dropped", reason, value)
            return None
        assert text is not None
        return {
            **record,
            "url": item.url,
            "date": item.date,
            "source": item.source or (urlsplit(item.url).hostname if item.url else None),
            "content": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            "text": text,
        }

    def _text(self, item: Record) -> tuple[str | None, str | None, str | None]:
        """(text, None, None), or (None, reason, value)."""
        if item.kind == "other":
            return None, "read.not_a_page", item.record_type
        if item.kind == "text":
            text = item.text or ""
        else:
            if item.http_status is not None and item.http_status not in self.http_statuses:
                return None, "read.http_status", str(item.http_status)
            if not item.payload:
                return None, "read.empty_body", None
            if not is_html(item.content_type, item.payload[:HEAD_BYTES]):
                return None, "read.not_html", item.content_type or "unknown"
            try:
                text = extract(decode(item.payload, item.charset)[0], self.html)
            except (
                ValueError,
                RuntimeError,
                RecursionError,
            ) as error:  # this page's fault; the next one is fine
                return None, "extract.failed", f"{type(error).__name__}: {error}"
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate from a numeric entity has no UTF-8
        return (text, None, None) if text.strip() else (None, "extract.no_text", None)
