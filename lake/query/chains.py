"""`sample` of rollouts by verdict: a few of the samples that were drawn of problems, as accepted, rejected, undecided.

A verdict stands in the ledger of samples, beside what was compared; the problem and the text lie in a shard. Positions
are drawn in the ledger first, and then only the problems of these samples are read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.fan import FAMILIES, VERDICTS
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion

_COLUMNS = ["id", "text", "gold", "samples"]


@dataclass(frozen=True)
class SampledChain:
    """A sample with its problem. `gold`: the right answer; `text`: the chain, None where the engine gave none. The rest
    as in `lake.accounts.fan.SAMPLES`."""

    id: str
    parent_id: str
    sample: int
    question: str
    gold: str
    text: str | None
    verdict: str
    reason: str | None
    value: str | None
    verifier: str | None
    engine: str | None
    tokens: int | None


@dataclass(frozen=True)
class DrawnChains:
    """`chains` of the `population` samples that were asked for, in the order of their ids."""

    version: str
    population: int
    chains: tuple[SampledChain, ...]


def sample_chains(
    store: Store, manifest: Manifest, verdict: str, n: int = 5, *, seed: int = 0, reason: str | None = None
) -> DrawnChains:
    """At most `n` samples with this verdict, and for this `reason` where one is given; the same ones for a seed.

    Raises ValueError (n, verdict), LookupError for a version without samples, or without one for that reason.
    """
    if n < 1:
        raise ValueError(f"sample: n is {n}; it has to be at least 1")
    if verdict not in VERDICTS:
        raise ValueError(f"sample: verdict {verdict!r}; allowed: {', '.join(VERDICTS)}")
    if manifest.samples is None:
        raise NoSuchVersion(f"{manifest} has no samples with verdicts: it holds {manifest.layout.called}")
    ledgers = [ref for ref in manifest.ledgers if ref.kind == FAMILIES]
    judged_so = [read_table(store, ref, filters=pc.field("verdict") == verdict) for ref in ledgers]
    asked = pa.concat_tables(judged_so).sort_by("id")
    if reason is not None:
        known = sorted(filter(None, pc.unique(asked["reason"]).to_pylist()))
        if reason not in known:
            have = ", ".join(known) or "none"
            raise NoSuchVersion(f"{manifest} has no {verdict} sample with reason {reason!r}; it has {have}")
        asked = asked.filter(pc.field("reason") == reason)
    rng = random.Random(f"{seed}:{manifest.digest}")  # the same samples on every machine, for equal data
    rows = asked.take(sorted(rng.sample(range(asked.num_rows), min(n, asked.num_rows)))).to_pylist()
    problems = _problems(store, manifest, [row["parent_id"] for row in rows])
    return DrawnChains(str(manifest), asked.num_rows, tuple(_chain(row, problems[row["parent_id"]]) for row in rows))


def _problems(store: Store, manifest: Manifest, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of these problems, by id."""
    wanted = pc.field("id").isin(list(ids))
    tables = (read_table(store, ref, _COLUMNS, filters=wanted) for ref in manifest.shards if ref.records)
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def _chain(row: dict[str, Any], problem: dict[str, Any]) -> SampledChain:
    (text,) = (sample["text"] for sample in problem["samples"] if sample["id"] == row["id"])
    names = ("id", "parent_id", "sample", "verdict", "reason", "value", "verifier", "engine", "tokens")
    return SampledChain(
        question=problem["text"], gold=problem["gold"], text=text, **{name: row[name] for name in names}
    )
