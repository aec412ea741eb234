"""What a run is given besides its stage: how it is carried out, and where its windows lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from gristmill.model.shards.index import ShardFile


@dataclass(frozen=True)
class Settings:
    """How a run is carried out, no part of what it makes. `windows_per_pass`: windows that go through the model
    together, the rest of a step is accumulated; `checkpoint_every`: steps; `keep`: checkpoints; `ahead`: windows that
    threads read ahead; `shard`: where a stage trains the language model alone, each of several ranks has a
    share of its weights, gradients and optimizer, not a replica of them. Raises ValueError that names the field."""

    windows_per_pass: int = 1
    checkpoint_every: int = 100
    keep: int = 2
    ahead: int = 0
    shard: bool = False

    def __post_init__(self) -> None:
        for name, least in (("windows_per_pass", 1), ("checkpoint_every", 1), ("keep", 1), ("ahead", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}={value}: allowed is {least} or more")


@dataclass(frozen=True)
class Source:
    """The windows of a stage's mixture: its shards, in order, and what opens them by name."""

    shards: Sequence[ShardFile]
    open: Callable[[str], BinaryIO]

    @property
    def sha256(self) -> str:
        """Of the shards, in their order."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode()).hexdigest()
