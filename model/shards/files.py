"""Shards: a plain WebDataset tar and an index beside it, written to fixed bytes and read at any place in any order.

One form for every modality: a sample is `{key}.json`, arrays `{key}.<name>.npy` and raw files `{key}.<extension>`. The
index says where each sample lies and what its crc32 is, so a reader needs no pass over the tar: it checks all shards
before the first sample, and where it stands is ONE integer, the next global position. What stands at a position follows
from seed and epoch alone (model/shards/order.py), so a run goes on with another number of ranks or workers. An index
that does not fit its tar, or bytes that changed, are refused with the shard's name: training on other data has no other
symptom.
"""

from __future__ import annotations

import hashlib
import operator
import os
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.model.shards.counts import Counts
from gristmill.model.shards.handles import Handles, read_at
from gristmill.model.shards.index import FORMAT, DamagedShard, ShardFile, damaged, named, parse_index, write_index
from gristmill.model.shards.order import Permutation
from gristmill.model.shards.sample import HEADER, KEY, Sample, decode, fields_of, tar_bytes

__all__ = ["FORMAT", "DamagedShard", "Sample", "ShardFile", "ShardReader", "ShardWriter"]

THREADS = 8
"""Read ahead, or read indexes, at the same time."""

_RECORD = 10_240  # a whole tar is a multiple of it
_BLOCK = 1 << 20


class ShardWriter:
    """Writes one shard: `with ShardWriter(tar_path, index_path) as writer`. The same samples are the same bytes.

    samples: how many were written. bytes, sha256: of the tar, as a ShardFile wants them, once the block is left.
    A block that ends in an exception leaves neither file.
    """

    def __init__(self, tar_path: Path, index_path: Path) -> None:
        self.samples = 0
        self.bytes = 0
        self.sha256 = ""
        self._paths = (tar_path, index_path)
        self._rows: dict[str, tuple[int, ...]] = {}
        self._digest = hashlib.sha256()
        self._tar = tar_path.open("wb")

    def write(
        self,
        key: str,
        meta: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        files: Mapping[str, bytes] | None = None,
        *,
        tokens: int = 0,
    ) -> None:
        """Appends a sample. tokens: what it adds to the index's sum, 0 where it has none; what else the index counts
        (`Counts`) follows from the arrays.

        Raises ValueError, with nothing written, for a key, name, extension, dtype or value that is not allowed.
        """
        self._check(key, tokens)
        data = tar_bytes(key, fields_of(key, meta, arrays, files or {}))
        self._add(key, data, Counts.of(arrays)._replace(tokens=tokens))

    def copy(self, key: str, data: bytearray, *, tokens: int = 0) -> None:
        """Appends a sample as it stands in another shard: `data` are its members there, with headers and padding.

        Raises ValueError, with nothing written, for a key that is not allowed, here already, or not that of `data`.
        """
        self._check(key, tokens)
        self._add(key, data, Counts.of(decode(key, data).arrays)._replace(tokens=tokens))

    def _check(self, key: str, tokens: int) -> None:
        if not KEY.fullmatch(key):
            raise ValueError(f"key {key!r} is not allowed: 1 to 60 of 0-9 a-z _ -, the first one of 0-9 a-z")
        if key in self._rows:
            raise ValueError(f"key {key!r} is in this shard already: keys are unique in a shard")
        if not 0 <= operator.index(tokens) < 1 << 31:
            raise ValueError(f"sample {key!r}: tokens is {tokens}, allowed are 0 to 2^31 - 1")

    def _add(self, key: str, data: bytearray | memoryview, counts: Counts) -> None:
        self._rows[key] = (self.bytes, len(data), zlib.crc32(data), *counts)
        self._append(data)
        self.samples += 1

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        self._tar.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        whole = False
        try:
            if kind is None:
                # Two empty blocks end a tar, and its length is one of whole records, as every tar tool leaves it.
                end = self.bytes + 2 * HEADER
                self._append(bytes(2 * HEADER + -end % _RECORD))
                self.sha256 = self._digest.hexdigest()
                self._write_index()
                whole = True
        finally:
            self._tar.close()
            if not whole:
                for path in self._paths:
                    path.unlink(missing_ok=True)

    def _write_index(self) -> None:
        rows = [(key, *row) for key, row in self._rows.items()]
        write_index(self._paths[1], rows, self.bytes, self.sha256)


class ShardReader:
    """The samples of many shards, by number in index order or by position in an endless order of epochs.

    open: gives a binary stream with random access for a name of a ShardFile; it is called from several threads. The
    order of `shards` is part of the order of samples. token_counts: int32 [samples], in index order.
    Raises ValueError (no samples, newer format) and DamagedShard: every shard is checked here, as far as its index, the
    tar's size and its first sample tell. The rest of a tar is checked as it is read, or by `check`.
    """

    def __init__(self, shards: Sequence[ShardFile], open: Callable[[str], BinaryIO], *, seed: int = 0) -> None:
        if not shards:
            raise ValueError("ShardReader: the list of shards is empty; name at least one shard")
        self._shards, self._seed = tuple(shards), seed
        self._handles = Handles(open)
        try:
            with ThreadPoolExecutor(min(THREADS, len(shards))) as pool:
                tables = list(pool.map(self._load, shards))
        except BaseException:
            self.close()
            raise
        self._ends = np.cumsum([table.num_rows for table in tables]).tolist()
        if not self._ends[-1]:
            raise ValueError(f"ShardReader: no sample in {len(shards)} shards, the first is {shards[0].tar}")
        self._keys = [table["key"].combine_chunks() for table in tables]
        joined = pa.concat_tables(tables)
        self._offset, self._length = joined["offset"].to_numpy(), joined["length"].to_numpy()
        self._crc32, self.token_counts = joined["crc32"].to_numpy(), joined["tokens"].to_numpy().astype(np.int32)
        self._counts = np.stack([joined[name].fill_null(-1).to_numpy() for name in Counts._fields], 1)
        self._order = (0, Permutation(len(self), seed, 0))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def tokens(self) -> int:
        """Of all samples together, as they were given to the writer."""
        return int(self.token_counts.sum(dtype=np.int64))

    def sample(self, number: int) -> Sample:
        """The sample `number` in index order. Raises IndexError, DamagedShard."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} is not one of 0 to {len(self) - 1}")
        place = _Place(self.key(number), *(int(x[number]) for x in (self._offset, self._length, self._crc32)))
        return self._read(self._shards[bisect_right(self._ends, number)], place)

    def key(self, number: int) -> str:
        """The key of the sample `number`, 0 to len - 1, in index order."""
        which = bisect_right(self._ends, number)
        keys = self._keys[which]
        # `_ends` counts samples up to the end of each shard: so the place among its own keys is counted from that end.
        return str(keys[number - self._ends[which] + len(keys)].as_py())

    def counts(self, number: int) -> Counts:
        """What the sample `number` in index order holds: from the index, so that nothing of the sample is read; read,
        where the index is of format 1, which does not say it. Raises DamagedShard."""
        counts = Counts(*self._counts[number].tolist())
        if counts.pairs < 0:
            return Counts.of(self.sample(number).arrays)._replace(tokens=counts.tokens)
        return counts

    def at(self, position: int) -> int:
        """Which sample stands at a position, 0 or more, of the endless order: every epoch is an order of its own."""
        if position < 0:
            raise IndexError(f"position {position} is not 0 or more")
        epoch, place = divmod(position, len(self))
        known, order = self._order
        if known != epoch:
            order = Permutation(len(self), self._seed, epoch)
            self._order = (epoch, order)  # replaced whole: threads may meet here
        return order[place]

    def iterate(
        self, position: int = 0, *, rank: int = 0, world: int = 1, stop: int | None = None, ahead: int = 0
    ) -> Generator[tuple[int, Sample], None, None]:
        """This rank's (position, sample) from a global position on: position + rank, then every `world`-th before stop.

        The state of a run is the next global position: with each of `world` ranks n samples on, position + n * world.
        ahead: how many samples threads may hold ready beyond the one given; errors still come at their position. It
        hides the latency of a store, and costs more than it saves where files are in the page cache. Closing the
        generator ends the threads. Raises ValueError at the call, DamagedShard on the way.
        """
        if position < 0 or not 0 <= rank < world or ahead < 0:
            raise ValueError(
                f"iterate: position >= 0, 0 <= rank < world and ahead >= 0, not position={position}, rank={rank},"
                f" world={world}, ahead={ahead}"
            )
        mine = count(position + rank, world) if stop is None else range(position + rank, stop, world)
        return self.read(mine, ahead=ahead)

    def read(self, positions: Iterable[int], *, ahead: int = 0) -> Generator[tuple[int, Sample], None, None]:
        """(position, sample) of each of these positions, asked for as they are needed; the rest is as for `iterate`."""
        return self._read_ahead(positions, ahead) if ahead else ((p, self.sample(self.at(p))) for p in positions)

    def _read_ahead(self, positions: Iterable[int], ahead: int) -> Generator[tuple[int, Sample], None, None]:
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        with ThreadPoolExecutor(min(THREADS, ahead), thread_name_prefix="shards") as pool:
            try:
                for position in positions:
                    waiting.append((position, pool.submit(self.sample, self.at(position))))
                    # In the order asked, not as they come: a rank's order may not depend on which read was fast.
                    if len(waiting) > ahead:
                        yield _result(waiting)
                while waiting:
                    yield _result(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()

    def check(self) -> None:
        """Reads every tar whole. Raises DamagedShard for one whose sha256 is not what its manifest says."""
        with ThreadPoolExecutor(min(THREADS, len(self._shards))) as pool:
            for _ in pool.map(self._check_tar, self._shards):
                pass

    def close(self) -> None:
        """Closes the tars kept open; a later read opens them again."""
        self._handles.close()

    def _check_tar(self, shard: ShardFile) -> None:
        digest = hashlib.sha256()
        with named(shard), self._handles.lend(shard.tar) as stream:
            stream.seek(0)
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != shard.sha256:
            raise damaged(shard, f"the tar's sha256 is {digest.hexdigest()}")

    def _load(self, shard: ShardFile) -> pa.Table:
        """The index, once it is known to belong to this tar."""
        with named(shard), self._handles.open(shard.index) as stream:
            data = stream.read()
        table = parse_index(shard, data)
        with named(shard), self._handles.lend(shard.tar) as stream:
            size = stream.seek(0, os.SEEK_END)
        if size != shard.bytes:
            raise damaged(shard, f"the tar has {size} bytes, its manifest says {shard.bytes}: cut short, or another")
        if table.num_rows:  # tars of one size that changed places are told by their first sample
            self._read(shard, _Place(**table.slice(0, 1).select(_Place._fields).to_pylist()[0]))
        return table

    def _read(self, shard: ShardFile, place: _Place) -> Sample:
        with named(shard), self._handles.lend(shard.tar) as stream:
            data = read_at(stream, place.offset, place.length)
        wrong = f"sample {place.key!r} at byte {place.offset}: "
        if (crc32 := zlib.crc32(data)) != place.crc32:
            what = f"{len(data)} bytes of {place.length}, crc32 {crc32:08x}, the index says {place.crc32:08x}"
            raise damaged(shard, wrong + what)
        try:
            return decode(place.key, data)
        except (ValueError, TypeError, IndexError) as error:
            raise damaged(shard, f"{wrong}{error}") from error


class _Place(NamedTuple):
    key: str
    offset: int
    length: int
    crc32: int


def _result(waiting: deque[tuple[int, Future[Sample]]]) -> tuple[int, Sample]:
    position, future = waiting.popleft()
    return position, future.result()
