"""Where a lake holds records that are to be forgotten: every version searched, every object read once.

A domain, or a URL in another spelling, is turned into ids first, by the URLs in shards; then everything with ids
(shards, the members of tars, signatures, content hashes) is asked by id. A duplicate that was dropped has a signature
and no text in any shard: for a domain its id is looked up in the texts that extraction stored, while gc has left them.
Only ids and URLs are read, batch by batch. What is remembered of a version are digests, because manifests of many
versions are too large to keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from gristmill.lake.accounts import media
from gristmill.lake.accounts.fan import FAMILIES, MEMBER
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import ObjectRef, is_table, iter_batches, open_parquet, read_object
from gristmill.lake.takedown.seen import Columns, Seen
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.takedown.suppress_entries import page_hash
from gristmill.lake.versions.history import KIND as HISTORY
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

NO_TEXT = frozenset({"ledger", "refs", "receipts", "spans", "screened", media.KIND, HISTORY})
"""Kinds that hold keys, places and measures of records, never text nor what is computed to compare texts."""
MEMBERS = "members"
"""The kind of tables that say what lies in tars (lake/accounts/fan.py)."""


class Search:
    """`look` fills `versions` and `rows`; looked at again, only what is new is read.

    `ids` are those of records that match, wherever they stand. `rows` says of each object how many of its rows go,
    None for one that cannot tell (no Parquet, no ids); `records` of each table of members, which records these are.
    """

    def __init__(self, versions: Versions, request: Suppression, *, asking: bool = False) -> None:
        """`asking`: nothing will be done; what is lost is passed over, and texts are looked at whatever was asked."""
        self.store, self.catalogue, self.request, self.asking = versions.store, versions, request, asking
        self.versions: dict[str, list[Seen]] = {}
        self.refs: dict[str, ObjectRef] = {}
        self.rows: dict[str, int | None] = {}
        self.records: dict[str, frozenset[str]] = {}
        self.ids: set[str] = set()
        self.texts_gone = 0
        self.lost: set[str] = set()  # objects of withdrawn versions that gc took
        self._families: dict[str, ObjectRef] = {}  # ledgers of children (lake/accounts/fan.py)
        self._columns: dict[str, Columns | None] = {}
        self._read: set[str] = set()  # receipts, texts, and tables of media
        self._no_url: dict[str, int] = {}  # object -> how many of its rows have none

    @property
    def gone(self) -> Suppression:
        """The request, and every id that it came to."""
        return replace(self.request, ids=self.request.ids | self.ids)

    def all_versions(self) -> list[Seen]:
        """Every version of every dataset, withdrawn ones too, as the last look saw them."""
        return [seen for of_dataset in self.versions.values() for seen in of_dataset]

    def look(self) -> None:
        """Raises NotFound for an object that a version needs and the lake has lost; a withdrawn version may."""
        needed: set[str] = set()
        bundles: dict[str, ObjectRef] = {}
        tables = dict[str, ObjectRef]()  # of media: no reason to withdraw a version, and cut where one is made anew
        self.versions = {}
        for name in self.catalogue.names():
            away = self.catalogue.withdrawn(name)
            for manifest in self.catalogue.manifests(name):
                seen = self._remember(manifest, manifest.version in away)
                self.versions.setdefault(name, []).append(seen)
                if not seen.withdrawn and not self.asking:
                    needed.update(seen.looked_at)
                bundles |= {ref.sha256: ref for ref in manifest.attachments if ref.kind == "receipts"}
                families = {ref.sha256: ref for ref in manifest.ledgers if ref.kind == FAMILIES}
                self._families |= families
                listed = [ref for ref in manifest.attachments if ref.kind == media.KIND]
                tables |= {sha: self.refs[sha] for sha in self._remembered(listed)}
                if not seen.withdrawn and not self.asking:
                    needed.update((*(ref.sha256 for ref in listed), *families))
        with ThreadPoolExecutor(4) as pool:
            new = [ref for ref in self.refs.values() if ref.sha256 not in self._columns]
            schemas = pool.map(lambda ref: self._schema(ref, needed=ref.sha256 in needed), new)
            for ref, columns in zip(new, schemas, strict=True):
                self._columns[ref.sha256] = columns
            # URLs before ids, in everything that is new: a URL that one object has tells the id by which the record is
            # found in all others.
            known = len(self.ids)
            if self.request.by_url:
                self._look_at_names(pool, new)
                if self.request.domains or self.asking:
                    self._look_in_texts(pool, bundles.values())
            if self.request.media:
                self._look_up_media(pool, tables.values(), needed)
            self._look_in_families(needed)
            if len(self.ids) > known:
                new = list(self.refs.values())  # an earlier look counted their rows, and knew fewer ids
            gone = self.gone
            for ref, ids in zip(new, pool.map(lambda ref: self._by_id(ref, gone), new), strict=True):
                self.rows[ref.sha256] = None if ids is None else len(ids)
                if ref.kind == MEMBERS:
                    self.records[ref.sha256] = frozenset(ids or ())
                self.ids.update(ids or ())

    def holds(self, seen: Seen) -> bool:
        """Whether it has a row of a record that goes."""
        return any(self.rows.get(sha) for sha in seen.looked_at)

    def knows(self, seen: Seen) -> bool:
        """Whether its shards say which records they hold; `holds` speaks for one that knows."""
        tables_say = all(self.rows.get(sha) is not None for sha in (*seen.tables, *seen.members))
        return tables_say and len(seen.members) == seen.tars

    def is_erased(self, seen: Seen) -> bool:
        """Whether gc took shards of it, so that nothing tells any more what it held."""
        return seen.withdrawn and any(sha in self.lost for sha in (*seen.tables, *seen.members))

    def count(self, seen: Seen) -> int:
        """How many records go from its shards."""
        rows = sum(self.rows[sha] or 0 for sha in dict.fromkeys(seen.tables))
        return rows + len(frozenset[str]().union(*(self.records[sha] for sha in seen.members)))

    def kinds(self, digests: Iterable[str]) -> dict[str, int]:
        """kind -> how many rows of these objects go."""
        rows = Counter[str]()
        for sha in dict.fromkeys(digests):
            rows[self.refs[sha].kind] += self.rows[sha] or 0
        return {kind: n for kind, n in sorted(rows.items()) if n}

    def without_url(self) -> int:
        """Records in shards of versions that are given out that no domain can find."""
        given_out: set[str] = set()  # a table that versions share is counted once
        for seen in self.all_versions():
            if not seen.withdrawn:
                given_out.update(seen.tables)
        return sum(self._no_url.get(sha, 0) for sha in given_out)

    def _remember(self, manifest: Manifest, withdrawn: bool) -> Seen:
        """What is to be known of a version once its manifest is let go."""
        layout = manifest.layout
        tables = [ref for ref in manifest.shards if layout.holds(ref.kind) == "rows"]
        why = layout.remade
        if why is None and not manifest.fates:
            why = "it has no ledger of records"
        return Seen(
            ref=manifest.ref,
            form=manifest.form,
            withdrawn=withdrawn,
            parent=manifest.parent,
            sources=manifest.sources,
            tables=self._remembered(tables),
            tars=sum(layout.holds(ref.kind) == "groups" for ref in manifest.shards),
            members=self._remembered(manifest.members),
            attachments=self._remembered(ref for ref in manifest.attachments if ref.kind not in NO_TEXT),
            not_rewritable=why,
        )

    def _remembered(self, refs: Iterable[ObjectRef]) -> tuple[str, ...]:
        """The digests of what is to be searched: one string each, however many versions share an object."""
        return tuple(self.refs.setdefault(ref.sha256, ref).sha256 for ref in refs)

    def _schema(self, ref: ObjectRef, *, needed: bool) -> Columns | None:
        """Where it has ids and URLs; None for no Parquet, no ids, or (of a withdrawn version) gone.

        Its own columns are looked at, whatever kind it is: personal data is searched for, not expected somewhere."""
        try:
            if not is_table(self.store, ref):
                return None
            with open_parquet(self.store, ref) as file:
                schema = file.schema_arrow
        except NotFound:
            if needed:
                raise
            self.lost.add(ref.sha256)
            return None
        texts = {name for name in schema.names if _is_text(schema.field(name).type)}
        id_column = MEMBER if ref.kind == MEMBERS else "id"
        if id_column not in texts:
            return None
        return Columns(id_column, "url" if "url" in texts else None)

    def _look_at_names(self, pool: ThreadPoolExecutor, refs: Iterable[ObjectRef]) -> None:
        """Ids of records whose URL is asked for, from the tables that have it."""
        having: list[tuple[ObjectRef, Columns]] = []
        for ref in refs:
            columns = self._columns[ref.sha256]
            if columns is not None and columns.url is not None:
                having.append((ref, columns))

        def look(item: tuple[ObjectRef, Columns]) -> list[str]:
            return list(_ids(self.store, *item, self.request, self._no_url))

        for ids in pool.map(look, having):
            self.ids.update(ids)

    def _look_up_media(self, pool: ThreadPoolExecutor, tables: Iterable[ObjectRef], needed: Collection[str]) -> None:
        """Ids of records that have a medium which is asked for, from the tables of media; those that a withdrawn
        version has lost are passed over."""
        wanted = sorted(self.request.media)

        def look(ref: ObjectRef) -> set[str]:
            try:
                return media.ids_having(self.store, ref, wanted)
            except NotFound:
                if ref.sha256 in needed:
                    raise
                return set()

        new = [ref for ref in tables if ref.sha256 not in self._read]
        for ref, ids in zip(new, pool.map(look, new), strict=True):
            self._read.add(ref.sha256)
            self.ids.update(ids)

    def _look_in_families(self, needed: Collection[str]) -> None:
        """Ids of the children of records that go: what was made of a child is known by its id alone. Those that a
        withdrawn version has lost are passed over."""
        for ref in self._families.values():
            try:
                for batch in iter_batches(self.store, ref, ["id", "parent_id"]):
                    hit = self.gone.match(batch["parent_id"])
                    self.ids.update(batch["id"].filter(pa.array(hit)).to_pylist())
            except NotFound:
                if ref.sha256 in needed:
                    raise

    def _by_id(self, ref: ObjectRef, gone: Suppression) -> list[str] | None:
        """The ids in it that go, by id alone: an object may have lost the URL of a record that another still has."""
        columns = self._columns[ref.sha256]
        return None if columns is None else list(_ids(self.store, ref, Columns(columns.id, None), gone))

    def _look_in_texts(self, pool: ThreadPoolExecutor, bundles: Iterable[ObjectRef]) -> None:
        """Ids on the domains among everything that was ever extracted, as far as the texts are still there.

        No version holds these texts: where they are is said by the receipts that versions keep in bundles.
        """
        texts: dict[str, ObjectRef] = {}
        for bundle in bundles:
            if bundle.sha256 in self._read:
                continue
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
            self.ids.update(ids or ())


def ids_of_page(versions: Versions, url: str) -> set[str]:
    """Ids of records whose URL is this page in whatever spelling, as far as their URL is still in the lake."""
    page = page_hash(url)
    if page is None:
        return set()
    search = Search(versions, Suppression(pages=frozenset((page,))), asking=True)
    search.look()
    return search.ids


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _ids(
    store: Store, ref: ObjectRef, columns: Columns, wanted: Suppression, no_url: dict[str, int] | None = None
) -> Iterator[str]:
    """The ids of matching rows. `no_url`: takes how many rows of this object have no URL."""
    for batch in iter_batches(store, ref, columns.names):
        ids, urls = batch[columns.id], None if columns.url is None else batch[columns.url]
        if no_url is not None and urls is not None:
            no_url[ref.sha256] = no_url.get(ref.sha256, 0) + urls.null_count
        hit = wanted.match(ids, urls)
        if hit.any():
            yield from ids.filter(pa.array(hit)).to_pylist()
