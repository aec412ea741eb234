"""Screen: the filters, fused in one Work over stored content. It measures first and rules second.

Every record that comes in is measured by every filter, and all values are stored, so that a threshold can be replayed
without a rerun. The first filter with a reason decides the fate. Content is not rewritten: the output is a table of
keys, content hashes and measures. A screen may stand anywhere after the reading, and there may be several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import B, Filter
from gristmill.filters.edits.base import Edit
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_object, read_refs
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import KEYS, KEYS_SCHEMA, Chunk, Passed, alive_batches, put_verdicts
from gristmill.stages.core.releases import release_ids
from gristmill.stages.core.work import Outcome, Stage, Work


@dataclass(frozen=True)
class ScreenPayload:
    """A chunk, and the exclusions (a list object) that were there before."""

    chunk: Chunk
    exclusions: ObjectRef | None = None


@dataclass(frozen=True)
class Screen(Stage[ScreenPayload], Generic[B]):
    """`filters` in the order in which they decide; `batch` is what they measure: `Docs` for texts."""

    name: ClassVar[str] = "screen"
    VERSION: ClassVar[int] = 1

    filters: tuple[Filter[B], ...]
    batch: type[B]

    def identity(self) -> tuple[StageId, ...]:
        own = StageId(name=self.name, version=self.VERSION, config={})
        return (own, *filter_ids(self.filters))

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the measures, by their stored names: `gopher_quality.n_words`."""
        nothing = self.batch.empty()
        fields = []
        for filter_ in self.filters:
            measured = filter_.measure(nothing).schema
            fields += [field.with_name(f"{filter_.name}.{field.name}") for field in measured]
        return pa.schema(fields)

    def measures(self) -> list[str]:
        """The names under which measures that are numbers are stored."""
        is_integer, is_floating = pa.types.is_integer, pa.types.is_floating
        return [field.name for field in self.schema if is_integer(field.type) or is_floating(field.type)]

    def run(self, store: Store, work: Work[ScreenPayload]) -> Outcome:
        """payload: ScreenPayload. Outputs `screened`: keys, reason, and every measure, by content hash; and fates."""
        payload = work.payload
        exclusions = read_refs(store, payload.exclusions) if payload.exclusions else []
        filters = [filter_.with_objects(object_reader(store)) for filter_ in self.filters]
        fates, tables = Fates(), []
        received, passed_bytes = Tally(), 0
        for rows in alive_batches(store, payload.chunk, [*KEYS, *self.batch.columns], exclusions):
            if work.received is None:  # only here is known who was excluded before
                received += ledger.tally(rows)
            batch = self.batch.of(rows)
            table = self._judge(filters, rows, batch, fates)
            tables.append(table)
            passed_bytes += pc.sum(pc.filter(batch.sizes, pc.is_null(table["reason"]))).as_py() or 0
        if not tables:
            nothing = pa.RecordBatch.from_pylist([], schema=KEYS_SCHEMA)
            tables.append(self._judge(filters, nothing, self.batch.empty(), fates))
        verdicts = pa.concat_tables(tables)
        written, counts = fates.write(store)
        passed = ledger.tally(verdicts.filter(pc.is_null(verdicts["reason"])))
        return Outcome(
            outputs=(put_verdicts(store, verdicts), written),
            received=received,
            passed=passed,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
            facts=Passed(passed_bytes),
        )

    def _judge(self, filters: Sequence[Filter[B]], rows: pa.RecordBatch, batch: B, fates: Fates) -> pa.Table:
        columns: dict[str, Any] = {name: rows[name] for name in KEYS}
        reason = pa.nulls(rows.num_rows, pa.string())
        for filter_ in filters:  # all of them measure what an earlier one drops too: replay may drop it no more
            measures = filter_.measure(batch)
            columns |= {f"{filter_.name}.{name}": measures[name] for name in measures.schema.names}
            reason = pc.coalesce(reason, filter_.rule(measures))
        columns["reason"] = reason
        table = pa.table(columns)
        for row in table.filter(pc.is_valid(reason)).to_pylist():
            fate = "quarantined" if row["reason"] in self._failures else "dropped"
            fates.add(row, fate, row["reason"], row.get(self._evidence.get(row["reason"], "")))
        return table

    @cached_property
    def _failures(self) -> frozenset[str]:
        """Reasons that quarantine."""
        return frozenset(f"{filter_.name}.{reason}" for filter_ in self.filters for reason in filter_.failures)

    @cached_property
    def _evidence(self) -> dict[str, str]:
        """Reason -> the column with the offending value."""
        columns: dict[str, str] = {}
        for filter_ in self.filters:
            for reason, column in filter_.evidence.items():
                columns[f"{filter_.name}.{reason}"] = f"{filter_.name}.{column}"
        return columns


def object_reader(store: Store) -> Callable[[str], bytes]:
    """sha256 in hex -> all bytes of that object, for `Filter.with_objects`; it raises DamagedObject, NotFound."""
    return lambda sha256: read_object(store, ObjectRef(kind="object", sha256=sha256, bytes=0, records=0))


def filter_ids(filters: Sequence[Filter[Any] | Edit]) -> tuple[StageId, ...]:
    """The identities of filters or edits in their order, and of the packages that they ask."""
    asked = (name for filter_ in filters for name in filter_.releases)
    return (*map(_filter_id, filters), *release_ids(asked))


def _filter_id(filter_: Filter[Any] | Edit) -> StageId:
    """With its config as JSON will read it back: tuples become lists."""
    about = canonical({"name": filter_.name, "version": filter_.VERSION, "config": filter_.config()})
    return StageId.model_validate_json(about)


def screen_work(stage: Stage[ScreenPayload], chunk: Chunk, exclusions: ObjectRef | None = None) -> Work[ScreenPayload]:
    """The work on a chunk. `exclusions`: a list object of who was excluded before, None: nobody; where there is one,
    the stage itself counts what comes in."""
    if exclusions is None:  # the same work in every run, whatever is excluded later
        return Work(stage, chunk.digests, ScreenPayload(chunk), chunk.tally, chunk.label)
    inputs = (*chunk.digests, exclusions.sha256)
    return Work(stage, inputs, ScreenPayload(chunk, exclusions), label=chunk.label)
