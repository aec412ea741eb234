"""Inputs: from patterns to a set of content digests, each scanned once in the life of a lake.

A file is known by its bytes. What was scanned before is found again by (address, size, time or etag), which is
only a shortcut: the digest decides. A file listed twice, or a copy at another path, is one input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lake.balance import Tally
from lake.identity import digest_of
from lake.objects import ObjectRef
from lake.receipt import Receipt
from lake.sources import InputInfo, expand, input_info
from lake.store import NotFound, Store
from stages.runner import Runner
from stages.scan import Scan
from stages.work import Work

SETTLED = 2.0
"""Seconds from a file's last change to its scan from which its time is trusted: a change after the scan must have
another time, and clocks of file systems are coarse."""


@dataclass(frozen=True)
class ScannedInput:
    """One input by content. `chunks` are (first row, rows) of the span table; `stamp` proves the file unchanged."""

    digest: str
    uris: tuple[str, ...]
    stamp: tuple[Any, ...]
    bytes: int
    kind: str
    spans: ObjectRef
    chunks: tuple[tuple[int, int], ...]
    tally: Tally

    @property
    def records(self) -> int:
        return self.tally.count


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """Every file that the patterns name, in order, once. Raises FileNotFoundError for one that names none.

    Raises ValueError for a name that is not UTF-8: the manifest, which names its inputs, could not be written.
    """
    uris = list(dict.fromkeys(uri for pattern in patterns for uri in expand(pattern)))
    for uri in uris:
        if not uri.isascii() and any("\ud800" <= char <= "\udfff" for char in uri):
            raise ValueError(f"input {uri!r}: its name is not UTF-8; rename it (the name is no part of any key)")
    return uris


def scan_inputs(runner: Runner, stage: Scan, uris: Sequence[str], limit: int | None = None) -> list[ScannedInput]:
    """The inputs by content, sorted by digest. `limit` takes only as many files, in order, as hold so many records."""
    if limit is None:
        receipts = _scan(runner, stage, uris)
    else:
        receipts, records = [], 0
        for uri in uris:
            receipts += _scan(runner, stage, [uri])
            records += receipts[-1][1].came_in.count
            if records >= limit:
                break
    found: dict[str, ScannedInput] = {}
    for info, receipt in receipts:
        one = _scanned(info, receipt)
        if one.digest in found:
            one = replace(found[one.digest], uris=(*found[one.digest].uris, info.uri))
        found[one.digest] = one
    return _limited([found[digest] for digest in sorted(found)], limit)


def _limited(inputs: list[ScannedInput], limit: int | None) -> list[ScannedInput]:
    if limit is None:
        return inputs
    result: list[ScannedInput] = []
    for one in inputs:
        chunks = []
        for first, rows in one.chunks:
            rows = min(rows, limit)
            limit -= rows
            if rows:
                chunks.append((first, rows))
        if chunks:
            rows = sum(n for _, n in chunks)
            tally = Tally.of_records([one.digest] * rows, range(rows))
            result.append(replace(one, chunks=tuple(chunks), tally=tally))
    return result


def _scan(runner: Runner, stage: Scan, uris: Sequence[str]) -> list[tuple[InputInfo, Receipt]]:
    infos = [input_info(uri) for uri in uris]
    works = []
    for info in infos:
        digest = _known(runner.store, info)
        inputs = None if digest is None else (digest,)
        works.append(Work(stage=stage, inputs=inputs, payload={"uri": info.uri}, label=info.uri))
    receipts = runner.map("scan", works)
    for info, work, receipt in zip(infos, works, receipts, strict=True):
        if work.inputs is None and info.modified + SETTLED < receipt.info["started"]:
            data = json.dumps({"format": 1, "digest": receipt.inputs[0]}).encode()
            runner.store.put(_fingerprint(info), data)
    return list(zip(infos, receipts, strict=True))


def _known(store: Store, info: InputInfo) -> str | None:
    try:
        return str(json.loads(store.get(_fingerprint(info)))["digest"])
    except NotFound:
        return None


def _fingerprint(info: InputInfo) -> str:
    key = digest_of(info.uri, str(info.size), repr(info.modified), info.etag or "")
    return f"inputs/{key[:2]}/{key}.json"


def _scanned(info: InputInfo, receipt: Receipt) -> ScannedInput:
    return ScannedInput(
        digest=receipt.inputs[0],
        uris=(info.uri,),
        stamp=tuple(info),
        bytes=receipt.facts["bytes"],
        kind=receipt.facts["kind"],
        spans=receipt.output("spans"),
        chunks=tuple((first, rows) for first, rows in receipt.facts["chunks"]),
        tally=receipt.came_in,
    )
