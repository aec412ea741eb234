"""What a run is given besides its stage: how it is carried out, and where its windows lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gristmill.model.shards.index import ShardFile
from gristmill.model.shards.sample import Sample


@dataclass(frozen=True)
class Settings:
    """How a run is carried out, no part of what it makes. `windows_per_pass`: windows that go through the model
    together, the rest of a step is accumulated; `checkpoint_every`: steps; `keep`: checkpoints; `ahead`: windows that
    threads read ahead; `shard`: where a stage trains the language model alone, each of several ranks has a
    share of its weights, gradients and optimizer, not a replica of them; `recompute`: the share of the blocks of
    decoder and encoders, 0 to 1, that keep their inputs alone for the backward pass and are computed once more there,
    to the same bits (True: all; .5: every second; False: none); `compile`: blocks are compiled by torch, which rounds
    otherwise. Raises ValueError that names the field."""

    windows_per_pass: int = 1
    checkpoint_every: int = 100
    keep: int = 2
    ahead: int = 0
    shard: bool = False
    recompute: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("windows_per_pass", 1), ("checkpoint_every", 1), ("keep", 1), ("ahead", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}={value}: allowed is {least} or more")
        if not 0 <= self.recompute <= 1:
            raise ValueError(f"recompute={self.recompute}: allowed is a share of the blocks, 0 to 1, or true or false")
        if self.shard and self.compile:
            raise ValueError(
                "compile=True, shard=True: blocks whose weights are in shares are not compiled; leave one out"
            )


Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Beside:
    """Arrays that belong to windows and lie apart from them, as what a reference model says of each: by the window's
    key, all in memory. `digests`: of what they were read from."""

    arrays: Mapping[str, Arrays]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The windows of a stage's mixture: its shards, in order, what opens them by name, and what belongs to them."""

    shards: Sequence[ShardFile]
    open: Callable[[str], BinaryIO]
    beside: Beside = Beside({}, ())

    @property
    def sha256(self) -> str:
        """Of the shards, in their order, and of what lies beside them."""
        digests = (*(shard.sha256 for shard in self.shards), *self.beside.digests)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def arrays(self, window: Sample) -> Arrays:
        """All arrays of a window. Raises KeyError where it has none beside it, though others have."""
        if not self.beside.arrays:
            return window.arrays
        return {**window.arrays, **self.beside.arrays[window.key]}
