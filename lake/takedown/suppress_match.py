"""Matching whole columns against the suppression list: values in a set, URLs on listed domains or of listed pages.

A domain covers its subdomains. Each distinct scheme and host of a column is judged once, and only of hosts that have a
listed page is every URL looked at.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.takedown.suppress_entries import LONGEST, domain_hash, host_hash, host_in, page_hash

_HEAD = r"(?s)^[\x00-\x20]*(?P<head>(?:[^/?#]*//)?[^/?#]*)"
"""The part of a URL that has the host: all before path, query and fragment."""


def is_in(values: pa.Array | pa.ChunkedArray, wanted: pa.Array) -> np.ndarray:
    """Which values are among those wanted: bool, one a row."""
    hits = pc.is_in(values, wanted)
    return np.asarray(hits.to_numpy() if isinstance(hits, pa.ChunkedArray) else hits.to_numpy(zero_copy_only=False))


def on_listed_host(urls: pa.Array | pa.ChunkedArray, domains: Collection[str], pages: Collection[str]) -> np.ndarray:
    """Which URLs are on a listed domain or are a listed page: bool, one a row. `domains`, `pages`: hashes."""
    plain = pc.replace_substring_regex(urls, r"[\t\r\n]", "")  # as every URL parser does
    heads = pc.struct_field(pc.extract_regex(plain, _HEAD), "head")
    coded = (heads.combine_chunks() if isinstance(heads, pa.ChunkedArray) else heads).dictionary_encode()
    hosts = [host_in(head) for head in coded.dictionary.to_pylist()]
    known: dict[str, bool] = {}
    places = pc.fill_null(coded.indices, len(hosts)).to_numpy(zero_copy_only=False)  # the last: rows without a URL
    hit: np.ndarray = np.array([_covers(host, domains, known) for host in hosts] + [False])[places]
    if pages:
        listed = {page[:16] for page in pages}  # the entry of a page begins with the hash of its host
        near = np.array([host_hash(host) in listed for host in hosts] + [False])[places]
        for row in np.flatnonzero(near & ~hit):
            hit[row] = page_hash(urls[int(row)].as_py()) in pages
    return hit


def _covers(host: str, domains: Collection[str], known: dict[str, bool]) -> bool:
    """Whether the host or a domain above it is listed. `known`: hosts of one site share what is above them.

    Only what a listed domain could be is hashed, so that no crafted host costs more than another.
    """
    if host in known:
        return known[host]
    tried: list[str] = []
    at = host if len(host) <= LONGEST else host[-LONGEST:].partition(".")[2]
    covered = False
    while at and not covered:
        covered = known[at] if at in known else domain_hash(at) in domains
        if at in known:
            break
        tried.append(at)
        at = at.partition(".")[2]
    known.update(dict.fromkeys([*tried, host], covered))
    return covered
