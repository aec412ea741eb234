"""Other verdicts on stored measures: which records of a version a replay would judge otherwise.

The filters' tables (kind `screened`) hold, of each record that came to a screen, its keys, what every filter measured
and the reason. The rules of the version itself come first, and have to give that reason of each record, or nothing is
replayed. In memory: a table, and 8 bytes of each record that passes, 20 of each whose verdict changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet
from gristmill.pipelines.replay.asked import Asked
from gristmill.stages.text.screen import Screen

PASSES = "passes the filters"
"""What becomes of a record that a filter dropped and that none would drop now: steps behind them are not replayed."""
_ORDINAL_BITS = 40
"""Of a place; the other 24 number the input."""


class Places:
    """Where records stand, as numbers: an input of the version and a record in it. Raises ValueError for what does not
    fit into 64 bits (2^24 inputs, 2^40 records of one)."""

    def __init__(self, inputs: Sequence[str]) -> None:
        if len(inputs) >= 1 << (64 - _ORDINAL_BITS):
            raise ValueError(f"{len(inputs):,} inputs: a replay numbers at most {1 << (64 - _ORDINAL_BITS):,}")
        self._inputs = pa.array(inputs, pa.string())

    def of(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """uint64 of each row of a table with `input` and `ordinal`. Raises ValueError for an input of no version."""
        numbers = pc.index_in(rows["input"], self._inputs)
        if numbers.null_count:
            raise ValueError(
                "a table names an input that none of the versions has; `grist verify` says what is damaged"
            )
        ordinals = rows["ordinal"].to_numpy()
        if len(ordinals) and int(ordinals.max()) >> _ORDINAL_BITS:
            raise ValueError(f"record {int(ordinals.max()):,} of an input: a replay numbers at most 2^{_ORDINAL_BITS}")
        return (numbers.to_numpy().astype(np.uint64) << np.uint64(_ORDINAL_BITS)) | ordinals.astype(np.uint64)


def is_among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Whether each value is one of these sorted ones, bool."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[at] == values


@dataclass
class Verdicts:
    """What changes in the verdicts of filters, table by table. `forgotten`: sorted places of records that were taken
    down since, which no setting brings back.

    `asked`: records that came to the first screen. Changed ones, an entry each in `places`, `labels` (numbers in
    `names`: a reason, or PASSES) and `tables` (in which table its measures stand). `contents`: the first 64 bits of the
    content hashes of all that pass now; of these `unmeasured` came through an earlier screen of several, and the later
    ones have not measured them.
    """

    at: Places
    forgotten: np.ndarray
    asked: int = 0
    unmeasured: int = 0
    names: list[str] = field(default_factory=lambda: [PASSES])
    places: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    tables: list[np.ndarray] = field(default_factory=list)
    refs: list[ObjectRef] = field(default_factory=list)
    contents: list[np.ndarray] = field(default_factory=list)

    def add(self, store: Store, tables: Sequence[ObjectRef], asked: Asked) -> None:
        """Judges all records of a version's own tables anew. Raises ValueError where its own rules do not give the
        reasons that are stored."""
        gone = np.zeros(0, np.uint64)
        for number, (screen, after) in enumerate(zip(asked.screens, asked.after, strict=True)):
            is_last = number == len(asked.screens) - 1
            lost = [gone]
            for ref in tables:
                rows = _measured(store, ref, screen)
                if rows is not None:
                    self.asked += rows.num_rows if number == 0 else 0
                    lost.append(self._judge(ref, rows, screen, after, gone, is_last=is_last))
            gone = np.sort(np.concatenate(lost))

    def _judge(
        self,
        ref: ObjectRef,
        rows: pa.Table,
        screen: Screen[Any],
        after: Sequence[Filter[Any] | None],
        gone: np.ndarray,
        *,
        is_last: bool,
    ) -> np.ndarray:
        """Places of what passed this screen and does not now. `gone`: of what does not come to it any more."""
        before = _reasons(rows, screen.filters)
        if not before.equals(rows["reason"].combine_chunks()):
            raise ValueError(
                f"{ref.key}: the filters of this release give other reasons for the measures that are stored there;"
                " run the pipeline again"
            )
        now = _reasons(rows, after)
        places = self.at.of(rows)
        known = ~(is_among(places, self.forgotten) | is_among(places, gone))
        passed, passes = (
            pc.is_null(before).to_numpy(zero_copy_only=False),
            pc.is_null(now).to_numpy(zero_copy_only=False),
        )
        same = pc.fill_null(pc.equal(before, now), False).to_numpy(zero_copy_only=False) | (passed & passes)
        changed = np.flatnonzero(known & ~same)
        self._add(ref, places[changed], now.take(pa.array(changed)))
        newcomers = known & passes & ~passed
        if not is_last:  # they are asked no further
            self.unmeasured += int(newcomers.sum())
        self.contents.append(_content(rows, known & passes if is_last else newcomers))
        return places[known & passed & ~passes]

    def _add(self, ref: ObjectRef, places: np.ndarray, reasons: pa.Array) -> None:
        encoded = pc.fill_null(reasons, PASSES).dictionary_encode()
        numbers = []
        for name in encoded.dictionary.to_pylist():
            if name not in self.names:
                self.names.append(name)
            numbers.append(self.names.index(name))
        self.places.append(places)
        self.labels.append(np.array(numbers, np.int32)[encoded.indices.to_numpy()])
        self.tables.append(np.full(len(places), len(self.refs), np.int32))
        self.refs.append(ref)

    def changes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, labels and tables of what changed, in order of the places."""
        places, labels, tables = (
            np.concatenate([np.zeros(0, kind), *parts])
            for kind, parts in ((np.uint64, self.places), (np.int32, self.labels), (np.int32, self.tables))
        )
        order = np.argsort(places, kind="stable")
        return places[order], labels[order], tables[order]

    def distinct(self) -> int:
        """Different contents of what passes now: so much is left once exact duplicates are gone."""
        return len(np.unique(np.concatenate([np.zeros(0, np.uint64), *self.contents])))


def _measured(store: Store, ref: ObjectRef, screen: Screen[Any]) -> pa.Table | None:
    """A table of this screen's, with keys, reason and measures; None for one of another screen or step."""
    columns = ["input", "ordinal", "content", "reason", *screen.schema.names]
    with open_parquet(store, ref) as file:
        if not set(columns) <= set(file.schema_arrow.names):
            return None
        return file.read(columns)


def _reasons(rows: pa.Table, filters: Sequence[Filter[Any] | None]) -> pa.StringArray:
    """The reason of the first filter that has one, null where none has."""
    reason = pa.nulls(rows.num_rows, pa.string())
    for filter_ in filters:
        if filter_ is None:
            continue
        start = f"{filter_.name}."
        names = [name for name in rows.schema.names if name.startswith(start)]
        measures = rows.select(names).rename_columns([name.removeprefix(start) for name in names])
        parts = [filter_.rule(batch) for batch in measures.to_batches()]
        reason = pc.coalesce(reason, pa.concat_arrays([pa.array([], pa.string()), *parts]))
    return reason


def _content(rows: pa.Table, wanted: np.ndarray) -> np.ndarray:
    """The first 64 bits of the content hashes of the rows that are wanted, uint64."""
    heads = pc.utf8_slice_codeunits(rows["content"].filter(pa.array(wanted)), 0, 16).combine_chunks()
    return np.frombuffer(bytes.fromhex("".join(heads.to_pylist())), ">u8").astype(np.uint64)
