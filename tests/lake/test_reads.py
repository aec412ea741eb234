"""What a question reads of a large ledger: a few blocks of it, however many rows it has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from counting import Counting
from drafts import draft
from lake_builder import page_id

from gristmill.lake.accounts import ledger
from gristmill.lake.query.sampling import sample
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import WHOLE_BYTES, ObjectRef, iter_batches, put_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions

ROWS = 400_000
URL = "https://example.org/asked"
FEW = 8
MOST = 3_000_000
"""Bytes: footer and one row group of 16,384 rows, in whole blocks, with the digests of all blocks."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, ObjectRef]:
    """A version whose one ledger has 400,000 rows, of which every tenth was dropped; and that ledger."""
    store = open_store(str(tmp_path_factory.mktemp("large") / "lake"))
    halves = np.random.default_rng(0).integers(0, 1 << 63, (ROWS - 1, 2), np.uint64)
    ids = np.sort([page_id(URL), *(f"{first:016x}{second:016x}" for first, second in halves.tolist())])
    dropped = np.arange(ROWS) % 10 == 0
    nothing = pa.nulls(ROWS, pa.string())
    columns = {
        "id": pa.array(ids, pa.string()),
        "input": pa.array(["a" * 64] * ROWS),
        "ordinal": pa.array(np.random.default_rng(1).permutation(ROWS)),
        "fate": pa.array(np.where(dropped, "dropped", "kept"), pa.string()),
        "stage": pa.array(np.where(dropped, "screen", "shards"), pa.string()),
        "reason": pa.array(np.where(dropped, "screen.short", ""), pa.string()),
        "value": nothing,
        "survivor": nothing,
        "start": pa.array(np.random.default_rng(2).integers(0, 1 << 40, ROWS)),
        "length": pa.array(np.random.default_rng(3).integers(0, 1 << 20, ROWS)),
    }
    table = pa.table(columns).select(ledger.SCHEMA.names).cast(ledger.SCHEMA)
    ref = put_table(store, "ledger", table, sorted_by="id")
    Versions(store).commit(draft("web", "large", ["a" * 64], ledgers=(ref,)))
    assert ref.bytes > 1.5 * WHOLE_BYTES  # else it would be read whole
    return store, ref


def test_why_reads_a_few_blocks_of_the_ledger(large: tuple[Store, ObjectRef]) -> None:
    store, ref = large
    counting = Counting(store)
    (story,) = why(Versions(counting), URL).stories  # type: ignore[arg-type]
    assert story.place.id == page_id(URL)
    assert len(counting.read) <= FEW, counting.read
    assert 0 < counting.bytes <= MOST < ref.bytes / 4, counting.bytes


def test_a_sample_of_what_was_dropped_reads_a_few_row_groups(large: tuple[Store, ObjectRef]) -> None:
    store, _ = large
    counting = Counting(store)
    versions = Versions(counting)  # type: ignore[arg-type]
    drawn = sample(versions, versions.manifest("web", 1), 1, fate="dropped")
    assert [record.fate for record in drawn.samples] == ["dropped"]
    assert 0 < counting.bytes <= MOST, counting.bytes


def test_a_wider_question_reads_more(large: tuple[Store, ObjectRef]) -> None:
    """That the bytes are counted: all of the ledger is more than what was allowed."""
    store, ref = large
    counting = Counting(store)
    rows = sum(batch.num_rows for batch in iter_batches(counting, ref))  # type: ignore[arg-type]
    assert rows == ROWS and counting.bytes >= ref.bytes > MOST
