"""Decontamination: records with an image of a benchmark are dropped, whatever is said of it.

The images of a benchmark's versions are decoded once; of each its digest and its look are kept (filters/image/look.py).
Every image of a record is compared with all of them: equal bytes, else looks that agree in as many bits as near
duplicates have to. Bands would miss a third of the copies that differ in 10 bits (docs/decisions/17), and benchmarks
are small: 50,000 images cost a picture less than a hundredth of what decoding it does. The value of a dropped record
names the image of the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.image.look import BITS, look
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, put_table, read_refs, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.processing.image_file import MOST_PIXELS, decode_image
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, KEYS_SCHEMA, Chunk, Passed, Records, alive_batches, put_verdicts
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.vision.sign import MIN_SIMILARITY

NAME = "benchmark"
SAME, SIMILAR = "same_image", "similar_image"
LOOKS = pa.schema(
    [("id", pa.string()), ("position", pa.int32()), ("sha256", pa.string()), ("look", pa.uint64())],
    metadata={"gristmill.format": "1"},
)
"""Images of a benchmark: the record of each, and its place among the media of that, from 0."""
REPORT = pa.schema(
    [
        ("version", pa.string()),  # of the benchmark
        ("item", pa.string()),  # id of its record
        ("position", pa.int32()),
        ("how", pa.string()),  # same_image, similar_image
        ("records", pa.int64()),  # that were dropped because of it
    ],
    metadata={"gristmill.format": "1"},
)
_VERDICTS = pa.schema(
    [*KEYS_SCHEMA, (f"{NAME}.similarity", pa.float64()), (f"{NAME}.item", pa.int64()), ("reason", pa.string())]
)
_BLOCK = 1 << 22
"""Pairs of looks that are compared at a time: 40 MB."""


@dataclass(frozen=True)
class Decontaminate:
    """`against`: exact versions of benchmarks (NAME@vN), datasets of the vision pipeline. `min_similarity`: the share
    of the bits of a look in which an image agrees with one of theirs to be taken for it; None: equal bytes alone."""

    against: tuple[str, ...] = ()
    min_similarity: float | None = MIN_SIMILARITY

    def __post_init__(self) -> None:
        if not self.against or len(set(self.against)) < len(self.against):
            raise ValueError(f"against={list(self.against)}: name at least one version, and each once")
        if self.min_similarity is not None and not 0.5 < self.min_similarity <= 1:
            raise ValueError(f"min_similarity={self.min_similarity}: more than 0.5, up to 1, or null")

    @property
    def max_bits(self) -> int:
        """In how many bits two looks may differ; -1: looks are not compared."""
        return -1 if self.min_similarity is None else int((1 - self.min_similarity) * BITS + 1e-9)


@dataclass(frozen=True)
class LookAtBenchmark(Stage[ObjectRef]):
    """Looks at the images of a shard of a benchmark; one row group in memory at a time."""

    name: ClassVar[str] = "look_at_benchmark"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[ObjectRef]) -> Outcome:
        """Output `benchmark_looks` (LOOKS). Raises DamagedObject, and ValueError for an image that is read no more."""
        rows: list[dict[str, object]] = []
        with open_parquet(store, work.payload) as file:
            for group in range(file.num_row_groups):
                for record in file.read_row_group(group, columns=["id", "media"]).to_pylist():
                    rows += _looks_of(record["id"], record["media"])
        return Outcome(
            outputs=(put_table(store, "benchmark_looks", pa.Table.from_pylist(rows, schema=LOOKS)),), received=Tally()
        )


def _looks_of(record: str, media: Sequence[dict]) -> Iterator[dict[str, object]]:
    for position, medium in enumerate(media):
        if medium["kind"] == "image":
            pixels = decode_image(medium["data"], MOST_PIXELS)
            yield {"id": record, "position": position, "sha256": medium["sha256"], "look": look(pixels)}


class Match(NamedTuple):
    """What an image of a record is: an image of the benchmark, by its number, and in what share of bits they agree."""

    how: str
    item: int
    similarity: float


class Benchmark:
    """Images of benchmarks, numbered through. `versions`: the version that each is of."""

    def __init__(self, tables: Sequence[tuple[str, pa.Table]]) -> None:
        self.table = pa.concat_tables([LOOKS.empty_table(), *(table for _, table in tables)])
        self.versions = [version for version, table in tables for _ in range(table.num_rows)]
        self._by_digest: dict[str, int] = {}
        for number, sha256 in enumerate(self.table["sha256"].to_pylist()):
            self._by_digest.setdefault(sha256, number)
        self._looks = self.table["look"].to_numpy()

    def matches(self, digests: Sequence[str], looks: np.ndarray, max_bits: int) -> list[Match | None]:
        """Of each image, uint64 looks [images], the image of a benchmark that it is: the first with its bytes, else the
        closest."""
        closest_of: list[Match | None] = [self._same(sha256) for sha256 in digests]
        if max_bits < 0 or not len(self._looks):
            return closest_of
        per_block = max(1, _BLOCK // len(self._looks))
        for first in range(0, len(looks), per_block):
            bits = np.bitwise_count(looks[first : first + per_block, None] ^ self._looks[None, :])
            closest = bits.argmin(axis=1)
            for place, item in enumerate(closest.tolist(), first):
                differ = int(bits[place - first, item])
                if closest_of[place] is None and differ <= max_bits:
                    closest_of[place] = Match(SIMILAR, item, 1 - differ / BITS)
        return closest_of

    def _same(self, sha256: str) -> Match | None:
        item = self._by_digest.get(sha256)
        return None if item is None else Match(SAME, item, 1.0)

    def name(self, item: int) -> str:
        """The record of an image, and its number there if it has several."""
        record, position = self.table["id"][item].as_py(), self.table["position"][item].as_py()
        return f"image {position + 1} of {record} of {self.versions[item]}"


@dataclass(frozen=True)
class FindPayload:
    """A chunk, the exclusions before it, and (version, LOOKS) of each shard of the benchmarks."""

    chunk: Chunk
    exclusions: ObjectRef
    benchmarks: tuple[tuple[str, ObjectRef], ...]


@dataclass(frozen=True)
class FindBenchmarks(Stage[FindPayload]):
    """Drops the records of a chunk with an image of a benchmark: one is enough."""

    name: ClassVar[str] = "find_benchmarks"
    VERSION: ClassVar[int] = 1

    decontaminate: Decontaminate

    def run(self, store: Store, work: Work[FindPayload]) -> Outcome:
        """Outputs `screened`: keys, reason, the closest image of a benchmark and how close; and fates."""
        payload = work.payload
        benchmark = load(store, payload.benchmarks)
        fates, tables, passed_bytes, received = Fates(), [pa.Table.from_pylist([], schema=_VERDICTS)], 0, Tally()
        columns = [*KEYS, "digests", "looks", "bytes"]
        for rows in alive_batches(store, payload.chunk, columns, read_refs(store, payload.exclusions)):
            received += ledger.tally(rows)
            table = self._judged(rows, benchmark, fates)
            passed_bytes += pc.sum(pc.filter(rows["bytes"], pc.is_null(table["reason"].combine_chunks()))).as_py() or 0
            tables.append(table)
        verdicts = pa.concat_tables(tables)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_verdicts(store, verdicts), written),
            received=received,
            passed=ledger.tally(verdicts.filter(pc.is_null(verdicts["reason"]))),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Passed(passed_bytes),
        )

    def _judged(self, rows: pa.RecordBatch, benchmark: Benchmark, fates: Fates) -> pa.Table:
        own_looks = rows["looks"].to_pylist()
        # Behind the digests of images stand those of videos, which have no look.
        digests = [own[: len(seen)] for own, seen in zip(rows["digests"].to_pylist(), own_looks, strict=True)]
        looks = np.array([bits for of_record in own_looks for bits in of_record], np.uint64)
        flat = [sha256 for of_record in digests for sha256 in of_record]
        matches = iter(benchmark.matches(flat, looks, self.decontaminate.max_bits))
        judged = []
        for record, own in zip(rows.select(list(KEYS)).to_pylist(), digests, strict=True):
            of_record = [(next(matches), number) for number in range(1, len(own) + 1)]
            match, number = next(((match, number) for match, number in of_record if match is not None), (None, 0))
            row = {**record, f"{NAME}.similarity": None, f"{NAME}.item": None, "reason": None}
            if match is not None:
                row |= {f"{NAME}.similarity": match.similarity, f"{NAME}.item": match.item}
                row["reason"] = f"{NAME}.{match.how}"
                close = "" if match.how == SAME else f", alike in {match.similarity:.0%} of bits"
                message = f"image {number} is {benchmark.name(match.item)}{close}"
                fates.add(record, "dropped", row["reason"], error=message)
            judged.append(row)
        return pa.Table.from_pylist(judged, schema=_VERDICTS)


def load(store: Store, benchmarks: Sequence[tuple[str, ObjectRef]]) -> Benchmark:
    """The images of these shards."""
    return Benchmark([(version, read_table(store, ref)) for version, ref in benchmarks])


def look_works(benchmarks: Sequence[Manifest]) -> list[Work[ObjectRef]]:
    """One Work a shard."""
    return [
        Work(LookAtBenchmark(), (ref.sha256,), ref, label=f"{manifest} shard {number}")
        for manifest in benchmarks
        for number, ref in enumerate(manifest.shards)
    ]


def find_works(
    stage: FindBenchmarks, store: Store, records: Records, benchmarks: Sequence[tuple[str, ObjectRef]]
) -> list[Work[FindPayload]]:
    """One Work a chunk. `benchmarks`: (version, LOOKS) of each shard."""
    excluded = records.put_exclusions(store)
    compared = [f"{version} {ref.sha256}" for version, ref in benchmarks]
    return [
        Work(
            stage,
            (*chunk.digests, excluded.sha256, *compared),
            FindPayload(chunk, excluded, tuple(benchmarks)),
            label=chunk.label,
        )
        for chunk in records.chunks
    ]


def report(store: Store, benchmarks: Sequence[tuple[str, ObjectRef]], receipts: Sequence[Receipt]) -> pa.Table:
    """REPORT of what these works found: which images of benchmarks, and in how many records."""
    benchmark, counts = load(store, benchmarks), dict[tuple[int, str], int]()
    for receipt in receipts:
        rows = read_table(store, receipt.output("screened"), [f"{NAME}.item", "reason"])
        for row in rows.filter(pc.is_valid(rows["reason"])).to_pylist():
            key = (row[f"{NAME}.item"], row["reason"].partition(".")[2])
            counts[key] = counts.get(key, 0) + 1
    ids, positions = benchmark.table["id"].to_pylist(), benchmark.table["position"].to_pylist()
    rows = [
        {"version": benchmark.versions[item], "item": ids[item], "position": positions[item], "how": how, "records": n}
        for (item, how), n in sorted(counts.items())
    ]
    return pa.Table.from_pylist(rows, schema=REPORT)
