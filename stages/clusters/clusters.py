"""Clusters of near duplicates: a survivor with those that were dropped in its favour.

`clusters` lays the members of one increment (stages/clusters/select_survivors.py) in order of the survivor: a table
which `grist why` looks up, the next increment takes earlier decisions from, and sizes are counted from
(stages/clusters/sizes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.work import Outcome, Stage, Work

MEMBERS_PER_RANGE = 2_000_000
"""Members that one Work sorts, if ids are spread evenly, as hashes are."""
CLUSTERS = pa.schema(
    [("survivor", pa.string()), ("id", pa.string()), ("ranks", pa.list_(pa.float64()))],
    metadata={"gristmill.format": "1"},
)
"""A row a dropped document; `ranks` are the survivor's: the measures that it was chosen by, the greater the better."""
CLUSTERS_ORDER = [("survivor", "ascending"), ("id", "ascending")]


@dataclass(frozen=True)
class SurvivorRange:
    """Tables with a column `survivor`, and which of their rows: ids from `low` to `high`, excluded."""

    tables: tuple[ObjectRef, ...]
    low: str
    high: str

    def read(self, store: Store, columns: list[str] | None = None) -> list[pa.Table]:
        """The rows of this range, a table for each that can have any of them."""
        in_range = (pc.field("survivor") >= self.low) & (pc.field("survivor") < self.high)
        return [read_table(store, ref, columns, in_range) for ref in self.tables if ref.overlaps(self.low, self.high)]


@dataclass(frozen=True)
class Clusters(Stage[SurvivorRange]):
    """Sorts the members of one range of survivors."""

    name: ClassVar[str] = "clusters"
    VERSION: ClassVar[int] = 2

    def run(self, store: Store, work: Work[SurvivorRange]) -> Outcome:
        """Output `clusters`."""
        table = pa.concat_tables([CLUSTERS.empty_table(), *work.payload.read(store)])
        table = table.cast(CLUSTERS).sort_by(CLUSTERS_ORDER)
        return Outcome(outputs=(put_table(store, "clusters", table, sorted_by="survivor"),), received=Tally())


def cluster_works(members: Sequence[ObjectRef]) -> list[Work[SurvivorRange]]:
    """One Work a range of survivors' ids. members: tables of one increment."""
    return survivor_works(Clusters(), members)


def survivor_works(stage: Stage[SurvivorRange], tables: Sequence[ObjectRef]) -> list[Work[SurvivorRange]]:
    """A stage over all rows of these tables, one Work a range of survivors' ids; the cut depends on counts alone."""
    refs = tuple(ref for ref in tables if ref.records)
    works = []
    for low, high in hash_ranges(sum(ref.records for ref in refs), MEMBERS_PER_RANGE):
        inputs = (low, high, *(ref.sha256 for ref in refs))
        works.append(Work(stage, inputs, SurvivorRange(refs, low, high), label=f"survivors from {low or '0'}"))
    return works
