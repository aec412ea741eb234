"""Screen: the filters, fused in one Work over stored text. It measures first and rules second.

Every document is measured by every filter, and all values are stored, so that a threshold can be replayed
without a rerun. The first filter with a reason decides the fate. Text is not rewritten: the output is a table of
keys, content hashes and measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter
from filters.docs import Docs
from filters.language import LanguageFilter
from lake import ledger
from lake.objects import ObjectRef, iter_batches, put_table, read_table
from lake.receipt import StageId
from lake.store import Store
from stages.fates import KEYS as RECORD_KEYS
from stages.fates import Fates
from stages.work import Outcome, Work, stage_id

KEYS = (*RECORD_KEYS, "content")


@dataclass(frozen=True)
class Screen:
    """`filters` in the order in which they decide."""

    name: ClassVar[str] = "screen"
    VERSION: ClassVar[int] = 1

    filters: tuple[Filter, ...]

    def identity(self) -> tuple[StageId, ...]:
        return (
            StageId(name=self.name, version=self.VERSION, config={}),
            *(filter_id(one) for one in self.filters),
        )

    def measures(self) -> list[str]:
        """The names under which measures that are numbers are stored."""
        docs = Docs(pa.array([], pa.string()))
        fields = [(one.name, field) for one in self.filters for field in one.measure(docs).schema]
        numbers = (pa.types.is_integer, pa.types.is_floating)
        return [f"{name}.{field.name}" for name, field in fields if any(is_one(field.type) for is_one in numbers)]

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: text (of an Extract). Output `screened`: keys, reason, and every measure, by content hash."""
        fates, tables = Fates(), []
        passed_bytes = 0
        for batch in iter_batches(store, ObjectRef(**work.payload["text"])):
            table = self._judge(batch, fates)
            tables.append(table)
            lengths = pc.binary_length(batch["text"])
            passed_bytes += pc.sum(pc.filter(lengths, pc.is_null(table["reason"]))).as_py() or 0
        screened = pa.concat_tables(tables) if tables else self._judge(_no_docs(), fates)
        screened = screened.sort_by([(c, "ascending") for c in ("content", "input", "ordinal")])
        written, counts = fates.write(store)
        passed = screened.filter(pc.is_null(screened["reason"]))
        return Outcome(
            outputs=(put_table(store, "screened", screened), written),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
            facts={"passed_bytes": passed_bytes},
        )

    def _judge(self, batch: pa.RecordBatch, fates: Fates) -> pa.Table:
        docs = Docs(batch["text"], urls=batch["url"])
        columns: dict[str, Any] = {name: batch[name] for name in KEYS}
        reason = pa.nulls(batch.num_rows, pa.string())
        for one in self.filters:
            measures = one.measure(docs)
            columns |= {f"{one.name}.{name}": measures[name] for name in measures.schema.names}
            reason = pc.coalesce(reason, one.rule(measures))
        columns["reason"] = reason
        table = pa.table(columns)
        evidence = {
            f"{one.name}.{why}": f"{one.name}.{col}" for one in self.filters for why, col in one.evidence.items()
        }
        for row in table.filter(pc.is_valid(reason)).to_pylist():
            fates.add(row, "dropped", row["reason"], row.get(evidence.get(row["reason"], "")))
        return table


def filter_id(one: Filter) -> StageId:
    """A filter's identity. A model's bytes decide like a threshold does, wherever the file lies."""
    identity = stage_id(one)
    if isinstance(one, LanguageFilter):
        config = {k: v for k, v in identity.config.items() if k != "model_path"}
        config["model_sha256"] = one.model_digest()
        identity = identity.model_copy(update={"config": config})
    return identity


def passed_rows(
    store: Store, text: ObjectRef, screened: ObjectRef, columns: list[str] | None, measures: Sequence[str] = ()
) -> pa.Table:
    """The records of a chunk that passed every filter, in order of the input: `columns` of the text (None: all), and
    `measures` by their names in the screened table. `columns` has `ordinal`."""
    rows = read_table(store, text, columns)
    verdicts = read_table(store, screened, ["ordinal", *measures], pc.is_null(pc.field("reason"))).sort_by("ordinal")
    passed = rows.filter(pc.is_in(rows["ordinal"], verdicts["ordinal"]))
    if passed["ordinal"].to_pylist() != verdicts["ordinal"].to_pylist():
        raise ValueError(f"text {text.sha256[:12]} and its verdicts {screened.sha256[:12]} name other records")
    for name in measures:
        passed = passed.append_column(name, verdicts[name])
    return passed


def _no_docs() -> pa.RecordBatch:
    from stages.extract import SCHEMA

    return pa.RecordBatch.from_pylist([], schema=SCHEMA)
