"""Band tables and union-find, against the plainest code that does the same."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gristmill.filters.signatures import compiled
from gristmill.stages.near import union_find as forest
from gristmill.stages.near.union_find import MAX_DOCUMENTS, BandTable, UnionFind

SPREAD = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1

# Few values, so that they meet; spread over all bits or packed into the low ones, where all fall in one slot.
HASHES = st.one_of(
    st.lists(st.integers(0, 30).map(lambda n: 2 * n * SPREAD & MASK), max_size=80),
    st.lists(st.integers(0, 30).map(lambda n: n * 2), max_size=80),
    st.lists(st.sampled_from([0, 2, 1 << 63, MASK - 1, (1 << 63) + 2]), max_size=20),
)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """So that no example pays for it."""
    forest.kernels()


def batches(values: list[int], cuts: list[int]) -> list[np.ndarray]:
    bounds = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    return [np.array(values[a:b], np.uint64) for a, b in pairwise(bounds)]


def fill(table: BandTable, parts: list[np.ndarray], first: int) -> list[tuple[int, int]]:
    edges: list[tuple[int, int]] = []
    for part in parts:
        child, root = table.add_new(part, np.arange(first, first + len(part), dtype=np.uint32))
        assert child.dtype == root.dtype == np.uint32
        edges += zip(child.tolist(), root.tolist(), strict=True)
        first += len(part)
    return edges


@given(HASHES, st.lists(st.integers(0, 80), max_size=4), st.integers(0, 1000))
def test_each_new_document_is_linked_to_the_first_with_its_hash(hashes: list[int], cuts: list[int], start: int) -> None:
    first: dict[int, int] = {}
    expected = []
    for number, hash in enumerate(hashes, start):
        if first.setdefault(hash, number) != number:
            expected.append((number, first[hash]))
    assert fill(BandTable(0), batches(hashes, cuts), start) == expected


@given(HASHES, HASHES, st.lists(st.integers(0, 80), max_size=4))
def test_old_documents_link_new_ones_and_never_each_other(new: list[int], old: list[int], cuts: list[int]) -> None:
    table = BandTable(len(new), grown=True)
    fill(table, batches(new, cuts), len(old))
    number = 0
    for part in batches(old, cuts):
        table.meet_old(part, np.arange(number, number + len(part), dtype=np.uint32))
        number += len(part)
    expected = [(len(old) + new.index(hash), old.index(hash)) for hash in set(new) & set(old)]
    child, root = table.to_old()
    assert list(zip(child.tolist(), root.tolist(), strict=True)) == sorted(expected)


@pytest.mark.parametrize("grown", [False, True])
def test_a_table_that_was_expected_to_be_small_grows(grown: bool) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, 20_000, dtype=np.uint64) & ~np.uint64(1)
    hashes[10_000:15_000] = hashes[:5_000]
    table = BandTable(10, grown=grown)
    assert len(table._keys) == 1024
    edges = fill(table, np.array_split(hashes, 7), 0)
    assert edges == [(n + 10_000, n) for n in range(5_000)]
    assert len(table._keys) >= 15_000 / 0.75
    if grown:
        table.meet_old(hashes[-3:], np.arange(3, dtype=np.uint32))
        assert [column.tolist() for column in table.to_old()] == [[19_997, 19_998, 19_999], [0, 1, 2]]


@given(HASHES, st.integers(0, 3))
def test_ranges_of_hashes_together_find_what_one_table_finds(hashes: list[int], bits: int) -> None:
    whole = set(fill(BandTable(len(hashes)), [np.array(hashes, np.uint64)], 0))
    edges_found: set[tuple[int, int]] = set()
    values, numbers = np.array(hashes, np.uint64), np.arange(len(hashes), dtype=np.uint32)
    for part in range(1 << bits):
        here = values >> np.uint64(64 - bits) == part if bits else np.ones(len(values), bool)
        child, root = BandTable(1).add_new(values[here], numbers[here])
        edges_found |= set(zip(child.tolist(), root.tolist(), strict=True))
    assert edges_found == whole


def test_hashes_may_be_read_only_or_a_view_with_gaps() -> None:
    hashes = np.repeat(np.array([2, 4, 2, 8], np.uint64), 2)[::2]
    hashes.flags.writeable = False
    assert fill(BandTable(4), [hashes], 5) == [(7, 5)]


EDGES = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60)


@given(EDGES, st.randoms(use_true_random=False))
def test_sets_are_components_known_by_their_smallest_whatever_the_order(edges, random) -> None:
    a, b = (np.array([edge[i] for edge in edges], np.uint32) for i in range(2))
    labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(40, 40)), directed=False)[1]
    smallest: dict[int, int] = {}
    for number, label in enumerate(labels.tolist()):
        smallest.setdefault(label, number)
    expected = [(n, smallest[x]) for n, x in enumerate(labels.tolist()) if smallest[x] != n]
    for _ in range(3):
        sets = UnionFind(40)
        for part in batches_of(edges, random.randint(1, 10)):
            sets.union(*(np.array([edge[i] for edge in part], np.uint32) for i in range(2)))
        child, root = sets.forest()
        assert child.dtype == root.dtype == np.uint32
        assert list(zip(child.tolist(), root.tolist(), strict=True)) == expected
        random.shuffle(edges)


def batches_of(edges: list[tuple[int, int]], size: int) -> list[list[tuple[int, int]]]:
    return [edges[i : i + size] for i in range(0, len(edges), size)]


def test_a_long_chain_is_one_set() -> None:
    n = 200_000
    sets = UnionFind(n)
    numbers = np.arange(n, dtype=np.uint32)
    sets.union(numbers[:0:-1], numbers[-2::-1])  # from the far end: the deepest trees that union by smallest can make
    child, root = sets.forest()
    assert len(child) == n - 1 and not root.any()


def test_tables_and_sets_find_the_components_of_all_buckets() -> None:
    rng = np.random.default_rng(1)
    n, bands = 3_000, 4
    hashes = rng.integers(0, 2_500, (bands, n), dtype=np.uint64) << np.uint64(20)
    sets = UnionFind(n)
    pairs: list[tuple[int, int]] = []
    for band in hashes:
        child, root = BandTable(n).add_new(band, np.arange(n, dtype=np.uint32))
        sets.union(child, root)
        buckets = defaultdict(list)
        for number, hash in enumerate(band.tolist()):
            buckets[hash].append(number)
        pairs += [(x, y) for bucket in buckets.values() for x in bucket for y in bucket if x < y]
    a, b = np.array(pairs).T
    labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False)[1]
    label = np.arange(n)
    child, root = sets.forest()
    label[child] = root
    assert len(set(zip(labels.tolist(), label.tolist(), strict=True))) == len(set(labels.tolist()))
    assert len(set(label.tolist())) == len(set(labels.tolist()))


def test_more_documents_than_numbers_are_refused_with_the_bound() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_DOCUMENTS:,}"):
        UnionFind(MAX_DOCUMENTS + 1)


def test_the_loops_stand_in_the_cache_of_kernels_and_have_one_form_each() -> None:
    """Not in numba's cache by path, which every job's copy of the repository would miss."""
    for loop in forest.kernels():
        assert loop.py_func.__code__.co_filename.startswith(str(compiled.cache_folder() / "kernels"))
        assert len(loop.signatures) == 1
