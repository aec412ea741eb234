"""A lake of a few pages, committed through the real API: what tests of queries and of the command look at."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.lake.versions.manifest import Draft, FunnelRow, InputFile, Manifest, VersionRef, run_key
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import bundle_receipts

STAGES = ("read", "quality", "exact")
TEXT = pa.schema(
    [("id", pa.string()), ("input", pa.string()), ("ordinal", pa.int64()), ("url", pa.string()), ("text", pa.string())]
)


@dataclass(frozen=True)
class Page:
    """A page and its fate: `reason` None is kept, `read.unreadable` quarantined, anything else dropped."""

    url: str
    reason: str | None = None
    value: str | None = None
    survivor: str | None = None

    @property
    def id(self) -> str:
        """Its record id."""
        return page_id(self.url)

    @property
    def fate(self) -> str:
        """kept, quarantined or dropped."""
        return {None: "kept", "read.unreadable": "quarantined"}.get(self.reason, "dropped")

    @property
    def text(self) -> str:
        """Its text."""
        return f"The text of {self.url}. " * 40


def page_id(url: str) -> str:
    """The record id of the page at this URL."""
    return record_id(url=url, source_key=None, own=url.encode())


def pages(n: int, **special: Page) -> list[Page]:
    """`n` kept pages of one site, with some of them (by number, as `p3=`) replaced."""
    return [special.get(f"p{i}", Page(f"https://example.org/{i}")) for i in range(n)]


SHORT = Page("https://example.org/2", "quality.too_few_words", "12")
BROKEN = Page("https://example.org/5", "read.unreadable", "bad chunk")
COPY = Page("https://example.org/7", "exact.duplicate", None, "https://example.org/1")
OTHER = Page("https://example.org/8", "read.not_a_page", "request")


def mixed_pages() -> list[Page]:
    """Twenty pages: sixteen kept, one too short, one broken, one copy, one that is no page."""
    return pages(20, p2=SHORT, p5=BROKEN, p7=COPY, p8=OTHER)


def commit(
    store: Store,
    dataset: str,
    records: Sequence[Page],
    *,
    file: str = "crawl/a.warc.gz",
    recipe: dict[str, Any] | None = None,
    parent: Manifest | None = None,
    sources: Sequence[VersionRef] = (),
    receipts: bool = True,
) -> Manifest:
    """One version with two shards and a ledger in two objects, by the first character of the id."""
    digest = hashlib.sha256(file.encode()).hexdigest()
    recipe = recipe or {"quality": {"min_words": 50}}
    stages = tuple(StageId(name=name, version=1, config={}) for name in STAGES)
    rows = [_row(page, digest, i) for i, page in enumerate(records)]
    table = ledger.sort(pa.Table.from_pylist(rows, schema=ledger.SCHEMA))
    halves = [table.filter(pa.array([(row["id"] < "8") is low for row in table.to_pylist()])) for low in (True, False)]
    tallies = ledger.tallies(table)
    draft = Draft(
        dataset=dataset,
        form="documents",
        run_key=run_key(dataset, recipe, [digest], stages, sources),
        parent=None if parent is None else parent.ref,
        sources=tuple(sources),
        inputs=(InputFile(digest=digest, bytes=1000 * len(records), records=len(records), names=(file,)),),
        recipe=recipe,
        stages=stages,
        shards=tuple(_shards(store, rows, records)),
        ledgers=tuple(put_table(store, "ledger", half, sorted_by="id") for half in halves if half.num_rows),
        attachments=(_receipts(store, rows, records, digest),) if receipts else (),
        schemas={"shard": "id: string\nurl: string\ntext: string"},
        received=ledger.tally(table),
        **tallies,
        funnel=_funnel(records),
        statistics={"documents": tallies["kept"].count, "languages": {"en": 2}, "bytes_from": {"200": 1, "1000": 1}},
        made={"at": "2026-11-22T10:00:00Z", "commit": "a" * 40, "dirty": False, "seconds": 1.5, "packages": {"x": "1"}},
    )
    return Versions(store).commit(draft)


def _row(page: Page, digest: str, ordinal: int) -> dict[str, Any]:
    return {
        "id": page.id,
        "input": digest,
        "ordinal": ordinal,
        "fate": page.fate,
        "stage": (page.reason or "shards").split(".")[0],
        "reason": page.reason,
        "value": page.value,
        "survivor": None if page.survivor is None else page_id(page.survivor),
        "start": 1000 * ordinal,
        "length": 1000,
    }


def _shards(store: Store, rows: list[dict[str, Any]], records: Sequence[Page]) -> list[ObjectRef]:
    kept = [_text(row, page) for row, page in zip(rows, records, strict=True) if page.reason is None]
    cut = len(kept) // 2
    return [
        put_table(store, "shard", pa.Table.from_pylist(part, schema=TEXT)) for part in (kept[:cut], kept[cut:]) if part
    ]


def _receipts(store: Store, rows: list[dict[str, Any]], records: Sequence[Page], digest: str) -> ObjectRef:
    extracted = [(r, p) for r, p in zip(rows, records, strict=True) if not (p.reason or "").startswith("read.")]
    text = put_table(store, "text", pa.Table.from_pylist([_text(r, p) for r, p in extracted], schema=TEXT))
    receipt = Receipt(
        work_key=digest_of(b"test", digest),
        stages=(StageId(name="extract", version=1, config={}),),
        inputs=(digest, f"0+{len(records)}"),
        outputs=(text,),
        reasons=dict(Counter(p.reason for p in records if p.fate == "dropped" and p.reason.startswith("read."))),
    )
    return bundle_receipts(store, [receipt])


def _text(row: dict[str, Any], page: Page) -> dict[str, Any]:
    return {**{k: row[k] for k in ("id", "input", "ordinal")}, "url": page.url, "text": page.text}


def _funnel(records: Sequence[Page]) -> tuple[FunnelRow, ...]:
    rows, received = [], len(records)
    for stage in STAGES:
        of_stage = [p for p in records if (p.reason or "").split(".")[0] == stage]
        by_fate = {f: dict(Counter(p.reason for p in of_stage if p.fate == f)) for f in ("dropped", "quarantined")}
        rows.append(FunnelRow(stage=stage, received=received, passed=received - len(of_stage), **by_fate))
        received -= len(of_stage)
    return tuple(rows)
