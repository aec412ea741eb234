"""Extract: read a chunk of a container and turn its pages into text.

Reading and extraction are fused in one Work, and fusion ends here: the text is stored, so that a changed filter
never costs an extraction. What is no page (requests, images, errors) is dropped with its reason, what cannot be
read is quarantined with the error and its byte range, and the count must match what the boundary scan found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from lake import ledger
from lake.identity import record_id
from lake.objects import ObjectRef, put_table, read_table
from lake.receipt import StageId
from lake.sources import input_info, open_input
from lake.store import Store
from stages.careful import Child, ChildDied, ChildTimeout, watchdog
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


class Text(NamedTuple):
    """The text of a record, or the reason why there is none, with the offending value."""

    text: str | None
    reason: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Extract:
    """`read` and `html` decide the text; `http_statuses` which responses count as pages.

    A record that takes longer than `seconds_per_record` is taken to hang (on Ray only): it ends as quarantined.
    """

    name: ClassVar[str] = "extract"
    VERSION: ClassVar[int] = 1

    read: ReadConfig = field(default_factory=ReadConfig)
    html: ExtractConfig = field(default_factory=ExtractConfig)
    http_statuses: tuple[int, ...] = (200,)
    seconds_per_record: float = 60.0

    def __post_init__(self) -> None:
        if not self.seconds_per_record > 0:
            raise ValueError(f"seconds_per_record={self.seconds_per_record}: more than 0")

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: uri, stamp (size, modified, etag when scanned), kind, digest, spans (ObjectRef), first, rows."""
        p = work.payload
        if input_info(p["uri"]).stamp != tuple(p["stamp"]):
            raise OSError(f"{p['uri']} changed since it was scanned: run the same command again")
        spans = read_table(store, ObjectRef(**p["spans"])).slice(p["first"], p["rows"])

        fates, rows = Fates(), []
        items = self._carefully(p, spans) if work.careful else self._in_turn(p, spans)
        for item, text in items:
            row = self._one(item, text, p["digest"], fates)
            if row is not None:
                rows.append(row)
        watchdog.feed(0)  # what follows waits for the store, not for a record
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_table(store, "text", table), written),
            passed=ledger.tally(table),
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
            machine_fates=counts.errors.get("extract.crashed", 0) + counts.errors.get("extract.timeout", 0),
        )

    def _in_turn(self, payload: Mapping[str, Any], spans: pa.Table) -> Iterator[tuple[Record | Unreadable, Text]]:
        """Each record and its text."""

        def open_at(offset: int) -> BinaryIO:
            return open_input(payload["uri"], offset)

        for item in read(open_at, spans, payload["kind"], self.read):
            watchdog.feed(self.seconds_per_record)
            yield item, self._text(item)

    def _carefully(self, payload: Mapping[str, Any], spans: pa.Table) -> Iterator[tuple[Record | Unreadable, Text]]:
        """The same, each record in a child that may die of it."""
        with Child(self.seconds_per_record) as child:
            for row in range(spans.num_rows):
                span = spans.slice(row, 1)
                try:
                    yield from child.call(_one_span, self, dict(payload), span)
                except (ChildDied, ChildTimeout) as error:
                    ordinal, start, length = (span[name][0].as_py() for name in ("ordinal", "start", "length"))
                    reason = "extract.crashed" if isinstance(error, ChildDied) else "extract.timeout"
                    yield Unreadable(ordinal, start, length, str(error)), Text(None, reason)

    def _one(self, item: Record | Unreadable, found: Text, digest: str, fates: Fates) -> dict[str, Any] | None:
        record = {"input": digest, "ordinal": item.ordinal, "start": item.start, "length": item.length}
        fallback = f"{digest}:{item.ordinal}"
        if isinstance(item, Unreadable):
            record["id"] = record_id(url=item.url, source_key=fallback, own=fallback.encode())
            fates.add(record, "quarantined", found.reason, error=item.error)
            return None
        text, reason, value = found
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
            "source": item.source or _host(item.url),
            "content": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
            "text": text,
        }

    def _text(self, item: Record | Unreadable) -> Text:
        if isinstance(item, Unreadable):
            return Text(None, "read.unreadable")
        if item.kind == "other":
            return Text(None, "read.not_a_page", item.record_type)
        if item.kind == "text":
            text = item.text or ""
        else:
            if item.http_status is not None and item.http_status not in self.http_statuses:
                return Text(None, "read.http_status", str(item.http_status))
            if not item.payload:
                return Text(None, "read.empty_body")
            if not is_html(item.content_type, item.payload[:HEAD_BYTES]):
                return Text(None, "read.not_html", item.content_type or "unknown")
            try:
                text = extract(decode(item.payload, item.charset)[0], self.html)
            except (
                ValueError,
                RuntimeError,
                RecursionError,
            ) as error:  # this page's fault; the next one is fine
                return Text(None, "extract.failed", f"{type(error).__name__}: {error}")
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate from a numeric entity has no UTF-8
        return Text(text) if text.strip() else Text(None, "extract.no_text")


def _host(url: str | None) -> str | None:
    """The host of a URL; None where there is none, or no URL (crawls are full of `http://[`)."""
    try:
        return urlsplit(url).hostname if url else None
    except ValueError:
        return None


def _one_span(stage: Extract, payload: dict[str, Any], span: pa.Table) -> list[tuple[Record | Unreadable, Text]]:
    return list(stage._in_turn(payload, span))
