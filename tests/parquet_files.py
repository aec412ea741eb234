"""Parquet files in memory, and what the reader makes of them."""

from __future__ import annotations

import datetime
import io
import random

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.stages.containers import Item, ReadConfig, read, scan
from gristmill.stages.containers.span_table import check_tiles


def written(table: pa.Table, rows: int = 300, **options: object) -> bytes:
    """A file of row groups of so many rows. `options`: of pyarrow's writer."""
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=rows, **options)
    return stream.getvalue()


def texts(n: int) -> pa.Table:
    """A table as text datasets have them: `text`, `url`, `id`, `date`, and a nested column."""
    draw = random.Random(n)
    return pa.table(
        {
            "text": [f"{i} " + draw.randbytes(draw.randrange(40)).hex() for i in range(n)],
            "url": [f"http://a.example/{i}" if i % 3 else None for i in range(n)],
            "id": list(range(n)),
            "date": [datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)] * n,
            "other": [[{"x": i}] for i in range(n)],
        }
    )


def items_of(
    data: bytes, config: ReadConfig | None = None, rows: bool = False, spans: pa.Table | None = None
) -> list[Item]:
    """What the reader makes of a file along `spans`; None: those of the scan, which have to tile it."""
    if spans is None:
        spans = scan(io.BytesIO(data), "parquet").spans
        check_tiles(spans, sum(spans["length"].to_pylist()), empty_records=True)
    items = list(read(lambda offset: io.BytesIO(data[offset:]), spans, "parquet", config or ReadConfig(), rows=rows))
    assert [item.ordinal for item in items] == spans["ordinal"].to_pylist()
    return items
