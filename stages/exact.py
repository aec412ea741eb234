"""Exact duplicates: of all records with one text, the first by id stays and the others name it.

Scatter: records are looked at by range of content hash, so that equal texts meet in one Work and no Work needs
to see more than a bounded number of them. A record met again (a file's recompressed copy, an overlapping crawl)
has the same id and is told apart from a page that copies another.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lake import ledger
from lake.balance import Tally
from lake.objects import ObjectRef, put_table, read_refs, read_table
from lake.receipt import StageId
from lake.store import Store
from stages.fates import Fates
from stages.screen import KEYS
from stages.work import Outcome, Work, stage_id

ROWS_PER_RANGE = 2_000_000
_SCHEMA = pa.schema([(name, pa.int64() if name in ("ordinal", "start", "length") else pa.string()) for name in KEYS])
_COLUMNS = list(KEYS)
_ORDER = [(name, "ascending") for name in ("content", "id", "input", "ordinal")]


@dataclass(frozen=True)
class Exact:
    """Drops all but the first (by id, then input and ordinal) of the records with equal text."""

    name: ClassVar[str] = "exact"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: screened (a list object), low, high (range of the content hash, high excluded)."""
        hit = pc.is_null(pc.field("reason"))
        hit &= (pc.field("content") >= work.payload["low"]) & (pc.field("content") < work.payload["high"])
        refs = read_refs(store, ObjectRef(**work.payload["screened"]))
        parts = [read_table(store, ref, _COLUMNS, hit) for ref in refs]
        rows = pa.concat_tables([_SCHEMA.empty_table(), *parts]).sort_by(_ORDER)
        fates = Fates()
        first: dict[str, str] = {}  # content hash -> id of the survivor
        passed: list[bool] = []
        for record in rows.to_pylist():
            passed.append(record["content"] not in first)
            survivor = first.setdefault(record["content"], record["id"])
            if not passed[-1]:
                why = "same_record" if survivor == record["id"] else "duplicate"
                fates.add(record, "dropped", f"exact.{why}", survivor=survivor)
        written, counts = fates.write(store)
        losers = fates.table().select(["input", "ordinal"]).sort_by([("input", "ascending"), ("ordinal", "ascending")])
        return Outcome(
            outputs=(
                put_table(store, "losers", losers.replace_schema_metadata(), sorted_by="input"),
                written,
            ),
            came_in=ledger.tally(rows),
            passed=ledger.tally(rows.filter(pa.array(passed, pa.bool_()))),
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


def exact_works(stage: Exact, screened: ObjectRef, passed: Tally) -> list[Work]:
    """One Work a range of content hashes; the number of ranges depends on the number of records alone."""
    return [
        Work(
            stage=stage,
            inputs=(low, high, screened.sha256),
            payload={"screened": screened.model_dump(), "low": low, "high": high},
            label=f"range {low or '0'}",
        )
        for low, high in hash_ranges(passed.count, ROWS_PER_RANGE)
    ]


def hash_ranges(rows: int, rows_per_range: int) -> list[tuple[str, str]]:
    """[low, high) prefixes that split lower-case hex hashes evenly: a power of two of them."""
    parts = 1
    while rows > parts * rows_per_range:
        parts *= 2
    bounds = ["", *(f"{(i << 32) // parts:08x}" for i in range(1, parts)), "g"]
    return list(pairwise(bounds))
