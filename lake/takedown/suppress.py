"""The suppression list: what was asked to be forgotten, and must not come back with a later crawl.

Ids, URLs and domains are personal data, so the list holds hashes and never the thing itself; they have no salt (a run
must match them), so who guesses a domain can confirm it. Each request takes the next number, create-only, and names
the sha256 of the one before: two at once both count, the same twice is one, the union is the list, whose digest enters
every run key. A copy of each file stands in another folder: a lost or changed one is noticed and can be put back.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.identity import URL_FORMAT, digest_of
from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import ObjectRef, put_file, scratch
from gristmill.lake.store.sealed import fields_of, in_words
from gristmill.lake.takedown.suppress_entries import domain_entry, id_entry, medium_entry, url_entries
from gristmill.lake.takedown.suppress_match import is_in, on_listed_host

FORMAT = 3
DIGESTS = "digests"
"""The column of records that were read with the sha256 of their media."""
PREFIX, COPIES = "suppressions/", "takedowns/"
_NUMBERED = re.compile(PREFIX + r"(\d{8,})\.json")
_UNNUMBERED = re.compile(PREFIX + r"([0-9a-f]{64})\.json")
"""How the last release named a request: after its digest."""


@dataclass(frozen=True)
class Suppression:
    """`ids` are record ids, `urls` first halves of ids (`url_heads`), `domains` hashes of hosts, `pages` of URLs in
    whatever spelling (`page_hash`), `media` sha256 of images, clips and videos: hex, all of them."""

    ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    pages: frozenset[str] = frozenset()
    media: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        ids: Iterable[str] = (),
        urls: Iterable[str] = (),
        domains: Iterable[str] = (),
        media: Iterable[str] = (),
    ) -> Suppression:
        """From what people write. Raises ValueError for the first entry that is none."""
        named = [url_entries(url) for url in urls]
        return cls(
            ids=frozenset(map(id_entry, ids)),
            urls=frozenset[str]().union(*(heads for heads, _ in named)),
            domains=frozenset(map(domain_entry, domains)),
            pages=frozenset(page for _, page in named),
            media=frozenset(map(medium_entry, media)),
        )

    @classmethod
    def load(cls, store: Store) -> Suppression:
        """Everything that was ever asked of this lake. Raises ListNotWhole: what is missing would come back."""
        return read_takedowns(store).whole

    def union(self, others: Iterable[Suppression]) -> Suppression:
        """All entries of this list and of `every` other."""
        every = [self, *others]
        return Suppression(*(frozenset().union(*(getattr(listed, name) for listed in every)) for name in _FIELDS))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _FIELDS)

    @property
    def by_url(self) -> bool:
        """Whether some of it is matched by the URL of a record, not by its id alone."""
        return bool(self.domains or self.pages)

    @cached_property
    def digest(self) -> str:
        """Of the entries alone, however many requests they came in; "" for none, so that run keys stay as they were."""
        return digest_of(b"suppression", canonical(self._entries())) if self else ""

    def _entries(self) -> dict[str, Any]:
        """A list without media, or without pages too, is written as the releases before wrote it, so that its digest
        stays what it was."""
        number = FORMAT if self.media else 2 if self.pages else 1
        names = _FIELDS_OF[number]
        return {"format": number, "url_format": URL_FORMAT, **{name: sorted(getattr(self, name)) for name in names}}

    def save(self, store: Store, reason: str) -> str:
        """Puts the request on the list for good and returns its key; of equal requests the first reason stays.

        Raises ListNotWhole where the list has to be restored first.
        """
        if not self:
            raise ValueError("suppression: the request has no entries; give at least one id, URL, domain or medium")
        while True:
            before = read_takedowns(store)
            if self.digest in before.requests:
                before.copy(store)  # written last, so that a killed attempt may lack it
                return before.requests[self.digest]
            number, now = len(before.slots) + 1, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            about = {"number": number, "request": self.digest, "reason": reason, "at": now}
            # a later loss is noticed by these three; manifests of runs name the digest of the list too
            about |= {"previous": before.newest, "list": before.whole.union([self]).digest}
            about |= {"before": sorted(before.unnumbered)}
            data = json.dumps({**self._entries(), **about}, indent=1).encode()
            if store.create(f"{PREFIX}{number:08d}.json", data):  # else another request took the slot
                read_takedowns(store).copy(store)
                return f"{PREFIX}{number:08d}.json"

    def put(self, store: Store) -> ObjectRef:
        """The list as one object, for Works to read: as it was when the run began, whatever is added meanwhile."""
        with scratch() as folder:
            path = folder / "suppression.json"
            path.write_bytes(canonical(self._entries()))
            return put_file(store, "suppression", path, sum(len(getattr(self, name)) for name in _FIELDS))

    @classmethod
    def read(cls, store: Store, ref: ObjectRef, digest: str) -> Suppression:
        """What `put` stored. Raises ValueError unless it is the list of this digest."""
        return _parse(store, ref.key, digest)

    def match(self, ids: pa.Array | pa.ChunkedArray, urls: pa.Array | pa.ChunkedArray | None = None) -> np.ndarray:
        """Which records are on the list: bool, one a row. Without `urls` neither domain nor page matches; media are
        matched by `match_media`."""
        hit = np.zeros(len(ids), dtype=bool)
        if self.ids:
            hit |= is_in(ids, self._sets["ids"])
        if self.urls:
            hit |= is_in(pc.utf8_slice_codeunits(ids, 0, 16), self._sets["urls"])
        if self.by_url and urls is not None:
            hit |= on_listed_host(urls, self.domains, self.pages)
        return hit

    def match_media(self, digests: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Which records have a listed medium: bool, one a row. `digests`: sha256 of one medium each, or of a list."""
        if not self.media:
            return np.zeros(len(digests), dtype=bool)
        column = digests.combine_chunks() if isinstance(digests, pa.ChunkedArray) else digests
        if not pa.types.is_list(column.type):
            return is_in(column, self._sets["media"])
        hit = np.zeros(len(column), dtype=bool)
        rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        hit[rows[is_in(pc.list_flatten(column), self._sets["media"])]] = True
        return hit

    def match_rows(self, rows: pa.Table) -> np.ndarray:
        """Which rows are on the list by the columns `id`, `url` and `digests`, as far as they have them: bool, one a
        row."""
        there = rows.schema.names
        hit = self.match(rows["id"], rows["url"] if "url" in there else None)
        return hit | self.match_media(rows[DIGESTS]) if DIGESTS in there else hit

    @cached_property
    def _sets(self) -> dict[str, pa.Array]:
        return {name: pa.array(sorted(getattr(self, name)), pa.string()) for name in ("ids", "urls", "media")}


_FIELDS = ("ids", "urls", "domains", "pages", "media")
_FIELDS_OF = {1: _FIELDS[:3], 2: _FIELDS[:4], FORMAT: _FIELDS}
"""What a list of each format has."""


class ListNotWhole(ValueError):
    """The suppression list lost something, and what that names would come back."""


@dataclass(frozen=True)
class Takedowns:
    """All requests. `slots`: the bytes of each numbered file; `requests`: digest -> key; `lists`: digests of the list
    as it was after each request. `unnumbered` are digests of requests that the last release wrote."""

    whole: Suppression
    slots: tuple[bytes, ...] = ()
    requests: Mapping[str, str] = field(default_factory=dict)
    lists: frozenset[str] = frozenset()
    unnumbered: frozenset[str] = frozenset()

    @property
    def newest(self) -> str | None:
        """The sha256 of the last numbered file."""
        return hashlib.sha256(self.slots[-1]).hexdigest() if self.slots else None

    def copy(self, store: Store) -> None:
        """Writes the copies that are not there: a killed request may have left its own out."""
        there = {info.key for info in store.list(COPIES)}
        for number, data in enumerate(self.slots, 1):
            if f"{COPIES}{number:08d}.json" not in there:
                store.create(f"{COPIES}{number:08d}.json", data)


def read_takedowns(store: Store) -> Takedowns:
    """Every request of the lake, checked: contents against digests, numbers without a gap, each file against the one
    after it and against its copy's size. Raises ListNotWhole with the file and what to do."""
    # Copies first: a request that is saved between the two lists must not look like one that was lost.
    copies = {PREFIX + info.key.removeprefix(COPIES): info.size for info in store.list(COPIES)}
    sizes = {info.key: info.size for info in store.list(PREFIX)}
    old = sorted(match[1] for key in sizes if (match := _UNNUMBERED.fullmatch(key)))
    numbered = sorted(key for key in {*sizes, *copies} if _NUMBERED.fullmatch(key))
    wanted = [f"{PREFIX}{number:08d}.json" for number in range(1, len(numbered) + 1)]
    for key in sorted({*wanted, *numbered}):
        if key not in sizes:
            raise _lost(store, key, "is missing")
        if copies.get(key, sizes[key]) != sizes[key]:
            raise _lost(store, key, f"has {sizes[key]:,} bytes, its copy has {copies[key]:,}")
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda digest: _parse(store, f"{PREFIX}{digest}.json", digest), old))
        slots = tuple(pool.map(lambda key: _bytes(store, key), wanted))
    requests = {digest: f"{PREFIX}{digest}.json" for digest in old}
    lists, previous = set(), None
    for number, (key, data) in enumerate(zip(wanted, slots, strict=True), 1):
        about = _about(store, key, data)
        if (about["number"], about["previous"]) != (number, previous):
            raise _lost(store, key, "is not the request of this number, or the one before it was changed")
        for digest in about["before"]:
            if digest not in requests:
                raise _lost(store, f"{PREFIX}{digest}.json", "is missing")
        parts.append(_parse(store, key, about["request"]))
        requests.setdefault(about["request"], key)
        lists.add(about["list"])
        previous = hashlib.sha256(data).hexdigest()
    return Takedowns(Suppression().union(parts), slots, requests, frozenset(lists), frozenset(old))


def _bytes(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFound:
        raise _lost(store, key, "is missing") from None


def _about(store: Store, key: str, data: bytes) -> dict[str, Any]:
    """What a numbered file says beside its entries. Raises ListNotWhole."""
    try:
        about = fields_of(data)
        kinds = {"number": int, "request": str, "list": str, "before": list}
        if all(isinstance(about[name], kind) for name, kind in kinds.items()) and "previous" in about:
            return about
        raise ValueError("it has fields of another kind")
    except (ValueError, KeyError) as error:
        raise _lost(store, key, f"is damaged ({in_words(error)})") from error


def _lost(store: Store, key: str, what: str) -> ListNotWhole:
    number = _NUMBERED.fullmatch(key)
    beside = f"{COPIES}{number[1]}.json" if number else ""
    copy = f" {beside} is its copy, if that is whole." if beside and store.info(beside) is not None else ""
    return ListNotWhole(
        f"{key} in {store.uri} {what}, and what it keeps out would come back: restore it from a copy of the lake.{copy}"
    )


def _parse(store: Store, key: str, digest: str) -> Suppression:
    try:
        data = fields_of(_bytes(store, key))
        if data["format"] in _FIELDS_OF and data["url_format"] == URL_FORMAT:
            names = _FIELDS_OF[data["format"]]
            entries = Suppression(**{name: frozenset(map(str, data[name])) for name in names})
            if entries.digest == digest:
                return entries
            raise ValueError(f"its entries have digest {entries.digest[:12]}, not {digest[:12]}")
        problem = f"it has format {data['format']} (URL format {data['url_format']}), not 1 to {FORMAT} ({URL_FORMAT})"
    except ListNotWhole:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _lost(store, key, f"is damaged ({in_words(error)})") from error
    remedy = "use the gristmill that wrote it, or make the request again with this one and move the file away"
    raise ListNotWhole(f"{key} in {store.uri}: {problem}: {remedy}")
