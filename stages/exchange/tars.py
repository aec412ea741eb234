"""Records as a WebDataset: a tar with `KEY.json` for each, and its media as files beside it.

`<|image_2|>` of a text is `KEY.image_2.jpg`. The key is the number of the shard and of the row, for an id may stand in
two records. Written as shards of windows are (model/shards/sample.py): no times, no owners, so that the same rows are
the same bytes.
"""

from __future__ import annotations

import base64
import datetime
import math
from collections import Counter
from pathlib import Path
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, scratch
from gristmill.model.shards.files import ShardWriter
from gristmill.stages.exchange.extensions import extension_of

MEDIA_COLUMN = "media"
BATCH_ROWS = 256


def table_as_tar(store: Store, ref: ObjectRef, number: int, path: Path) -> int:
    """Writes the rows of a shard as groups of files. `number`: of the shard. Returns how many there are."""
    with scratch() as folder, open_parquet(store, ref) as file, ShardWriter(path, folder / "index") as writer:
        at = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
                for row in batch.to_pylist():
                    meta, files = _split(row)
                    writer.write(f"{number:06d}-{at:08d}", meta, {}, files)
                    at += 1
    return at


def _split(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A record as JSON, and its media as files. In the JSON each medium names its file."""
    files: dict[str, bytes] = {}
    numbers: Counter[str] = Counter()
    if row.get(MEDIA_COLUMN):
        media = []
        for medium in row[MEDIA_COLUMN]:
            data = medium.pop("data")
            numbers[medium["kind"]] += 1
            if data is not None:
                name = f"{medium['kind']}_{numbers[medium['kind']]}.{extension_of(data[:32])}"
                files[name] = data
                medium["file"] = name
            media.append({key: value for key, value in medium.items() if value is not None})
        row = {**row, MEDIA_COLUMN: media}
    return {name: json_value(value) for name, value in row.items()}, files


def json_value(value: Any) -> Any:
    """As JSON has it: bytes in base64, times in ISO 8601, and no number (null) for what is none in JSON."""
    if isinstance(value, dict):
        return {name: json_value(item) for name, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return value
