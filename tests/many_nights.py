"""A dataset of many increments in seconds: real manifests, ledgers and compaction, but no pages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa
from drafts import draft as draft_of

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table
from gristmill.lake.versions.manifest import Draft, InputFile, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.near.compact import Compact, compacted
from gristmill.stages.run.runner import Runner

PAGES = 3
LEDGER = Compact("ledger", ("id", "input", "ordinal"))
LISTS = Compact("refs")


def url(increment: int, page: int) -> str:
    """Of a page of one increment."""
    return f"https://example.org/{increment}/{page}"


def increments(store: Store, count: int) -> Iterator[Manifest]:
    """`count` versions, each with PAGES records more. The first of each is kept, the others are its duplicates."""
    runner, versions = Runner(store, workers=0), Versions(store)
    base: Manifest | None = None
    for increment in range(count):
        rows = ledger.sort(pa.Table.from_pylist(list(_rows(increment)), schema=ledger.SCHEMA))
        tallies = ledger.tallies(rows)
        old = base or _nothing()
        digest = _input(increment)
        shard = put_table(store, "shard", pa.table({"id": [_id(increment, 0)], "text": [f"night {increment}"]}))
        own = put_table(store, "ledger", rows, sorted_by="id")
        listed = [ref for ref in old.attachments if ref.kind == "refs"]
        draft = Draft(
            dataset="web",
            form="documents",
            run_key=digest_of("night", str(increment)),
            parent=base.ref if base else None,
            inputs=(InputFile(digest=digest, bytes=100, records=PAGES, names=(f"crawl/{increment}.warc.gz",)),),
            recipe={"nights": True},
            stages=(StageId(name="toy", version=1, config={}),),
            shards=(*old.shards, shard),
            ledgers=(*compacted(runner, LEDGER, old.ledgers), own),
            attachments=(*compacted(runner, LISTS, listed), _list(store, increment)),
            received=old.received + ledger.tally(rows),
            kept=old.kept + tallies["kept"],
            dropped=old.dropped + tallies["dropped"],
            quarantined=old.quarantined,
        )
        base = versions.commit(draft, expected_parent=increment)
        yield base


def _nothing() -> Draft:
    return draft_of("web", "", [])


def _list(store: Store, increment: int) -> ObjectRef:
    return put_refs(store, [put_table(store, "spans", pa.table({"night": [increment]}))])


def _input(increment: int) -> str:
    return hashlib.sha256(b"night %d" % increment).hexdigest()


def _id(increment: int, page: int) -> str:
    return record_id(url=url(increment, page), source_key=None, own=b"%d" % page)


def _rows(increment: int) -> Iterator[dict[str, object]]:
    for page in range(PAGES):
        lost = page > 0
        yield {
            "id": _id(increment, page),
            "input": _input(increment),
            "ordinal": page,
            "fate": "dropped" if lost else "kept",
            "stage": "exact" if lost else "shards",
            "reason": "exact.duplicate" if lost else None,
            "value": None,
            "survivor": _id(increment, 0) if lost else None,
            "start": 10 * page,
            "length": 10,
        }
