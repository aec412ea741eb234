"""The ledger: one row for every record that came in, saying what became of it and why.

Rows are keyed by (id, input, ordinal) and sorted by it, in objects of bounded size whose id ranges do not
overlap: `grist why` reads one row group. No text and no URL stands here (both may hold personal data), only the
hash, the place in the input and a redacted offending value. The balance recounts these rows at commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, rows_between

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input", pa.string()),  # sha256 of the input file
        ("ordinal", pa.int64()),  # which record of it
        ("fate", pa.string()),  # kept | dropped | quarantined
        ("stage", pa.string()),  # who decided
        ("reason", pa.string()),  # null for kept
        # the offending value, redacted; a quarantined record's error; how often a mixture draws a kept one
        ("value", pa.string()),
        ("survivor", pa.string()),  # for a duplicate: the id that was kept in its place
        ("start", pa.int64()),  # byte range in the decompressed input
        ("length", pa.int64()),
    ],
    metadata={"gristmill.format": "1"},
)
KEY = [("id", "ascending"), ("input", "ascending"), ("ordinal", "ascending")]


def empty() -> pa.Table:
    """A ledger without rows. Of no batches: `empty_table` converts lists, for which pyarrow imports pandas."""
    return pa.Table.from_batches([], SCHEMA)


def sort(table: pa.Table) -> pa.Table:
    """The rows by (id, input, ordinal), cast to SCHEMA."""
    return table.cast(SCHEMA).sort_by(KEY).replace_schema_metadata(SCHEMA.metadata)


def tally(table: pa.Table) -> Tally:
    """The tally of a table's rows by (input, ordinal); any table with those columns."""
    return Tally.of_records(table["input"].to_pylist(), table["ordinal"].to_pylist())


def tallies(table: pa.Table) -> dict[str, Tally]:
    """The tally of each fate."""
    return {fate: tally(table.filter(pc.equal(table["fate"], fate))) for fate in ("kept", "dropped", "quarantined")}


def reasons(table: pa.Table) -> dict[str, int]:
    """How often each reason stands in the ledger, most frequent first."""
    counts = Counter(r for r in table["reason"].to_pylist() if r is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def find(store: Store, ledgers: Iterable[ObjectRef], prefix: str) -> pa.Table:
    """Every row whose id begins with `prefix` (an id, or a `url_hash`)."""
    after = prefix + "g"  # greater than any hex continuation
    parts = [rows_between(store, ref, "id", prefix, after) for ref in ledgers if ref.overlaps(prefix, after)]
    return pa.concat_tables(parts) if parts else empty()


FEW = 8
"""Prefixes up to which each is looked up on its own; more are looked for in one pass over the ids."""


def find_any(store: Store, ref: ObjectRef, prefixes: Sequence[str]) -> pa.Table:
    """Every row of one ledger object whose id begins with one of the prefixes; many of them are of equal length."""
    near = [p for p in prefixes if ref.overlaps(p, p + "g")]
    if len(near) > FEW:
        # First which ids there are, in one pass over the narrow column; then the rows of those alone.
        length = len(near[0])
        ids = pa.chunked_array([batch["id"] for batch in iter_batches(store, ref, ["id"])], pa.string())
        hit = pc.is_in(pc.utf8_slice_codeunits(ids, 0, length), pa.array(near))
        near = sorted(set(ids.filter(hit).to_pylist()))
    return pa.concat_tables([empty(), *(find(store, [ref], p) for p in near)])


def check_sorted(table: pa.Table, after: tuple[str, str, int] | None = None) -> tuple[str, str, int] | None:
    """Raises ValueError unless keys strictly increase, from `after` on; returns the last key."""
    for key in _keys(table):
        if after is not None and key <= after:
            what = "twice" if key == after else "out of order"
            raise ValueError(f"ledger: record {key[0]} ({key[1][:12]}:{key[2]}) stands {what}")
        after = key
    return after


def _keys(table: pa.Table) -> Iterator[tuple[str, str, int]]:
    return zip(*(table[c].to_pylist() for c in ("id", "input", "ordinal")), strict=True)
