"""Fates of a batch as ledger rows: the one place where a stage's verdict takes the ledger's form."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.redact import redact
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table

BATCH_ROWS = 4096
KEYS = ("id", "input", "ordinal", "start", "length")
"""What the ledger needs to know of a record: who it is, and where it stands."""


@dataclass
class Fates:
    """Collects fates and counts them. `write` stores them sorted by id as an object of kind `fates`."""

    rows: list[pa.Table] = field(default_factory=list)
    loose: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        record: dict[str, Any],
        fate: str,
        reason: str | None,
        value: str | float | None = None,
        error: str | None = None,
        survivor: str | None = None,
    ) -> None:
        """One record; `record` has id, input, ordinal, start, length.

        A `value` taken from text is redacted here. `error` is not: it is our own message, and quotes no text.
        """
        self.loose.append(
            {
                **{name: record[name] for name in KEYS},
                "fate": fate,
                "stage": (reason or "shards").split(".")[0],
                "reason": reason,
                "value": error if value is None else _shown(value),
                "survivor": survivor,
            }
        )
        if len(self.loose) == BATCH_ROWS:  # as Arrow a row takes a tenth of the memory
            self._flush()

    def _flush(self) -> None:
        self.rows.append(pa.Table.from_pylist(self.loose, schema=ledger.SCHEMA))
        self.loose = []

    def add_kept(self, records: pa.Table, stage: str = "shards", values: pa.Array | None = None) -> None:
        """Every row of a table with id, input, ordinal, start, length."""
        self._add_rows(records, "kept", pa.repeat(stage, records.num_rows), None, None, values)

    def add_dropped(
        self, records: pa.Table, reasons: pa.Array, survivors: pa.Array | None = None, values: pa.Array | None = None
    ) -> None:
        """Every row of a table with id, input, ordinal, start, length, each with its reason, survivor and value."""
        stages = pc.replace_substring_regex(reasons, r"\..*", "")
        self._add_rows(records, "dropped", stages, reasons, survivors, values)

    def _add_rows(
        self,
        records: pa.Table,
        fate: str,
        stages: pa.Array,
        reasons: pa.Array | None,
        survivors: pa.Array | None,
        values: pa.Array | None = None,
    ) -> None:
        n = records.num_rows
        null = pa.nulls(n, pa.string())
        columns = {name: records[name] for name in KEYS}
        columns |= {
            "fate": pa.repeat(fate, n),
            "stage": stages,
            "reason": null if reasons is None else reasons,
            "value": null if values is None else values,
            "survivor": null if survivors is None else survivors,
        }
        self.rows.append(pa.table({name: columns[name] for name in ledger.SCHEMA.names}).cast(ledger.SCHEMA))

    def table(self) -> pa.Table:
        """All fates so far as ledger rows (`ledger.SCHEMA`), sorted as a ledger is."""
        self._flush()
        return ledger.sort(pa.concat_tables(self.rows))

    def write(self, store: Store) -> tuple[ObjectRef, FateCounts]:
        """Stores the table; the object, and what a receipt counts of it."""
        table = self.table()
        return put_table(store, "fates", table, sorted_by="id"), count_fates(table)


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return redact(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class FateCounts:
    """Tallies by fate and histograms of reasons, counted from ledger rows."""

    kept: Tally
    dropped: Tally
    quarantined: Tally
    reasons: dict[str, int]
    errors: dict[str, int]


def count_fates(table: pa.Table) -> FateCounts:
    """The counts of ledger rows (`ledger.SCHEMA`): of what is written, not of the calls that led to it."""
    tallies = ledger.tallies(table)

    def histogram(fate: str) -> dict[str, int]:
        rows = table.filter(pc.equal(table["fate"], fate))
        return dict(sorted(Counter(rows["reason"].to_pylist()).items()))

    return FateCounts(**tallies, reasons=histogram("dropped"), errors=histogram("quarantined"))
