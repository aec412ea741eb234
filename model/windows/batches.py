"""The windows of a step, dealt to ranks by what they cost.

A step takes the next `batch` windows of the one global order, whatever the number of ranks, so that the place in the
data is ONE integer. Every rank deals all windows of a step alike, by what the index says of them: no message is needed,
none waits for one with the longest samples or with ten images, and each reads its own windows alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from itertools import islice, tee
from typing import NamedTuple

from gristmill.model.shards.files import ShardReader
from gristmill.model.shards.sample import Sample
from gristmill.model.windows.cost import Cost


class Share(NamedTuple):
    """What a rank does in a step. `position`: of the step's first window; `windows`: of this rank, in their order, and
    `epochs`: which time each is met; `most`: windows of the rank that has the most; `keys`: of the step's windows, and
    `tokens`, `flops` (`Cost`): of all of them, on all ranks."""

    position: int
    windows: list[Sample]
    epochs: list[int]
    most: int
    keys: list[str]
    tokens: int
    flops: float


def shares(
    reader: ShardReader, cost: Cost, batch: int, position: int, *, rank: int = 0, world: int = 1, ahead: int = 0
) -> Generator[Share, None, None]:
    """This rank's share of every step from a position on, without end. `ahead`: windows of its own that
    threads read ahead.

    Raises ValueError at the call if there are fewer windows in a step than ranks; on the way what the reader raises.
    """
    if batch < world:
        raise ValueError(f"batch={batch}: a step of {batch} windows leaves some of {world} ranks without any")
    return _shares(reader, cost, batch, position, rank, world, ahead)


def _shares(
    reader: ShardReader, cost: Cost, batch: int, position: int, rank: int, world: int, ahead: int
) -> Generator[Share, None, None]:
    # A step is planned once, from the index, and looked at twice: early by what reads ahead, and when it is its turn.
    planned, early = tee(_planned(reader, cost, batch, position, rank, world))
    windows = reader.read((place for step in early for place in step.mine), ahead=ahead)
    try:
        for step in planned:
            own = [window for _, window in islice(windows, len(step.mine))]
            epochs = [place // len(reader) for place in step.mine]
            yield Share(step.position, own, epochs, step.most, step.keys, step.tokens, step.flops)
    finally:
        windows.close()


class _Step(NamedTuple):
    """A step before its windows are read; `mine`: positions of this rank's."""

    position: int
    mine: list[int]
    most: int
    keys: list[str]
    tokens: int
    flops: float


def _planned(
    reader: ShardReader, cost: Cost, batch: int, position: int, rank: int, world: int
) -> Generator[_Step, None, None]:
    while True:
        numbers = [reader.at(position + place) for place in range(batch)]
        counts = [reader.counts(number) for number in numbers]
        costs = [cost.window(each) for each in counts]
        hands = deal(costs, world)
        mine, most = [position + place for place in hands[rank]], max(len(hand) for hand in hands)
        keys = [reader.key(number) for number in numbers]
        yield _Step(position, mine, most, keys, sum(each.tokens for each in counts), sum(costs))
        position += batch


def deal(costs: Sequence[float], world: int) -> list[list[int]]:
    """Numbers of things by rank, in their order: the dearest first, each to the rank that has the least so far.

    No rank then has more than 4/3 of what the best division gives the fullest one (Graham 1969, "Bounds on
    multiprocessing timing anomalies"). Each rank gets one thing or more if there are as many as ranks.
    """
    hands: list[list[int]] = [[] for _ in range(world)]
    load = [0.0] * world
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        rank = min(range(world), key=lambda rank: (load[rank], len(hands[rank]), rank))
        hands[rank].append(number)
        load[rank] += costs[number]
    return [sorted(hand) for hand in hands]


def passes(count: int, per_pass: int, most: int | None = None) -> list[range]:
    """Which of a rank's `count` windows go through the model together, at most `per_pass` of them.

    `most`: windows of the rank that has the most, where all ranks have to make equally many passes; where a rank has
    fewer windows than passes, some are of none.
    """
    if most is None:
        return [range(start, min(start + per_pass, count)) for start in range(0, count, per_pass)]
    number = -(-most // per_pass)
    return [range(count * each // number, count * (each + 1) // number) for each in range(number)]


def extended(order: str, share: Share) -> str:
    """The digest of the order of windows with those of a step, of `order`, the digest before it, empty at first.

    Two runs with the same one have seen the same windows in the same order, on however many ranks.
    """
    digest = hashlib.sha256(f"{order} {share.position}".encode())
    for key in share.keys:
        digest.update(f" {key}".encode())
    return digest.hexdigest()
