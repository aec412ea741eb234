"""Shards: a plain WebDataset tar and an index beside it, written to fixed bytes and read at any place in any order.

One form for every modality: a sample is `{key}.json`, arrays `{key}.<name>.npy` and raw files `{key}.<extension>`. The
index says where each sample lies and what its crc32 is, so a reader needs no pass over the tar: it checks all shards
before the first sample, and where it stands is ONE integer, the next global position. What stands at a position follows
from seed and epoch alone (model/order.py), so a run goes on with another number of ranks or workers. An index that does
not fit its tar, or bytes that changed, are refused with the shard's name: training on other data has no other symptom.
The file is longer than 300 lines because writer and reader are one format, and change together.
"""

from __future__ import annotations

import hashlib
import io
import json
import operator
import os
import re
import tarfile
import threading
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.order import Permutation

FORMAT = 1
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("key", pa.string()),
            ("offset", pa.int64()),
            ("length", pa.int64()),
            ("crc32", pa.uint32()),
            ("tokens", pa.int64()),
        )
    ]
)
"""The index, a row a sample in the tar's order. offset, length: bytes of its members with headers and padding.

Its metadata: gristmill.format, tar.bytes and tar.sha256 of the tar it belongs to, index.crc32 of its own columns.
"""

HANDLES = 64
"""Tars kept open between reads; every thread that reads has one more."""
THREADS = 8
"""Read ahead, or read indexes, at the same time."""

_DTYPES = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
_DTYPES += ("float16", "float32", "float64")
# Nothing begins or ends with "_": TarWriter drops such fields, and readers skip members named "__...__".
_KEY = re.compile(r"[0-9a-z][0-9a-z_-]{0,59}")
_NAME = re.compile(r"[0-9a-z](?:[0-9a-z_]{0,30}[0-9a-z])?")
_EXTENSION = re.compile(rf"(?=.{{1,36}}$){_NAME.pattern}(?:\.{_NAME.pattern})*")
_HEADER, _RECORD = 512, 10_240  # of a tar; a whole archive is a multiple of the latter
_LARGEST = 8 << 30  # bytes from which on a tar header cannot tell a member's size
_BLOCK = 1 << 20


class DamagedShard(OSError):
    """A shard whose bytes are not those that were written; names it, what is wrong, and the way out."""


class Sample(NamedTuple):
    """Arrays are writable views of the bytes read for this sample and of no other; `files` are raw, by extension."""

    key: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    files: dict[str, bytes]


@dataclass(frozen=True)
class ShardFile:
    """A shard by the names to give to `open`, and what its manifest says of the tar."""

    tar: str
    index: str
    samples: int
    bytes: int
    sha256: str


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
        self._rows: dict[str, tuple[int, int, int, int]] = {}
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
        """Appends a sample. tokens: what it adds to the index's sum, 0 where it has none.

        Raises ValueError, with nothing written, for a key, name, extension, dtype or value that is not allowed.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"key {key!r} is not allowed: 1 to 60 of 0-9 a-z _ -, the first one of 0-9 a-z")
        if key in self._rows:
            raise ValueError(f"key {key!r} is in this shard already: keys are unique in a shard")
        if not 0 <= operator.index(tokens) < 1 << 31:
            raise ValueError(f"sample {key!r}: tokens is {tokens}, allowed are 0 to 2^31 - 1")
        data = _tar_bytes(key, _fields(key, meta, arrays, files or {}))
        self._rows[key] = (self.bytes, len(data), zlib.crc32(data), tokens)
        self._append(data)
        self.samples += 1

    def _append(self, data: bytes | memoryview) -> None:
        self._tar.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        whole = False
        try:
            if kind is None:
                end = self.bytes + 2 * _HEADER
                self._append(bytes(2 * _HEADER + -end % _RECORD))
                self.sha256 = self._digest.hexdigest()
                self._write_index()
                whole = True
        finally:
            self._tar.close()
            if not whole:
                for path in self._paths:
                    path.unlink(missing_ok=True)

    def _write_index(self) -> None:
        columns = [list(self._rows), *zip(*self._rows.values(), strict=True)] if self._rows else [[]] * len(SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=SCHEMA)
        said = {"gristmill.format": str(FORMAT), "tar.bytes": str(self.bytes), "tar.sha256": self.sha256}
        pq.write_table(
            table.replace_schema_metadata(said | {"index.crc32": str(_content_crc32(table))}),
            self._paths[1],
            row_group_size=1 << 16,
            compression="zstd",
            compression_level=3,
            version="2.6",
            data_page_version="2.0",
            write_page_checksum=True,
        )


def _fields(
    key: str, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The members of a sample by extension. Raises ValueError."""
    fields: dict[str, bytes] = {}
    try:
        text = json.dumps(dict(meta), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        fields["json"] = text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample {key!r}: its metadata is not JSON that any reader reads: {error}") from error
    for name, array in arrays.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"sample {key!r}: array name {name!r} is not allowed: 1 to 32 of 0-9 a-z _, no _ at an end"
            )
        if not isinstance(array, np.ndarray) or np.ma.isMaskedArray(array) or array.dtype.name not in _DTYPES:
            kind = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
            raise ValueError(f"sample {key!r}: {name} is {kind}, allowed are ndarray of {', '.join(_DTYPES)}")
        stream = io.BytesIO()
        fixed = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        np.lib.format.write_array(stream, fixed, version=(1, 0), allow_pickle=False)
        fields[f"{name}.npy"] = stream.getvalue()
    for extension, data in files.items():
        if not _EXTENSION.fullmatch(extension) or extension == "json" or extension.split(".")[-1] == "npy":
            raise ValueError(
                f"sample {key!r}: extension {extension!r} is not allowed: at most 36 of 0-9 a-z _ . as in 'image.jpg',"
                " no part begins or ends with _, 'json' is the metadata's and 'npy' the arrays'"
            )
        if not isinstance(data, bytes):
            raise ValueError(f"sample {key!r}: {extension} is {type(data).__name__}, allowed are bytes")
        fields[extension] = data
    if any(len(data) >= _LARGEST for data in fields.values()):
        raise ValueError(f"sample {key!r} has a member of 8 GiB or more, which a tar header cannot tell; split it")
    return fields


def _tar_bytes(key: str, fields: Mapping[str, bytes]) -> memoryview:
    """A sample's members as webdataset writes them. A writer a sample: only so its bytes are at hand for the crc32."""
    from webdataset import TarWriter  # a reader has no use for it, nor for the torch that it imports where there is one

    stream = io.BytesIO()
    # mtime: int. TarWriter does not hand its `format` on, and for a float tarfile adds a header with it.
    with TarWriter(stream, user="", group="", mode=0o444, mtime=0, encoder=False) as writer:
        writer.tarstream.format = tarfile.USTAR_FORMAT  # the same bytes for our short names, in half the time
        writer.write({"__key__": key, **fields})
        end = writer.tarstream.offset
    return stream.getbuffer()[:end]


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
        self._handles = _Handles(open)
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
        self._order = (0, Permutation(len(self), seed, 0))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def tokens(self) -> int:
        """Of all samples together, as the writer was told."""
        return int(self.token_counts.sum(dtype=np.int64))

    def sample(self, number: int) -> Sample:
        """The sample `number` in index order. Raises IndexError, DamagedShard."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} is not one of 0 to {len(self) - 1}")
        which = bisect_right(self._ends, number)
        keys = self._keys[which]
        key = keys[number - self._ends[which] + len(keys)].as_py()
        place = _Place(key, int(self._offset[number]), int(self._length[number]), int(self._crc32[number]))
        return self._read(self._shards[which], place)

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
        return self._read_ahead(mine, ahead) if ahead else ((p, self.sample(self.at(p))) for p in mine)

    def _read_ahead(self, positions: Iterable[int], ahead: int) -> Generator[tuple[int, Sample], None, None]:
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        with ThreadPoolExecutor(min(THREADS, ahead), thread_name_prefix="shards") as pool:
            try:
                for position in positions:
                    waiting.append((position, pool.submit(self.sample, self.at(position))))
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
        with _named(shard), self._handles.lend(shard.tar) as stream:
            stream.seek(0)
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != shard.sha256:
            raise _damaged(shard, f"the tar's sha256 is {digest.hexdigest()}")

    def _load(self, shard: ShardFile) -> pa.Table:
        """The index, once it is known to belong to this tar."""
        with _named(shard), self._handles.open(shard.index) as stream:
            data = stream.read()
        table = _parse_index(shard, data)
        with _named(shard), self._handles.lend(shard.tar) as stream:
            size = stream.seek(0, os.SEEK_END)
        if size != shard.bytes:
            raise _damaged(shard, f"the tar has {size} bytes, its manifest says {shard.bytes}: cut short, or another")
        if table.num_rows:  # tars of one size that changed places are told by their first sample
            self._read(shard, _Place(**table.slice(0, 1).drop_columns("tokens").to_pylist()[0]))
        return table

    def _read(self, shard: ShardFile, place: _Place) -> Sample:
        with _named(shard), self._handles.lend(shard.tar) as stream:
            data = _read_at(stream, place.offset, place.length)
        wrong = f"sample {place.key!r} at byte {place.offset}: "
        if (found := zlib.crc32(data)) != place.crc32:
            what = f"{len(data)} bytes of {place.length}, crc32 {found:08x}, the index says {place.crc32:08x}"
            raise _damaged(shard, wrong + what)
        try:
            return _decode(place.key, data)
        except (ValueError, TypeError, IndexError) as error:
            raise _damaged(shard, f"{wrong}{error}") from error


class _Place(NamedTuple):
    key: str
    offset: int
    length: int
    crc32: int


class _Handles:
    """Streams by name, each lent to one thread at a time; of those not lent the HANDLES used last stay open."""

    def __init__(self, open: Callable[[str], BinaryIO]) -> None:
        self.open = open
        self._resting: dict[str, list[BinaryIO]] = {}  # no list is empty
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, name: str) -> Iterator[BinaryIO]:
        with self._lock:
            stream = self._take(name) if name in self._resting else None
        if stream is None:
            stream = self.open(name)
        try:
            yield stream
        except BaseException:
            stream.close()  # nobody knows what state an error left it in
            raise
        with self._lock:
            self._resting[name] = [*self._resting.pop(name, ()), stream]  # last in the dict: used last
            self._count += 1
            oldest = self._take(next(iter(self._resting))) if self._count > HANDLES else None
        if oldest is not None:
            oldest.close()

    def _take(self, name: str) -> BinaryIO:
        streams = self._resting[name]
        stream = streams.pop()
        if not streams:
            del self._resting[name]
        self._count -= 1
        return stream

    def close(self) -> None:
        with self._lock:
            leaving = [self._take(name) for name, streams in list(self._resting.items()) for _ in list(streams)]
        for stream in leaving:
            stream.close()

    def __del__(self) -> None:  # of a reader that was dropped, not closed
        self.close()


def _read_at(stream: BinaryIO, offset: int, length: int) -> bytearray:
    """The range, or less where the stream ends. By place where that can be: processes forked off share the cursor."""
    data = bytearray()
    raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
    while len(data) < length:
        at, rest = offset + len(data), length - len(data)
        if isinstance(stream, pa.NativeFile):
            block = stream.read_at(rest, at)
        elif isinstance(raw, io.FileIO):
            block = os.pread(raw.fileno(), rest, at)
        else:
            stream.seek(at)
            block = stream.read(rest)
        if not block:
            break
        data += block
    return data


def _result(waiting: deque[tuple[int, Future[Sample]]]) -> tuple[int, Sample]:
    position, future = waiting.popleft()
    return position, future.result()


def _damaged(shard: ShardFile, what: str) -> DamagedShard:
    return DamagedShard(
        f"shard {shard.tar} (index {shard.index}): {what}. Put back the tar with sha256 {shard.sha256} and the index"
        " written with it, or write the shard again; a run then goes on from the position it had reached"
    )


@contextmanager
def _named(shard: ShardFile) -> Iterator[None]:
    """Around what `open` and its streams do. Only absence is damage; a network that fails is not, but gets the name."""
    try:
        yield
    except (FileNotFoundError, KeyError) as error:
        raise _damaged(shard, f"is missing ({error})") from error
    except Exception as error:
        error.add_note(f"while reading shard {shard.tar} (index {shard.index})")
        raise


def _parse_index(shard: ShardFile, data: bytes) -> pa.Table:
    """The index as a table. Raises DamagedShard, and ValueError for a format that a later release wrote."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        version = int(said["gristmill.format"])
        recorded, crc32 = (int(said["tar.bytes"]), said["tar.sha256"], table.num_rows), int(said["index.crc32"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _damaged(shard, f"its index cannot be read ({error})") from error
    if version > FORMAT:
        raise ValueError(
            f"shard {shard.tar} (index {shard.index}) has format {version}, this release reads up to {FORMAT}: upgrade"
            " gristmill, or write the shard again with this release"
        )
    if recorded != (expected := (shard.bytes, shard.sha256, shard.samples)):
        raise _damaged(shard, f"its index is of another tar: bytes, sha256, samples are {recorded}, not {expected}")
    if not table.schema.equals(SCHEMA):
        raise _damaged(shard, f"its index has the columns {table.schema.names} of other types or names")
    if _content_crc32(table) != crc32:
        raise _damaged(shard, "its index does not say what was written")
    return table


def _content_crc32(table: pa.Table) -> int:
    """Of an index's columns. Parquet's checksums leave page headers out: one changed bit there made all tokens 0."""
    keys = table["key"].combine_chunks()
    found = zlib.crc32(pc.binary_join(pa.ListArray.from_arrays([0, len(keys)], keys), "\n")[0].as_buffer())
    for name in SCHEMA.names[1:]:
        found = zlib.crc32(table[name].to_numpy().tobytes(), found)
    return found


def _decode(key: str, data: bytearray) -> Sample:
    """A sample from its part of the tar. Raises ValueError, TypeError or IndexError if that is not what it is."""
    sample = Sample(key, {}, {}, {})
    at = 0
    while at < len(data):
        name, _, field = data[at : data.index(0, at)].decode("ascii").partition(".")
        if name != key:
            raise ValueError(f"the tar has {name!r} there")
        start, size = at + _HEADER, int(data[at + 124 : at + 135], 8)
        if field == "json":
            sample.meta.update(json.loads(data[start : start + size].decode()))
        elif field.endswith(".npy"):
            head = start + 10 + int.from_bytes(data[start + 8 : start + 10], "little")
            dtype, shape = _array_header(bytes(data[start:head]))
            sample.arrays[field[:-4]] = np.ndarray(shape, dtype, data, head)
        else:
            sample.files[field] = bytes(data[start : start + size])
        at = start + size + -size % _HEADER
    return sample


@lru_cache(maxsize=4096)  # numpy parses a header as Python source: slower than all else here, and few differ
def _array_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    stream = io.BytesIO(header)
    if (version := np.lib.format.read_magic(stream)) != (1, 0):
        raise ValueError(f"an array of npy version {version}, not (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.name not in _DTYPES:
        raise ValueError(f"an array of {dtype}{' in Fortran order' if fortran else ''}, which no writer of ours writes")
    return dtype, shape
