"""Survivors over increments: earlier ones stay, and the difference from one run over everything is written down."""

from __future__ import annotations

import numpy as np
import pytest
from near import GrownDataset, template, texts, world

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.stages.clusters.select_survivors import SelectSurvivors


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


@pytest.mark.parametrize(("seed", "similarity"), [(0, 0.7), (3, 0.7), (1, None)])
def test_the_difference_between_increments_and_one_run_is_written_down(tmp_path, seed, similarity):
    values, ids, ranks = world(seed)
    whole = GrownDataset(open_store(str(tmp_path / "whole")), SelectSurvivors(similarity))
    whole.increment(values, ids, ranks)
    grown = GrownDataset(open_store(str(tmp_path / "grown")), SelectSurvivors(similarity))
    for at in np.array_split(np.arange(len(ids)), 3):
        before = set(grown.kept)
        grown.increment(values[at], [ids[i] for i in at], [ranks[i] for i in at])
        assert before <= grown.kept
    only_here, only_there = grown.kept - whole.kept, whole.kept - grown.kept
    rows = grown.differences
    assert {row["survivor"] for row in rows if row["what"] == "kept_here"} == only_here
    assert {row["other"] for row in rows if row["what"] == "dropped_here"} == only_there
    assert only_here and {row["survivor"] for row in rows} <= grown.kept


def test_a_later_document_is_compared_with_every_earlier_survivor_of_its_component(store):
    """It shares bands with the first page of a template alone, and is most like another one."""
    random = np.random.default_rng(8)
    first, second = template(random, 2, 0.62)
    second[:8] = first[:8]  # so that both hang together, by the first band
    shared = np.flatnonzero(first == second)
    copy = second.copy()
    copy[8::8] = texts(random, 1)[0][8::8]  # one value of every other band: none of them is shared
    increments = GrownDataset(store)
    increments.increment(np.array([first, second]), ["0" * 32, "1" * 32], [5.0, 5.0])
    assert len(increments.kept) == 2 and len(shared) < 83
    increments.increment(np.array([copy]), ["2" * 32], [9.0])
    assert increments.survivors == {"2" * 32: "1" * 32} and increments.values["2" * 32] == "0.88"
    assert [row["what"] for row in increments.differences] == ["dropped_here", "kept_here"]


@pytest.mark.parametrize("pieces", [1, 3])
def test_order_and_cut_of_the_input_change_nothing(tmp_path, pieces):
    values, ids, ranks = world(1)
    at = np.random.default_rng(pieces).permutation(len(ids))
    whole, shuffled = (GrownDataset(open_store(str(tmp_path / name))) for name in "ab")
    whole.increment(values, ids, ranks)
    shuffled.increment(values[at], [ids[i] for i in at], [ranks[i] for i in at], pieces)
    assert (whole.kept, whole.survivors, whole.values) == (shuffled.kept, shuffled.survivors, shuffled.values)


def test_an_increment_without_the_forest_of_the_last_one_links_everything_again(tmp_path):
    """As after a takedown, which takes rows out, and on the lake of a release that kept none."""
    values, ids, ranks = world(2)
    with_it, without = (GrownDataset(open_store(str(tmp_path / name))) for name in "ab")
    for increments in (with_it, without):
        increments.increment(values[:60], ids[:60], ranks[:60])
    without.forest = None
    for increments in (with_it, without):
        increments.increment(values[60:], ids[60:], ranks[60:])
    assert (with_it.kept, with_it.survivors, with_it.forest) == (without.kept, without.survivors, without.forest)
    without.collections = without.collections[1:]  # a forest of other documents is not taken
    without.increment(values[:1], ["f" * 32], ranks[:1])
    assert without.forest.records == len(ids) - 60 + 1 - len(components(without))


def components(increments: GrownDataset) -> set[int]:
    documents = sum(ref.records for ref in increments.collections)
    return set(range(documents)) - set(read_table(increments.store, increments.forest)["child"].to_pylist())


def test_a_record_met_again_is_kept_once_however_unlike_its_texts_are(store):
    random = np.random.default_rng(9)
    first = texts(random, 1)[0]
    again = np.concatenate([first[:8], texts(random, 1)[0][8:]])
    increments = GrownDataset(store)
    increments.increment(np.array([first]), ["a" * 32], [5.0])
    increments.increment(np.array([again]), ["a" * 32], [9.0])
    assert (
        increments.kept == {"a" * 32}
        and increments.survivors == {"a" * 32: "a" * 32}
        and increments.values["a" * 32] == "0.07"
    )
    assert increments.differences == []
