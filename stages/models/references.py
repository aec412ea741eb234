"""Log-probabilities of a reference model as objects: a table for each shard of a mixture, a row a window.

What makes them is stages/reference/work.py; a trainer and a gate read them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.model.train.settings import Beside

REFERENCE = "reference"
"""Kind of the object with the log-probabilities of a shard's windows, an attachment of the version."""
SCHEMA = pa.schema(
    [("key", pa.string()), ("logprobs", pa.list_(pa.float32()))],  # of a window; of its segments' targets, in nats
    metadata={"gristmill.format": "1"},
)


def load_references(store: Store, refs: Sequence[ObjectRef]) -> Beside:
    """As a trainer takes them: 4 bytes a segment, and some 300 a window, in memory. Raises DamagedObject."""
    arrays: dict[str, Mapping[str, np.ndarray]] = {}
    for ref in refs:
        table = read_table(store, ref)
        lists = table["logprobs"].combine_chunks()
        values, ends = lists.flatten().to_numpy(), np.asarray(lists.offsets)
        for row, key in enumerate(table["key"].to_pylist()):
            arrays[key] = {"reference_logprobs": values[ends[row] - ends[0] : ends[row + 1] - ends[0]]}
    return Beside(arrays, tuple(ref.sha256 for ref in refs))
