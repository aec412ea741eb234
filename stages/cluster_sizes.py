"""Sizes of clusters over all nights: each night stores only its own members, so a cluster's are counted across them.

One Work a range of survivors reads their column alone, of every generation, and writes nothing: its facts are the
histogram that a version's statistics show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, read_table
from lake.receipt import StageId
from lake.store import Store
from stages import runs
from stages.clusters import MEMBERS_PER_RANGE
from stages.exact import hash_ranges
from stages.work import Outcome, Work, stage_id

SIZE_BINS = (2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 1025)
"""Lower edges of the histogram of cluster sizes; the survivor counts."""


@dataclass(frozen=True)
class ClusterSizes:
    """Counts the members of the clusters of one range of survivors."""

    name: ClassVar[str] = "cluster_sizes"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: clusters (pointers), low, high. Facts: sizes (lower edge -> clusters), largest, clusters."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("survivor") >= low) & (pc.field("survivor") < high)
        refs = [ObjectRef(**ref) for ref in work.payload["clusters"]]
        parts = [read_table(store, ref, ["survivor"], hit) for ref in refs if ref.overlaps(low, high)]
        survivors = pa.concat_tables([_NOBODY, *parts]).sort_by("survivor")["survivor"]
        sizes = runs.sizes(survivors) + 1
        bins = np.searchsorted(SIZE_BINS, sizes, side="right") - 1
        facts = {
            "sizes": {str(SIZE_BINS[i]): int(n) for i, n in sorted(Counter(bins.tolist()).items())},
            "largest": int(sizes.max()) if len(sizes) else 0,
            "clusters": len(sizes),
        }
        return Outcome(outputs=(), came_in=Tally(), facts=facts)


_NOBODY = pa.table({"survivor": pa.array([], pa.string())})


def cluster_size_works(clusters: Sequence[ObjectRef]) -> list[Work]:
    """One Work a range of survivors' ids."""
    refs = [ref for ref in clusters if ref.records]
    works = []
    for low, high in hash_ranges(sum(ref.records for ref in refs), MEMBERS_PER_RANGE):
        payload = {"clusters": [ref.model_dump() for ref in refs], "low": low, "high": high}
        inputs = (low, high, *(ref.sha256 for ref in refs))
        works.append(Work(ClusterSizes(), inputs, payload, label=f"survivors from {low or '0'}"))
    return works


def cluster_statistics(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`clusters` of a version's statistics, from the facts of all ranges."""
    facts = list(facts)
    sizes: Counter[str] = Counter()
    for part in facts:
        sizes.update(part["sizes"])
    ordered = dict(sorted(sizes.items(), key=lambda item: int(item[0])))
    largest = max((part["largest"] for part in facts), default=0)
    return {"clusters": sum(part["clusters"] for part in facts), "largest": largest, "sizes_from": ordered}
