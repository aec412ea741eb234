"""Compaction: fewer objects with the same rows, so that many increments stay few objects."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gristmill.lake.store.objects import put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.stages.near.compact import Compact, compacted, trailing
from gristmill.stages.run.runner import Runner


@pytest.mark.parametrize(
    ("sizes", "cap", "first"),
    [
        ([], None, 0),
        ([5], None, 0),
        ([100, 5], None, 1),
        ([5, 5], None, 0),
        ([100, 30, 20, 5, 5], None, 0),  # many increments that were never merged
        ([2, 1, 2, 1], None, 0),  # two an increment
        ([1000, 30, 18, 5, 5], None, 1),
        ([80, 80], 100, 1),
        ([80, 10, 10], 100, 1),
    ],
)
def test_generations_that_are_merged(sizes, cap, first):
    assert trailing(sizes, cap) == first


def test_the_number_of_generations_grows_with_the_logarithm():
    sizes: list[int] = []
    moved = 0
    for _ in range(1000):
        first = trailing(sizes)
        if first < len(sizes) - 1:
            moved += sum(sizes[first:])
            sizes[first:] = [sum(sizes[first:])]
        sizes.append(1)
        assert len(sizes) <= 12
    assert moved <= 1000 * 11


def test_compacted_objects_have_the_same_rows(tmp_path):
    runner = Runner(open_store(str(tmp_path)), workers=0)
    tables = [
        pa.table({"content": [f"{(i * 7919 + n) % 997:04x}" for i in range(50)], "id": [str(n)] * 50}) for n in range(5)
    ]
    order = [("content", "ascending"), ("id", "ascending")]
    refs = [put_table(runner.store, "contents", t.sort_by(order), sorted_by="content") for t in tables]
    done = compacted(runner, Compact("contents", ("content", "id")), refs)
    assert len(done) == 1
    table = read_table(runner.store, done[0])
    assert table.equals(pa.concat_tables(tables).sort_by(order)) and (done[0].first, done[0].last) != ("", "")
    joined = compacted(runner, Compact("contents"), refs)
    assert read_table(runner.store, joined[0]).equals(pa.concat_tables([t.sort_by(order) for t in tables]))
