"""What a version counts of the edits of its texts, without those of texts that are taken down.

An edit writes what it did to each record among the measures of the version; they are by place, and stay when a text
goes, so that the sums can be told again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_refs, read_table
from gristmill.lake.versions.manifest import Manifest

EDITS = "edits"
"""In the statistics of a version: `pii.email` -> how many, of all texts that passed the edit."""
_PLACE = ["input", "ordinal"]


def edits_without(store: Store, base: Manifest, gone: Sequence[pa.Table]) -> dict[str, dict[str, int]]:
    """The statistics of edits less those of records that go: `gone` has their `input` and `ordinal`. Nothing where the
    version has none. Raises NotFound for a table of measures that the lake has lost."""
    before = base.statistics.get(EDITS)
    if not before or not gone:
        return {}
    places = pa.concat_tables([table.select(_PLACE) for table in gone])
    here = pc.field("input").isin(pc.unique(places["input"])) & pc.is_null(pc.field("reason"))
    left = Counter(before)
    for ref in _measures(store, base):
        with open_parquet(store, ref) as file:
            counted = [name for name in before if name in file.schema_arrow.names]
        if counted:
            rows = read_table(store, ref, [*_PLACE, *counted], here).join(places, _PLACE, join_type="left semi")
            left.subtract({name: pc.sum(rows[name]).as_py() or 0 for name in counted})
    return {EDITS: dict(left)}


def _measures(store: Store, base: Manifest) -> Iterator[ObjectRef]:
    """The tables of measures of a version, each once."""
    lists = [ref for ref in base.attachments if ref.kind == "refs"]
    tables = {ref.sha256: ref for listed in lists for ref in read_refs(store, listed) if ref.kind == "screened"}
    yield from tables.values()
