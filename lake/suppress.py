"""The suppression list: what was asked to be forgotten, and must not come back with a later crawl.

Ids, URLs and domains are personal data, so the list holds hashes and never the thing itself. Each request is one
create-only file named after its entries: two requests at once both count, the same request twice is one, and the
union is the list, whose digest enters every run key. A domain covers its subdomains: every suffix of a host is hashed.
The hashes have no salt (a run must match them), so who guesses a domain can confirm it: they hide, they do not seal.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.identity import URL_FORMAT, digest_of, is_record_id, normalise_url, url_hash
from lake.objects import ObjectRef, put_file, scratch
from lake.receipt import canonical
from lake.sealed import fields_of
from lake.store import Store

FORMAT = 1
PREFIX = "suppressions/"
_NAME = re.compile(PREFIX + r"([0-9a-f]{64})\.json")
_HEAD = r"(?s)^[\x00-\x20]*(?P<head>(?:[^/?#]*//)?[^/?#]*)"
"""The part of a URL that has the host: all before path, query and fragment."""
_LONGEST = 253
"""Characters of a domain name (RFC 1035, section 2.3.4, as text)."""


@dataclass(frozen=True)
class Suppression:
    """`ids` are record ids, `urls` their first halves (`url_hash`), `domains` hashes of hosts: hex, all of them."""

    ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    @classmethod
    def of(cls, ids: Iterable[str] = (), urls: Iterable[str] = (), domains: Iterable[str] = ()) -> Suppression:
        """From what people write. Raises ValueError for the first entry that is none."""
        return cls(
            frozenset(map(id_entry, ids)), frozenset(map(url_entry, urls)), frozenset(map(domain_entry, domains))
        )

    @classmethod
    def load(cls, store: Store) -> Suppression:
        """Everything that was ever asked of this lake. Raises ValueError for a file that cannot be read whole:
        what it names would come back."""
        keys = [info.key for info in store.list(PREFIX) if _NAME.fullmatch(info.key)]
        with ThreadPoolExecutor(8) as pool:
            return cls().union(pool.map(lambda key: _parse(store, key, key[len(PREFIX) : -len(".json")]), keys))

    def union(self, others: Iterable[Suppression]) -> Suppression:
        every = [self, *others]
        return Suppression(*(frozenset().union(*(getattr(one, name) for one in every)) for name in _FIELDS))

    def __bool__(self) -> bool:
        return bool(self.ids or self.urls or self.domains)

    @cached_property
    def digest(self) -> str:
        """Of the entries alone, however many requests they came in; "" for none, so that run keys stay as they were."""
        return digest_of(b"suppression", canonical(self._entries())) if self else ""

    def _entries(self) -> dict[str, Any]:
        return {"format": FORMAT, "url_format": URL_FORMAT, **{name: sorted(getattr(self, name)) for name in _FIELDS}}

    def save(self, store: Store, reason: str) -> str:
        """Puts the request on the list for good and returns its key; of equal requests the first reason stays."""
        if not self:
            raise ValueError("suppression: the request has no entries; give at least one id, URL or domain")
        key = f"{PREFIX}{self.digest}.json"
        about = {"reason": reason, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        if not store.create(key, json.dumps({**self._entries(), **about}, indent=1).encode()):
            _parse(store, key, self.digest)  # a damaged file of this name would keep nothing out
        return key

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
        """Which records are on the list: bool, one a row. Without `urls` no domain matches."""
        hit = np.zeros(len(ids), dtype=bool)
        if self.ids:
            hit |= _is_in(ids, self._sets["ids"])
        if self.urls:
            hit |= _is_in(pc.utf8_slice_codeunits(ids, 0, 16), self._sets["urls"])
        if self.domains and urls is not None:
            hit |= self._on_domain(urls)
        return hit

    @cached_property
    def _sets(self) -> dict[str, pa.Array]:
        return {name: pa.array(sorted(getattr(self, name)), pa.string()) for name in ("ids", "urls")}

    def _on_domain(self, urls: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Scheme and host are cut out at once; each distinct one is hashed once."""
        plain = pc.replace_substring_regex(urls, r"[\t\r\n]", "")  # as every URL parser does
        heads = pc.struct_field(pc.extract_regex(plain, _HEAD), "head")
        if isinstance(heads, pa.ChunkedArray):
            heads = heads.combine_chunks()
        coded = heads.dictionary_encode()
        known: dict[str, bool] = {}
        covered = np.array([self._covers(_host(head), known) for head in coded.dictionary.to_pylist()] + [False])
        return covered[pc.fill_null(coded.indices, len(covered) - 1).to_numpy(zero_copy_only=False)]

    def _covers(self, host: str, known: dict[str, bool]) -> bool:
        """Whether the host or a domain above it is listed. `known`: hosts of one site share what is above them.

        Only what a listed domain could be is hashed, so that no crafted host costs more than another.
        """
        if host in known:
            return known[host]
        tried: list[str] = []
        at = host if len(host) <= _LONGEST else host[-_LONGEST:].partition(".")[2]
        found = False
        while at and not found:
            found = known[at] if at in known else domain_hash(at) in self.domains
            if at in known:
                break
            tried.append(at)
            at = at.partition(".")[2]
        known.update(dict.fromkeys([*tried, host], found))
        return found


_FIELDS = ("ids", "urls", "domains")


def _is_in(values: pa.Array | pa.ChunkedArray, wanted: pa.Array) -> np.ndarray:
    found = pc.is_in(values, wanted)
    return np.asarray(found.to_numpy() if isinstance(found, pa.ChunkedArray) else found.to_numpy(zero_copy_only=False))


def _parse(store: Store, key: str, digest: str) -> Suppression:
    try:
        data = fields_of(store.get(key))
        if (data["format"], data["url_format"]) == (FORMAT, URL_FORMAT):
            found = Suppression(*(frozenset(map(str, data[name])) for name in _FIELDS))
            if found.digest == digest:
                return found
            raise ValueError(f"its entries have digest {found.digest[:12]}, not {digest[:12]}")
        said = f"it has format {data['format']} (URL format {data['url_format']}), not {FORMAT} ({URL_FORMAT})"
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{key} in {store.uri} is damaged ({error}), and what it keeps out would come back: restore it from a copy"
            " of the lake"
        ) from error
    raise ValueError(
        f"{key} in {store.uri}: {said}: use the gristmill that wrote it, or make the request again with this one"
        " and move the file away"
    )


def id_entry(text: str) -> str:
    """A record id as `grist why` shows it. Raises ValueError."""
    if not is_record_id(text.lower()):
        raise ValueError(f"{text!r} is no record id: 32 hex characters, as `grist why URL` shows them")
    return text.lower()


def url_entry(text: str) -> str:
    """The hash of an absolute URL, in normal form. Raises ValueError."""
    try:
        parts = urlsplit(normalise_url(text))
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not parts.netloc:
        raise ValueError(
            f"{text!r} is no absolute URL: such as https://example.org/page; a record without one is named by its id"
        )
    return url_hash(text)


def domain_entry(text: str) -> str:
    """The hash of a bare domain; it will cover its subdomains. Raises ValueError."""
    host = normalise_host(text)
    labels = host.split(".")
    if not host.isascii() or not re.fullmatch(r"[a-z0-9_.-]+", host) or "" in labels or len(host) > _LONGEST:
        raise ValueError(
            f"{text!r} is no domain: a bare name such as example.org, without scheme, port or path; its subdomains are"
            " covered by it. For one page use its URL"
        )
    if len(labels) < 2 or (labels[-1].isdigit() and not _is_ipv4(host)):
        raise ValueError(
            f"{text!r} would cover a whole top level or network: at least two labels, such as example.org, or a whole"
            " IPv4 address"
        )
    return domain_hash(host)


def _is_ipv4(host: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False


def domain_hash(host: str) -> str:
    """Of a host in normal form: 32 hex characters."""
    return hashlib.blake2b(f"domain.1\0{host}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def normalise_host(host: str) -> str:
    """Lower case, percent-encodings undone, other scripts in IDNA (2003, as in record ids), no dot at the end."""
    host = (unquote(host) if "%" in host else host).strip()
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:  # not a legal name; as it stands it still identifies
            host = host.casefold()
    return host.lower().rstrip(".")


def _host(head: str) -> str:
    """The host in `scheme://user@host:port`; where there is no scheme, in what stands first."""
    before, slashes, after = head.partition("//")
    authority = after if slashes and (not before or before.endswith(":")) else before
    address = authority.rpartition("@")[2]
    return normalise_host(address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0])
