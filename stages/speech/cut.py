"""Cutting: a long file becomes segments, each of them a record, before anything else is done with it.

What the scan found are files; a pass over each says where it is cut (filters/audio/pauses.py), and the spans that are
read from then on have a row a segment: the same bytes, and from which second to which. So a segment has a fate, an
origin and a takedown as one of a manifest has. The segments are the children of the records that came in: counted as
they are cut, and as their rows lie in the table. A file that is short, or of which nothing can be heard or decoded, or
of whose parts a row speaks already, is one row, and its fate is that of any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from gristmill.filters.audio.pauses import Cut, frame_levels, segments
from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_table
from gristmill.model.processing.audio_file import MAX_SECONDS, AudioError, audio_blocks
from gristmill.model.processing.chat.conversation import BadSample
from gristmill.stages.containers import Item, OpenAt, ReadConfig, Record, Unreadable, read
from gristmill.stages.containers.span_table import SCHEMA as SPANS
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.reading import ReadPayload, judged, read_works
from gristmill.stages.read.scan import tally_of_spans
from gristmill.stages.run.runner import Runner
from gristmill.stages.speech.clips import header_of, part_of

SEGMENTS = pa.schema(
    [
        ("file", pa.int64()),  # ordinal of the record that it is of
        ("from", pa.float64()),  # seconds; null of a file that stays whole
        ("to", pa.float64()),
        ("fault", pa.string()),  # why nobody knows where it is to be cut
    ],
    metadata={"gristmill.format": "1"},
)
SEGMENT = "segment"
PIECE_SECONDS = 3600.0
"""Of segments that a piece of work reads and stores, up to 350 MB: a file of two hours is work for two."""


class Places(NamedTuple):
    """Where a record is cut, (start, end) in seconds; none: it stays whole. `fault`: of a reader that died over it."""

    places: tuple[tuple[float, float], ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class CutFacts:
    """How many files were cut, and into how many segments of how many seconds together."""

    files: int
    segments: int
    seconds: float


@dataclass(frozen=True)
class CutFiles(Stage[ReadPayload]):
    """Says where the files of a chunk are cut. `starts`: fields of a row that speaks of a part already."""

    name: ClassVar[str] = "cut"
    VERSION: ClassVar[int] = 2  # an Ogg or NIST file that is cut off stays whole, and its fate says so

    cut: Cut
    starts: tuple[str, ...]
    read: ReadConfig = field(default_factory=ReadConfig)
    seconds_per_record: float | None = 300.0

    def items(self, open_at: OpenAt, spans: pa.Table, kind: str) -> Iterator[Item]:
        """Whole rows, with their media."""
        return read(open_at, spans, kind, self.read, rows=True)

    def judge(self, item: Item) -> Places:
        """Where a record is cut: one of a single clip that is longer than it may be, and whose row names no part."""
        if isinstance(item, Unreadable) or item.row is None or len(item.media) != 1:
            return Places()
        (clip,) = item.media
        try:
            if clip.kind not in ("audio", "video") or part_of(item.row, self.starts, (), ()) is not None:
                return Places()
            header = header_of(clip, MAX_SECONDS)
            if header.seconds <= self.cut.longest_seconds:
                return Places()
            levels, hop = frame_levels(audio_blocks(clip.open(), max_seconds=MAX_SECONDS), header.rate)
        except (AudioError, BadSample):  # who reads it again says so, and that is its fate
            return Places()
        return Places(tuple(segments(levels, hop, self.cut)))

    def failed(self, reason: str) -> Places:
        """Of a record whose process died."""
        return Places(fault=f"no place to cut it was found: {reason}")

    def run(self, store: Store, work: Work[ReadPayload]) -> Outcome:
        """Output `segments`: a row or more for each record."""
        rows: list[dict[str, Any]] = []
        came, cut, faults = Tally(), list[tuple[tuple[float, float], ...]](), 0
        digest = work.payload.digest
        for item, (places, fault) in judged(self, store, work.payload):
            came += Tally.of(_key(digest, item.ordinal, n) for n in range(max(1, len(places))))
            for start, end in places or ((None, None),):
                rows.append({"file": item.ordinal, "from": start, "to": end, "fault": fault})
            cut += [places] if places else []
            faults += fault is not None
        table = pa.Table.from_pylist(rows, schema=SEGMENTS)
        seconds = sum(end - start for places in cut for start, end in places)
        return Outcome(
            outputs=(put_table(store, "segments", table),),
            passed=_files(digest, table),
            facts=CutFacts(len(cut), sum(map(len, cut)), round(seconds, 2)),
            machine_fates=faults,
            children_in=came,
            children={SEGMENT: _tally(digest, table)},
        )


def _key(digest: str, file: int, number: int) -> bytes:
    return f"{digest}/{file}/{number}".encode()


def _files(digest: str, table: pa.Table) -> Tally:
    """Of the records that have a row."""
    files = table["file"].unique().to_pylist()
    return Tally.of_records([digest] * len(files), files)


def _tally(digest: str, table: pa.Table) -> Tally:
    """Of rows of SEGMENTS, those of a file numbered as they follow each other."""
    numbered = ((file, n) for file, rows in groupby(table["file"].to_pylist()) for n, _ in enumerate(rows))
    return Tally.of(_key(digest, file, n) for file, n in numbered)


class CutInputs(NamedTuple):
    """Inputs whose records are segments; what was cut, and how many records have a fate that the machine decided."""

    inputs: tuple[ScannedInput, ...]
    facts: CutFacts
    machine_fates: int


def cut_inputs(runner: Runner, stage: CutFiles, inputs: Sequence[ScannedInput]) -> CutInputs:
    """Cuts the files of all inputs. Raises as `Runner.map`; BalanceError where a file was lost."""
    receipts = runner.map(stage.name, read_works(stage, inputs))
    check_balance(stage.name, total(file.tally for file in inputs), {"cut": total(r.passed for r in receipts)})
    facts = [receipt.facts_as(CutFacts) for receipt in receipts]
    left, cut = iter(receipts), list[ScannedInput]()
    for scanned in inputs:
        own = [next(left) for _ in scanned.chunks]
        tables = [read_table(runner.store, receipt.output("segments")) for receipt in own]
        spans = _spans(read_table(runner.store, scanned.spans), pa.concat_tables(tables))
        children = total(receipt.children[SEGMENT] for receipt in own)
        check_balance("segments", children, {"row": _tally(scanned.digest, spans)}, what="segments", end="row")
        chunks, first = list[tuple[int, int]](), 0
        for rows in (rows for table in tables for rows in _pieces(table)):
            chunks.append((first, rows))
            first += rows
        stored = put_table(runner.store, "spans", spans)
        tally = tally_of_spans(scanned.digest, spans)
        cut.append(replace(scanned, spans=stored, chunks=tuple(chunks), tally=tally))
    numbers = CutFacts(*(sum(getattr(own, name) for own in facts) for name in ("files", "segments", "seconds")))
    return CutInputs(tuple(cut), numbers, sum(receipt.machine_fates for receipt in receipts))


def _pieces(table: pa.Table) -> Iterator[int]:
    """Rows of each piece of work, which holds the segments that it reads: no more than are begun in PIECE_SECONDS."""
    rows, seconds = 0, 0.0
    for start, end in zip(table["from"].to_pylist(), table["to"].to_pylist(), strict=True):
        if rows and seconds >= PIECE_SECONDS:
            yield rows
            rows, seconds = 0, 0.0
        rows += 1
        seconds += 0.0 if start is None else end - start
    if rows:
        yield rows


def _spans(spans: pa.Table, table: pa.Table) -> pa.Table:
    """Spans with a row a segment, which are numbered anew; beside them the columns of SEGMENTS."""
    rows = spans.take(table["file"])
    rows = rows.set_column(0, SPANS.field("ordinal"), pa.array(range(rows.num_rows), pa.int64()))
    for name in SEGMENTS.names:
        rows = rows.append_column(SEGMENTS.field(name), table[name])
    return rows.replace_schema_metadata(spans.schema.metadata)


def read_segments(
    open_at: OpenAt, spans: pa.Table, kind: str, config: ReadConfig, fields: tuple[str, str]
) -> Iterator[Item]:
    """One item a row of spans that were cut: of a segment the whole row of its file, with the file, and in `fields`
    from which second to which. Each file is read once."""
    rows = spans.select(["ordinal", *SEGMENTS.names]).to_pylist()
    of_file = [list(group) for _, group in groupby(rows, key=lambda row: row["file"])]
    firsts, at = [], 0
    for group in of_file:
        firsts.append(at)
        at += len(group)
    files = spans.take(pa.array(firsts, pa.int64())).select(SPANS.names).replace_schema_metadata(spans.schema.metadata)
    for group, item in zip(of_file, read(open_at, files, kind, config, rows=True), strict=True):
        for row in group:
            yield _segment(item, row, fields)


def _segment(item: Item, row: dict[str, Any], fields: tuple[str, str]) -> Item:
    if row["fault"] is not None:
        return Unreadable(row["ordinal"], item.start, item.length, row["fault"], item.url)
    if isinstance(item, Record) and item.row is not None and row["from"] is not None:
        part = dict(zip(fields, (row["from"], row["to"]), strict=True))
        return item._replace(ordinal=row["ordinal"], row=item.row | part)
    return item._replace(ordinal=row["ordinal"])
