"""A small lake through the real API: receipts, ledgers, shards and attachments of a few records, and faults to order.

`commit(store, "web", range(40))` is what a run leaves behind; record i is kept, dropped or quarantined by i % 5.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.accounts.receipt import Receipt, StageId, work_key, write_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, put_table, scratch
from gristmill.lake.upkeep.verify_content import Finding
from gristmill.lake.versions.manifest import Draft, FunnelRow, InputFile, Manifest
from gristmill.lake.versions.versions import Versions

INPUT = hashlib.sha256(b"crawl").hexdigest()
STAGE = StageId(name="toy", version=1, config={})
DAY = 86_400.0
FATES = ("kept", "dropped", "kept", "quarantined", "kept")


def toy_id(i: int) -> str:
    """The id of record i."""
    return record_id(url=f"https://example.org/{i}", source_key=None, own=b"%d" % i)


def ledger_table(records: Iterable[int]) -> pa.Table:
    """The ledger of these records, whose fates follow from their numbers."""
    rows = []
    for i in records:
        fate = FATES[i % len(FATES)]
        reason = None if fate == "kept" else f"toy.{fate}"
        row = {"id": toy_id(i), "input": INPUT, "ordinal": i, "fate": fate, "stage": "toy", "reason": reason}
        rows.append({**row, "value": None, "survivor": None, "start": 10 * i, "length": 10})
    return ledger.sort(pa.Table.from_pylist(rows, ledger.SCHEMA))


def shard_table(records: Iterable[int]) -> pa.Table:
    """Those of these records that are kept."""
    kept = [i for i in records if FATES[i % len(FATES)] == "kept"]
    return pa.table({"id": [toy_id(i) for i in kept], "text": [f"text {i}" for i in kept]})


def put_ledgers(store: Store, table: pa.Table, parts: int = 2) -> tuple[ObjectRef, ...]:
    """A ledger in several objects."""
    size = -(-table.num_rows // parts)
    cut = [table.slice(start, size) for start in range(0, table.num_rows, size)]
    return tuple(put_table(store, "ledger", part, sorted_by="id") for part in cut)


def put_shards(store: Store, table: pa.Table, parts: int = 2) -> tuple[ObjectRef, ...]:
    """Shards of equal size."""
    size = -(-table.num_rows // parts)
    return tuple(put_table(store, "shard", table.slice(at, size)) for at in range(0, table.num_rows, size))


def put_text(store: Store, text: str, kind: str = "text") -> ObjectRef:
    """A small object that is no Parquet."""
    with scratch() as folder:
        path = folder / "blob"
        path.write_text(text)
        return put_file(store, kind, path, 1)


def do_work(store: Store, name: str, outputs: Iterable[ObjectRef]) -> Receipt:
    """The receipt of a finished piece of work."""
    key = work_key([STAGE], [name])
    return write_receipt(store, Receipt(work_key=key, stages=(STAGE,), inputs=(name,), outputs=tuple(outputs)))


def draft(store: Store, dataset: str, records: Iterable[int], **fields: Any) -> Draft:
    """`fields` override what the records give: that is how tests lie."""
    records = list(records)
    table = ledger_table(records)
    tallies = ledger.tallies(table)
    reasons = ledger.reasons(table)
    given: dict[str, Any] = {
        "dataset": dataset,
        "form": "documents",
        "run_key": digest_of("toy", dataset, repr(records)),
        "inputs": (InputFile(digest=INPUT, bytes=10 * len(records), records=len(records), names=("crawl.warc",)),),
        "recipe": {"records": len(records)},
        "stages": (STAGE,),
        "received": ledger.tally(table),
        "funnel": (
            FunnelRow(
                stage="toy",
                received=len(records),
                passed=tallies["kept"].count,
                dropped={r: n for r, n in reasons.items() if r == "toy.dropped"},
                quarantined={r: n for r, n in reasons.items() if r == "toy.quarantined"},
            ),
        ),
        **tallies,
    }
    for name, put in (
        ("shards", lambda: put_shards(store, shard_table(records))),
        ("ledgers", lambda: put_ledgers(store, table)),
        ("attachments", lambda: (put_text(store, f"measures of {dataset} {records}", "screened"),)),
    ):
        if name not in fields:
            given[name] = put()
    return Draft(**(given | fields))


def commit(store: Store, dataset: str, records: Iterable[int], **fields: Any) -> Manifest:
    """A version as a run leaves it: each object is the output of a receipt, and the text it read is no one's."""
    manifest_draft = draft(store, dataset, records, **fields)
    do_work(
        store, f"extract {manifest_draft.run_key}", [put_text(store, f"raw text of {dataset} {manifest_draft.run_key}")]
    )
    for ref in manifest_draft.objects():
        do_work(store, f"write {ref.sha256}", [ref])
    return Versions(store).commit(manifest_draft)


def tally_of(records: Iterable[int]) -> Tally:
    """The tally of these records."""
    return ledger.tally(ledger_table(records))


def age(store: Store, seconds: float, keys: Iterable[str] | None = None) -> None:
    """Makes files of a local lake older: these keys, or all."""
    for key in [info.key for info in store.list("")] if keys is None else keys:
        path = Path(store.uri, key)
        when = path.stat().st_mtime - seconds
        os.utime(path, (when, when))


def flip(store: Store, key: str, at: int = -1) -> None:
    """Changes one bit of one byte (the middle one), by the back door."""
    data = bytearray(store.get(key))
    data[len(data) // 2 if at < 0 else at] ^= 1
    store.put(key, bytes(data))


@dataclass
class Watched:
    """A store that calls `before(verb, key)` ahead of a delete, get, info or create; it may raise, or meddle."""

    store: Store
    before: Callable[[str, str], None]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.store, name)
        if name not in ("delete", "get", "info", "create"):
            return attribute

        def call(key: str, *args: Any) -> Any:
            self.before(name, key)
            return attribute(key, *args)

        return call


def keys(store: Store, prefix: str = "") -> set[str]:
    """Every key below a prefix."""
    return {info.key for info in store.list(prefix)}


def garbage(store: Store, count: int = 4, *, days: float = 2) -> list[ObjectRef]:
    """Results of finished work that no version holds."""
    refs = [put_text(store, f"garbage {i}") for i in range(count)]
    receipts = [do_work(store, f"work {i}", [ref]) for i, ref in enumerate(refs)]
    names = [f"receipts/{r.work_key[:2]}/{r.work_key}.json" for r in receipts]
    age(store, days * DAY, [*(ref.key for ref in refs), *names])
    return refs


def key_of(i: int) -> str:
    """The work key of piece i."""
    return work_key([STAGE], [f"work {i}"])


def live(store: Store, folder: str, work: list[str]) -> None:
    """A lease as a running run has it."""
    store.put(f"runs/{folder}/lease.json", b"{}")
    store.put(f"runs/{folder}/0001.json", json.dumps({"format": 1, "stage": "toy", "work": work}).encode())


def only(findings: list[Finding]) -> Finding:
    """The only finding."""
    assert len(findings) == 1, [f.message for f in findings]
    return findings[0]
