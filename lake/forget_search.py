"""Where a lake holds records that are to be forgotten: every version searched, every object read once.

A domain, or a URL in another spelling, is turned into ids first, by the URLs in shards; then everything with ids
(shards, signatures, content hashes) is asked by id. A duplicate that was dropped has a signature and no text in any
shard: for a domain its id is looked up in the texts that extraction stored, while gc has left them. Only ids and URLs
are read, batch by batch.
What is remembered of a version are digests, because manifests of many versions are too large to keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from lake.manifest import Manifest, VersionRef
from lake.objects import ObjectRef, is_table, iter_batches, open_parquet, read_object
from lake.receipt import Receipt
from lake.store import NotFound, Store
from lake.suppress import Suppression
from lake.suppress_entries import page_hash
from lake.versions import Versions

NO_TEXT = frozenset({"ledger", "refs", "receipts", "spans", "screened"})
"""Kinds that hold keys, places and measures of records, never text nor what is computed to compare texts."""


@dataclass(frozen=True)
class Seen:
    """What is remembered of a version. `shards` and `attachments` are digests of what was searched."""

    ref: VersionRef
    withdrawn: bool
    parent: VersionRef | None
    sources: tuple[VersionRef, ...]
    shards: tuple[str, ...]
    attachments: tuple[str, ...]
    packed: bool
    rewritable: str | None  # why no clean version can be made of it; None: it can

    def __str__(self) -> str:
        return str(self.ref)


class Search:
    """`look` fills `versions` and `rows`; looked at again, only what is new is read.

    `found` are the ids of records that match, wherever they stand. `rows` says of each object how many of its rows go,
    None for one that cannot tell (no Parquet, no ids).
    """

    def __init__(self, versions: Versions, request: Suppression, *, asking: bool = False) -> None:
        """`asking`: nothing will be done; what is lost is passed over, and texts are looked at whatever was asked."""
        self.store, self.catalogue, self.request, self.asking = versions.store, versions, request, asking
        self.versions: dict[str, list[Seen]] = {}
        self.refs: dict[str, ObjectRef] = {}
        self.rows: dict[str, int | None] = {}
        self.found: set[str] = set()
        self.texts_gone = 0
        self._columns: dict[str, list[str] | None] = {}
        self._read: set[str] = set()  # receipts and texts
        self._no_url: dict[str, int] = {}  # object -> how many of its rows have none

    @property
    def gone(self) -> Suppression:
        """The request, and every id that it came to."""
        return replace(self.request, ids=self.request.ids | self.found)

    def look(self) -> None:
        """Raises NotFound for an object that a version needs and the lake has lost; a withdrawn version may."""
        needed: set[str] = set()
        bundles: dict[str, ObjectRef] = {}
        self.versions = {}
        for name in self.catalogue.names():
            away = self.catalogue.withdrawn(name)
            for manifest in self.catalogue.manifests(name):
                seen = self._remember(manifest, manifest.version in away)
                self.versions.setdefault(name, []).append(seen)
                if not seen.withdrawn and not self.asking:
                    needed.update((*seen.shards, *seen.attachments))
                bundles |= {ref.sha256: ref for ref in manifest.attachments if ref.kind == "receipts"}
        with ThreadPoolExecutor(4) as pool:
            new = [ref for ref in self.refs.values() if ref.sha256 not in self._columns]
            for ref, found in zip(
                new, pool.map(lambda ref: self._schema(ref, needed=ref.sha256 in needed), new), strict=True
            ):
                self._columns[ref.sha256] = found
            if self.request.by_url:
                known = len(self.found)
                self._look_at_urls(pool, new)
                if self.request.domains or self.asking:
                    self._look_in_texts(pool, bundles.values())
                if len(self.found) > known:
                    new = list(self.refs.values())
            gone = self.gone
            for ref, ids in zip(new, pool.map(lambda ref: self._by_id(ref, gone), new), strict=True):
                self.rows[ref.sha256] = None if ids is None else len(ids)
                self.found.update(ids or ())

    def holds(self, seen: Seen) -> bool:
        return any(self.rows.get(sha) for sha in (*seen.shards, *seen.attachments))

    def kinds(self, digests: Iterable[str]) -> dict[str, int]:
        """kind -> how many rows of these objects go."""
        rows = Counter[str]()
        for sha in dict.fromkeys(digests):
            rows[self.refs[sha].kind] += self.rows[sha] or 0
        return {kind: n for kind, n in sorted(rows.items()) if n}

    def without_url(self) -> int:
        """Records in shards of versions that are given out that no domain can find."""
        given_out = {sha for ones in self.versions.values() for one in ones if not one.withdrawn for sha in one.shards}
        return sum(self._no_url.get(sha, 0) for sha in given_out)

    def _remember(self, manifest: Manifest, withdrawn: bool) -> Seen:
        looked = [ref for ref in manifest.attachments if ref.kind not in NO_TEXT]
        for ref in (*manifest.shards, *looked):
            self.refs.setdefault(ref.sha256, ref)
        why = None
        packed = any(ref.kind == "pack" for ref in manifest.shards)
        if packed:
            why = "packs are made anew, from the clean version"
        elif manifest.samples is not None:
            why = "its records are samples of others"
        elif not any(ref.kind == "ledger" for ref in manifest.ledgers):
            why = "it has no ledger of records"
        return Seen(
            ref=manifest.ref,
            withdrawn=withdrawn,
            parent=manifest.parent,
            sources=manifest.sources,
            shards=tuple(self.refs[ref.sha256].sha256 for ref in manifest.shards),  # one string, however many versions
            attachments=tuple(self.refs[ref.sha256].sha256 for ref in looked),
            packed=packed,
            rewritable=why,
        )

    def _schema(self, ref: ObjectRef, *, needed: bool) -> list[str] | None:
        """Which of id and url it has; None for no Parquet, no ids, or (of a withdrawn version) gone."""
        try:
            if not is_table(self.store, ref):
                return None
            with open_parquet(self.store, ref) as file:
                schema = file.schema_arrow
        except NotFound:
            if needed:
                raise
            return None
        columns = [name for name in ("id", "url") if name in schema.names and _is_text(schema.field(name).type)]
        return columns if "id" in columns else None

    def _look_at_urls(self, pool: ThreadPoolExecutor, refs: Iterable[ObjectRef]) -> None:
        having = [ref for ref in refs if "url" in (self._columns[ref.sha256] or ())]

        def look(ref: ObjectRef) -> list[str]:
            return list(_ids(self.store, ref, ["id", "url"], self.request, self._no_url))

        for ids in pool.map(look, having):
            self.found.update(ids)

    def _by_id(self, ref: ObjectRef, gone: Suppression) -> list[str] | None:
        """The ids in it that go, by id alone: an object may have lost the URL of a record that another still has."""
        return list(_ids(self.store, ref, ["id"], gone)) if self._columns[ref.sha256] else None

    def _look_in_texts(self, pool: ThreadPoolExecutor, bundles: Iterable[ObjectRef]) -> None:
        """Ids on the domains among everything that was ever extracted, as far as the texts are still there."""
        texts: dict[str, ObjectRef] = {}
        for bundle in (ref for ref in bundles if ref.sha256 not in self._read):
            self._read.add(bundle.sha256)
            try:
                lines = read_object(self.store, bundle).splitlines()
            except NotFound:  # of a withdrawn version; its texts are gone with it
                continue
            outputs = [ref for line in lines for ref in Receipt.model_validate_json(line).outputs]
            texts |= {ref.sha256: ref for ref in outputs if ref.kind == "text" and ref.sha256 not in self._read}
        self._read.update(texts)

        def look(ref: ObjectRef) -> list[str] | None:
            columns = self._schema(ref, needed=False)
            return None if columns is None else list(_ids(self.store, ref, columns, self.request))

        for ids in pool.map(look, texts.values()):
            self.texts_gone += ids is None
            self.found.update(ids or ())


def ids_of_page(versions: Versions, url: str) -> set[str]:
    """Ids of records whose URL is this page in whatever spelling, as far as their URL is still in the lake."""
    page = page_hash(url)
    if page is None:
        return set()
    search = Search(versions, Suppression(pages=frozenset((page,))), asking=True)
    search.look()
    return search.found


def followers_in(store: Store, ref: ObjectRef, gone: pa.Array) -> int:
    """How many rows of a ledger name one of these as their survivor, and are not themselves among them."""
    count = 0
    for batch in iter_batches(store, ref, ["id", "survivor"]):
        named = pc.and_not(pc.is_in(batch["survivor"], gone), pc.is_in(batch["id"], gone))
        count += pc.sum(named).as_py() or 0
    return count


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _ids(
    store: Store, ref: ObjectRef, columns: list[str], wanted: Suppression, no_url: dict[str, int] | None = None
) -> Iterator[str]:
    """The ids of matching rows. `no_url`: takes how many rows of this object have no URL."""
    for batch in iter_batches(store, ref, columns):
        urls = batch["url"] if "url" in columns else None
        if no_url is not None and urls is not None:
            no_url[ref.sha256] = no_url.get(ref.sha256, 0) + urls.null_count
        hit = wanted.match(batch["id"], urls)
        if hit.any():
            yield from batch["id"].filter(pa.array(hit)).to_pylist()
