"""A version of a dataset for people in Python: `gristmill.open("web@v3")`, then records, Arrow, pandas, PyTorch,
Hugging Face datasets or Ray Data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.lake.accounts.ledger import SCHEMA, sort
from gristmill.lake.query.python.html import as_html
from gristmill.lake.query.query import resolve_usable
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import generations, iter_batches, open_parquet, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

if TYPE_CHECKING:
    import pandas as pd

    from gristmill.lake.query.python.torch_data import Records, Windows


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
        """All records, in the order of the shards. Raises KeyError for a column that is not there, TypeError for a
        version whose shards are no tables: windows of a mixture (`gristmill.windows`), a tokenizer."""
        self._check_tables()
        wanted = self._columns(columns)
        tables = [read_table(self.store, ref, wanted) for ref in self.manifest.shards]
        return pa.concat_tables(tables) if tables else pa.table({})

    def _check_tables(self) -> None:
        """Raises TypeError, with what reads them instead, where the shards are no tables."""
        layout = self.manifest.layout
        if layout.shown == "stretches":
            raise TypeError(
                f"{self.manifest} holds packed windows: read them with gristmill.windows('{self.manifest}'), or"
                f" `grist checkout {self.manifest} DIR` and webdataset"
            )
        if not layout.has_records:
            raise TypeError(f"{self.manifest} holds no records, but {layout.called}")
        if any(layout.holds(ref.kind) != "rows" for ref in self.manifest.shards):
            raise TypeError(
                f"{self.manifest} holds tars: `grist checkout {self.manifest} DIR` and webdataset read them"
            )

    def _columns(self, columns: Sequence[str] | None) -> list[str] | None:
        """These columns, once the first shard was seen to have them; None: all. Raises KeyError."""
        if columns is None or not self.manifest.shards:
            return None
        with open_parquet(self.store, self.manifest.shards[0]) as file:
            have = file.schema_arrow.names
        if missing := sorted(set(columns) - set(have)):
            raise KeyError(f"{self.manifest} has no column {', '.join(missing)}; it has {', '.join(have)}")
        return list(columns)

    def to_ray(self, columns: Sequence[str] | None = None) -> Any:
        """A `ray.data.Dataset` over the shards. Raises as `to_arrow`."""
        self._check_tables()
        import ray.data

        # Not ray.data.read_parquet: objects have no extension, and Ray 2.60 finds no such files. A task a shard.
        store, refs, wanted = self.store, self.manifest.shards, self._columns(columns)

        def read(rows: dict[str, Any]) -> Iterator[pa.Table]:
            for batch in iter_batches(store, refs[int(rows["id"][0])], wanted):
                yield pa.Table.from_batches([batch])

        return ray.data.range(len(refs), override_num_blocks=len(refs) or 1).map_batches(read, batch_size=1)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A `pandas.DataFrame` of all records, in the order of the shards. Raises as `to_arrow`."""
        return self.to_arrow(columns).to_pandas()

    def to_torch(
        self, columns: Sequence[str] | None = None, *, seed: int = 0, epoch: int = 0, rank: int = 0, world: int = 1
    ) -> Records | Windows:
        """A `torch.utils.data.IterableDataset` for a `DataLoader` with any number of workers, which share the work.

        Of records: dicts, in the order of the shards. Of a mixture: the windows of an epoch, in the order of `seed`, as
        tensors (`input_ids`, `loss_mask`, `cu_seqlens`, ...), for a `DataLoader` with batch_size=None. `rank` of
        `world` reads its part. Raises as `to_arrow`, but for windows; ValueError for columns of windows, a wrong rank.
        """
        from gristmill.lake.query.python.torch_data import Records, Windows

        if self.manifest.form == "windows":
            if columns is not None:
                raise ValueError(f"{self.manifest} holds packed windows, which have no columns: leave `columns` out")
            return Windows(self.store, self.manifest, seed, epoch, rank, world)
        self._check_tables()
        return Records(self.store, self.manifest, self._columns(columns), rank, world)

    def to_hf(self, columns: Sequence[str] | None = None, *, streaming: bool = False) -> Any:
        """A `datasets.Dataset` of all records, which are in memory then; with `streaming` a `datasets.IterableDataset`
        that reads as it goes. Raises as `to_arrow`; ImportError where the package `datasets` is not installed."""
        self._check_tables()
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f"{self.manifest}: to_hf needs the package `datasets`, which is not installed:"
                " pip install 'gristmill[datasets]'"
            ) from error
        if streaming:
            wanted = self._columns(columns)
            return datasets.IterableDataset.from_generator(self.iterate, gen_kwargs={"columns": wanted})
        return datasets.Dataset(datasets.table.InMemoryTable(self.to_arrow(columns)))

    def _repr_html_(self) -> str:
        """As a notebook shows it: what it holds, from the manifest alone."""
        return as_html(self.manifest, self.store.uri)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Records as dicts, in the order of the shards, a row group at a time. Raises TypeError as `to_arrow`."""
        return self.iterate()

    def iterate(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """As `iter`, with these columns alone. Raises as `to_arrow`, at the call."""
        self._check_tables()
        wanted = self._columns(columns)
        batches = (batch for ref in self.manifest.shards for batch in iter_batches(self.store, ref, wanted))
        return (record for batch in batches for record in batch.to_pylist())

    def ledger(self) -> pa.Table:
        """One row for every record that came in, sorted by id: fate, stage, reason, value, survivor."""
        refs = self.manifest.fates
        table = pa.concat_tables([SCHEMA.empty_table(), *(read_table(self.store, ref) for ref in refs)])
        return table if len(generations(refs)) < 2 else sort(table)


def open(ref: str, lake: str | None = None) -> Dataset:
    """`web@v3`, `web@some-tag`, or `web` for the latest. `lake` defaults to $GRIST_LAKE.

    Raises NoSuchVersion, for a version that was withdrawn as well: it was taken down for a reason.
    """
    store = lake_of(lake)
    return Dataset(store, resolve_usable(Versions(store), ref))


def lake_of(lake: str | None) -> Store:
    """The lake at this address, by default at $GRIST_LAKE, to read from. Raises ValueError as `open_store`."""
    uri = lake or os.environ.get("GRIST_LAKE")
    if not uri:
        raise ValueError("no lake: pass lake='/dir' or 's3://bucket/prefix', or set GRIST_LAKE")
    return open_store(uri if "://" in uri else os.path.abspath(uri), probe=False)
