"""Clusters of near duplicates: a survivor with those that were dropped in its favour, and how large clusters are.

`clusters` merges the members of all nights (stages/choose.py) into one table sorted by survivor, which `grist why`
looks up, the next night takes earlier decisions from, and sizes are counted from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, put_table, read_table
from lake.receipt import StageId
from lake.store import Store
from stages import runs
from stages.exact import hash_ranges
from stages.work import Outcome, Work, stage_id

MEMBERS_PER_RANGE = 2_000_000
SIZE_BINS = (2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 1025)
"""Lower edges of the histogram of cluster sizes; the survivor counts."""
CLUSTERS = pa.schema(
    [("survivor", pa.string()), ("id", pa.string()), ("ranks", pa.list_(pa.float64()))],
    metadata={"gristmill.format": "1"},
)
"""`ranks` are the survivor's."""
CLUSTERS_ORDER = [("survivor", "ascending"), ("id", "ascending")]


@dataclass(frozen=True)
class Clusters:
    """Merges the clusters of earlier versions with new members, for one range of survivors, and counts sizes."""

    name: ClassVar[str] = "clusters"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: members (pointers), low, high. Output `clusters`; facts: sizes (lower edge -> clusters)."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("survivor") >= low) & (pc.field("survivor") < high)
        refs = [ObjectRef(**ref) for ref in work.payload["members"]]
        parts = [read_table(store, ref, filters=hit) for ref in refs if ref.overlaps(low, high)]
        table = pa.concat_tables([CLUSTERS.empty_table(), *parts])
        table = table.cast(CLUSTERS).sort_by(CLUSTERS_ORDER)
        sizes = runs.sizes(table["survivor"]) + 1
        bins = np.searchsorted(SIZE_BINS, sizes, side="right") - 1
        histogram = {str(SIZE_BINS[i]): int(n) for i, n in sorted(Counter(bins.tolist()).items())}
        largest = int(sizes.max()) if len(sizes) else 0
        return Outcome(
            outputs=(put_table(store, "clusters", table, sorted_by="survivor"),),
            came_in=Tally(),
            facts={"sizes": histogram, "largest": largest, "clusters": len(sizes)},
        )


def cluster_works(earlier: Sequence[ObjectRef], members: Sequence[ObjectRef]) -> list[Work]:
    """One Work a range of survivors' ids."""
    refs = [ref for ref in (*earlier, *members) if ref.records]
    works = []
    for low, high in hash_ranges(sum(ref.records for ref in refs), MEMBERS_PER_RANGE):
        payload = {"members": [ref.model_dump() for ref in refs], "low": low, "high": high}
        inputs = (low, high, *(ref.sha256 for ref in refs))
        works.append(Work(Clusters(), inputs, payload, label=f"survivors from {low or '0'}"))
    return works
