"""The tables between drawing and settling: samples as an engine gave them, and as they were judged.

Samples are stored before they are judged: what was paid for is kept whatever a verifier does. A judged table holds all
samples of a chunk so far, so that the next piece of work needs it alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_refs, read_table
from gristmill.stages.core.records import KEYS, Chunk, alive
from gristmill.stages.generate.engines.protocol import LASTING
from gristmill.synth.sampling import Judged
from gristmill.synth.verify.agreement import NO_AGREEMENT, OPEN

GENERATED, JUDGED = "generated", "judged"
"""Kinds of the objects."""
_FORMAT = {"gristmill.format": "1"}
_SAMPLE = (
    ("problem", pa.string()),  # id of the record
    ("sample", pa.int32()),
    ("text", pa.string()),  # null where there is a failure
    ("finish", pa.string()),
    ("prompt_tokens", pa.int32()),
    ("tokens", pa.int32()),
    ("failure", pa.string()),
    ("detail", pa.string()),
    ("requests", pa.int32()),
    ("engine", pa.string()),
)
GENERATED_SCHEMA = pa.schema(list(_SAMPLE), metadata=_FORMAT)
JUDGED_SCHEMA = pa.schema(
    [
        *_SAMPLE,
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("value", pa.string()),
        ("verifier", pa.string()),
        ("attempt", pa.int32()),
    ],
    metadata=_FORMAT,
)
ORDER = [("problem", "ascending"), ("sample", "ascending")]
_LASTING_REASONS = (
    "unparseable_gold",
    "too_few_equations",
    "beyond_numbers",
    "symbolic_failed",
    "symbolic_timeout",  # of processor time, which does not depend on what else runs
    "no_tests",
    "broken_tests",
    "no_agreement",
    "chain_too_long",
    "engine_refused",
)
"""What a verifier would say again: another attempt is no use."""


@dataclass(frozen=True)
class Posing:
    """The problems of a chunk that are in. `exclusions`: those that comparisons dropped, a list object; None: none."""

    chunk: Chunk
    exclusions: ObjectRef | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """What decides which problems they are."""
        return (*self.chunk.digests, *(() if self.exclusions is None else (self.exclusions.sha256,)))

    @property
    def received(self) -> Tally | None:
        """The tally of the problems; None where only reading tells."""
        return self.chunk.tally if self.exclusions is None else None

    def rows(self, store: Store, columns: Sequence[str] | None = None) -> pa.Table:
        """The problems, with their keys and these columns of the content; None: with all. In order of the input."""
        columns = None if columns is None else list(dict.fromkeys((*KEYS, *columns)))
        exclusions = () if self.exclusions is None else read_refs(store, self.exclusions)
        return alive(store, self.chunk, columns, exclusions=exclusions)


@dataclass(frozen=True)
class Turn:
    """Which samples to draw: `judged`, all of the chunk so far, None: there are none yet. `again_below`: those that an
    engine lost, and that had fewer attempts than this, instead of the next wave; 0: the next wave."""

    judged: ObjectRef | None = None
    again_below: int = 0

    @property
    def digests(self) -> tuple[str, ...]:
        """What decides which samples they are; how often each was tried stands in the judged table."""
        judged = "" if self.judged is None else self.judged.sha256
        return (judged, f"again below {self.again_below}" if self.again_below else "wave")


def judged_rows(store: Store, ref: ObjectRef | None) -> list[dict[str, Any]]:
    """The rows of a judged table, in order."""
    return [] if ref is None else read_table(store, ref).to_pylist()


def by_problem(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Judged]]:
    """Problem -> sample -> its verdict and chain."""
    samples: dict[str, dict[int, Judged]] = defaultdict(dict)
    for row in rows:
        samples[row["problem"]][row["sample"]] = Judged.of(row["verdict"], row["text"])
    return samples


def may_be_decided(row: Mapping[str, Any]) -> bool:
    """Whether another attempt at this sample could have another end."""
    if row["verdict"] != "undecided":
        return False
    if row["failure"] is not None:
        return row["failure"] not in LASTING
    return not str(row["reason"]).endswith(_LASTING_REASONS)


def without_agreement(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The problems of judged rows whose first samples do not agree, or not before a lost one is drawn again: a sample
    behind them would change nothing."""
    return {row["problem"] for row in rows if row["reason"] in (NO_AGREEMENT, OPEN)}


def tally_of(problems: pa.Table) -> Tally:
    """The tally of problems."""
    return ledger.tally(problems)
