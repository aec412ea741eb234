"""Tabulate: the rows of all pieces as one table, and its scores with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table, read_refs, read_table
from gristmill.lake.versions.form import TABLE
from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.scores import Score, rows_of, scores_of, warnings_of
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.evaluate.work import ROWS_KIND


@dataclass(frozen=True)
class TabulateInput:
    """The tables of all pieces in order (a list object), and how many records have no row."""

    tables: ObjectRef
    unscored: int


@dataclass(frozen=True)
class TabulateFacts:
    """`written`: answers, of which `cut` were cut off."""

    items: int
    unscored: int
    written: int
    cut: int
    scores: tuple[Score, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Tabulate(Stage[TabulateInput]):
    """`bootstrap`: how intervals are drawn."""

    name: ClassVar[str] = "tabulate"
    VERSION: ClassVar[int] = 3  # scores of groups

    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    def run(self, store: Store, work: Work[TabulateInput]) -> Outcome:
        """Output: a shard (ROWS); facts: TabulateFacts."""
        tables = [read_table(store, ref) for ref in read_refs(store, work.payload.tables)]
        rows = rows_of(tables)
        scores = tuple(scores_of(rows, self.bootstrap))
        written, cut = rows["cut"].length() - rows["cut"].null_count, pc.sum(rows["cut"]).as_py() or 0
        facts = TabulateFacts(
            items=rows.num_rows,
            unscored=work.payload.unscored,
            written=written,
            cut=cut,
            scores=scores,
            warnings=tuple(warnings_of(scores, work.payload.unscored, cut, written)),
        )
        return Outcome(outputs=(put_table(store, TABLE.kind, rows),), facts=facts)


def tabulate_work(stage: Tabulate, store: Store, receipts: Sequence[Receipt]) -> Work[TabulateInput]:
    """The one Work of an evaluation. `receipts`: of its pieces, in order."""
    refs = [receipt.output(ROWS_KIND) for receipt in receipts]
    unscored = sum(receipt.dropped.count for receipt in receipts)
    tables = put_refs(store, refs)
    return Work(
        stage, (tables.sha256, str(unscored)), TabulateInput(tables, unscored), received=Tally(), label="scores"
    )
