"""The shards of what was selected: fine-tuning samples, one a chain, and pairs of preferences, one a problem.

Both are of the form that instruction data and preferences have, so that mixtures and trainings take them as they are;
beside it stands where each row comes from. Each sample of a version of rollouts has one fate in the version of chains,
and each problem one in that of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.model.processing.chat.conversation import Conversation, Turn, render
from gristmill.model.processing.segments import Segment
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.shards import Statistics
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.generate.draw import Prompt
from gristmill.stages.generate.judge import TRUNCATED
from gristmill.stages.generate.problems import PROBLEM, problem_of, prompt_of
from gristmill.stages.select.choose import CHOSEN_SCHEMA
from gristmill.stages.text.instruct import SHARD as SAMPLES
from gristmill.stages.text.preference import SHARD as PREFERENCES
from gristmill.synth.preferences import Chain, Pair, best_pair

CHAINS = pa.schema(
    [
        *SAMPLES,
        ("parent_id", pa.string()),  # of the problem
        ("sample", pa.int32()),
        ("verifier", pa.string()),
        ("difficulty", pa.string()),
        ("domain", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
PAIRS = pa.schema(
    [
        *PREFERENCES,
        ("chosen_id", pa.string()),
        ("rejected_id", pa.string()),
        ("rejected_reason", pa.string()),
        ("step", pa.int32()),  # the first step in which the sides differ, from 0
        ("steps", pa.int32()),  # of the chosen side
        ("difficulty", pa.string()),
        ("domain", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
ROLLED = ["id", "url", *(name for name, _ in PROBLEM), "difficulty", "samples", "date", "source"]
"""Columns of a shard of rollouts that what is made of it takes over."""
_NO_CONTENT = (TRUNCATED, ".no_answer", ".several_answers", ".unparseable_answer", ".answer_too_long")
"""Reasons of rejected samples that say nothing of a wrong step: they are no rejected side."""


@dataclass(frozen=True)
class WriteInput:
    """A shard of rollouts, and what was chosen of all (a table of CHOSEN_SCHEMA)."""

    shard: ObjectRef
    chosen: ObjectRef


class _Write(Stage[WriteInput]):
    """What both have in common: rows of the shard, and what was decided of its samples."""

    prompt: Prompt
    rows: ClassVar[pa.Schema]
    """Of its shards."""

    def read(self, store: Store, payload: WriteInput) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """(problem, its samples) in order, each sample with `chosen`: its row of CHOSEN_SCHEMA. Raises ValueError where
        the table does not speak of this shard."""
        decided = read_table(store, payload.chosen, filters=pc.field("shard") == payload.shard.sha256)
        chosen = {row["ordinal"]: row for row in decided.cast(CHOSEN_SCHEMA).to_pylist()}
        ordinal = 0
        for row in read_table(store, payload.shard, ROLLED).to_pylist():
            samples = row.pop("samples")
            for sample in samples:
                if chosen.get(ordinal, {}).get("id") != sample["id"]:
                    raise ValueError(f"shard {payload.shard.sha256[:12]}: sample {ordinal} is another than was chosen")
                sample |= {"ordinal": ordinal, "chosen": chosen[ordinal]}
                ordinal += 1
            yield row, samples

    def outcome(self, store: Store, rows: Sequence[dict[str, Any]], fates: Fates) -> Outcome:
        """Stores the rows and the fates."""
        table = pa.Table.from_pylist(list(rows), schema=self.rows)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(put_table(store, "shard", table), written),
            kept=counts.kept,
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Statistics.of(table),
        )


class WritesSamples(_Write):
    """A row for each sample that was chosen."""

    def row(self, problem: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
        """Of a chosen sample."""
        raise NotImplementedError

    def sample_outcome(self, store: Store, payload: WriteInput) -> Outcome:
        """The rows, and the fates of all samples."""
        fates, rows = Fates(), []
        digest = payload.shard.sha256
        for problem, samples in self.read(store, payload):
            for sample in samples:
                record = record_of(sample["id"], digest, sample["ordinal"])
                chosen = sample["chosen"]
                if chosen["reason"] is not None:
                    value = chosen["contaminated"] if chosen["reason"] == "contaminated" else sample["reason"]
                    fates.add(record, "dropped", f"select.{chosen['reason']}", value)
                else:
                    fates.add(record, "kept", None)
                    rows.append(self.row(problem, sample))
        return self.outcome(store, rows, fates)


@dataclass(frozen=True)
class WriteChains(WritesSamples):
    """Outputs a shard of samples, and the fates of all samples of the shard of rollouts."""

    name: ClassVar[str] = "chains"
    VERSION: ClassVar[int] = 1
    rows: ClassVar[pa.Schema] = CHAINS

    prompt: Prompt = field(default_factory=Prompt)

    def run(self, store: Store, work: Work[WriteInput]) -> Outcome:
        """Reasons are `select.` and why; the value is the verifier's reason, or the held-out item."""
        return self.sample_outcome(store, work.payload)

    def row(self, problem: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
        """A conversation, and where it comes from."""
        parts = conversation(self.prompt, problem, sample["text"])
        return columns_of(problem, sample["id"], "chat", parts) | {
            "parent_id": problem["id"],
            "sample": sample["sample"],
            "verifier": sample["verifier"],
            "difficulty": problem["difficulty"],
            "domain": problem["domain"],
        }


@dataclass(frozen=True)
class WriteStepPairs(_Write):
    """Outputs a shard of pairs, and the fates of all problems of the shard of rollouts."""

    name: ClassVar[str] = "step_pairs"
    VERSION: ClassVar[int] = 1
    rows: ClassVar[pa.Schema] = PAIRS

    prompt: Prompt = field(default_factory=Prompt)

    def run(self, store: Store, work: Work[WriteInput]) -> Outcome:
        """Reasons: pairs.none_accepted, pairs.none_rejected."""
        fates, rows = Fates(), []
        digest = work.payload.shard.sha256
        for ordinal, (problem, samples) in enumerate(self.read(store, work.payload)):
            record = record_of(problem["id"], digest, ordinal)
            usable = [sample for sample in samples if sample["text"] and sample["chosen"]["contaminated"] is None]
            accepted = [sample for sample in usable if sample["verdict"] == "accepted"]
            rejected = [sample for sample in usable if _is_wrong(sample)]
            pair = best_pair(_chains(accepted), _chains(rejected))
            if pair is None:
                fates.add(record, "dropped", f"pairs.none_{'rejected' if accepted else 'accepted'}")
                continue
            fates.add(record, "kept", None)
            rows.append(self._row(problem, {sample["sample"]: sample for sample in samples}, pair))
        return self.outcome(store, rows, fates)

    def _row(self, problem: Mapping[str, Any], samples: Mapping[int, Mapping[str, Any]], pair: Pair) -> dict[str, Any]:
        chosen, rejected = (
            conversation(self.prompt, problem, pair.chosen.text),
            conversation(self.prompt, problem, pair.rejected.text),
        )
        return columns_of(problem, problem["id"], "preference", [*chosen, *rejected]) | {
            "rejected_at": sum(len(part.text) for part in chosen),
            "chosen_id": samples[pair.chosen.sample]["id"],
            "rejected_id": samples[pair.rejected.sample]["id"],
            "rejected_reason": samples[pair.rejected.sample]["reason"],
            "step": pair.step,
            "steps": pair.steps,
            "difficulty": problem["difficulty"],
            "domain": problem["domain"],
        }


def conversation(prompt: Prompt, problem: Mapping[str, Any], text: str) -> list[Segment]:
    """The problem as it was posed, and a chain that answers it."""
    turns = [Turn("user", prompt_of(problem_of(problem), prompt.template)), Turn("assistant", text)]
    if prompt.system is not None:
        turns.insert(0, Turn("system", prompt.system))
    return render(Conversation(tuple(turns)))


def _chains(samples: Sequence[Mapping[str, Any]]) -> list[Chain]:
    return [Chain(sample["sample"], sample["text"]) for sample in samples]


def _is_wrong(sample: Mapping[str, Any]) -> bool:
    """Whether a sample came to an answer, and that is wrong, or a step of it."""
    return sample["verdict"] == "rejected" and not str(sample["reason"]).endswith(_NO_CONTENT)


def record_of(id: str, digest: str, ordinal: int) -> dict[str, Any]:
    """A record that stands in a shard, by its place in it, for fates."""
    return {"id": id, "input": digest, "ordinal": ordinal, "start": 0, "length": 0}


def columns_of(problem: Mapping[str, Any], id: str, kind: str, parts: Sequence[Segment]) -> dict[str, Any]:
    """What every row has that is made of a problem's samples."""
    return {
        "id": id,
        "url": problem["url"],
        "kind": kind,
        "text": "".join(part.text for part in parts),
        "parts": [{"length": len(part.text), "special": part.special, "learn": part.loss_mask} for part in parts],
        "date": problem["date"],
        "source": problem["source"],
    }


def write_works(
    stage: _Write, shards: Sequence[ObjectRef], counts: Sequence[int], chosen: ObjectRef
) -> list[Work[Any]]:
    """One Work a shard. `counts`: records of each, as somebody else counted them."""
    return [
        Work(
            stage,
            (shard.sha256, chosen.sha256),
            WriteInput(shard, chosen),
            Tally.of_records([shard.sha256] * count, range(count)),
            label=f"shard {number}",
        )
        for number, (shard, count) in enumerate(zip(shards, counts, strict=True))
    ]
