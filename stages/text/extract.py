"""Extract: read a chunk of a container and turn its pages into text.

Reading and extraction are fused in one Work, and fusion ends here: the text is stored, so that a changed filter
never costs an extraction. What is no page (requests, images, errors) is dropped with its reason, what cannot be
read is quarantined with the error and its byte range, and the count must match that of the boundary scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.extraction.extractor import VERSION as EXTRACTOR_VERSION
from gristmill.filters.extraction.model import digest as model_digest
from gristmill.filters.language import LanguageFilter
from gristmill.filters.pages.language_first import VERSION as LANGUAGE_FIRST_VERSION
from gristmill.filters.pages.language_first import LanguageFirst, unwanted
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.stages.containers import Item, OpenAt, ReadConfig, ReadDeclared, Record, Unreadable, read
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.releases import release_ids
from gristmill.stages.core.shards import SCHEMA as SHARD
from gristmill.stages.core.shards import WriteShards
from gristmill.stages.core.work import Outcome, added, stage_id
from gristmill.stages.read.reading import RECORD, Reading, ReadPayload, ReadStage, content_hash, judged, keys_of
from gristmill.stages.read.rows import Rows
from gristmill.stages.text.charset import Decoded, decode
from gristmill.stages.text.complexity import TooComplex
from gristmill.stages.text.declared import SCHEMA as DECLARED
from gristmill.stages.text.declared import Declared, DeclaredFields, declared_of
from gristmill.stages.text.html import ExtractConfig, PageText, is_html, page_text

SCHEMA = pa.schema(
    [
        *RECORD,
        ("url", pa.string()),
        ("date", pa.string()),
        ("source", pa.string()),
        ("content", pa.string()),  # 128-bit hash of the text
        ("mark", pa.string()),  # what one has to know of the text; the ledger says it of a record that is kept
        ("text", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
WHOLE_PAGE = "whole page"
"""Mark of a text that is the whole page's, because nothing on it passed for its main content."""
UNWANTED = "extract.unwanted_language"
HEAD_BYTES = 2048
TRUNCATED = ("drop", "keep")


class Text(NamedTuple):
    """The text of a record and what one has to know of it, or the reason why it has none, with the offending value."""

    text: str | None
    reason: str | None = None
    value: str | None = None
    mark: str | None = None
    rights: Declared | None = None


@dataclass(frozen=True)
class ExtractFacts:
    """`whole_pages`: texts that are the whole page's, because nothing on it passed for its main content."""

    whole_pages: int


@dataclass(frozen=True)
class Extract(ReadStage):
    """`read` and `html` decide the text; `http_statuses` which responses count as pages.

    `truncated`: a page whose end is missing (WARC-Truncated, fewer bytes than Content-Length, a coding cut off) is
    dropped as `read.truncated`, or kept; then the ledger says so.
    A record that takes longer than `seconds_per_record` is taken to hang: it ends as quarantined. None: no limit, and
    records are judged in this very process (for debuggers), else in a child of it.
    `rights`: what pages and rows declare of their use is kept beside the text, of rows by these fields; None: it is
    not.
    `language_first`: pages that are surely in an unwanted language are dropped before they are extracted; None: the
    filters alone judge (`ExtractWanted` has the filter that says what is wanted).
    """

    name: ClassVar[str] = "extract"
    VERSION: ClassVar[int] = 2
    # FastWARC says what a record's header is; resiliparse guesses the encoding of pages, whoever extracts them.
    releases: ClassVar[tuple[str, ...]] = ("fastwarc", "resiliparse")
    facts: ClassVar[type[Any]] = ExtractFacts
    reads_along: ClassVar[bool] = True
    unwanted_reasons: ClassVar[frozenset[str]] = frozenset({UNWANTED})

    read: ReadConfig = field(default_factory=ReadConfig)
    html: ExtractConfig = field(default_factory=ExtractConfig)
    http_statuses: tuple[int, ...] = (200,)
    truncated: Literal["drop", "keep"] = "drop"
    seconds_per_record: float | None = 60.0
    rights: DeclaredFields | None = added()
    language_first: LanguageFirst | None = added()

    def __post_init__(self) -> None:
        if self.truncated not in TRUNCATED:
            raise ValueError(f"truncated={self.truncated!r}: one of {', '.join(TRUNCATED)}")
        if self.seconds_per_record is not None and not self.seconds_per_record > 0:
            raise ValueError(f"seconds_per_record={self.seconds_per_record}: more than 0, or null")

    def identity(self) -> tuple[StageId, ...]:
        if self.html.method == "trafilatura":
            return (stage_id(self), *release_ids((*self.releases, "trafilatura")))
        if self.html.method != "trained":
            return super().identity()
        # What the trained extractor learned decides as a threshold does.
        model = StageId(name="extraction_model", version=EXTRACTOR_VERSION, config={"sha256": model_digest()})
        return (stage_id(self), model, *release_ids(self.releases))

    def records(self, store: Store, payload: ReadPayload) -> Reading:
        """The texts of a chunk (SCHEMA), and the fates of its records that have none."""
        fates, rows = Fates(), Rows(self.schema)
        for item, text in judged(self, store, payload):
            row = _row(item, text, payload, fates)
            if row is not None:
                rows.append(row)
        return Reading(rows.table(), fates)

    def written(self, store: Store, table: pa.Table, fates: Fates) -> Outcome:
        """Stores the texts, and the fates of the records without one."""
        table = table.cast(self.schema)  # read back from Parquet, a list's items have another name
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_table(store, "text", table), written),
            passed=ledger.tally(table),
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
            facts=ExtractFacts(pc.sum(pc.ends_with(table["mark"], WHOLE_PAGE)).as_py() or 0),
            machine_fates=counts.errors.get("extract.crashed", 0) + counts.errors.get("extract.timeout", 0),
        )

    @property
    def schema(self) -> pa.Schema:
        """Of the texts that are stored."""
        if self.rights is None:
            return SCHEMA
        return pa.schema([*SCHEMA, *DECLARED], metadata=SCHEMA.metadata)

    def text_bytes(self, receipt: Receipt) -> int:
        """Of the texts that went on, as they are stored: it does not count them."""
        return receipt.output("text").bytes

    def items(self, open_at: OpenAt, spans: pa.Table, kind: str) -> Iterator[Item]:
        """Pages and texts; of rows the field that is the text, and those that declare something."""
        config = self.read
        if self.rights is not None:
            config = ReadDeclared(**vars(config), fields=self.rights.pairs)
        return read(open_at, spans, kind, config)

    def failed(self, reason: str) -> Text:
        """No text, and why: `extract.timeout` or `extract.crashed`."""
        return Text(None, reason)

    def judge(self, item: Item) -> Text:
        """The text of an item, or why it has none: what it is, its status, its type, and the parser, in this order."""
        if isinstance(item, Unreadable):
            return Text(None, item.reason)
        if item.kind == "other":
            return Text(None, "read.not_a_page", item.record_type)
        if item.kind == "text":
            if cut := self._cut_off(item):
                return cut
            page, source = PageText(item.text or ""), ""
        else:
            if item.http_status is not None and item.http_status not in self.http_statuses:
                return Text(None, "read.http_status", str(item.http_status))
            if not item.payload:
                return self._cut_off(item) or Text(None, "read.empty_body")
            if not is_html(item.content_type, item.payload[:HEAD_BYTES]):
                return Text(None, "read.not_html", item.content_type or "unknown")
            if cut := self._cut_off(item):
                return cut
            decoded = decode(item.payload, item.charset)
            if (label := self.unwanted(item.payload, decoded)) is not None:
                return Text(None, UNWANTED, label)
            source = decoded.text
            try:
                page = page_text(source, self.html)
            except TooComplex as error:
                return Text(None, "extract.too_complex", str(error))
            except (ValueError, RuntimeError, RecursionError) as error:  # this page's fault; the next one is fine
                return Text(None, "extract.failed", f"{type(error).__name__}: {error}")
        text = page.text.encode("utf-8", "replace").decode()  # a lone surrogate from a numeric entity has no UTF-8
        if not text.strip():
            return Text(None, "extract.no_text")
        rights = None if self.rights is None else declared_of(item.declared, source)
        return Text(text, mark=WHOLE_PAGE if page.whole else None, rights=rights)

    def unwanted(self, payload: bytes, page: Decoded) -> str | None:
        """In which language a page is, where it is surely none that is wanted. None: it is extracted."""
        return None

    def _cut_off(self, item: Record) -> Text | None:
        if item.truncated is None or self.truncated == "keep":
            return None
        return Text(None, "read.truncated", item.truncated)


@dataclass(frozen=True)
class ExtractWanted(Extract):
    """The same with `language_first`. `language`: the filter that judges what was extracted, which says here as well
    what is wanted, and by which model; with its `keep` or its model what was extracted changes."""

    language: LanguageFilter = field(default_factory=LanguageFilter)

    @classmethod
    def of(cls, extract: Extract, language: LanguageFilter) -> ExtractWanted:
        """That extraction, of pages that this filter may want."""
        return cls(**vars(extract), language=language)

    def identity(self) -> tuple[StageId, ...]:
        plain = Extract(**{item.name: getattr(self, item.name) for item in fields(Extract)})
        # Of the filter, what decides here: not the score that it asks for.
        wanted = {"keep": sorted(set(self.language.keep)), **self.language.asked()}
        return (*plain.identity(), StageId(name="language_first", version=LANGUAGE_FIRST_VERSION, config=wanted))

    def unwanted(self, payload: bytes, page: Decoded) -> str | None:
        if self.language_first is None:
            return None
        is_same = page.charset == "utf-8" and not page.replaced  # as of most pages: they need not be encoded again
        content = payload if is_same else page.text.encode("utf-8", "replace")
        return unwanted(content, self.language_first, self.language)


def _row(item: Item, page: Text, payload: ReadPayload, fates: Fates) -> dict[str, Any] | None:
    """The record as it goes on, or None when it has its fate."""
    text, reason, value, mark, rights = page
    record = keys_of(item, payload, text)
    if isinstance(item, Unreadable):
        fates.add(record, "quarantined", reason, error=item.error)
        return None
    if reason == "extract.too_complex":
        # The value is a count of this program's own, no text: redaction would take it for a phone number.
        fates.add(record, "quarantined", reason, error=value)
        return None
    if reason is not None:
        fates.add(record, "quarantined" if reason == "extract.failed" else "dropped", reason, value)
        return None
    assert text is not None
    about = {"url": item.url, "date": item.date, "source": item.source or _host(item.url)}
    if rights is not None:
        about |= rights._asdict()
    marks = [f"truncated, {item.truncated}" if item.truncated else None, mark]
    known = "; ".join(filter(None, marks)) or None
    return record | about | {"content": content_hash(text), "mark": known, "text": text}


def _host(url: str | None) -> str | None:
    """The host of a URL; None where there is none, or no URL (crawls are full of `http://[`)."""
    try:
        return urlsplit(url).hostname if url else None
    except ValueError:
        return None


@dataclass(frozen=True)
class WriteDeclared(WriteShards):
    """Shards of documents with what their sources declare. `columns`: these, beside the others."""

    schema: ClassVar[pa.Schema] = pa.schema([*SHARD, *DECLARED], metadata=SHARD.metadata)

    columns: tuple[str, ...] = tuple(DECLARED.names)
