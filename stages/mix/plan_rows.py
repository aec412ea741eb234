"""A mixture's plan as data: what it reads, its rows, and the facts of its sources.

A row is a stretch of the records that one epoch of a source draws from one object of tokens, for one shard. Whoever
packs a shard reads its rows alone; whoever accounts for records needs the facts alone. Both are stages/mix/mix.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table

PLAN = pa.schema(
    [
        ("shard", pa.int32()),
        ("source", pa.string()),
        ("tokens", pa.string()),  # sha256 of the object that holds them
        ("input", pa.string()),  # sha256 of the shard that was tokenized
        ("samples", pa.bool_()),  # not documents: never cut
        ("epoch", pa.int32()),
        ("cut", pa.uint64()),  # of the last epoch: keys below it are drawn; null: all
        ("first", pa.int64()),  # of the records that this epoch draws from the object
        ("end", pa.int64()),
        ("documents", pa.int64()),
        ("units", pa.int64()),  # tokens
    ],
    metadata={"gristmill.format": "1"},
)


@dataclass(frozen=True)
class PlanRow:
    """One row of PLAN: a stretch of the records that an epoch draws from one object, for one shard."""

    shard: int
    source: str
    tokens: str
    input: str
    samples: bool
    epoch: int
    cut: int | None
    first: int
    end: int
    documents: int
    units: int


@dataclass(frozen=True)
class Tokenized:
    """One shard of a source as tokens: the outputs of `stages.mix.tokenize` for the shard with the digest `shard`."""

    tokens: ObjectRef
    lengths: ObjectRef
    shard: str

    @classmethod
    def of(cls, shard: str, receipt: Receipt) -> Tokenized:
        """From the receipt of the tokenization of a shard, and the shard's sha256."""
        return cls(receipt.output("tokens"), receipt.output("lengths"), shard)


@dataclass(frozen=True)
class PlanInput:
    """The objects of each source, in the order of the sources."""

    sources: tuple[tuple[Tokenized, ...], ...]


@dataclass(frozen=True)
class SourceFacts:
    """One source of a plan. `share`: of the weights; `there`, `planned`, `drawn`: tokens. It is drawn in `full` whole
    epochs and, in one more, the records with a mixed key below `cut` (0: none)."""

    source: str
    samples: bool
    share: float
    there: int
    planned: int
    drawn: int
    full: int
    cut: int


@dataclass(frozen=True)
class PlanFacts:
    """`shards`: how many; `problem`: why the weights cannot be drawn, or None."""

    sources: tuple[SourceFacts, ...]
    shards: int
    problem: str | None


def slices_of(store: Store, plan: ObjectRef, shard: int) -> list[PlanRow]:
    """The rows of the plan for one shard, in order."""
    table = read_table(store, plan, filters=pc.field("shard") == shard)
    return [PlanRow(**row) for row in table.to_pylist()]
