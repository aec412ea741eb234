"""Scan: the input side of the balance. One pass over a file: its digest, and where each of its records stands.

The boundary scan shares no code with the reader, tiles the whole file with spans (damage is a span too), and
counts them. Extraction is later cut along these spans into chunks of bounded size, so that one large file is
work for many. The cut depends on content and config alone, never on the number of workers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.inputs.files import InputInfo
from gristmill.lake.inputs.notes import remember
from gristmill.lake.inputs.sources import input_info, open_input
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.stages.containers import UNREADABLE, ScanResult, detect, reads_along, scan
from gristmill.stages.containers.span_table import SCHEMA
from gristmill.stages.core.work import Outcome, Stage, Work

HEAD_BYTES = 4096
READ_BYTES = 1 << 20
NO_RECORD = "it holds no record"
SETTLED = 2.0
"""Seconds from a file's last change to its scan from which its time is trusted: a change after the scan must have
another time, and clocks of file systems are coarse."""


class ScanAlong(Protocol):
    """A scan in whose course records were read; it is left when the scan is over."""

    @property
    def result(self) -> ScanResult:
        """What every scan comes to."""
        ...

    def prove(self, store: Store, info: InputInfo, outcome: Outcome) -> None:
        """Writes what was read, and a receipt for every chunk of which all is read, now that the input has a digest."""
        ...


class ReadsAlong(Protocol):
    """Who reads records while their file is scanned (stages/read/along.py). It travels to where the scan runs."""

    def scan(self, uri: str, kind: str) -> AbstractContextManager[ScanAlong]:
        """Scans an input from its beginning to its end, and reads as much of it as can be. Raises as `scan`."""
        ...


class Alongside(NamedTuple):
    """Who reads along, and the sizes of inputs that were read before, under whatever name."""

    reader: ReadsAlong
    sizes: Collection[int]


@dataclass(frozen=True)
class ScanPayload:
    """Where the input lies. `fault`: why it cannot be read, where that is known: it is one span, with this error.
    `along`: who reads its records meanwhile; None: they are read afterwards, which comes to the same."""

    uri: str
    fault: str = ""
    along: ReadsAlong | None = None


class _Before(NamedTuple):
    """When a scan began (seconds since 1970), and what its file was like then."""

    started: float
    info: InputInfo


@dataclass(frozen=True)
class ScanFacts:
    """What is known of an input after its scan: its container, its bytes as stored, and the chunks that it is read in
    (first row of the span table, rows)."""

    kind: str
    bytes: int
    chunks: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Scan(Stage[ScanPayload]):
    """A chunk is closed after `chunk_bytes` decompressed bytes or `chunk_records`. One record is never cut.

    Both bound what one piece of work holds in memory: 64 MiB of lines that say `{}` are 20 million records.
    """

    name: ClassVar[str] = "scan"
    VERSION: ClassVar[int] = 2

    chunk_bytes: int = 64 << 20
    chunk_records: int = 200_000

    def __post_init__(self) -> None:
        for name in ("chunk_bytes", "chunk_records"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1")

    def run(self, store: Store, work: Work[ScanPayload]) -> Outcome:
        """Outputs `spans`. Raises OSError for a file that changes meanwhile, or is not the one it was."""
        uri, fault, along = work.payload.uri, work.payload.fault, work.payload.along
        before = _Before(time.time(), input_info(uri))
        if fault:
            return self._outcome(store, work, before, UNREADABLE, _whole(uri, fault))
        with open_input(uri) as stream:
            kind = detect(PurePosixPath(uri).name, stream.read(HEAD_BYTES))
        if along is None or not reads_along(kind):
            with open_input(uri) as stream:
                result = scan(stream, kind)
            return self._outcome(store, work, before, kind, result)
        with along.scan(uri, kind) as scanned:
            outcome = self._outcome(store, work, before, kind, scanned.result)
            scanned.prove(store, before.info, outcome)
            return outcome

    def _outcome(
        self, store: Store, work: Work[ScanPayload], before: _Before, kind: str, result: ScanResult
    ) -> Outcome:
        """Stores the spans, if the file is what it was `before`. Raises as `run`."""
        uri, fault, info = work.payload.uri, work.payload.fault, before.info
        if input_info(uri).stamp != info.stamp:
            raise OSError(f"{uri} changed while it was read: wait until it is complete, then run again")
        if result.size != info.size:  # a server that ends too early; what is missing may be whole records
            raise OSError(
                f"{uri} has {info.size} bytes, and {result.size} came: run again, or copy it and name the copy"
            )
        inputs = scan_inputs_of(result.sha256, kind, fault)
        if work.inputs is not None and work.inputs != inputs:
            raise OSError(f"{uri} is not the file it was: expected {work.inputs}, found {inputs}")
        # Remembered by size and times, so only where these can be trusted to tell a later change. Of a file without a
        # record it was remembered already what it is.
        if max(info.modified, info.changed) + SETTLED < before.started and fault != NO_RECORD:
            remember(store, info, (result.sha256, kind))
        spans = result.spans
        received = tally_of_spans(result.sha256, spans)
        return Outcome(
            outputs=(put_table(store, "spans", spans),),
            passed=received,
            received=received,
            inputs=inputs,
            facts=ScanFacts(kind, result.size, tuple(chunks(spans, self.chunk_bytes, self.chunk_records))),
        )


def scan_inputs_of(digest: str, kind: str, fault: str = "") -> tuple[str, ...]:
    """The inputs of the work: the name can decide the kind, where the bytes do not; and why a file cannot be read."""
    return (digest, kind, fault) if fault else (digest, kind)


def _whole(uri: str, fault: str) -> ScanResult:
    """A file that no container reads: one span."""
    digest, size = hashlib.sha256(), 0
    with open_input(uri) as stream:
        while data := stream.read(READ_BYTES):
            digest.update(data)
            size += len(data)
    span = {"ordinal": 0, "start": 0, "length": size, "c_start": 0, "skip": 0, "error": fault}
    return ScanResult(digest.hexdigest(), size, pa.Table.from_pylist([span], schema=SCHEMA))


def chunks(spans: pa.Table, chunk_bytes: int, chunk_records: int) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of each chunk, in order."""
    first, ends = 0, np.cumsum(spans["length"].to_numpy())
    while first < spans.num_rows:
        before = int(ends[first - 1]) if first else 0
        full = int(np.searchsorted(ends, before + chunk_bytes)) + 1  # behind the record with which it is full
        end = min(full, first + chunk_records, spans.num_rows)
        yield int(first), int(end - first)
        first = end


def tally_of_spans(digest: str, spans: pa.Table) -> Tally:
    """The tally of the records of an input, by their places."""
    return Tally.of_records([digest] * spans.num_rows, range(spans.num_rows))
