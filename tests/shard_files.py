"""Small shards of samples that follow from their numbers, and what tests ask of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gristmill.model.shards.files import ShardFile, ShardWriter
from gristmill.model.shards.index import COUNTS, _content_crc32

SIZES = (9, 1, 13)


def text_sample(n: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and arrays of sample n."""
    ids = np.random.default_rng(n).integers(0, 50_000, 64).astype(np.int32)
    arrays = {"input_ids": ids, "loss_mask": ids % 3 > 0, "cu_seqlens": np.array([0, n % 64, 64], np.int32)}
    return {"n": n, "source": "wéb"}, arrays


def write_shard(folder: Path, name: str, numbers: range) -> ShardFile:
    """A shard of the samples with these numbers."""
    with ShardWriter(folder / f"{name}.tar", folder / f"{name}.index") as writer:
        for n in numbers:
            writer.write(f"{name}-{n:04d}", *text_sample(n), tokens=n)
    return ShardFile(f"{name}.tar", f"{name}.index", writer.samples, writer.bytes, writer.sha256)


def write_shards(folder: Path, sizes: tuple[int, ...] = SIZES) -> list[ShardFile]:
    """Shards of these sizes, numbered through."""
    ends = list(itertools.accumulate(sizes, initial=0))
    return [write_shard(folder, f"s{k}", range(*ends[k : k + 2])) for k in range(len(sizes))]


def as_format_1(index: Path) -> None:
    """Makes an index what releases of format 1 wrote: without counts but tokens."""
    table = pq.read_table(index)
    metadata = {**table.schema.metadata, b"gristmill.format": b"1"}
    table = table.drop_columns(list(COUNTS))
    metadata[b"index.crc32"] = str(_content_crc32(table)).encode()
    pq.write_table(table.replace_schema_metadata(metadata), index)


def opener(folder: Path) -> Callable[[str], Any]:
    """Opens files of a folder by name."""
    return lambda name: (folder / name).open("rb")


def numbers_of(samples: Any) -> list[int]:
    """The numbers of samples that were read."""
    return [sample.meta["n"] for _, sample in samples]


def shard_threads() -> list[threading.Thread]:
    """The reader's threads that still run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("shards")]
