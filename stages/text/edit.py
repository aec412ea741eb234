"""Edit: texts rewritten, after the filters and before texts are compared: duplicates are told on what is shipped.

A record keeps its key and all it has but its text; the content hash is that of the new text, and its mark says what was
done to it, which is what the ledger tells of a record that is kept. The output is the content of the chunk from here on
and a table of verdicts beside it, with the counts of each edit as measures: those that earlier filters took stay
reachable by record. A record with nothing left is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.edits.base import Edit
from gristmill.filters.text.docs import Docs
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_refs
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import CONTENT, KEYS, KEYS_SCHEMA, Edited, alive, put_verdicts
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.read.reading import content_hash
from gristmill.stages.text.screen import ScreenPayload, filter_ids

BATCH_ROWS = 1024
LANGUAGE = "language.language"
"""The measure with a record's language, for edits that ask for some."""


@dataclass(frozen=True)
class EditTexts(Stage[ScreenPayload]):
    """`edits` in the order in which each gets what the one before it left."""

    name: ClassVar[str] = "edit"
    VERSION: ClassVar[int] = 1
    facts: ClassVar[type[Any]] = Edited

    edits: tuple[Edit, ...]

    def identity(self) -> tuple[StageId, ...]:
        own = StageId(name=self.name, version=self.VERSION, config={})
        return (own, *filter_ids(self.edits))

    @property
    def measures(self) -> tuple[str, ...]:
        """The names under which its counts are stored: `pii.email`."""
        return tuple(f"{edit.name}.{kind}" for edit in self.edits for kind in edit.counted)

    def run(self, store: Store, work: Work[ScreenPayload]) -> Outcome:
        """payload: ScreenPayload. Outputs `text`, the content of what is left; `screened`: keys, reason and counts of
        all that came, by content hash; and fates. Raises ValueError where an edit asks for languages that no filter
        gave."""
        payload = work.payload
        exclusions = read_refs(store, payload.exclusions) if payload.exclusions else []
        asked = [LANGUAGE] if any(edit.asked_languages for edit in self.edits) else []
        rows = alive(store, payload.chunk, None, measures=asked, exclusions=exclusions)
        fates, contents, verdicts = Fates(), [rows.slice(0, 0).drop_columns(asked)], [self._nothing()]
        for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
            content, judged = self._edited(batch)
            contents.append(content.filter(pc.is_null(judged["reason"])))
            verdicts.append(judged)
            dropped = judged.filter(pc.is_valid(judged["reason"]))
            fates.add_dropped(dropped, dropped["reason"])
        content, table = pa.concat_tables(contents), pa.concat_tables(verdicts)
        written, counts = fates.write(store)
        passed = table.filter(pc.is_null(table["reason"]))
        return Outcome(
            outputs=(put_table(store, CONTENT, content), put_verdicts(store, table), written),
            received=None if work.received is not None else ledger.tally(rows),  # only here is known who was excluded
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Edited(
                pc.sum(pc.binary_length(content["text"])).as_py() or 0,
                {name: pc.sum(passed[name]).as_py() or 0 for name in self.measures},
            ),
        )

    def _nothing(self) -> pa.Table:
        """Verdicts of no records."""
        counts = [pa.field(name, pa.int64()) for name in self.measures]
        return pa.schema([*KEYS_SCHEMA, *counts, pa.field("reason", pa.string())]).empty_table()

    def _edited(self, rows: pa.RecordBatch) -> tuple[pa.Table, pa.Table]:
        """The records with their new texts, hashes and marks; and the verdicts on them."""
        languages = rows[LANGUAGE] if LANGUAGE in rows.schema.names else None
        texts, reasons = rows["text"], pa.nulls(rows.num_rows, pa.string())
        counts: dict[str, pa.Array] = {}
        marks = [[mark] if mark else [] for mark in rows["mark"].to_pylist()]
        for edit in self.edits:
            done = edit.edit(Docs(texts, urls=rows["url"], languages=languages))
            counts |= {f"{edit.name}.{kind}": done.counts[kind] for kind in edit.counted}
            is_changed = pc.not_equal(done.texts, texts)
            for row in np.flatnonzero(is_changed.to_numpy(zero_copy_only=False)).tolist():
                marks[row].append(_mark(edit, done.counts.slice(row, 1).to_pylist()[0]))
            is_empty = pc.and_(is_changed, pc.equal(pc.utf8_trim_whitespace(done.texts), ""))
            reasons = pc.coalesce(reasons, pc.if_else(is_empty, f"{edit.name}.nothing_left", None))
            texts = done.texts
        content = pa.table({name: rows[name] for name in rows.schema.names if name != LANGUAGE})
        shown = pa.array(["; ".join(parts) or None for parts in marks], pa.string())
        content = rewritten(content, texts, shown)
        keys = {name: content[name] for name in KEYS}
        return content, pa.table({**keys, **counts, "reason": reasons}).cast(self._nothing().schema)


def rewritten(content: pa.Table, texts: pa.StringArray, marks: pa.StringArray) -> pa.Table:
    """Records with these texts and marks, and the content hashes of the texts."""
    hashes = pa.array([content_hash(text) for text in texts.to_pylist()], pa.string())
    for name, values in {"text": texts, "content": hashes, "mark": marks}.items():
        content = content.set_column(content.schema.get_field_index(name), content.field(name), values)
    return content


def _mark(edit: Edit, counts: Mapping[str, int]) -> str:
    """What a record's mark says of an edit that changed its text: `pii: email 2, phone 1`."""
    parts = [f"{kind} {n}" for kind, n in counts.items() if n]
    return f"{edit.name}: {', '.join(parts) or 'within lines'}"
