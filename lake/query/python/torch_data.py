"""A version for PyTorch: its records, or its windows, as an `IterableDataset` that a `DataLoader`'s workers share.

Every worker of every rank reads its own part and nothing else: of records every n-th row group, of windows every n-th
position of an epoch (model/shards/files.py). Nothing is opened before a worker asks for its first item, so that what
travels to it is a pointer. Only `Dataset.to_torch` imports this file: it imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import IterableDataset, get_worker_info

from gristmill.lake.query.packs import read_windows
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import open_parquet
from gristmill.lake.versions.manifest import Manifest

Item = TypeVar("Item")


class Shared(IterableDataset[Item]):
    """What both have in common: of how many parts this process reads which."""

    def __init__(self, store: Store, manifest: Manifest, rank: int, world: int) -> None:
        super().__init__()
        if not 0 <= rank < world:
            raise ValueError(f"to_torch: rank={rank} of world={world}; ranks are 0 to world - 1")
        self.store, self.manifest, self.rank, self.world = store, manifest, rank, world

    def __repr__(self) -> str:
        part = "" if self.world == 1 else f", rank {self.rank} of {self.world}"
        return f"{type(self).__name__}({self.manifest}{part})"

    def part(self) -> tuple[int, int]:
        """(which part, of how many): of the workers of all ranks."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return self.rank * workers + worker, self.world * workers


class Records(Shared[dict[str, Any]]):
    """Records as dicts; numbers and strings as Python has them, so that `default_collate` makes tensors of numbers."""

    def __init__(self, store: Store, manifest: Manifest, columns: list[str] | None, rank: int, world: int) -> None:
        super().__init__(store, manifest, rank, world)
        self.columns = columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        part, parts = self.part()
        number = 0
        for ref in self.manifest.shards:
            with open_parquet(self.store, ref) as file:
                for group in range(file.num_row_groups):
                    if number % parts == part:
                        yield from file.read_row_group(group, self.columns).to_pylist()
                    number += 1


class Windows(Shared[dict[str, torch.Tensor]]):
    """The windows of an epoch, a tensor for each array of a window. With a `DataLoader` of `batch_size=None` they come
    in the order of the epoch, however many workers there are."""

    def __init__(self, store: Store, manifest: Manifest, seed: int, epoch: int, rank: int, world: int) -> None:
        super().__init__(store, manifest, rank, world)
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        reader = read_windows(self.store, self.manifest, self.seed)
        start, stop = self.epoch * len(reader), (self.epoch + 1) * len(reader)
        # Of a rank's positions every `workers`-th: a DataLoader asks its workers in turn.
        for _, sample in reader.iterate(
            start, rank=self.rank + worker * self.world, world=self.world * workers, stop=stop
        ):
            yield {name: torch.from_numpy(array) for name, array in sample.arrays.items()}
