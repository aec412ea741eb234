"""Tables for other tools: media as columns of their own kind, and the samples of tars as rows.

Parquet has no type for a picture; `datasets` has, over a struct of bytes and path. So images and clips get a column
each, in the order of their placeholders (`<|image_2|>` is the second of `images`), and `media` keeps what is known of
them. Arrays of a window are flat lists, beside their shape where they have more than one axis. Written row group by
row group, with the settings of all tables of a lake: the same shard gives the same bytes.
Source: `datasets` (features.Image, features.Audio, the schema metadata `huggingface`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_object, table_writer
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import WindowStatistics
from gristmill.model.shards.files import Sample, ShardFile, ShardReader
from gristmill.stages.exchange.extensions import extension_of
from gristmill.stages.exchange.features import FILE, features_of

MEDIA_COLUMN = "media"
TYPED = {"image": "images", "audio": "audio"}
"""Kind of a medium -> the column with those of this kind."""
ROW_GROUP_BYTES = 16 << 20
_OF_TEXT = {"input_ids": pa.int32(), "loss_mask": pa.bool_(), "cu_seqlens": pa.int32()}
_OF_IMAGES = {"tiles": pa.uint8(), "image_sizes": pa.int32()}
_OF_CLIPS = {"mel": pa.float32(), "cu_frames": pa.int32()}
_SEVERAL_AXES = ("tiles", "image_sizes", "mel")
FILES = pa.list_(pa.struct([("name", pa.string()), ("data", pa.binary())]))


def typed_schema(schema: pa.Schema) -> pa.Schema:
    """Of shards with media, as `with_typed_media` writes them: with what `datasets` reads of the columns' features."""
    item = schema.field(MEDIA_COLUMN).type.value_type
    known = pa.list_(pa.struct([field for field in item if field.name != "data"]))
    fields = [pa.field(field.name, known) if field.name == MEDIA_COLUMN else field for field in schema]
    plain = pa.schema([*fields, *(pa.field(name, pa.list_(FILE)) for name in TYPED.values())])
    info = {"info": {"features": features_of(plain)}}
    metadata = {**(schema.metadata or {}), b"huggingface": json.dumps(info, sort_keys=True).encode()}
    return plain.with_metadata(metadata)


def with_typed_media(store: Store, ref: ObjectRef, path: Path) -> int:
    """Writes a shard of records with media with a column for each kind. Returns the number of records.

    Raises ValueError for a medium of another kind, which no column would have.
    """
    with open_parquet(store, ref) as file:
        schema = typed_schema(file.schema_arrow)
        with table_writer(path, schema) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                writer.write_table(_typed(rows, schema))
        return int(file.metadata.num_rows)


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """One row group."""
    media = rows[MEDIA_COLUMN].combine_chunks()
    flat, parents = pc.list_flatten(media), pc.list_parent_indices(media).to_numpy(zero_copy_only=False)
    kinds = flat.field("kind") if len(flat) else pa.array([], pa.string())
    if unknown := sorted(set(kinds.to_pylist()) - set(TYPED), key=str):
        raise ValueError(
            f"media of kind {', '.join(map(str, unknown))}: --as hf has columns for {', '.join(TYPED)}; use --as"
            " parquet or --as webdataset"
        )
    columns = {name: rows[name] for name in rows.schema.names if name != MEDIA_COLUMN}
    known = schema.field(MEDIA_COLUMN).type
    fields = [flat.field(field.name) for field in known.value_type]
    described = pa.StructArray.from_arrays(fields, fields=list(known.value_type))
    columns[MEDIA_COLUMN] = _lists(described, parents, rows.num_rows)
    for kind, name in TYPED.items():
        chosen = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(kinds, kind), False)))
        data = flat.field("data").take(pa.array(chosen))
        digests = flat.field("sha256").take(pa.array(chosen)).to_pylist()
        paths = [f"{sha256}.{_extension(item)}" for sha256, item in zip(digests, data, strict=True)]
        files = pa.StructArray.from_arrays([data, pa.array(paths, pa.string())], fields=list(FILE))
        columns[name] = _lists(files, parents[chosen], rows.num_rows)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _extension(data: pa.Scalar) -> str:
    """By the first bytes, which alone are copied."""
    buffer = data.as_buffer() if data.is_valid else None
    return extension_of(b"" if buffer is None else buffer[:32].to_pybytes())


def _lists(values: pa.Array, parents: np.ndarray, rows: int) -> pa.ListArray:
    """Lists of these values, which stand in the order of their rows. `parents`: the row of each."""
    ends = np.cumsum(np.bincount(parents, minlength=rows)) if rows else np.zeros(0, np.int64)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), values)


def window_schema(manifest: Manifest) -> pa.Schema:
    """Of the samples of a version's tars as rows: key, what the sample says of itself, and its arrays or files."""
    columns = [pa.field("key", pa.string()), pa.field("json", pa.string())]
    if manifest.form != "windows":
        return pa.schema([*columns, pa.field("files", FILES)])
    for name, kind in _arrays_of(manifest).items():
        columns.append(pa.field(name, pa.list_(kind)))
        if name in _SEVERAL_AXES:
            columns.append(pa.field(f"{name}_shape", pa.list_(pa.int64())))
    return pa.schema(columns)


def _arrays_of(manifest: Manifest) -> Mapping[str, pa.DataType]:
    counted = WindowStatistics.of(manifest.statistics)
    return _OF_TEXT | (_OF_IMAGES if counted.images else {}) | (_OF_CLIPS if counted.clips else {})


def tar_as_table(store: Store, manifest: Manifest, tar: ObjectRef, index: ObjectRef, path: Path) -> int:
    """Writes the samples of a tar as rows, in its order. Returns their number.

    Raises DamagedShard, and ValueError for a sample with an array that the version does not have.
    """
    schema = window_schema(manifest)
    count = 0
    with table_writer(path, schema) as writer:
        held, size = list[dict[str, Any]](), 0
        for sample, length in _samples(store, tar, index):
            held.append(_row(sample, schema))
            count, size = count + 1, size + length
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held, size = [], 0
        if held:
            writer.write_table(pa.Table.from_pylist(held, schema))
    return count


def _samples(store: Store, tar: ObjectRef, index: ObjectRef) -> Iterator[tuple[Sample, int]]:
    """(sample, its bytes), each compared with its checksum."""
    if not tar.records:
        return
    shard = ShardFile(tar=tar.key, index=index.key, samples=tar.records, bytes=tar.bytes, sha256=tar.sha256)

    def opened(key: str) -> BinaryIO:
        stream: BinaryIO = io.BytesIO(read_object(store, index)) if key == index.key else store.open(key)
        return stream

    reader = ShardReader([shard], opened)
    try:
        for number in range(len(reader)):
            sample = reader.sample(number)
            yield sample, sum(array.nbytes for array in sample.arrays.values()) + sum(map(len, sample.files.values()))
    finally:
        reader.close()


def _row(sample: Sample, schema: pa.Schema) -> dict[str, Any]:
    row: dict[str, Any] = {"key": sample.key, "json": json.dumps(sample.meta, ensure_ascii=False, sort_keys=True)}
    if "files" in schema.names:
        return row | {"files": [{"name": name, "data": bytes(data)} for name, data in sorted(sample.files.items())]}
    if unknown := sorted(set(sample.arrays) - set(schema.names)):
        raise ValueError(f"window {sample.key} has arrays that its version does not count: {', '.join(unknown)}")
    for name, array in sample.arrays.items():
        row[name] = array.reshape(-1)
        if name in _SEVERAL_AXES:
            row[f"{name}_shape"] = list(array.shape)
    return row
