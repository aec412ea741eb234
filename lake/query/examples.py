"""A few records of every reason for which a version dropped or quarantined any, in one bounded pass over its ledger.

`sample` counts a ledger before it draws, once for each reason. Here row groups are read in an order that the version's
digest decides, and of each only which reasons it has, until every reason has its examples or ROWS rows were looked at:
a ledger is sorted by a hash, so any row group is as good as any other. What is so rare that it was not met has no
example.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.lake.query.sampling import SampledRecord, of_ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

ROWS = 4_000_000
"""Of a ledger that are looked at, at most, and the row group that is read then."""


def reasons_of(manifest: Manifest) -> dict[str, int]:
    """Reason -> records that were dropped or quarantined for it, most first."""
    counts: dict[str, int] = {}
    for row in manifest.funnel:
        for reason, n in (*row.dropped.items(), *row.quarantined.items()):
            counts[reason] = counts.get(reason, 0) + n
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def examples(
    versions: Versions, manifest: Manifest, reasons: Sequence[str], each: int = 2, rows: int = ROWS
) -> dict[str, tuple[SampledRecord, ...]]:
    """At most `each` records of every reason, in the order of `reasons`; the same ones for the same version. A reason
    that was not met within `rows` rows is left out."""
    rng = random.Random(f"examples:{manifest.digest}")
    drawn: dict[str, list[dict[str, Any]]] = {reason: [] for reason in reasons}
    seen = 0
    for file, group in _groups(versions.store, manifest.fates, rng):
        lacking = {reason for reason, records in drawn.items() if len(records) < each}
        if not lacking or seen >= rows:
            break
        seen += file.metadata.row_group(group).num_rows
        places = _places(file.read_row_group(group, ["reason"]), lacking)
        picks = {
            reason: sorted(rng.sample(at, min(len(at), each - len(drawn[reason])))) for reason, at in places.items()
        }
        if picks:
            table = file.read_row_group(group)
            for reason, at in picks.items():
                drawn[reason] += table.take(at).to_pylist()
    flat = [row for records in drawn.values() for row in records]
    by_row = iter(of_ledger(versions, manifest, flat))
    return {reason: tuple(next(by_row) for _ in records) for reason, records in drawn.items() if records}


def _groups(store: Store, ledgers: Sequence[ObjectRef], rng: random.Random) -> Iterator[tuple[pq.ParquetFile, int]]:
    """Every row group of every ledger, in an order that `rng` decides; a ledger is opened when its turn comes."""
    for ref in rng.sample(list(ledgers), len(ledgers)):
        with open_parquet(store, ref) as file:
            for group in rng.sample(range(file.num_row_groups), file.num_row_groups):
                yield file, group


def _places(table: pa.Table, reasons: set[str]) -> dict[str, list[int]]:
    """Where in a table each of these reasons stands."""
    places: dict[str, list[int]] = {}
    for at, reason in enumerate(table["reason"].to_pylist()):
        if reason in reasons:
            places.setdefault(reason, []).append(at)
    return dict(sorted(places.items()))
