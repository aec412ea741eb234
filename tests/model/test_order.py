"""An order of an epoch is a bijection, the same one by element and by array, and mixes as a shuffle does."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.shards.order import Permutation


def whole(n: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return Permutation(n, seed, epoch).take(np.arange(n))


def deviation(counts: np.ndarray, expected: np.ndarray) -> float:
    """Of a chi-square from its mean, in its standard deviations."""
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / sqrt(2 * freedom))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1000, 10**6])
def test_each_number_stands_at_one_place(n: int) -> None:
    for seed in range(3 if n < 10**6 else 1):
        assert np.array_equal(np.sort(whole(n, seed)), np.arange(n))


@settings(max_examples=100)
@given(st.integers(1, 300), st.integers(), st.integers(0, 10**9))
def test_it_is_a_bijection_and_take_agrees_with_single_elements(n: int, seed: int, epoch: int) -> None:
    order = Permutation(n, seed, epoch)
    one_by_one = [order[k] for k in range(n)]
    assert sorted(one_by_one) == list(range(n)) and len(order) == n
    assert order.take(np.arange(n)).tolist() == one_by_one
    assert all(type(value) is int for value in one_by_one)


def test_large_orders_agree_and_stay_in_range() -> None:
    order = Permutation(1 << 62, 1, 2)
    places = np.array([0, 1, (1 << 62) - 1, 12345678901234567])
    assert order.take(places).tolist() == [order[int(k)] for k in places]
    odd = Permutation(3 * 10**9 + 1, 5, 5)
    taken = odd.take(np.arange(100_000).reshape(2, -1))
    assert taken.shape == (2, 50_000) and taken.dtype == np.int64
    assert len(np.unique(taken)) == 100_000 and taken.min() >= 0 and taken.max() <= 3 * 10**9


def test_the_order_is_pinned() -> None:
    """Runs resume by it: another order under the same seed would repeat and lose samples without a word."""
    assert [Permutation(1000, 7, 3)[k] for k in range(8)] == [684, 968, 856, 192, 23, 974, 354, 681]
    assert whole(7, -1, 0).tolist() == [0, 4, 2, 5, 6, 3, 1]


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(whole(50, seed, epoch)) for seed in range(30) for epoch in range(30)}
    assert len(orders) == 900
    assert tuple(whole(50, 1, 11)) != tuple(whole(50, 11, 1))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_orders_of_a_few_are_equally_likely(n: int) -> None:
    orders = (Permutation(n, seed, 0) for seed in range(6000))
    seen = Counter(tuple(order[k] for k in range(n)) for order in orders)
    kinds = {2: 2, 3: 6, 4: 24}[n]
    assert len(seen) == kinds
    assert abs(deviation(np.array(list(seen.values())), np.full(kinds, 6000 / kinds))) < 4


@pytest.mark.parametrize("n", [7, 1000, 10**6])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_what_stands_at_a_place_is_uniform_over_seeds(n: int, place: int) -> None:
    bins, seeds = min(n, 20), 4000
    counts = np.bincount([Permutation(n, seed, 0)[place % n] * bins // n for seed in range(seeds)], minlength=bins)
    width = np.bincount(np.arange(n) * bins // n, minlength=bins) / n
    assert abs(deviation(counts, width * seeds)) < 4


def test_what_stands_at_two_places_is_uniform_together() -> None:
    orders = [Permutation(1000, seed, 0) for seed in range(8000)]
    cells = np.bincount([order[0] // 100 * 10 + order[1] // 100 for order in orders], minlength=100)
    assert abs(deviation(cells, np.full(100, 80.0))) < 4


@pytest.mark.parametrize("n", [1000, 16_385, 10**6])
def test_neighbours_and_places_tell_nothing(n: int) -> None:
    """Each mean over orders is within four standard errors of what a shuffle has."""
    orders = [whole(n, seed, 5) for seed in range(40 if n < 10**6 else 2)]
    spread = 4 / sqrt(n * len(orders))
    places = np.arange(n)
    assert abs(np.mean([np.corrcoef(order[:-1], order[1:])[0, 1] for order in orders])) < spread
    assert abs(np.mean([np.corrcoef(order, places)[0, 1] for order in orders])) < spread
    assert abs(np.mean([np.abs(order - places).mean() / n - 1 / 3 for order in orders])) < spread
    fixed = sum(int((order == places).sum()) for order in orders)
    assert abs(fixed - len(orders)) < 4 * sqrt(len(orders)) + 1


def test_what_is_no_place_is_refused() -> None:
    order = Permutation(10, 0, 0)
    for k in (-1, 10):
        with pytest.raises(IndexError, match=f"place {k} "):
            order[k]
        with pytest.raises(IndexError, match="not in an order of 10"):
            order.take(np.array([3, k]))
    assert order.take(np.array([], dtype=np.int64)).tolist() == []
    for n in (0, -1, (1 << 62) + 1):
        with pytest.raises(ValueError, match="1 to 2"):
            Permutation(n, 0, 0)
