"""Packing: every token once, no window too full, few documents cut, little empty."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.processing.packing import SLIVER, Budget, Packing, pack


def check(packing: Packing, lengths: np.ndarray, splittable: np.ndarray, window: int) -> None:
    """Whatever the lengths: each sample is tiled by its pieces, and what is reported is what is there."""
    parts = defaultdict(list)
    for in_window in packing.windows:
        assert in_window and sum(piece.length for piece in in_window) <= window
        for piece in in_window:
            parts[piece.sample].append((piece.start, piece.length))
    assert set(parts) == set(range(len(lengths)))
    for sample, pieces in parts.items():
        at = 0
        for start, length in sorted(pieces):
            assert start == at and length > 0
            at += length
        assert at == lengths[sample]
        assert splittable[sample] or len(pieces) == 1
    assert packing.split == sum(len(pieces) > 1 for pieces in parts.values())
    assert packing.forced == int((lengths > window).sum()) <= packing.split
    if len(lengths):
        assert packing.waste == pytest.approx(1 - lengths.sum() / (len(packing.windows) * window))
    assert packing.windows == sorted(packing.windows) and all(pieces == sorted(pieces) for pieces in packing.windows)


@settings(max_examples=300)
@given(st.data(), st.integers(1, 1500))
def test_every_token_is_in_one_window(data, window):
    lengths = np.array(data.draw(st.lists(st.integers(1, 3 * window), max_size=60)), dtype=np.int64)
    splittable = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))), dtype=bool)
    lengths = np.where(splittable, lengths, np.minimum(lengths, window))
    packing = pack(lengths, splittable, window, max_waste=data.draw(st.sampled_from([0.0, 0.02, 0.5])))
    check(packing, lengths, splittable, window)


def test_documents_of_natural_lengths_are_hardly_cut_and_waste_hardly_anything():
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(6, 1.1, 20_000).astype(int) + 1, 60_000)
    everything = np.ones(len(lengths), bool)
    packing = pack(lengths, everything, 4096)
    check(packing, lengths, everything, 4096)
    ends = np.cumsum(lengths)
    concatenated = int((((ends - lengths) // 4096) != ((ends - 1) // 4096)).sum())  # cut at every window's end
    assert len(packing.windows) > 1000 and packing.waste < 0.001
    assert packing.split == packing.forced < concatenated / 8


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_documents_that_do_not_fit_together_are_cut_as_far_as_the_bound_asks(share):
    rng = np.random.default_rng(1)
    lengths, splittable = rng.integers(2100, 2600, 4000), rng.random(4000) < share  # no two in a window of 4096
    packing = pack(lengths, splittable, 4096)
    check(packing, lengths, splittable, 4096)
    assert len(packing.windows) > 1000 and 0.015 < packing.waste <= 0.02
    surplus = 4000 - len(packing.windows)  # so many windows had to go; their documents fill the holes of the others
    assert surplus <= packing.split <= 1.3 * surplus
    assert min(piece.length for pieces in packing.windows for piece in pieces) >= SLIVER
    loose = pack(lengths, splittable, 4096, max_waste=0.3)
    assert 0.25 < loose.waste <= 0.3 and loose.split < packing.split


def test_a_few_documents_fill_what_samples_leave_empty():
    rng = np.random.default_rng(2)
    lengths, splittable = rng.integers(2100, 2600, 3000), rng.random(3000) < 0.1
    packing = pack(lengths, splittable, 4096)
    check(packing, lengths, splittable, 4096)
    uncut = pack(lengths, np.zeros(3000, bool), 4096)
    assert uncut.split == 0 and len(uncut.windows) == 3000
    assert len(packing.windows) == 3000 - splittable.sum()  # every document went into the room of a sample


def test_best_fit_takes_the_window_with_the_least_room():
    packing = pack(np.array([60, 50, 40, 38, 10, 2]), np.zeros(6, bool), 100)
    assert [[piece.sample for piece in pieces] for pieces in packing.windows] == [[0, 2], [1, 3, 4, 5]]


def test_lengths_alone_decide():
    rng = np.random.default_rng(3)
    lengths, splittable = rng.integers(1, 900, 500), rng.random(500) < 0.5
    lengths = np.where(splittable, lengths, np.minimum(lengths, 256))
    assert pack(lengths, splittable, 256) == pack(lengths.copy(), splittable.copy(), 256)


def test_what_cannot_be_packed():
    with pytest.raises(ValueError, match="sample 1 has 101 tokens, more than a window of 100"):
        pack(np.array([1, 101]), np.array([True, False]), 100)
    with pytest.raises(ValueError, match="sample 0 has no tokens"):
        pack(np.array([0]), np.array([True]), 100)
    assert pack(np.zeros(0, int), np.zeros(0, bool), 100).windows == []


def mixed_samples(seed, n=600, window=4096):
    """Lengths and crops of samples half of which have images, of the released crops."""
    rng = np.random.default_rng(seed)
    crops = np.where(rng.random(n) < 0.5, rng.integers(2, 18, n), 0)
    return np.minimum(rng.integers(20, 600, n) + crops * rng.integers(70, 280, n), window), crops


@pytest.mark.parametrize("seed", range(4))
def test_no_window_has_more_crops_or_tokens_than_its_budgets_and_every_sample_is_in_one(seed):
    lengths, crops = mixed_samples(seed)
    packed = pack(lengths, np.zeros(len(lengths), bool), 4096, budgets=[Budget("crops", crops, 20)])
    assert sorted(piece for window in packed.windows for piece in window) == [
        (sample, 0, length) for sample, length in enumerate(lengths.tolist())
    ]
    for window in packed.windows:
        assert sum(piece.length for piece in window) <= 4096
        assert sum(crops[piece.sample] for piece in window) <= 20
    # where crops bind, windows are as many as crops need, hardly more
    fewest = max(-(-int(crops.sum()) // 20), -(-int(lengths.sum()) // 4096))
    assert len(packed.windows) <= 1.08 * fewest


def test_a_budget_that_does_not_bind_leaves_as_few_empty_places_as_without_it():
    lengths, crops = mixed_samples(5, n=3000)
    documents = np.random.default_rng(6).integers(50, 3000, 400)
    lengths, crops = np.concatenate([lengths, documents]), np.concatenate([crops, np.zeros(400, int)])
    splittable = np.arange(len(lengths)) >= 3000
    bound = pack(lengths, splittable, 4096, budgets=[Budget("crops", crops, 60)])
    assert bound.waste <= 0.02 and pack(lengths, splittable, 4096).waste <= 0.02
    unbound = pack(lengths, splittable, 4096, budgets=[Budget("crops", crops, None)])
    assert unbound == pack(lengths, splittable, 4096)


@pytest.mark.parametrize(("crops", "splittable"), [([3], [False]), ([1], [True])])
def test_a_sample_beyond_the_budget_of_crops_and_one_with_crops_that_may_be_cut_are_refused(crops, splittable):
    with pytest.raises(ValueError, match="crops, allowed are 2, 0 if it may be cut"):
        pack(np.array([5]), np.array(splittable), 16, budgets=[Budget("crops", np.array(crops), 2)])
