"""Lists media: what each chunk noted of its records' media becomes the table of a version (lake/accounts/media.py).

The stage that reads notes them, whatever becomes of the records; here ranges of digests are merged, as the ledger is of
ranges of ids. What was noted and what the merged tables hold are the two sides of a balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table, read_refs, read_table
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.read.reading import LISTED
from gristmill.stages.run.runner import Runner

ROWS_PER_RANGE = 2_000_000


@dataclass(frozen=True)
class MediaRange:
    """Tables of media (a list object), and a range of digests, `high` excluded."""

    tables: ObjectRef
    low: str
    high: str


@dataclass(frozen=True)
class ListMedia(Stage[MediaRange]):
    """Merges tables of media in one range of digests."""

    name: ClassVar[str] = "list_media"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[MediaRange]) -> Outcome:
        """Output `media`, sorted."""
        low, high = work.payload.low, work.payload.high
        hit = (pc.field("sha256") >= low) & (pc.field("sha256") < high)
        near = [ref for ref in read_refs(store, work.payload.tables) if ref.overlaps(low, high)]
        parts = [read_table(store, ref, filters=hit).cast(media.SCHEMA) for ref in near]
        merged = media.sort(pa.concat_tables([media.SCHEMA.empty_table(), *parts]))
        return Outcome(
            outputs=(put_table(store, media.KIND, merged, sorted_by="sha256"),),
            received=Tally(),
            children_in=total(media.tally(part) for part in parts),
            children={LISTED: media.tally(merged)},
        )


def list_media(runner: Runner, receipts: Sequence[Receipt]) -> list[ObjectRef]:
    """The table of what the work of these receipts noted: one object or more, whose ranges do not overlap; an empty one
    where there are no media. Raises as `Runner.map`, BalanceError where a medium was lost."""
    tables = [ref for receipt in receipts for ref in receipt.outputs if ref.kind == media.KIND]
    listed = put_refs(runner.store, tables)
    works = [
        Work(ListMedia(), (low, high, listed.sha256), MediaRange(listed, low, high), label=f"digests from {low or '0'}")
        for low, high in hash_ranges(sum(ref.records for ref in tables), ROWS_PER_RANGE)
    ]
    merged = runner.map("media", works)
    before = total(receipt.children.get(LISTED, Tally()) for receipt in receipts)
    after = {LISTED: total(receipt.children[LISTED] for receipt in merged)}
    check_balance("media", before, after, what="media", end="place in the table")
    return [receipt.output(media.KIND) for receipt in merged]
