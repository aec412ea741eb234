"""Numbers that belong to windows and lie apart from them: a table for each shard of a mixture, a row a window.

What a reference model says of the segments of pairs; what models say of every token that a policy drew, and the
advantages of its samples. What makes them is in stages/reference/; a trainer and a gate read them here.
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
TOKENS = "token_reference"
"""As REFERENCE, of each target by itself."""
ADVANTAGES = "advantages"
"""Kind of the object with the advantages of the segments of a shard's windows."""
REFERENCE_LOGPROBS, OLD_LOGPROBS, BASE_LOGPROBS = "reference_logprobs", "old_logprobs", "base_logprobs"
"""Arrays that a trainer has of a window: of pairs what the reference says of a segment; of samples what the policy that
drew them, and the model that it is held to, say of a token. ADVANTAGES names another one."""
SCHEMA = pa.schema(
    [("key", pa.string()), ("logprobs", pa.list_(pa.float32()))],  # of a window; of its segments' targets, in nats
    metadata={"gristmill.format": "1"},
)


ADVANTAGES_SCHEMA = pa.schema(
    [("key", pa.string()), ("advantages", pa.list_(pa.float32()))],  # of a window; of its segments
    metadata={"gristmill.format": "1"},
)


def beside_digests(beside: Mapping[str, Sequence[ObjectRef]]) -> tuple[str, ...]:
    """Of all tables, each with what it is to the trainer. `beside`: array of a window -> a table for each shard."""
    return tuple(f"{name.removesuffix('_logprobs')} {ref.sha256}" for name in sorted(beside) for ref in beside[name])


def load_beside(store: Store, beside: Mapping[str, Sequence[ObjectRef]]) -> Beside:
    """As a trainer takes them: 4 bytes a number, and some 300 a window, in memory. Raises DamagedObject."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, refs in beside.items():
        for ref in refs:
            table = read_table(store, ref)
            lists = table[1].combine_chunks()
            values, ends = lists.flatten().to_numpy(), np.asarray(lists.offsets)
            for row, key in enumerate(table["key"].to_pylist()):
                arrays.setdefault(key, {})[name] = values[ends[row] - ends[0] : ends[row + 1] - ends[0]]
    return Beside(arrays, tuple(ref.sha256 for name in sorted(beside) for ref in beside[name]))
