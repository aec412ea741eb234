"""Scan: the input side of the balance. One pass over a file: its digest, and where each of its records stands.

The boundary scan shares no code with the reader, tiles the whole file with spans (damage is a span too), and
counts them. Extraction is later cut along these spans into chunks of bounded size, so that one large file is
work for many. The cut depends on content and config alone, never on the number of workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import pyarrow as pa

from lake.balance import Tally
from lake.identity import digest_of
from lake.objects import put_table
from lake.receipt import StageId
from lake.sources import InputInfo, input_info, open_input
from lake.store import NotFound, Store
from stages.containers import detect
from stages.containers.spans import scan
from stages.work import Outcome, Work, stage_id

HEAD_BYTES = 4096
SETTLED = 2.0
"""Seconds from a file's last change to its scan from which its time is trusted: a change after the scan must have
another time, and clocks of file systems are coarse."""


@dataclass(frozen=True)
class Scan:
    """`chunk_bytes`: decompressed bytes after which a chunk is closed. One record is never cut."""

    name: ClassVar[str] = "scan"
    VERSION: ClassVar[int] = 1

    chunk_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.chunk_bytes < 1:
            raise ValueError(f"chunk_bytes={self.chunk_bytes}: at least 1")

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        uri = work.payload["uri"]
        started, before = time.time(), input_info(uri)
        with open_input(uri) as stream:
            kind = detect(PurePosixPath(uri).name, stream.read(HEAD_BYTES))
        with open_input(uri) as stream:
            result = scan(stream, kind)
        if input_info(uri).stamp != before.stamp:
            raise OSError(f"{uri} changed while it was read: wait until it is complete, then run again")
        if work.inputs is not None and work.inputs != (result.sha256,):
            raise OSError(f"{uri} is not the file it was: expected sha256 {work.inputs[0]}, found {result.sha256}")
        if max(before.modified, before.changed) + SETTLED < started:
            remember_digest(store, before, result.sha256)
        spans = result.spans
        came_in = tally_of_spans(result.sha256, spans)
        return Outcome(
            outputs=(put_table(store, "spans", spans),),
            passed=came_in,
            came_in=came_in,
            inputs=(result.sha256,),
            facts={
                "kind": kind,
                "bytes": result.size,
                "chunks": [list(chunk) for chunk in chunks(spans, self.chunk_bytes)],
            },
        )


def known_digest(store: Store, info: InputInfo) -> str | None:
    """The digest found when this file was scanned; None if it was not, or has changed since."""
    try:
        return str(json.loads(store.get(_fingerprint(info)))["digest"])
    except NotFound:
        return None


def remember_digest(store: Store, info: InputInfo, digest: str) -> None:
    """A shortcut and no proof: a killed run may leave it without a receipt, and then the file is scanned again."""
    store.put(_fingerprint(info), json.dumps({"format": 1, "digest": digest}).encode())


def _fingerprint(info: InputInfo) -> str:
    key = digest_of(info.uri, str(info.size), repr(info.modified), repr(info.changed), info.etag or "")
    return f"inputs/{key[:2]}/{key}.json"


def chunks(spans: pa.Table, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each chunk, in order."""
    first = size = 0
    for row, length in enumerate(spans["length"].to_pylist()):
        size += length
        if size >= chunk_bytes:
            yield first, row + 1 - first
            first, size = row + 1, 0
    if first < spans.num_rows:
        yield first, spans.num_rows - first


def tally_of_spans(digest: str, spans: pa.Table) -> Tally:
    return Tally.of_records([digest] * spans.num_rows, spans["ordinal"].to_pylist())
