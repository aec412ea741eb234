"""Held-out records in training texts: an index of the ones, and one Work for each shard of the others, which streams
past it.

What counts as an overlap, `filters.overlap` says; what it means for a model, the gate `contamination`. A shard is
looked through once for an evaluation set, whatever models it trains: the receipt depends on the two alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.overlap import Finder, HeldOut, Matches, Overlap, Texts, joined
from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, put_table, read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.gates.texts import texts_of
from gristmill.stages.mix.tokenize import TextShard, text_shards

_FORMAT = {"gristmill.format": "1"}
ITEMS = pa.schema(
    [("version", pa.string()), ("id", pa.string()), ("words", pa.int32()), ("ngrams", pa.int32())], metadata=_FORMAT
)
GRAMS = pa.schema([("gram", pa.uint64()), ("item", pa.int32())], metadata=_FORMAT)
TEXTS = pa.schema([("text", pa.uint64()), ("item", pa.int32())], metadata=_FORMAT)
"""`item`: the row of ITEMS. Sorted by their first column: the arrays of `filters.overlap.HeldOut`."""

ID, TEXT, NEAR = "id", "text", "near"
"""How a training record gives an item away: it is the same record, has the same words, or holds most of its n-grams."""
ITEM_HITS = pa.schema(
    [("item", pa.int32()), ("how", pa.string()), ("records", pa.int64()), ("record", pa.string())], metadata=_FORMAT
)
"""Of a shard: how many of its records give an item away, and the first of them."""
GRAM_HITS = pa.schema([("gram", pa.int64()), ("records", pa.int64()), ("record", pa.string())], metadata=_FORMAT)
"""The same of an n-gram, by its number among the distinct ones of GRAMS."""


@dataclass(frozen=True)
class HeldOutInput:
    """The shards of the held-out versions, each with the name of its version."""

    shards: tuple[tuple[str, TextShard], ...]


@dataclass(frozen=True)
class HeldOutFacts:
    """`records`: held out; `short`: those with fewer words than an n-gram has."""

    records: int
    short: int


@dataclass(frozen=True)
class IndexHeldOut(Stage[HeldOutInput]):
    """Outputs `held_out_items` (ITEMS), `held_out_grams` (GRAMS) and `held_out_texts` (TEXTS). All of the held-out
    records are in memory."""

    name: ClassVar[str] = "index_held_out"
    VERSION: ClassVar[int] = 1

    overlap: Overlap = Overlap()

    def run(self, store: Store, work: Work[HeldOutInput]) -> Outcome:
        """Facts: HeldOutFacts. Raises DamagedObject."""
        versions: list[str] = []
        ids: list[str] = []
        parts: list[Texts] = []
        tallies: list[Tally] = []
        for version, shard in work.payload.shards:
            before = len(ids)
            for batch in iter_batches(store, shard.shard, shard.columns):
                parts.append(texts_of(batch, shard.samples))
                ids += batch["id"].to_pylist()
            versions += [version] * (len(ids) - before)
            tallies.append(tally_of(shard, len(ids) - before))
        index, words = HeldOut.of(joined(parts), self.overlap)
        items = [pa.array(versions, pa.string()), pa.array(ids, pa.string()), pa.array(words), pa.array(index.sizes)]
        grams = [pa.array(np.repeat(index.grams, np.diff(index.starts))), pa.array(index.items)]
        return Outcome(
            outputs=(
                put_table(store, "held_out_items", pa.table(items, schema=ITEMS)),
                put_table(store, "held_out_grams", pa.table(grams, schema=GRAMS)),
                put_table(store, "held_out_texts", pa.table([index.texts, index.text_items], schema=TEXTS)),
            ),
            passed=total(tallies),
            facts=HeldOutFacts(len(ids), int((words < self.overlap.ngram).sum())),
        )


@dataclass(frozen=True)
class HeldOutIndex:
    """The outputs of IndexHeldOut."""

    items: ObjectRef
    grams: ObjectRef
    texts: ObjectRef

    @classmethod
    def of(cls, receipt: Receipt) -> HeldOutIndex:
        """From the receipt of the index."""
        return cls(*(receipt.output(f"held_out_{name}") for name in ("items", "grams", "texts")))

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the three."""
        return self.items.sha256, self.grams.sha256, self.texts.sha256

    def load(self, store: Store) -> tuple[pa.Table, HeldOut]:
        """ITEMS, and the index in memory. Raises DamagedObject."""
        items, grams, texts = (read_table(store, ref) for ref in (self.items, self.grams, self.texts))
        distinct, counts = np.unique(grams["gram"].to_numpy(), return_counts=True)
        starts = np.concatenate([[0], np.cumsum(counts)])
        columns = (grams["item"], items["ngrams"], texts["text"], texts["item"])
        return items, HeldOut(distinct, starts, *(column.to_numpy() for column in columns))


@dataclass(frozen=True)
class FindInput:
    """A shard of training texts, and what to look for in it."""

    texts: TextShard
    index: HeldOutIndex


@dataclass(frozen=True)
class FindHeldOut(Stage[FindInput]):
    """Outputs `item_hits` (ITEM_HITS) and `gram_hits` (GRAM_HITS), no larger than the index."""

    name: ClassVar[str] = "find_held_out"
    VERSION: ClassVar[int] = 1

    overlap: Overlap = Overlap()

    def run(self, store: Store, work: Work[FindInput]) -> Outcome:
        """Raises DamagedObject."""
        texts = work.payload.texts
        items, index = work.payload.index.load(store)
        finder, hits, rows = Finder(index, self.overlap), _Hits(), 0
        of_id = {record: item for item, record in enumerate(items["id"].to_pylist())}
        held_out = pa.array(of_id, pa.string())
        for batch in iter_batches(store, texts.shard, texts.columns):
            ids = batch["id"]
            same = np.flatnonzero(pc.is_in(ids, held_out).to_numpy(zero_copy_only=False))
            hits.add(finder.find(texts_of(batch, texts.samples)), ids)
            hits.add_items(ID, np.array([of_id[ids[int(row)].as_py()] for row in same], np.int64), same, ids)
            rows += batch.num_rows
        outputs = put_table(store, "item_hits", hits.item_table()), put_table(store, "gram_hits", hits.gram_table())
        return Outcome(outputs=outputs, passed=tally_of(texts, rows))


@dataclass
class _Hits:
    """What a shard has so far: by item and how, and by n-gram, [records, the first record]."""

    items: dict[tuple[int, str], list] = field(default_factory=dict)
    grams: dict[int, list] = field(default_factory=dict)

    def add(self, matches: Matches, ids: pa.Array) -> None:
        """Of a batch with these ids."""
        self.add_items(TEXT, matches.text_items, matches.text_rows, ids)
        self.add_items(NEAR, matches.near_items, matches.near_rows, ids)
        for gram, (records, row) in _counted(matches.grams, matches.gram_rows):
            self.grams.setdefault(gram, [0, ids[row].as_py()])[0] += records

    def add_items(self, how: str, items: np.ndarray, rows: np.ndarray, ids: pa.Array) -> None:
        """Pairs of items and rows."""
        for item, (records, row) in _counted(items, rows):
            self.items.setdefault((item, how), [0, ids[row].as_py()])[0] += records

    def item_table(self) -> pa.Table:
        """ITEM_HITS, sorted."""
        rows = [(item, how, *hit) for (item, how), hit in sorted(self.items.items())]
        return pa.table(_columns(rows, 4), schema=ITEM_HITS)

    def gram_table(self) -> pa.Table:
        """GRAM_HITS, sorted."""
        return pa.table(_columns([(gram, *hit) for gram, hit in sorted(self.grams.items())], 3), schema=GRAM_HITS)


def _columns(rows: Sequence[tuple], count: int) -> list[list]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


def _counted(keys: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, tuple[int, int]]]:
    """Each key with how many rows it has, and the first of them. Pairs are distinct."""
    distinct, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    first = np.full(len(distinct), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, rows)
    for key, count, row in zip(distinct.tolist(), counts.tolist(), first.tolist(), strict=True):
        yield key, (count, row)


def tally_of(texts: TextShard, rows: int) -> Tally:
    """The tally of the first rows of a shard: what its manifest says is there, or what was read."""
    return Tally.of_records([texts.shard.sha256] * rows, range(rows))


def index_work(held_out: Sequence[Manifest], overlap: Overlap) -> Work[HeldOutInput]:
    """The index of all records of these versions, in their order. Raises ValueError for one that has no texts."""
    shards = tuple((str(manifest), shard) for manifest in held_out for shard in text_shards(manifest))
    return Work(
        stage=IndexHeldOut(overlap),
        inputs=tuple(f"{version} {shard.shard.sha256}" for version, shard in shards),
        payload=HeldOutInput(shards),
        received=total(tally_of(shard, shard.shard.records) for _, shard in shards),
        label=", ".join(map(str, held_out)),
    )


def find_works(trained_on: Sequence[Manifest], index: HeldOutIndex, overlap: Overlap) -> Iterator[Work[FindInput]]:
    """One Work a shard of what a model was trained on, in order. Raises ValueError for a version without texts."""
    for manifest in trained_on:
        for number, texts in enumerate(text_shards(manifest)):
            yield Work(
                stage=FindHeldOut(overlap),
                inputs=(texts.shard.sha256, *index.digests),
                payload=FindInput(texts, index),
                received=tally_of(texts, texts.shard.records),
                label=f"{manifest} shard {number}",
            )
