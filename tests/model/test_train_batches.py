"""Windows of a step: the one order at any number of ranks, dealt so that none waits, at their cost."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import as_format_1, opener, shard_threads
from train_windows import TINY, Tiny, tiny_trainer, write_windows

from gristmill.model.phi4.parts import Part
from gristmill.model.shards.files import ShardReader
from gristmill.model.windows.batches import deal, extended, shares
from gristmill.model.windows.cost import Cost

COST = Cost.of(TINY, {Part.LANGUAGE})


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    """11 windows in two shards."""
    source = write_windows(tmp_path_factory.mktemp("windows"))
    return ShardReader(source.shards, source.open, seed=5)


@pytest.mark.parametrize("ahead", [0, 5])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_have_the_windows_of_the_one_order(reader: ShardReader, world: int, ahead: int) -> None:
    by_rank = [
        list(itertools.islice(shares(reader, COST, 4, 8, rank=rank, world=world, ahead=ahead), 5))
        for rank in range(world)
    ]
    order = ""
    for step, of_ranks in enumerate(zip(*by_rank, strict=True)):
        expected = [reader.sample(reader.at(8 + 4 * step + k)) for k in range(4)]
        assert {share.position for share in of_ranks} == {8 + 4 * step}
        assert all(share.keys == [sample.key for sample in expected] for share in of_ranks)
        held = [sample.key for share in of_ranks for sample in share.windows]
        assert sorted(held) == sorted(sample.key for sample in expected)
        assert {share.tokens for share in of_ranks} == {sum(len(sample.arrays["input_ids"]) for sample in expected)}
        (order,) = {extended(order, share) for share in of_ranks}
    assert order == "6e8d34f95933fb4543c20191a99d53d32cee34a4cdecf4a993e2a98710a8c0f0"  # in every release
    assert not shard_threads()


def test_a_run_that_goes_on_with_other_ranks_has_the_same_order(reader: ShardReader) -> None:
    def ordered(worlds: list[int]) -> str:
        order, position = "", 0
        for world in worlds:
            share = next(shares(reader, COST, 4, position, rank=world - 1, world=world))
            order, position = extended(order, share), position + 4
        return order

    assert ordered([1] * 6) == ordered([1, 2, 4, 3, 1, 2])
    other = next(shares(reader, COST, 4, 4))
    assert extended("", other) != ordered([1])


def test_fewer_windows_than_ranks_are_refused_at_the_call(reader: ShardReader) -> None:
    with pytest.raises(ValueError, match="batch=3: a step of 3 windows leaves some of 4 ranks without any"):
        shares(reader, COST, 3, 0, world=4)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_no_rank_has_much_more_than_another(costs: list[int], world: int) -> None:
    hands = deal(costs, world)
    assert sorted(itertools.chain(*hands)) == list(range(len(costs)))
    assert all(hand == sorted(hand) for hand in hands)
    assert len(costs) < world or all(hands)
    loads = [sum(costs[number] for number in hand) for hand in hands]
    assert max(loads) - min(loads) <= max(costs)
    assert deal(costs, world) == hands


def test_dealing_by_cost_beats_dealing_in_turn(reader: ShardReader) -> None:
    costs = [float(n % 7) ** 2 + 1 for n in range(32)]
    by_cost = max(sum(costs[number] for number in hand) for hand in deal(costs, 4))
    in_turn = max(sum(costs[rank::4]) for rank in range(4))
    assert by_cost <= 1.05 * sum(costs) / 4 < in_turn


def test_a_rank_reads_its_own_windows_alone(tmp_path: Path) -> None:
    source, opened = write_windows(tmp_path), list[int]()
    reader = ShardReader(source.shards, source.open, seed=5)
    read, sample = list[int](), reader.sample
    reader.sample = lambda number: read.append(number) or sample(number)  # type: ignore[method-assign]
    for rank in range(3):
        read.clear()
        own = list(itertools.islice(shares(reader, COST, 4, 8, rank=rank, world=3), 5))
        opened += read
        assert len(read) == sum(len(share.windows) for share in own)
    assert sorted(opened) == sorted(reader.at(position) for position in range(8, 28))


@pytest.mark.parametrize("ahead", [0, 5])
def test_an_index_that_does_not_say_what_windows_hold_is_made_up_for_by_reading(tmp_path: Path, ahead: int) -> None:
    source = write_windows(tmp_path)
    for shard in source.shards:
        as_format_1(tmp_path / shard.index)
    old, new = (
        ShardReader(source.shards, source.open, seed=5),
        ShardReader(write_windows(tmp_path / "new").shards, opener(tmp_path / "new"), seed=5),
    )
    for rank in range(2):
        pairs = zip(
            *(shares(reader, COST, 4, 8, rank=rank, world=2, ahead=ahead) for reader in (old, new)), strict=True
        )
        for share, other in itertools.islice(pairs, 5):
            assert [window.key for window in share.windows] == [window.key for window in other.windows]
            assert share._replace(windows=[]) == other._replace(windows=[])


def test_the_trainers_order_is_that_of_its_seed(tmp_path: Path, one_thread: None) -> None:
    source = write_windows(tmp_path)
    orders = [tiny_trainer(source, model=Tiny(), stage={"seed": seed}).train().order for seed in (5, 5, 6)]
    assert orders[0] == orders[1] != orders[2]
