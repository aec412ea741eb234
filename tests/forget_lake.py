"""A lake as increments of a web run leave it: shards, ledger, signatures, contents, clusters, and extracted texts.

`increment(store, "web", pages, base)` grows a dataset; what a takedown must not leave behind stands in each of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.accounts.receipt import Receipt, StageId, work_key, write_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.plan import ForgetReport
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft, FunnelRow, InputFile, Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import bundle_receipts
from gristmill.stages.core.shards import SCHEMA, Statistics

STAGE = StageId(name="toy", version=1, config={})


@dataclass(frozen=True)
class Doc:
    """A page; `copy_of` is the URL of the page in whose favour it was dropped."""

    url: str
    copy_of: str | None = None
    language: str = "en"

    @property
    def id(self) -> str:
        """Its record id."""
        return doc_id(self.url)

    @property
    def text(self) -> str:
        """Its text; copies have the same."""
        return f"secret-{hashlib.sha256((self.copy_of or self.url).encode()).hexdigest()} " * (len(self.url) % 7 + 1)


def doc_id(url: str) -> str:
    """The record id of the page at this URL."""
    return record_id(url=url, source_key=None, own=url.encode())


def docs(*names: str) -> list[Doc]:
    """Pages of example.org; those whose name begins with d are German."""
    return [Doc(f"https://example.org/{name}", language="de" if name.startswith("d") else "en") for name in names]


def increment(
    store: Store, dataset: str, pages: Sequence[Doc], base: Manifest | None = None, file: str = "a", **more: Any
) -> Manifest:
    """One version of these pages in two shards, on top of `base`, each object the output of a receipt."""
    digest = hashlib.sha256(file.encode()).hexdigest()
    rows = [_fate(doc, digest, i) for i, doc in enumerate(pages)]
    table = ledger.sort(pa.Table.from_pylist(rows, schema=ledger.SCHEMA))
    tallies = ledger.tallies(table)
    kept = [doc for doc in pages if doc.copy_of is None]
    shards = [_shard(kept[: len(kept) // 2]), _shard(kept[len(kept) // 2 :])]
    counted_before = Statistics.read(base.statistics) if base else Statistics()
    statistics = sum((Statistics.of(shard) for shard in shards), counted_before)
    text = put_table(
        store,
        "text",
        pa.table({"id": [d.id for d in pages], "url": [d.url for d in pages], "text": [d.text for d in pages]}),
    )
    own = (text, *_attached(store, pages, rows), put_table(store, "ledger", table, sorted_by="id"))
    written = [*(put_table(store, "shard", shard) for shard in shards), *own]
    receipts = [_receipt(store, digest, [ref]) for ref in written]
    before = base.attachments if base else ()
    n_in, n_kept = len(pages) + (base.received.count if base else 0), tallies["kept"].count
    n_kept += base.kept.count if base else 0
    lost = n_in - n_kept
    draft = Draft(
        dataset=dataset,
        form="documents",
        run_key=digest_of("toy", dataset, file, repr([d.url for d in pages]), base.digest if base else ""),
        parent=base.ref if base else None,
        inputs=(InputFile(digest=digest, bytes=1, records=len(pages), names=(f"{file}.warc.gz",)),),
        recipe={"minhash": {"bands": 2}},
        stages=(STAGE,),
        shards=(*(base.shards if base else ()), *(ref for ref in written if ref.kind == "shard")),
        ledgers=(*(base.ledgers if base else ()), written[-1]),
        attachments=(*before, *own[1:-1], _screened(store, pages), bundle_receipts(store, receipts)),
        received=ledger.tally(table) if base is None else ledger.tally(table) + base.received,
        **{name: tally + getattr(base, name) if base else tally for name, tally in tallies.items()},
        funnel=(
            FunnelRow(stage="read", received=n_in, passed=n_in),
            FunnelRow(stage="exact", received=n_in, passed=n_kept, dropped={"exact.duplicate": lost} if lost else {}),
        ),
        statistics=asdict(statistics),
    )
    return Versions(store).commit(draft.model_copy(update=more))


COPY = Doc("https://copies.net/of-b", copy_of="https://example.org/b")
FIRST = [*docs("a", "b", "c", "d1", "d2", "e", "f"), COPY, Doc("https://shop.evil.com/1"), Doc("https://evil.com:81/2")]
SECOND = [
    *docs("g", "h"),
    Doc("https://copies.net/of-evil", copy_of="https://evil.com:81/2"),
    Doc("https://EVIL.com/3"),
]
URLS = Suppression.of(urls=["https://example.org/b", "https://example.org/h"])


def do(store: Store, request: Suppression, reason: str = "request 7") -> ForgetReport:
    """The takedown."""
    versions = Versions(store)
    return forget(versions, plan_forget(versions, request), reason)


def erase(store: Store) -> None:
    """Garbage collection without grace."""
    run_gc(store, plan_gc(store, grace_seconds=0))


def gone_from(store: Store, *docs: Doc) -> None:
    """No version that is given out holds any of these, in any object."""
    versions, ids = Versions(store), {doc.id for doc in docs}
    for name in versions.names():
        away = versions.withdrawn(name)
        for manifest in versions.manifests(name):
            if manifest.version not in away:
                for kind in ("shard", "signatures", "contents", "clusters"):
                    assert not ids & set(ids_of(store, manifest, kind)), (str(manifest), kind)


def _fate(doc: Doc, digest: str, ordinal: int) -> dict[str, Any]:
    fate = {"fate": "kept", "stage": "shards", "reason": None, "survivor": None}
    if doc.copy_of is not None:
        fate = {"fate": "dropped", "stage": "exact", "reason": "exact.duplicate", "survivor": doc_id(doc.copy_of)}
    return {
        "id": doc.id,
        "input": digest,
        "ordinal": ordinal,
        **fate,
        "value": None,
        "start": 10 * ordinal,
        "length": 10,
    }


def _shard(pages: Sequence[Doc]) -> pa.Table:
    rows = [
        {"id": d.id, "url": d.url, "text": d.text, "language": d.language, "language_score": 0.9, "source": d.url}
        for d in pages
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _content(doc: Doc) -> str:
    return hashlib.blake2b(doc.text.encode(), digest_size=16).hexdigest()


def _attached(store: Store, pages: Sequence[Doc], rows: list[dict[str, Any]]) -> list[ObjectRef]:
    keys = [{name: row[name] for name in ("id", "input", "ordinal")} for row in rows]
    signed = [{**key, "signature": list(d.text.encode()[:8])} for key, d in zip(keys, pages, strict=True)]
    contents = sorted(
        ({"content": _content(d), "id": d.id} for d in pages if d.copy_of is None), key=lambda r: r["content"]
    )
    clusters = sorted(
        ({"survivor": doc_id(d.copy_of), "id": d.id} for d in pages if d.copy_of),
        key=lambda r: (r["survivor"], r["id"]),
    )
    attachments = [put_table(store, "signatures", pa.Table.from_pylist(signed))]
    if contents:
        attachments.append(put_table(store, "contents", pa.Table.from_pylist(contents), sorted_by="content"))
    if clusters:
        attachments.append(put_table(store, "clusters", pa.Table.from_pylist(clusters), sorted_by="survivor"))
    return attachments


def _screened(store: Store, pages: Sequence[Doc]) -> ObjectRef:
    return put_refs(
        store, [put_table(store, "screened", pa.table({"id": [d.id for d in pages], "n": [1] * len(pages)}))]
    )


def _receipt(store: Store, digest: str, outputs: list[ObjectRef]) -> Receipt:
    inputs = (digest, outputs[0].sha256)
    key = work_key((STAGE,), inputs)
    return write_receipt(store, Receipt(work_key=key, stages=(STAGE,), inputs=inputs, outputs=tuple(outputs)))


FORM_OF = {"shard": "documents", "pack": "windows", "weights": "model"}


def made_from(store: Store, dataset: str, source: Manifest, kind: str, role: str = "input") -> Manifest:
    """A version whose shards have no ids: tokens, packs, weights."""
    ref = put_table(store, kind, pa.table({"tokens": [1, 2, len(dataset)]}))
    sources = (VersionRef(**{**source.ref.model_dump(), "role": role}),)
    zero = ledger.tally(ledger.empty())
    return Versions(store).commit(
        Draft(
            dataset=dataset,
            form=FORM_OF[kind],
            run_key=digest_of("made", dataset, source.digest),
            sources=sources,
            recipe={},
            stages=(STAGE,),
            shards=(ref,),
            received=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
        )
    )


def ids_of(store: Store, manifest: Manifest, kind: str = "shard") -> list[str]:
    """Ids in the objects of one kind."""
    refs = [ref for ref in manifest.objects() if ref.kind == kind]
    return [id for ref in refs for id in pq.read_table(store.open(ref.key), columns=["id"])["id"].to_pylist()]


def fates_of(store: Store, manifest: Manifest) -> dict[str, tuple[Any, ...]]:
    """id -> (fate, stage, reason, value, survivor); every id once."""
    rows = [row for ref in manifest.ledgers for row in pq.read_table(store.open(ref.key)).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: tuple(row[k] for k in ("fate", "stage", "reason", "value", "survivor")) for row in rows}


def sound(store: Store) -> None:
    """Everything that versions promise is there and agrees."""
    assert [f.message for f in verify(store, deep=True)] == []


def files(store: Store) -> dict[str, bytes]:
    """Every file of the lake but leases and the suppression list (whose time differs from run to run)."""
    return {i.key: store.get(i.key) for i in store.list("") if not i.key.startswith(("runs/",))}


def readable(store: Store) -> Iterator[tuple[str, bytes]]:
    """Every file of a local lake as bytes, Parquet decompressed: what somebody who searches the disk would find."""
    for path in sorted(p for p in Path(store.uri).rglob("*") if p.is_file()):
        data = path.read_bytes()
        yield str(path), data
        if data[:4] == b"PAR1":
            yield str(path), json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode()


def two_nights(store: Store) -> list[Manifest]:
    """`web` in two increments, and `code`, which has none of what is asked for; the versions of `web`."""
    first = increment(store, "web", FIRST, file="a")
    increment(store, "code", docs("x", "y"), file="code")
    return [first, increment(store, "web", SECOND, first, file="b")]
