"""Which files an exported version consists of, and from which shard each is made.

A file a shard: what it is called is known before anything is read, a killed export goes on at the file it was in, and
no more is in memory than a row group or a sample. A shard that has the wanted form already is copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, copy_object, open_parquet
from gristmill.lake.versions.form import INDEX
from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.exchange.tables import MEDIA_COLUMN, tar_as_table, with_typed_media
from gristmill.stages.exchange.tars import table_as_tar

Target = Literal["parquet", "webdataset", "hf"]
TARGETS: tuple[Target, ...] = get_args(Target)
Write = Callable[[Path], int]
"""Writes the file and returns how many records it holds."""


@dataclass(frozen=True)
class Part:
    """One file of an export. `name`: its path below the folder; `write`: what makes it."""

    name: str
    write: Write


def parts_of(store: Store, manifest: Manifest, target: Target) -> list[Part]:
    """The data files of a version, in the order of its shards. Raises ValueError for a version without records, and for
    one that no table can hold."""
    layout = manifest.layout
    if not layout.has_records:
        raise ValueError(
            f"{manifest} holds no records, but {layout.called}: `grist export hf` writes a model, and"
            " `grist checkout` its files as they lie in the lake"
        )
    tables = [ref for ref in manifest.shards if layout.holds(ref.kind) == "rows"]
    tars = [ref for ref in manifest.shards if layout.holds(ref.kind) == "groups"]
    if tables and tars and target != "webdataset":
        raise ValueError(
            f"{manifest} holds tables and tars, which no one table can hold: --as {target} is not possible; allowed is"
            " --as webdataset"
        )
    indices = iter([ref for ref in manifest.shards if ref.kind == INDEX.kind])
    shards = [ref for ref in manifest.shards if ref.kind != INDEX.kind]
    writes = [
        _of_table(store, manifest, ref, number, target)
        if layout.holds(ref.kind) == "rows"
        else _of_tar(store, manifest, ref, next(indices), target)
        for number, ref in enumerate(shards)
    ]
    names = [_name(manifest, target, number, len(shards)) for number in range(len(shards))]
    return [Part(name, write) for name, write in zip(names, writes, strict=True)]


def _name(manifest: Manifest, target: Target, number: int, count: int) -> str:
    """`data/web-00000.tar`, which braces can list; else as the hub names files, of the split `train`."""
    if target == "webdataset":
        return f"data/{manifest.dataset}-{number:05d}.tar"
    stem = "train" if target == "hf" else manifest.dataset
    return f"data/{stem}-{number:05d}-of-{count:05d}.parquet"


def _of_table(store: Store, manifest: Manifest, ref: ObjectRef, number: int, target: Target) -> Write:
    if target == "webdataset":
        return lambda path: table_as_tar(store, ref, number, path)
    if target == "hf" and _has_media(store, ref):
        return lambda path: with_typed_media(store, ref, path)
    return lambda path: _copy(store, ref, path)


def _of_tar(store: Store, manifest: Manifest, ref: ObjectRef, index: ObjectRef, target: Target) -> Write:
    if target == "webdataset":
        return lambda path: _copy(store, ref, path)
    return lambda path: tar_as_table(store, manifest, ref, index, path)


def _copy(store: Store, ref: ObjectRef, path: Path) -> int:
    copy_object(store, ref, path)
    return ref.records


def _has_media(store: Store, ref: ObjectRef) -> bool:
    with open_parquet(store, ref) as file:
        return MEDIA_COLUMN in file.schema_arrow.names
