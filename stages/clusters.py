"""Clusters of near duplicates: a survivor with those that were dropped in its favour.

`clusters` lays the members of one night (stages/choose.py) in order of the survivor: a table which `grist why` looks
up, the next night takes earlier decisions from, and sizes are counted from (stages/cluster_sizes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, put_table, read_table
from lake.receipt import StageId
from lake.store import Store
from stages.exact import hash_ranges
from stages.work import Outcome, Work, stage_id

MEMBERS_PER_RANGE = 2_000_000
CLUSTERS = pa.schema(
    [("survivor", pa.string()), ("id", pa.string()), ("ranks", pa.list_(pa.float64()))],
    metadata={"gristmill.format": "1"},
)
"""`ranks` are the survivor's."""
CLUSTERS_ORDER = [("survivor", "ascending"), ("id", "ascending")]


@dataclass(frozen=True)
class Clusters:
    """Sorts the members of one range of survivors."""

    name: ClassVar[str] = "clusters"
    VERSION: ClassVar[int] = 2

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: members (pointers), low, high. Output `clusters`."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("survivor") >= low) & (pc.field("survivor") < high)
        refs = [ObjectRef(**ref) for ref in work.payload["members"]]
        parts = [read_table(store, ref, filters=hit) for ref in refs if ref.overlaps(low, high)]
        table = pa.concat_tables([CLUSTERS.empty_table(), *parts])
        table = table.cast(CLUSTERS).sort_by(CLUSTERS_ORDER)
        return Outcome(outputs=(put_table(store, "clusters", table, sorted_by="survivor"),), came_in=Tally())


def cluster_works(members: Sequence[ObjectRef]) -> list[Work]:
    """One Work a range of survivors' ids."""
    refs = [ref for ref in members if ref.records]
    works = []
    for low, high in hash_ranges(sum(ref.records for ref in refs), MEMBERS_PER_RANGE):
        payload = {"members": [ref.model_dump() for ref in refs], "low": low, "high": high}
        inputs = (low, high, *(ref.sha256 for ref in refs))
        works.append(Work(Clusters(), inputs, payload, label=f"survivors from {low or '0'}"))
    return works
