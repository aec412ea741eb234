"""Scatter and gather: more ranges change how the work is cut, never what is kept or why."""

from __future__ import annotations

from itertools import pairwise

import pytest
import web

from gristmill import lake
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.stages.core import shards
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.shards import shard_groups
from gristmill.stages.dedup import exact

ROW = ["id", "input", "ordinal", "fate", "reason", "survivor"]


def test_many_small_ranges_give_the_fates_of_one(sample, tmp_path, monkeypatch):
    files = web.crawl_files(sample)
    whole = web.run(tmp_path / "one", files).manifest
    monkeypatch.setattr(exact, "ROWS_PER_RANGE", 20)
    monkeypatch.setattr(shards, "LEDGER_ROWS", 30)
    many = web.run(tmp_path / "many", files).manifest
    assert len(whole.ledgers) == 1 and len(many.ledgers) >= 4
    assert many.shards == whole.shards
    tables = [lake.open("web", lake=str(tmp_path / at)).ledger().select(ROW) for at in ("one", "many")]
    assert tables[0].equals(tables[1])
    assert verify(open_store(str(tmp_path / "many")), deep=True) == []


@pytest.mark.parametrize("rows", [0, 1, 10, 11, 21, 41])
def test_ranges_tile_all_hashes(rows):
    ranges = hash_ranges(rows, 10)
    assert ranges[0][0] == "" and ranges[-1][1] == "g"
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    assert len(ranges) & (len(ranges) - 1) == 0 and len(ranges) * 10 >= rows
    low, high = "0" * 32, "f" * 32
    assert any(a <= low < b for a, b in ranges) and any(a <= high < b for a, b in ranges)


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([], [(0, 0)]),
        ([0, 0], [(0, 2)]),
        ([5, 5, 5], [(0, 2), (2, 3)]),
        ([50, 1, 9], [(0, 1), (1, 3)]),
        ([10, 0, 0], [(0, 3)]),
        ([10, 0, 12, 0], [(0, 1), (1, 4)]),
    ],
)
def test_shards_are_closed_by_size_and_nothing_passed_is_left_out(sizes, groups):
    assert shard_groups(sizes, 10) == groups
    taken = {i for first, end in groups for i in range(first, end)}
    assert taken == set(range(len(sizes)))
