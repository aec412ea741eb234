"""Sizes of clusters over all increments: each stores only its own members, so a cluster's are counted across them.

One Work a range of survivors reads their column alone, of every generation, and writes nothing: its facts are the
histogram that a version's statistics show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.stages.clusters.clusters import SurvivorRange, survivor_works
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup import runs

SIZE_BINS = (2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 1025)
"""Lower edges of the histogram of cluster sizes; the survivor counts."""
_EMPTY = pa.Table.from_batches([], pa.schema([("survivor", pa.string())]))
"""Not of a list: Arrow would import pandas to look at it, whenever this module is imported."""


@dataclass(frozen=True)
class Sizes:
    """facts. sizes: lower edge of a bin, as a string -> clusters. largest: documents of the largest cluster. clusters:
    how many there are."""

    sizes: dict[str, int]
    largest: int
    clusters: int


@dataclass(frozen=True)
class ClusterSizes(Stage[SurvivorRange]):
    """Counts the members of the clusters of one range of survivors."""

    name: ClassVar[str] = "cluster_sizes"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[SurvivorRange]) -> Outcome:
        """facts: Sizes."""
        table = pa.concat_tables([_EMPTY, *work.payload.read(store, ["survivor"])])
        sizes = runs.sizes(table.sort_by("survivor")["survivor"]) + 1
        bins = np.searchsorted(SIZE_BINS, sizes, side="right") - 1
        histogram = {str(SIZE_BINS[i]): count for i, count in sorted(Counter(bins.tolist()).items())}
        facts = Sizes(histogram, largest=int(sizes.max(initial=0)), clusters=len(sizes))
        return Outcome(outputs=(), received=Tally(), facts=facts)


def cluster_size_works(clusters: Sequence[ObjectRef]) -> list[Work[SurvivorRange]]:
    """One Work a range of survivors' ids. clusters: tables of all increments."""
    return survivor_works(ClusterSizes(), clusters)


def cluster_statistics(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """`clusters` of a version's statistics, from the receipts of all ranges."""
    parts = [receipt.facts_as(Sizes) for receipt in receipts]
    sizes: Counter[str] = Counter()
    for part in parts:
        sizes.update(part.sizes)
    ordered = dict(sorted(sizes.items(), key=lambda item: int(item[0])))
    largest = max((part.largest for part in parts), default=0)
    return {"clusters": sum(part.clusters for part in parts), "largest": largest, "sizes_from": ordered}
