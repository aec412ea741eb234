"""Packs: the windows of a mixture by their digests, for `model.shards`, which knows of no lake."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_object
from gristmill.lake.versions.form import INDEX, PACK
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.shards.files import ShardFile, ShardReader


def shard_files(manifest: Manifest) -> list[tuple[ObjectRef, ObjectRef]]:
    """(tar, index) of each shard. Raises ValueError for a version that holds no windows."""
    if manifest.form != "windows":
        raise ValueError(f"{manifest} holds no packed windows; `grist run conf/mixture.yaml` makes them")
    tars = [ref for ref in manifest.shards if ref.kind == PACK.kind]
    indices = [ref for ref in manifest.shards if ref.kind == INDEX.kind]
    return list(zip(tars, indices, strict=True))


def opened_by_key(
    store: Store, shards: Sequence[tuple[ObjectRef, ObjectRef]]
) -> tuple[list[ShardFile], Callable[[str], Any]]:
    """The files of these shards ((tar, index) of each, in order), and what opens one."""
    files = [
        ShardFile(tar=tar.key, index=index.key, samples=tar.records, bytes=tar.bytes, sha256=tar.sha256)
        for tar, index in shards
    ]
    indices = {index.key: index for _, index in shards}

    def opened(key: str) -> Any:
        """A tar has a checksum for each sample; an index is hashed whole."""
        return io.BytesIO(read_object(store, indices[key])) if key in indices else store.open(key)

    return files, opened


def read_windows(store: Store, manifest: Manifest, seed: int = 0) -> ShardReader:
    """A reader over all windows. Raises DamagedShard for a shard that is not what the manifest says."""
    files, opened = opened_by_key(store, shard_files(manifest))
    return ShardReader(files, opened, seed=seed)
