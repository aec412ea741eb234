"""The table of media: which image, clip or video which record has. Sorted by digest, so that one is looked up in a row
group of one object, however many records there are.

Rows are of every record that came in, kept or not: of a sample the media that it has, in order; of a record that became
none those that it came with. Fates are the ledger's: the table says whose they are. A mixture has the tables of what it
was made of. It holds no medium: a takedown searches it, withdraws no version because of it, and takes its rows out of
the version that it makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, rows_between

KIND = "media"
"""Of the objects that hold it."""
KEYS = ("sha256", "id", "position")
SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("id", pa.string()),  # of the record
        ("position", pa.int32()),  # of the medium among those of its record, from 0
    ],
    metadata={"gristmill.format": "1"},
)
FEW = 8
"""Digests up to which each is looked up on its own; more are looked for in one pass."""


def rows_of(id: str, digests: Iterable[str]) -> Iterator[dict[str, object]]:
    """Of one record, with the digests of its media in order."""
    for position, sha256 in enumerate(digests):
        yield {"sha256": sha256, "id": id, "position": position}


def sort(table: pa.Table) -> pa.Table:
    """The rows by digest, then record, cast to SCHEMA."""
    order = [(name, "ascending") for name in KEYS]
    return table.cast(SCHEMA).sort_by(order).replace_schema_metadata(SCHEMA.metadata)


def tally(table: pa.Table) -> Tally:
    """The tally of a table's rows."""
    columns = (table[name].to_pylist() for name in ("id", "position", "sha256"))
    return Tally.of(key(*row) for row in zip(*columns, strict=True))


def key(id: str, position: int, sha256: str) -> bytes:
    """What a row is counted by."""
    return f"{id}/{position}/{sha256}".encode()


def ids_having(store: Store, ref: ObjectRef, digests: Sequence[str]) -> set[str]:
    """The records that have one of these media, by one object. Raises NotFound, DamagedObject."""
    near = [sha256 for sha256 in digests if ref.overlaps(sha256, sha256 + "g")]
    if len(near) <= FEW:
        parts = [rows_between(store, ref, "sha256", sha256, sha256 + "g")["id"] for sha256 in near]
        return {record for part in parts for record in part.to_pylist()}
    wanted = pa.array(near, pa.string())
    ids: set[str] = set()
    for batch in iter_batches(store, ref, ["sha256", "id"]):
        ids.update(batch.filter(pc.is_in(batch["sha256"], wanted))["id"].to_pylist())
    return ids


def tables_of(attachments: Iterable[ObjectRef]) -> list[ObjectRef]:
    """The tables of media among what is attached to several versions, each of them once."""
    return list({ref.sha256: ref for ref in attachments if ref.kind == KIND}.values())
