"""Inputs: from patterns to a set of content digests, each scanned once in the life of a lake.

A file is known by its bytes. An earlier scan of it is looked up by (address, size, times or etag), which is
only a shortcut: the digest decides. A file listed twice, or a copy at another path, is one input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.inputs.files import InputInfo
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import InputFile
from gristmill.stages.containers import UNREADABLE
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.scan import Alongside, Scan, ScanFacts
from gristmill.stages.read.scans import EmptyInputs, Scans
from gristmill.stages.run.runner import Runner

log = logging.getLogger("gristmill")


@dataclass(frozen=True)
class ScannedInput:
    """One input by content. `chunks` are (first row, rows) of the span table; `stamp` proves the file unchanged.
    `shard_of`: of a version of this lake, which and the number of the shard; its rows keep their ids."""

    digest: str
    uris: tuple[str, ...]
    stamp: tuple[Any, ...]
    bytes: int
    kind: str
    spans: ObjectRef
    chunks: tuple[tuple[int, int], ...]
    tally: Tally
    shard_of: str = ""

    @property
    def records(self) -> int:
        """How many spans the scan counted, damage among them: each gets a fate."""
        return self.tally.count

    def as_input(self) -> InputFile:
        """As a manifest has it."""
        names = (self.shard_of,) if self.shard_of else self.uris
        return InputFile(digest=self.digest, bytes=self.bytes, records=self.records, names=names)


def scan_inputs(
    runner: Runner,
    stage: Scan,
    files: Listing,
    limit: int | None = None,
    *,
    allow_empty: bool = False,
    quarantine: bool = False,
    along: Callable[[], Alongside | None] | None = None,
) -> list[ScannedInput]:
    """The inputs by content, sorted by digest. `limit` takes only as many files, in order, as hold so many records.
    `allow_empty`, `quarantine`, `along`: as in Scans; with a limit nobody reads along, as little is read of what is
    scanned.

    Raises UnsupportedContainer before any work, for all files that cannot be read, and EmptyInputs for files without
    a record, where nothing else is wanted of them, and where there is nothing but files that cannot be read.
    """
    scans = Scans(runner, stage, allow_empty, quarantine, along if limit is None else None)
    if limit is None:
        receipts = scans.of(files)
    else:
        # One after the other: a preview of a crawl must not scan all of it. Faults of the listing are raised first.
        receipts = []
        for number, uri in enumerate(files.uris):
            receipts += scans.of(Listing([uri], [] if number else files.faults))
            different = {receipt.inputs[0]: receipt.received.count for _, receipt in receipts}
            if sum(different.values()) >= limit:
                break
    by_digest: dict[str, ScannedInput] = {}
    for info, receipt in receipts:
        scanned = _scanned(info, receipt)
        before = by_digest.get(scanned.digest)
        by_digest[scanned.digest] = scanned if before is None else _copies(before, scanned)
    if by_digest and not allow_empty and all(scanned.kind == UNREADABLE for scanned in by_digest.values()):
        raise EmptyInputs(f"none of {len(receipts)} files can be read")
    if copies := len(receipts) - len(by_digest):
        log.info("%d of %d files have the bytes of another and count once", copies, len(receipts))
    return _limited([by_digest[digest] for digest in sorted(by_digest)], limit)


def _copies(a: ScannedInput, b: ScannedInput) -> ScannedInput:
    """Two inputs with the same bytes as one. A name may tell a format that the bytes do not, so one of them can be
    unreadable; which of two faults counts does not depend on the order in which they were listed."""

    def order(scanned: ScannedInput) -> tuple[bool, str]:
        return (True, scanned.spans.sha256) if scanned.kind == UNREADABLE else (False, "")

    first, second = sorted((a, b), key=order)
    return replace(first, uris=(*first.uris, *second.uris))


def _limited(inputs: list[ScannedInput], limit: int | None) -> list[ScannedInput]:
    """The inputs up to the record with which `limit` is reached; the last chunk is cut, and tallies are of the rest."""
    if limit is None:
        return inputs
    result: list[ScannedInput] = []
    for scanned in inputs:
        chunks = []
        for first, rows in scanned.chunks:
            rows = min(rows, limit)
            limit -= rows
            if rows:
                chunks.append((first, rows))
        if chunks:
            rows = sum(n for _, n in chunks)
            tally = Tally.of_records([scanned.digest] * rows, range(rows))
            result.append(replace(scanned, chunks=tuple(chunks), tally=tally))
    return result


def _scanned(info: InputInfo, receipt: Receipt) -> ScannedInput:
    facts = receipt.facts_as(ScanFacts)
    return ScannedInput(
        digest=receipt.inputs[0],
        uris=(info.uri,),
        stamp=info.stamp,
        bytes=facts.bytes,
        kind=facts.kind,
        spans=receipt.output("spans"),
        chunks=facts.chunks,
        tally=receipt.received,
    )
