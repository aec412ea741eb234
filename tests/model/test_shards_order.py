"""The samples of shards come in one order whatever reads them, and threads and handles end with the reading."""

from __future__ import annotations

import gc
import io
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import numbers_of, opener, shard_threads, text_sample, write_shards

from gristmill.model.shards import files as shards_module
from gristmill.model.shards import handles
from gristmill.model.shards.files import Sample, ShardReader


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    """23 samples in three shards, undamaged."""
    folder = tmp_path_factory.mktemp("shards")
    return ShardReader(write_shards(folder), opener(folder), seed=5)


# the order


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_read_the_one_global_order(reader: ShardReader, world: int, ahead: int) -> None:
    ranks = [list(reader.iterate(7, rank=rank, world=world, stop=90, ahead=ahead)) for rank in range(world)]
    together = sorted((pair for rank in ranks for pair in rank), key=lambda pair: pair[0])
    assert [position for position, _ in together] == list(range(7, 90))
    assert numbers_of(together) == [reader.at(position) for position in range(7, 90)]
    assert all(
        [position for position, _ in pairs] == list(range(7 + rank, 90, world)) for rank, pairs in enumerate(ranks)
    )


@settings(max_examples=40)
@given(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12), st.sampled_from([0, 4]))))
def test_a_run_goes_on_at_any_position_with_any_number_of_ranks(
    reader: ShardReader, start: int, lives: list[tuple[int, int, int]]
) -> None:
    position, seen = start, []
    for world, steps, ahead in lives:
        for rank in range(world):
            mine = reader.iterate(position, rank=rank, world=world, ahead=ahead)
            seen += itertools.islice(mine, steps)
            mine.close()
        position += steps * world
    assert sorted(place for place, _ in seen) == list(range(start, position))
    assert all(sample.meta["n"] == reader.at(place) for place, sample in seen)


def test_an_epoch_is_a_permutation_and_others_are_others(reader: ShardReader, tmp_path: Path) -> None:
    n = len(reader)
    epochs = [[reader.at(epoch * n + k) for k in range(n)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    same, other = (ShardReader(write_shards(tmp_path), opener(tmp_path), seed=seed) for seed in (5, 6))
    assert [same.at(k) for k in range(n)] == epochs[0] != [other.at(k) for k in range(n)]
    assert [reader.at(k) for k in (3 * n, 0, 3 * n - 1)] == [epochs[3][0], epochs[0][0], epochs[2][-1]]


def test_threads_that_look_into_different_epochs_do_not_disturb_each_other(reader: ShardReader) -> None:
    places = [k * 23 + k % 23 for k in range(200)]
    want = {place: reader.at(place) for place in places}
    wrong: list[int] = []

    def look(seed: int) -> None:
        for place in random.Random(seed).choices(places, k=500):
            if reader.at(place) != want[place]:
                wrong.append(place)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_no_run_could_mean_is_refused_at_the_call(reader: ShardReader) -> None:
    for wrong in ({"position": -1}, {"rank": 1}, {"rank": -1}, {"world": 0}, {"ahead": -1}):
        with pytest.raises(ValueError, match="0 <= rank < world"):
            reader.iterate(**wrong)
    for number in (-1, 23):
        with pytest.raises(IndexError, match=f"sample {number} is not one of 0 to 22"):
            reader.sample(number)
    with pytest.raises(IndexError):
        reader.at(-1)
    assert list(reader.iterate(10, stop=10)) == list(reader.iterate(10, stop=3, ahead=2)) == []


# threads, memory, handles


def test_arrays_of_one_reading_are_its_own(reader: ShardReader) -> None:
    reader.sample(3).arrays["input_ids"][:] = -1
    assert np.array_equal(reader.sample(3).arrays["input_ids"], text_sample(3)[1]["input_ids"])


def test_threads_end_with_the_generator(reader: ShardReader) -> None:
    closed, dropped = reader.iterate(ahead=4), reader.iterate(ahead=4)
    next(closed), next(dropped)
    assert shard_threads()
    closed.close()
    del dropped
    gc.collect()
    assert not shard_threads()
    assert len(list(reader.iterate(stop=30, ahead=4))) == 30
    assert not shard_threads()


def test_no_more_is_read_or_held_than_asked_for(reader: ShardReader, monkeypatch: pytest.MonkeyPatch) -> None:
    read, alive, most = 0, 0, 0
    lock, honest = threading.RLock(), reader.sample

    def freed() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def counting(number: int) -> Sample:
        nonlocal read, alive, most
        sample = honest(number)
        with lock:
            read, alive = read + 1, alive + 1
            most = max(most, alive)
        weakref.finalize(sample.arrays["input_ids"], freed)
        return sample

    monkeypatch.setattr(reader, "sample", counting)
    short = reader.iterate(ahead=6)
    next(short), next(short)
    time.sleep(0.05)
    short.close()
    assert read <= 2 + 6
    for _, sample in reader.iterate(stop=600, ahead=6):
        del sample
    assert read >= 600 and most <= 6 + 2 + shards_module.THREADS


def test_few_tars_stay_open_and_none_after_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "HANDLES", 3)
    shards, opened = write_shards(tmp_path, (2,) * 9), []

    def opening(name: str) -> Any:
        opened.append((tmp_path / name).open("rb"))
        return opened[-1]

    reader = ShardReader(shards, opening)
    for number in [*range(18), *range(18)]:
        reader.sample(number)
        assert sum(not stream.closed for stream in opened) <= 3
    before = len(opened)
    assert [reader.sample(n).meta["n"] for n in (17, 15, 13, 16, 14, 12)] == [17, 15, 13, 16, 14, 12]
    assert len(opened) == before  # the last three were at hand
    reader.close()
    assert all(stream.closed for stream in opened)
    assert reader.sample(0).meta["n"] == 0 and not opened[-1].closed
    del reader
    gc.collect()
    assert opened[-1].closed  # also of a reader that nobody closed


@pytest.mark.parametrize("kind", ["file", "unbuffered", "arrow", "memory"])
def test_any_stream_with_random_access_will_do(tmp_path: Path, kind: str) -> None:
    shards, opened = write_shards(tmp_path), []
    kinds: dict[str, Callable[[Path], Any]] = {
        "file": lambda path: path.open("rb"),
        "unbuffered": lambda path: path.open("rb", buffering=0),
        "arrow": lambda path: pa.OSFile(str(path), "rb"),
        "memory": lambda path: io.BytesIO(path.read_bytes()),
    }

    def opening(name: str) -> Any:
        opened.append(kinds[kind](tmp_path / name))
        return opened[-1]

    reader = ShardReader(shards, opening)
    assert numbers_of(reader.iterate(stop=23, ahead=5)) == [reader.at(k) for k in range(23)]
    reader.check()
    if kind != "memory":  # a fork shares the cursor of a file, so reading a sample must not go by it
        kept = [stream for stream in opened if not stream.closed]
        assert kept
        for stream in kept:
            stream.seek(17)
        for number in range(23):
            reader.sample(number)
        assert [stream.tell() for stream in kept] == [17] * len(kept)
    reader.close()
