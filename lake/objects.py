"""Content-addressed objects: bytes that cannot change because their name is their digest.

An object lives at `objects/ab/abcd...` under its sha256. Whoever holds an `ObjectRef` (a receipt, a manifest)
can fetch it, prove it whole, and knows its kind, rows and, for sorted tables, the range of its sort key. Parquet
is written with fixed settings so that the same rows are the same bytes on every worker and every rerun.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from lake.scratch import scratch as scratch
from lake.store import Store

ROW_GROUP_ROWS = 16_384
"""Small enough that a lookup by id in a ledger decodes a few ms of data, large enough to compress."""

_BLOCK = 1 << 20


class Frozen(BaseModel):
    """Base of everything the lake writes as JSON: immutable, and unknown fields are an error, not a surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def brief(error: Exception) -> str:
    """What an error says, in one line; of pydantic's many lines the first mistake."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return (str(error).splitlines() or [type(error).__name__])[0]


class DamagedObject(OSError):
    """An object whose bytes are not those it is named after."""


class ObjectRef(Frozen):
    """A pointer to one object. `first` and `last` are the range of a sorted table's leading column."""

    kind: str
    sha256: str
    bytes: int
    records: int
    first: str = ""
    last: str = ""

    @property
    def key(self) -> str:
        return f"objects/{self.sha256[:2]}/{self.sha256}"

    def overlaps(self, low: str, high: str) -> bool:
        """Whether a sorted table can have rows with `low` <= key < `high`."""
        return bool(self.records) and self.first < high and self.last >= low


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def put_file(store: Store, kind: str, path: Path, records: int, *, first: str = "", last: str = "") -> ObjectRef:
    """Stores the file under its digest. Writing it again is harmless and renews its age, which gc looks at."""
    ref = ObjectRef(
        kind=kind,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        records=records,
        first=first,
        last=last,
    )
    store.put_file(ref.key, path)
    return ref


def put_table(store: Store, kind: str, table: pa.Table, *, sorted_by: str | None = None) -> ObjectRef:
    """Stores a table as Parquet; `sorted_by` names the string column whose range goes into the pointer."""
    first = last = ""
    if sorted_by is not None and table.num_rows:
        first, last = table[sorted_by][0].as_py(), table[sorted_by][-1].as_py()
    with scratch() as folder:
        path = folder / "table.parquet"
        with table_writer(path, table.schema) as writer:
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        return put_file(store, kind, path, table.num_rows, first=first, last=last)


def table_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """The one place that chooses Parquet settings: they decide the bytes, and so every content digest.

    Pages carry a CRC, which every read checks: an object that no version holds is seen by no `verify`.
    """
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="2.0",
        write_page_checksum=True,
    )


def put_refs(store: Store, refs: Sequence[ObjectRef]) -> ObjectRef:
    """Stores a list of pointers as an object, so that work on many objects is still a pointer itself."""
    with scratch() as folder:
        path = folder / "refs.json"
        path.write_text(json.dumps([ref.model_dump() for ref in refs]))
        return put_file(store, "refs", path, len(refs))


def read_refs(store: Store, ref: ObjectRef) -> list[ObjectRef]:
    return [ObjectRef(**item) for item in json.loads(store.get(ref.key))]


def read_table(store: Store, ref: ObjectRef, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Reads a Parquet object; `filters` is pyarrow's pushdown expression. Raises DamagedObject."""
    with _whole(store, ref), store.open(ref.key) as source:
        return pq.read_table(source, columns=columns, filters=filters, page_checksum_verification=True)


@contextmanager
def open_parquet(store: Store, ref: ObjectRef) -> Iterator[pq.ParquetFile]:
    """A Parquet object for who reads parts of it. Raises DamagedObject from the reads within."""
    with _whole(store, ref), store.open(ref.key) as source:
        yield pq.ParquetFile(source, page_checksum_verification=True)


def iter_batches(store: Store, ref: ObjectRef, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of at most ROW_GROUP_ROWS rows. Raises DamagedObject."""
    with store.open(ref.key) as source:
        with _whole(store, ref):
            batches = pq.ParquetFile(source, page_checksum_verification=True).iter_batches(
                ROW_GROUP_ROWS, columns=columns
            )
        while True:
            with _whole(store, ref):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def rows_between(store: Store, ref: ObjectRef, column: str, low: str, high: str) -> pa.Table:
    """The rows with `low` <= column < `high` of a table sorted by it, from the row groups that can hold some.

    By hand: a filter expression makes pyarrow import its dataset module and pandas, a second for one row.
    """
    with open_parquet(store, ref) as file:
        at = file.schema_arrow.get_field_index(column)
        ranges = [file.metadata.row_group(g).column(at).statistics for g in range(file.num_row_groups)]
        groups = [g for g, keys in enumerate(ranges) if keys is None or (keys.min < high and keys.max >= low)]
        table = file.read_row_groups(groups)
    keys = table[column].to_pylist()
    first = bisect_left(keys, low)
    return table.slice(first, bisect_left(keys, high) - first)


def generations(refs: Sequence[ObjectRef]) -> list[list[ObjectRef]]:
    """Sorted objects as runs whose ranges ascend: a version that grew has one for each time it did, or fewer."""
    runs: list[list[ObjectRef]] = []
    last = ""
    for ref in refs:
        if not runs or (ref.records and ref.first <= last):
            runs.append([])
        runs[-1].append(ref)
        last = ref.last if ref.records else last
    return runs


@contextmanager
def _whole(store: Store, ref: ObjectRef) -> Iterator[None]:
    """Around a read: an error that comes from changed bytes names the object and the way out."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:  # also a network's error, or a column that is not there
        digest = hashlib.sha256()
        with store.open(ref.key) as source:
            while block := source.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() == ref.sha256:
            raise
        raise DamagedObject(
            f"{ref.key} in {store.uri} is damaged, its bytes changed since they were written ({brief(error)})."
            " Delete it, and the same command makes it again; `grist verify --deep` names the versions that it harms"
        ) from error
