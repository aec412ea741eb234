"""Near duplicates, first half: MinHash signatures of what passed the screen, collected with their band hashes.

Sign (a chunk) -> GatherSignatures (some chunks: what neither exact duplicates nor a takedown dropped) -> Link and
MergeForests (stages/near/link.py) -> Gather (stages/near/gather.py) -> SelectSurvivors and Clusters (stages/clusters/).
Only SelectSurvivors assigns a fate.
Source: Broder 1997 (MinHash), Leskovec et al. ch. 3 (banding); decisions as datatrove's minhash (any equal band links).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.minhash import MinHash, band_hashes
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    put_file,
    put_table,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from gristmill.stages.core.exclusions import without_exclusions
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.records import Chunk, Records, alive, alive_measures
from gristmill.stages.core.shards import shard_groups
from gristmill.stages.core.work import Outcome, Stage, Work, stage_id

N_WORDS = "minhash.n_words"
DOCUMENTS_PER_COLLECTION = 1 << 18


@dataclass(frozen=True)
class Sign(Stage[Chunk]):
    """Signs what passed the filters. Its receipts serve every increment and every threshold of other stages."""

    name: ClassVar[str] = "sign"
    VERSION: ClassVar[int] = 1

    minhash: MinHash

    def identity(self) -> tuple[StageId, ...]:
        # The settings have a VERSION of their own: how texts are hashed can change without this stage.
        return (StageId(name=self.name, version=self.VERSION, config={}), stage_id(self.minhash))

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Output `signed`: keys, words, signature (null where a text has no n-gram)."""
        rows = alive(store, work.payload, [*KEYS, "text"])
        parts = [self._signed(pa.Table.from_batches([batch])) for batch in rows.to_batches(ROW_GROUP_ROWS)]
        signed = pa.concat_tables(parts) if parts else self._signed(rows)
        tally = ledger.tally(signed)
        return Outcome(outputs=(put_table(store, "signed", signed),), passed=tally, received=tally)

    def _signed(self, rows: pa.Table) -> pa.Table:
        signatures = self.minhash.sign(rows["text"].combine_chunks())
        size = 4 * self.minhash.bands * self.minhash.rows
        data = pa.py_buffer(np.ascontiguousarray(signatures.values, dtype="<u4"))
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), rows.num_rows, [None, data])
        has_shingles, none = pa.array(signatures.n_shingles > 0), pa.scalar(None, column.type)
        table = rows.select(KEYS).append_column(N_WORDS, pa.array(signatures.n_words, pa.int64()))
        return table.append_column("signature", pc.if_else(has_shingles, column, none))


@dataclass(frozen=True)
class GatherSignaturesPayload:
    """(signatures, chunk) of consecutive chunks, and who is excluded of them (a list object)."""

    signed: tuple[tuple[ObjectRef, Chunk], ...]
    exclusions: ObjectRef


@dataclass(frozen=True)
class GatherSignatures(Stage[GatherSignaturesPayload]):
    """Brings some chunks' signatures together, without what was dropped since the filters, and hashes their bands.

    `survivor` names the measures that choose the survivor of a cluster, the first that differs decides; the greater
    is better, or the smaller for a name with `-` before it. They travel along as rank_0, rank_1, ...
    """

    name: ClassVar[str] = "collect"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_WORDS
    """The measure that signing takes: how much of a record was signed."""

    bands: int
    rows: int
    survivor: tuple[str, ...] = (N_WORDS,)

    def run(self, store: Store, work: Work[GatherSignaturesPayload]) -> Outcome:
        """payload: GatherSignaturesPayload. Output `signatures`: keys, words, signature, ranks, and band_00, band_01,
        ...; a text without an n-gram has no row, and is compared with nothing."""
        payload = work.payload
        exclusions = read_refs(store, payload.exclusions)
        tally, records = Tally(), 0
        with scratch() as folder:
            path = folder / "signatures.parquet"
            with table_writer(path, self.schema()) as writer:
                for signed, chunk in payload.signed:
                    rows = self._rows(store, signed, chunk, exclusions)
                    tally += ledger.tally(rows)
                    hashed = self._hashed(rows.filter(pc.is_valid(rows["signature"])))
                    records += hashed.num_rows
                    if hashed.num_rows:
                        writer.write_table(hashed, row_group_size=ROW_GROUP_ROWS)
            ref = put_file(store, "signatures", path, records)
        return Outcome(outputs=(ref,), passed=tally, received=tally)

    @property
    def width(self) -> int:
        """Values of a signature."""
        return self.bands * self.rows

    def hashes(self, values: np.ndarray) -> np.ndarray:
        """uint64 [rows, bands] of signatures, uint32 [rows, width]: records with an equal one in a band are linked."""
        return band_hashes(values, self.bands, self.rows)

    def schema(self) -> pa.Schema:
        """Of the output: keys, words, signature (uint32 [width], little-endian bytes), ranks, band hashes."""
        integers = ("ordinal", "start", "length")
        fields = [(name, pa.int64() if name in integers else pa.string()) for name in KEYS]
        fields += [(self.counted, pa.int64()), ("signature", pa.binary(4 * self.width))]
        fields += [(f"rank_{i}", pa.float64()) for i in range(len(self.survivor))]
        fields += [(band, pa.uint64()) for band in band_names(self.bands)]
        return pa.schema(fields, metadata={"gristmill.format": "1"})

    def _rows(self, store: Store, signed: ObjectRef, chunk: Chunk, exclusions: list[ObjectRef]) -> pa.Table:
        """What was signed of a chunk and is still in, with the measures that choose survivors."""
        rows = read_table(store, signed)
        measured = sorted({name.removeprefix("-") for name in self.survivor} - {self.counted})
        if measured:
            measures = alive_measures(store, chunk, measured)
            for name in measured:
                rows = rows.append_column(name, measures[name])
        return without_exclusions(store, rows, exclusions)

    def _hashed(self, rows: pa.Table) -> pa.Table:
        table = rows.select([*KEYS, self.counted, "signature"])
        for i, name in enumerate(self.survivor):
            value = pc.cast(rows[name.removeprefix("-")], pa.float64())
            value = pc.negate(value) if name.startswith("-") else value  # so that greater is better for every rank
            table = table.append_column(f"rank_{i}", pc.fill_null(value, float("-inf")))
        hashes = self.hashes(signature_values(rows["signature"], self.width))
        for i, name in enumerate(band_names(self.bands)):
            table = table.append_column(name, pa.array(np.ascontiguousarray(hashes[:, i])))
        return table.cast(self.schema())


def band_names(bands: int) -> list[str]:
    """The columns of band hashes (uint64), as collections of signatures store them."""
    return [f"band_{i:02d}" for i in range(bands)]


def signature_values(signatures: pa.Array | pa.ChunkedArray, size: int) -> np.ndarray:
    """uint32 [rows, size] of a column of signatures, none of them null."""
    column = signatures.combine_chunks() if isinstance(signatures, pa.ChunkedArray) else signatures
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.empty((0, size), np.uint32)
    return np.frombuffer(data, "<u4").reshape(-1, size)[column.offset : column.offset + len(column)]


def sign_work(stage: Stage[Chunk], chunk: Chunk) -> Work[Chunk]:
    """Signs all that the chunk's own verdicts leave in: exclusions come later, and differ from run to run."""
    return Work(stage, chunk.digests, chunk, chunk.tally, chunk.label)


def gather_signatures_works(
    stage: GatherSignatures, store: Store, signed: Sequence[ObjectRef], records: Records
) -> list[Work[GatherSignaturesPayload]]:
    """One Work for consecutive chunks of about DOCUMENTS_PER_COLLECTION; the cut depends on counts alone."""
    pairs, exclusions = list(zip(signed, records.chunks, strict=True)), records.put_exclusions(store)
    works = []
    for n, (first, end) in enumerate(shard_groups([ref.records for ref in signed], DOCUMENTS_PER_COLLECTION)):
        group = tuple(pairs[first:end])
        # The content decides nothing here but through its signatures, so that only verdicts stand beside them.
        inputs: list[str] = []
        for ref, chunk in group:
            inputs += [ref.sha256, *chunk.digests[1:]]
        payload = GatherSignaturesPayload(group, exclusions)
        works.append(Work(stage, (*inputs, exclusions.sha256), payload, label=f"collection {n}"))
    return works
