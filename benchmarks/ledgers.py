"""A lake with one version whose ledger has a given number of rows, committed through the lake's own API.

Ids are random but for the probes, whose ids are those of real URLs; fates, reasons, values and places are drawn in
proportions like a web crawl's. Objects are cut by id as `stages.core.shards` cuts them. There are no texts: `why` never
looks at them. The commit checks the balance of every row, which is most of the time this takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.versions.manifest import Draft, InputFile, Manifest, run_key
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.shards import LEDGER_ROWS

DATASET = "web"
PER_INPUT = 40_000


class Drawn(NamedTuple):
    """A fate, and the share of rows that have it."""

    share: float
    fate: str
    stage: str
    reason: str | None = None
    value: str | None = None


FATES = (
    Drawn(0.30, "kept", "shards"),
    Drawn(0.25, "dropped", "read", "read.not_a_page", "request"),
    Drawn(0.20, "dropped", "language", "language.unwanted", "de"),
    Drawn(0.10, "dropped", "gopher_quality", "gopher_quality.too_few_words", "37"),
    Drawn(0.05, "dropped", "gopher_quality", "gopher_quality.too_few_alpha_words", "0.7312"),
    Drawn(0.08, "dropped", "exact", "exact.same_text"),
    Drawn(0.02, "quarantined", "extract", "read.unreadable", "gzip member at 1234567 is cut off"),
)


@dataclass(frozen=True)
class Built:
    """`urls`: the probes, spread evenly over the rows of all fates."""

    manifest: Manifest
    urls: tuple[str, ...]


def build(store: Store, rows: int, probes: int) -> Built:
    """Commits a version whose ledger has so many rows, `probes` of them with URLs that are known."""
    urls = tuple(f"https://www.example.org/news/2026/{n}/some-story.html" for n in range(probes))
    table = _table(rows, urls)
    inputs = pc.unique(table["input"]).to_pylist()
    parts = [_between(table, low, high) for low, high in hash_ranges(rows, LEDGER_ROWS)]
    ledgers = tuple(put_table(store, "ledger", part, sorted_by="id") for part in parts)
    tallies = [ledger.tallies(part) for part in parts]
    kept, dropped, quarantined = (total(tally[f] for tally in tallies) for f in ("kept", "dropped", "quarantined"))
    stages = (StageId(name="benchmark", version=1, config={"rows": rows}),)
    draft = Draft(
        dataset=DATASET,
        form="documents",
        run_key=run_key(DATASET, {}, inputs, stages),
        inputs=tuple(
            InputFile(digest=digest, bytes=1 << 30, records=PER_INPUT, names=(f"crawl/{n:05}.warc.gz",))
            for n, digest in enumerate(inputs)
        ),
        recipe={},
        stages=stages,
        ledgers=ledgers,
        received=total((kept, dropped, quarantined)),
        kept=kept,
        dropped=dropped,
        quarantined=quarantined,
    )
    return Built(Versions(store).commit(draft), urls)


def _table(rows: int, urls: tuple[str, ...]) -> pa.Table:
    rng = np.random.default_rng(0)
    ids = _random_ids(rng, rows)
    places = np.linspace(0, rows - 1, len(urls)).astype(np.int64)
    mask = np.zeros(rows, dtype=bool)
    mask[places] = True
    own = pa.array([record_id(url=url, source_key=None, own=url.encode()) for url in urls], pa.string())
    ids = pc.replace_with_mask(ids, pa.array(mask), own)
    drawn = pa.array(rng.choice(len(FATES), rows, p=[fate.share for fate in FATES]), pa.int8())
    fate, stage, reason, value = (_taken(list(column), drawn) for column in list(zip(*FATES, strict=True))[1:])
    others = ids.take(pa.array(rng.integers(0, rows, rows)))
    lengths = rng.integers(500, 100_000, rows)
    digests = [hashlib.sha256(b"input %d" % n).hexdigest() for n in range(-(-rows // PER_INPUT))]
    table = pa.table(
        {
            "id": ids,
            "input": _taken(digests, pa.array(np.arange(rows) // PER_INPUT)),
            "ordinal": pa.array(np.arange(rows) % PER_INPUT),
            "fate": fate,
            "stage": stage,
            "reason": reason,
            "value": value,
            "survivor": pc.if_else(pc.equal(stage, "exact"), others, pa.scalar(None, pa.string())),
            "start": pa.array(np.cumsum(lengths) - lengths),
            "length": pa.array(lengths),
        }
    )
    return ledger.sort(table)


def _taken(values: Sequence[str | None], indices: pa.Array) -> pa.Array:
    return pa.array(values, pa.string()).take(indices)


def _random_ids(rng: np.random.Generator, rows: int) -> pa.Array:
    """Hex strings of 32 characters, without a Python string for each."""
    data = pa.py_buffer(rng.bytes(16 * rows).hex().encode())
    offsets = pa.py_buffer(np.arange(0, 32 * rows + 1, 32, dtype=np.int32))
    return pa.StringArray.from_buffers(rows, offsets, data)


def _between(table: pa.Table, low: str, high: str) -> pa.Table:
    return table.filter(pc.and_(pc.greater_equal(table["id"], low), pc.less(table["id"], high)))
