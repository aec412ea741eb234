"""The windows of a step, dealt to ranks by what they cost.

A step takes the next `batch` windows of the one global order, whatever the number of ranks, so that the place in the
data is ONE integer. Every rank looks at all windows of a step and deals them alike: no message is needed, and none of
them waits for one with the longest samples. What a window costs are the operations of a forward pass: tokens of one
window attend within their samples only, so its samples' lengths squared tell windows apart that have equally many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from gristmill.model.phi4.config import TextConfig
from gristmill.model.shards.files import ShardReader
from gristmill.model.shards.sample import Sample


class Share(NamedTuple):
    """What a rank does in a step. `position`: of the step's first window; `windows`: of this rank, in their order;
    `keys`: of the step's windows, and `tokens`, `flops`: of all of them, on all ranks."""

    position: int
    windows: list[Sample]
    keys: list[str]
    tokens: int
    flops: float


@dataclass(frozen=True)
class Cost:
    """Operations of a forward pass through the language model: of a token, of a pair of tokens of one sample (each
    sees on average half of it), of a token to learn, whose logits are computed."""

    token: float
    pair: float
    target: float

    @classmethod
    def of(cls, config: TextConfig) -> Cost:
        """By the sizes of the decoder; two operations a weight."""
        hidden, heads = config.hidden_size, config.num_attention_heads + 2 * config.num_key_value_heads
        weights = hidden * (heads * config.head_dim + hidden + 3 * config.intermediate_size)
        layers = config.num_hidden_layers
        return cls(token=2.0 * weights * layers, pair=2.0 * hidden * layers, target=2.0 * hidden * config.vocab_size)

    def window(self, window: Sample) -> float:
        """Of a packed window."""
        lengths = np.diff(window.arrays["cu_seqlens"]).astype(np.float64)
        targets = int(window.arrays["loss_mask"].sum())
        return float(self.token * lengths.sum() + self.pair * np.square(lengths).sum() + self.target * targets)


def shares(
    reader: ShardReader, cost: Cost, batch: int, position: int, *, rank: int = 0, world: int = 1, ahead: int = 0
) -> Generator[Share, None, None]:
    """This rank's share of every step from a position on, without end. `ahead`: windows that threads read ahead.

    Raises ValueError at the call if there are fewer windows in a step than ranks; on the way what the reader raises.
    """
    if batch < world:
        raise ValueError(f"batch={batch}: a step of {batch} windows leaves some of {world} ranks without any")
    return _shares(reader, cost, batch, position, rank, world, ahead)


def _shares(
    reader: ShardReader, cost: Cost, batch: int, position: int, rank: int, world: int, ahead: int
) -> Generator[Share, None, None]:
    windows = reader.iterate(position, ahead=ahead)
    try:
        while True:
            step = [window for _, window in islice(windows, batch)]
            costs = [cost.window(window) for window in step]
            mine = deal(costs, world)[rank]
            tokens = sum(len(window.arrays["input_ids"]) for window in step)
            keys = [window.key for window in step]
            yield Share(position, [step[number] for number in mine], keys, tokens, sum(costs))
            position += batch
    finally:
        windows.close()


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


def extended(order: str, share: Share) -> str:
    """The digest of the order of windows with those of a step, of `order`, the digest before it, empty at first.

    Two runs with the same one have seen the same windows in the same order, on however many ranks.
    """
    digest = hashlib.sha256(f"{order} {share.position}".encode())
    for key in share.keys:
        digest.update(f" {key}".encode())
    return digest.hexdigest()
