"""A version of a dataset for people in Python: `lake.open("web@v3")`, then Arrow, Ray Data or the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs

from lake.ledger import SCHEMA
from lake.manifest import Manifest
from lake.objects import read_table
from lake.store import Store, open_store
from lake.versions import Versions


class Dataset:
    """One immutable version. `manifest` has everything known about it."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest

    def __repr__(self) -> str:
        m = self.manifest
        return f"Dataset({m}, {m.kept.count:,} records, {m.digest[:12]}, {self.store.uri})"

    def __len__(self) -> int:
        return self.manifest.kept.count

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All records, in the order of the shards. Raises KeyError for a column that is not there."""
        wanted = None if columns is None else list(columns)
        tables = [read_table(self.store, ref, wanted) for ref in self.manifest.shards]
        if wanted is not None and tables and (missing := set(wanted) - set(tables[0].column_names)):
            have = read_table(self.store, self.manifest.shards[0]).column_names
            raise KeyError(f"{self.manifest} has no column {', '.join(sorted(missing))}; it has {', '.join(have)}")
        return pa.concat_tables(tables) if tables else pa.table({})

    def to_ray(self, columns: Sequence[str] | None = None) -> Any:
        """A `ray.data.Dataset` over the shards."""
        import ray

        fs, root = arrow_filesystem(self.store)
        paths = [f"{root}/{ref.key}" for ref in self.manifest.shards]
        return ray.data.read_parquet(
            paths, filesystem=fs, columns=None if columns is None else list(columns), file_extensions=None
        )

    def ledger(self) -> pa.Table:
        """One row for every record that came in, sorted by id: fate, stage, reason, value, survivor."""
        tables = [read_table(self.store, ref) for ref in self.manifest.ledgers if ref.kind == "ledger"]
        return pa.concat_tables([SCHEMA.empty_table(), *tables])


def arrow_filesystem(store: Store) -> tuple[pyarrow.fs.FileSystem, str]:
    """The store as pyarrow sees it: a file system, and the path of the lake's root in it."""
    if not store.uri.startswith("s3://"):
        return pyarrow.fs.LocalFileSystem(), store.uri
    from lake.s3 import connect, split_uri

    bucket, prefix = split_uri(store.uri)
    return connect().filesystem(), f"{bucket}/{prefix}".rstrip("/")


def open(ref: str, lake: str | None = None) -> Dataset:
    """`web@v3`, `web@some-tag`, or `web` for the latest. `lake` defaults to $GRIST_LAKE. Raises NoSuchVersion."""
    uri = lake or os.environ.get("GRIST_LAKE")
    if not uri:
        raise ValueError("lake.open: no lake; pass lake='/dir' or 's3://bucket/prefix', or set GRIST_LAKE")
    store = open_store(uri if "://" in uri else os.path.abspath(uri), probe=False)
    return Dataset(store, Versions(store).resolve(ref))
