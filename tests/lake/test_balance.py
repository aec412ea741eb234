"""Tallies: they add up in any order and any cut, and nothing lost, doubled or swapped goes unseen."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.lake.accounts.balance import BalanceError, Tally, check_balance, record_key, total

KEYS = st.lists(st.binary(max_size=6), max_size=12)


@given(KEYS, st.randoms(use_true_random=False), st.integers(0, 12))
def test_a_tally_depends_on_neither_order_nor_cut(keys, rng, cut):
    shuffled = list(keys)
    rng.shuffle(shuffled)
    whole = Tally.of(keys)
    assert Tally.of(shuffled) == whole == Tally.of(keys[:cut]) + Tally.of(keys[cut:])
    assert total(Tally.of([key]) for key in keys) == whole and whole.count == len(keys)


@given(KEYS, KEYS)
def test_two_tallies_are_equal_only_for_the_same_keys(a, b):
    assert (Tally.of(a) == Tally.of(b)) == (sorted(a) == sorted(b))


@given(KEYS)
def test_a_tally_survives_json(keys):
    tally = Tally.of(keys)
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally
    assert 0 <= tally.sum < 1 << 128


def test_json_is_the_count_and_32_hex_characters():
    assert Tally().to_json() == [0, "0" * 32]
    assert Tally(1, (1 << 128) - 1).to_json() == [1, "f" * 32]
    assert Tally(1, (1 << 128) - 1) + Tally(1, 1) == Tally(2, 0)


def test_the_hash_of_format_1_never_changes():
    assert Tally.of_records(["ab" * 32], [7]).to_json() == [1, "43d0e52ce12b526162f653c77e793b67"]


def test_records_count_by_input_and_ordinal():
    tally = Tally.of_records(["aa", "aa", "bb"], [0, 1, 0])
    assert tally == Tally.of([record_key("aa", 0), record_key("aa", 1), record_key("bb", 0)])
    assert tally != Tally.of_records(["aa", "bb", "bb"], [0, 1, 0])
    assert Tally.of_records(["aa"], [1 << 40]).count == 1
    with pytest.raises(ValueError, match="shorter"):
        Tally.of_records(["aa"], [])
    with pytest.raises(OverflowError):
        Tally.of_records(["aa"], [-1])


@given(st.lists(st.binary(max_size=6), min_size=2, max_size=12, unique=True), st.data())
def test_one_lost_and_another_doubled_is_caught_although_the_counts_agree(keys, data):
    lost, doubled = data.draw(st.lists(st.sampled_from(keys), min_size=2, max_size=2, unique=True))
    assume(lost != doubled)
    fates = {"kept": Tally.of([doubled if key == lost else key for key in keys])}
    with pytest.raises(BalanceError, match="but they are not the same records"):
        check_balance("here", Tally.of(keys), fates)


def test_a_balance_over_any_division_into_fates_passes():
    keys = [b"%d" % i for i in range(1000)]
    received = Tally.of(keys)
    random.Random(0).shuffle(keys)
    check_balance("here", received, {"kept": Tally.of(keys[:7]), "dropped": Tally.of(keys[7:]), "quarantined": Tally()})
    check_balance("nothing", Tally(), {})


def test_the_error_says_where_how_many_and_by_fate():
    received = Tally.of(b"%d" % i for i in range(1500))
    with pytest.raises(BalanceError) as caught:
        check_balance("web: commit", received, {"kept": Tally.of([b"0"]), "dropped": Tally()})
    message = "web: commit: 1,500 records went in but 1 have a fate (kept 1 + dropped 0). Nothing was committed"
    assert str(caught.value).startswith(message)
