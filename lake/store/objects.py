"""Content-addressed objects: bytes that cannot change because their name is their digest.

An object lives at `objects/ab/abcd...` under its sha256. Whoever holds an `ObjectRef` (a receipt, a manifest) knows
its kind, rows and, for sorted tables, the range of its sort key. Every read goes through here and is hashed: what is
up to WHOLE_BYTES as a whole, larger tables block by block (lake/store/checked.py). Parquet is written with fixed
settings so that the same rows are the same bytes on every worker and every rerun.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.checked import BLOCK, DIGEST, ChangedBlock, CheckedFile, digests
from gristmill.lake.store.scratch import scratch as scratch

ROW_GROUP_ROWS = 16_384
"""Small enough that a lookup by id in a ledger decodes a few ms of data, large enough to compress."""

WHOLE_BYTES = 8 << 20
"""What is no larger is read and hashed whole, even for a few rows of it."""
_BLOCK = 1 << 20
_PARQUET = b"PAR1"


class Frozen(BaseModel):
    """Base of everything the lake writes as JSON: immutable, and unknown fields are an error, not a surprise."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        ser_json_inf_nan="strings",
        defer_build=True,
    )


def brief(error: Exception) -> str:
    """What an error says, in one line; of pydantic's many lines the first mistake."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return (str(error).splitlines() or [type(error).__name__])[0]


class DamagedObject(OSError):
    """An object whose bytes are not those it is named after."""


class ObjectRef(Frozen):
    """A pointer to one object. `first` and `last` are the range of a sorted table's leading column. `sums` names the
    object with the digests of a large table's blocks; how it is read, and no part of what it is."""

    kind: str
    sha256: str
    bytes: int
    records: int
    first: str = ""
    last: str = ""
    sums: str = ""

    @model_serializer(mode="wrap")
    def _without_empty_sums(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As pointers were written before there were sums: lists of them keep their digests."""
        fields: dict[str, Any] = handler(self)
        if not self.sums:
            fields.pop("sums", None)
        return fields

    @property
    def key(self) -> str:
        """Where it lies in a store."""
        return object_key(self.sha256)

    def beside(self) -> tuple[ObjectRef, ...]:
        """The object of sums, if it has one."""
        if not self.sums:
            return ()
        size = DIGEST * -(-self.bytes // BLOCK)
        return (ObjectRef(kind="sums", sha256=self.sums, bytes=size, records=size // DIGEST),)

    def overlaps(self, low: str, high: str) -> bool:
        """Whether a sorted table can have rows with `low` <= key < `high`."""
        return bool(self.records) and self.first < high and self.last >= low


def object_key(sha256: str) -> str:
    """Where an object of this digest lies in a store."""
    return f"objects/{sha256[:2]}/{sha256}"


def file_sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def put_file(store: Store, kind: str, path: Path, records: int, *, first: str = "", last: str = "") -> ObjectRef:
    """Stores the file under its digest. Writing it again is harmless and renews its age, which gc looks at."""
    size, sums = path.stat().st_size, ""
    with path.open("rb") as stream:
        is_large_table = size > WHOLE_BYTES and stream.read(len(_PARQUET)) == _PARQUET
    if is_large_table:
        sha256, blocks = digests(path)
        sums = hashlib.sha256(blocks).hexdigest()
        store.put(object_key(sums), blocks)
    else:
        sha256 = file_sha256(path)
    ref = ObjectRef(kind=kind, sha256=sha256, bytes=size, records=records, first=first, last=last, sums=sums)
    store.put_file(ref.key, path)
    return ref


def put_table(
    store: Store, kind: str, table: pa.Table, *, sorted_by: str | None = None, groups: Iterable[pa.Table] | None = None
) -> ObjectRef:
    """Stores a table as Parquet; `sorted_by` names the string column whose range goes into the pointer; `groups`: the
    table in parts, each with row groups of its own."""
    first = last = ""
    if sorted_by is not None and table.num_rows:
        first, last = (table[sorted_by][at].as_py() for at in (0, -1))
    with scratch() as folder:
        path = folder / "table.parquet"
        with table_writer(path, table.schema) as writer:
            for group in (table,) if groups is None else groups:
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
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


def put_refs(store: Store, refs: Sequence[ObjectRef], kind: str = "refs") -> ObjectRef:
    """Stores a list of pointers as an object, so that work on many objects is still a pointer itself."""
    with scratch() as folder:
        path = folder / "refs.json"
        path.write_text(json.dumps([ref.model_dump() for ref in refs]))
        return put_file(store, kind, path, len(refs))


def read_refs(store: Store, ref: ObjectRef) -> list[ObjectRef]:
    """The pointers that `put_refs` stored. Raises DamagedObject, NotFound."""
    return [ObjectRef(**item) for item in json.loads(read_object(store, ref))]


def read_object(store: Store, ref: ObjectRef) -> bytes:
    """All bytes of an object. Raises DamagedObject, NotFound."""
    data = store.get(ref.key)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise _damaged(store, ref, f"{len(data):,} bytes of {ref.bytes:,}")
    return data


def copy_object(store: Store, ref: ObjectRef, target: Path) -> None:
    """Writes an object to a file, hashed on the way. Raises DamagedObject, and leaves no file then; NotFound."""
    digest = hashlib.sha256()
    with store.open(ref.key) as source, target.open("wb") as sink:
        while block := source.read(_BLOCK):
            digest.update(block)
            sink.write(block)
    if digest.hexdigest() != ref.sha256:
        target.unlink()
        raise _damaged(store, ref, f"its sha256 is {digest.hexdigest()[:12]}")


def is_table(store: Store, ref: ObjectRef) -> bool:
    """Whether it is Parquet. What does not look like it is hashed, or a changed byte would hide its rows."""
    with store.open(ref.key) as source:
        known = bool(source.read(len(_PARQUET)) == _PARQUET)
    if not known:
        _hash_once(store, ref)
    return known


def read_table(store: Store, ref: ObjectRef, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
    """Reads a Parquet object; `filters` is pyarrow's pushdown expression. Raises DamagedObject."""
    with _opened(store, ref) as source:
        return pq.read_table(source, columns=columns, filters=filters, page_checksum_verification=True)


@contextmanager
def open_parquet(store: Store, ref: ObjectRef) -> Iterator[pq.ParquetFile]:
    """A Parquet object of which parts are read. Raises DamagedObject from the reads within."""
    with _opened(store, ref) as source:
        yield pq.ParquetFile(source, page_checksum_verification=True)


def iter_batches(store: Store, ref: ObjectRef, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of at most ROW_GROUP_ROWS rows. Raises DamagedObject."""
    with open_parquet(store, ref) as file:
        yield from file.iter_batches(ROW_GROUP_ROWS, columns=columns)


def groups_between(file: pq.ParquetFile, column: str, low: Any, high: Any) -> list[int]:
    """The row groups that can hold a row with `low` <= column < `high`; one without statistics can hold anything."""
    at = file.schema_arrow.get_field_index(column)
    ranges = [file.metadata.row_group(g).column(at).statistics for g in range(file.num_row_groups)]
    return [g for g, keys in enumerate(ranges) if keys is None or (keys.min < high and keys.max >= low)]


def rows_between(store: Store, ref: ObjectRef, column: str, low: str, high: str) -> pa.Table:
    """The rows with `low` <= column < `high` of a table sorted by it, from the row groups that can hold some.

    By hand: a filter expression makes pyarrow import its dataset module and pandas, a second for one row.
    """
    with open_parquet(store, ref) as file:
        table = file.read_row_groups(groups_between(file, column, low, high))
    keys = table[column].to_pylist()
    first = bisect_left(keys, low)
    return table.slice(first, bisect_left(keys, high) - first)


def generations(refs: Sequence[ObjectRef]) -> list[list[ObjectRef]]:
    """Sorted objects as runs whose ranges ascend: a version that grew has one for each time it did, or fewer."""
    runs, last = list[list[ObjectRef]](), ""
    for ref in refs:
        if not runs or (ref.records and ref.first <= last):
            runs.append([])
        runs[-1].append(ref)
        last = ref.last if ref.records else last
    return runs


@contextmanager
def _opened(store: Store, ref: ObjectRef) -> Iterator[Any]:
    """The bytes of a table as pyarrow reads them, none of them unchecked. Raises DamagedObject."""
    if ref.bytes <= WHOLE_BYTES:
        yield pa.BufferReader(read_object(store, ref))
        return
    sums = _sums(store, ref)
    with store.open(ref.key) as source:
        if sums is None:  # a pointer of a release without them, or they are lost: all of it, once a process
            _hash_once(store, ref)
            yield source
            return
        try:
            yield pa.PythonFile(CheckedFile(source, ref.bytes, sums), mode="r")
        except ChangedBlock as error:
            raise _damaged(store, ref, str(error)) from error


def _sums(store: Store, ref: ObjectRef) -> bytes | None:
    """The digests of a table's blocks; None where the pointer names none, or they are lost."""
    for beside in ref.beside():
        try:
            return read_object(store, beside)
        except NotFound:
            break
    return None


_hashed: set[tuple[str, str]] = set()
"""(store, sha256) of large objects that this process hashed and found whole."""


def _hash_once(store: Store, ref: ObjectRef) -> None:
    """Raises DamagedObject unless the bytes are those of its name, or were once in the life of this process."""
    if (store.uri, ref.sha256) in _hashed:
        return
    digest = hashlib.sha256()
    with store.open(ref.key) as source:
        while block := source.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != ref.sha256:
        raise _damaged(store, ref, f"its sha256 is {digest.hexdigest()[:12]}")
    _hashed.add((store.uri, ref.sha256))


def _damaged(store: Store, ref: ObjectRef, what: str) -> DamagedObject:
    return DamagedObject(
        f"{ref.key} in {store.uri} ({ref.kind}) is damaged, its bytes changed since they were written ({what})."
        " Copy it from another lake; or delete it, and the command that made it makes it again. `grist verify --deep`"
        " names the versions that it harms"
    )
