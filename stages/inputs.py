"""Inputs: from patterns to a set of content digests, each scanned once in the life of a lake.

A file is known by its bytes. What was scanned before is found again by (address, size, times or etag), which is
only a shortcut: the digest decides. A file listed twice, or a copy at another path, is one input.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from lake.balance import Tally
from lake.input_notes import known
from lake.manifest import InputFile
from lake.objects import ObjectRef
from lake.receipt import Receipt
from lake.sources import InputInfo, expand, input_info
from stages.containers import UnsupportedContainer
from stages.runner import Incomplete, Runner
from stages.scan import Scan
from stages.work import Work

log = logging.getLogger("gristmill")


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

    def as_input(self) -> InputFile:
        """As a manifest has it."""
        return InputFile(digest=self.digest, bytes=self.bytes, records=self.records, names=self.uris)


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
        receipts = []
        for uri in uris:
            receipts += _scan(runner, stage, [uri])
            different = {receipt.inputs[0]: receipt.came_in.count for _, receipt in receipts}
            if sum(different.values()) >= limit:
                break
    found: dict[str, ScannedInput] = {}
    for info, receipt in receipts:
        one = _scanned(info, receipt)
        if one.digest in found:
            one = replace(found[one.digest], uris=(*found[one.digest].uris, info.uri))
        found[one.digest] = one
    if len(found) < len(receipts):
        log.info("%d of %d files have the bytes of another and count once", len(receipts) - len(found), len(receipts))
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
    with ThreadPoolExecutor(16) as pool:
        infos = list(pool.map(input_info, uris))
    works = []
    for info in infos:
        inputs = known(runner.store, info)
        works.append(Work(stage=stage, inputs=inputs, payload={"uri": info.uri}, label=info.uri))
    try:
        receipts = runner.map("scan", works)
    except Incomplete as error:
        unsupported = [str(e) for e in error.errors if isinstance(e, UnsupportedContainer)]
        if unsupported:  # no rerun will help
            raise UnsupportedContainer("; ".join(unsupported)) from error
        raise
    return list(zip(infos, receipts, strict=True))


def _scanned(info: InputInfo, receipt: Receipt) -> ScannedInput:
    return ScannedInput(
        digest=receipt.inputs[0],
        uris=(info.uri,),
        stamp=info.stamp,
        bytes=receipt.facts["bytes"],
        kind=receipt.facts["kind"],
        spans=receipt.output("spans"),
        chunks=tuple((first, rows) for first, rows in receipt.facts["chunks"]),
        tally=receipt.came_in,
    )
