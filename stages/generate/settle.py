"""Settle: of a chunk's samples those that count, beside their problems, and the ledger of these children.

Which samples count is decided by their verdicts in order (`synth.sampling`): what was drawn beyond the stop is surplus,
counted and left out of ledger and digest. Of each problem its pass rate, without the bias of the stop, and its
difficulty are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.fan import FAMILIES, SAMPLES, child_id, sample_tallies, samples_asked
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.stages.core.records import CONTENT, Chunk
from gristmill.stages.core.shards import Counted, WriteShards
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.generate.problems import PROBLEM
from gristmill.stages.generate.problems import SCHEMA as POSED
from gristmill.stages.generate.tables import Posing, by_problem, judged_rows, tally_of
from gristmill.synth.pass_rate import pass_rate
from gristmill.synth.sampling import Judged, Settled, Stop, difficulty, settle
from gristmill.synth.verify.agreement import NO_AGREEMENT

SAMPLE = pa.struct(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("text", pa.string()),  # null where the engine gave none
        ("finish", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("verifier", pa.string()),
        ("tokens", pa.int32()),
    ]
)
ROLLED = (
    ("accepted", pa.int32()),
    ("rejected", pa.int32()),
    ("undecided", pa.int32()),
    ("pass_rate", pa.float64()),  # null: the samples do not tell
    ("difficulty", pa.string()),
    ("samples", pa.list_(SAMPLE)),
)
"""What a problem has more once it was sampled."""
SCHEMA = pa.schema([*POSED, *ROLLED], metadata={"gristmill.format": "1"})
SHARD = pa.schema(
    [("id", pa.string()), ("url", pa.string()), *PROBLEM, *ROLLED, ("date", pa.string()), ("source", pa.string())],
    metadata={"gristmill.format": "1"},
)


@dataclass(frozen=True)
class SettleInput:
    """The problems of a chunk, and all their samples."""

    posing: Posing
    judged: ObjectRef


@dataclass(frozen=True)
class SettleFacts:
    """`passed_bytes` of questions and samples. Of samples that count and of all that were drawn: how many, and their
    tokens. `undecided`: of which another answer was wanted, not those of problems on which samples do not agree.
    `reasons` of those that were not accepted; `difficulties`: problems of each. `distinct` accepted chains;
    `ends`: why problems are sampled no more, and how many of each."""

    passed_bytes: int
    samples: int
    tokens: int
    drawn: int
    tokens_drawn: int
    undecided: int
    reasons: dict[str, int] = field(default_factory=dict)
    difficulties: dict[str, int] = field(default_factory=dict)
    distinct: int = 0
    ends: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Settle(Stage[SettleInput]):
    """Outputs `text` (SCHEMA), the chunk from here on, and `samples` (`lake.accounts.fan.SAMPLES`)."""

    name: ClassVar[str] = "settle"
    VERSION: ClassVar[int] = 2

    stop: Stop = field(default_factory=Stop)

    def run(self, store: Store, work: Work[SettleInput]) -> Outcome:
        """Facts: SettleFacts. Raises BalanceError for a sample that is missing or there twice."""
        payload = work.payload
        posed = payload.posing.rows(store)
        judged = judged_rows(store, payload.judged)
        of_problem: dict[str, list[dict[str, Any]]] = {}
        for row in judged:
            of_problem.setdefault(row["problem"], []).append(row)
        samples = by_problem(judged)
        settled = {problem: settle(samples[problem], self.stop) for problem in samples}
        counts = {problem: settled[problem].counted for problem in samples}
        rolled, family = [], []
        for problem in posed["id"].to_pylist():
            kept = [row for row in of_problem.get(problem, ()) if row["sample"] < counts[problem]]
            rolled.append(self._rolled(problem, kept, samples.get(problem, {})))
            family += [_child(problem, row) for row in kept]
        columns = pa.Table.from_pylist(rolled, schema=pa.schema(list(ROLLED)))
        table = posed.select(POSED.names)
        for name in columns.schema.names:
            table = table.append_column(name, columns[name])
        children = pa.Table.from_pylist(family, schema=SAMPLES).sort_by("id")
        return Outcome(
            outputs=(
                put_table(store, CONTENT, table.cast(SCHEMA)),
                put_table(store, FAMILIES, children, sorted_by="id"),
            ),
            received=tally_of(posed) if work.received is None else None,
            passed=tally_of(table),
            children_in=samples_asked(counts),
            children=sample_tallies(children),
            facts=_facts(judged, family, rolled, posed, settled.values()),
        )

    def _rolled(self, problem: str, kept: Sequence[Mapping[str, Any]], samples: Mapping[int, Judged]) -> dict[str, Any]:
        count = Counter(row["verdict"] for row in kept)
        rate = pass_rate(samples, self.stop)
        names = ("sample", "text", "finish", "verdict", "reason", "verifier", "tokens")
        children = [{"id": child_id(problem, row["sample"])} | {name: row[name] for name in names} for row in kept]
        return {
            "accepted": count["accepted"],
            "rejected": count["rejected"],
            "undecided": count["undecided"],
            "pass_rate": rate,
            "difficulty": difficulty(count["accepted"], count["accepted"] + count["rejected"], rate),
            "samples": children,
        }


def _child(problem: str, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sample", "verdict", "reason", "value", "verifier", "attempt", "engine", "tokens")
    return {"id": child_id(problem, row["sample"]), "parent_id": problem, **{name: row[name] for name in names}}


def _facts(
    judged: Sequence[Mapping[str, Any]],
    family: Sequence[Mapping[str, Any]],
    rolled: Sequence[Mapping[str, Any]],
    posed: pa.Table,
    settled: Collection[Settled],
) -> SettleFacts:
    texts = sum(len((sample["text"] or "").encode()) for row in rolled for sample in row["samples"])
    reasons = Counter(row["reason"] for row in family if row["reason"] is not None)
    return SettleFacts(
        passed_bytes=texts + (pc.sum(pc.binary_length(posed["text"])).as_py() or 0),
        samples=len(family),
        tokens=sum(row["tokens"] or 0 for row in family),
        drawn=len(judged),
        tokens_drawn=sum(row["tokens"] or 0 for row in judged),
        undecided=sum(row["verdict"] == "undecided" and row["reason"] != NO_AGREEMENT for row in family),
        reasons=dict(sorted(reasons.items())),
        difficulties=dict(sorted(Counter(row["difficulty"] for row in rolled).items())),
        distinct=sum(of_problem.distinct for of_problem in settled),
        ends=dict(sorted(Counter(of_problem.end or "open" for of_problem in settled).items())),
    )


def settle_work(stage: Settle, posing: Posing, judged: ObjectRef) -> Work[SettleInput]:
    """The Work of a chunk whose samples are all judged."""
    inputs = (*posing.digests, judged.sha256)
    return Work(stage, inputs, SettleInput(posing, judged), posing.received, posing.chunk.label)


def settled_chunk(output: ObjectRef, passed: Tally, facts: SettleFacts) -> Chunk:
    """The chunk from here on: problems with their samples."""
    return Chunk(output, passed, facts.passed_bytes)


class CountedSamples(Counted):
    """The samples of a shard's problems: as their counts say, and as they lie in the shard."""

    def __init__(self) -> None:
        self.came = Tally()
        self.stored: dict[str, Tally] = {}

    def add(self, rows: pa.Table, shard: pa.Table) -> None:
        """Counts the samples of these problems."""
        sums = pc.add(pc.add(rows["accepted"], rows["rejected"]), rows["undecided"])
        self.came += samples_asked(dict(zip(rows["id"].to_pylist(), sums.to_pylist(), strict=True)))
        flat = [
            {"parent_id": problem, "sample": sample["sample"], "verdict": sample["verdict"]}
            for problem, samples in zip(shard["id"].to_pylist(), shard["samples"].to_pylist(), strict=True)
            for sample in samples
        ]
        for verdict, tally in sample_tallies(pa.Table.from_pylist(flat, schema=SAMPLES)).items():
            self.stored[verdict] = self.stored.get(verdict, Tally()) + tally

    @property
    def children_in(self) -> Tally:
        """As problems say."""
        return self.came

    @property
    def children(self) -> dict[str, Tally]:
        """As they lie there."""
        return self.stored


@dataclass(frozen=True)
class WriteRollouts(WriteShards):
    """Shards of problems with their samples."""

    name: ClassVar[str] = "rollouts"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD
    measured: ClassVar[Mapping[str, str]] = {}

    def counted(self) -> CountedSamples:
        """The samples."""
        return CountedSamples()
