"""Grade: the samples of rollouts with their advantages over each other, for a policy that learns from its own (GRPO).

A verdict is the reward: 1 for an accepted sample, 0 for a rejected one. A problem's samples are a group, which says
something only where some were accepted and some were not; all others are dropped, with their fates. What has no verdict
is in no group. A sample that was cut off at the longest answer has no end to learn: the policy wrote none.
Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2; groups that say nothing are left out as in DAPO, arXiv
2503.14476, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.model.processing.segments import Segment
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.shards import Statistics
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.generate.draw import Prompt
from gristmill.stages.select.write import CHAINS, ROLLED, columns_of, conversation, record_of
from gristmill.synth.advantages import group_advantages

GRADED = pa.schema(
    [
        *CHAINS,
        ("reward", pa.float32()),
        ("advantage", pa.float32()),  # over the other samples of the problem, in their standard deviations
    ],
    metadata={"gristmill.format": "1"},
)
REWARDS = {"accepted": 1.0, "rejected": 0.0}


@dataclass(frozen=True)
class GradeInput:
    """A shard of rollouts."""

    shard: ObjectRef


@dataclass(frozen=True)
class GradeFacts(Statistics):
    """Of the shard that was written, and `accepted` of the samples `judged`, with or without an advantage."""

    judged: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Grade(Stage[GradeInput]):
    """Outputs a shard of samples (GRADED), and the fates of all samples of the shard of rollouts."""

    name: ClassVar[str] = "grade"
    VERSION: ClassVar[int] = 1

    prompt: Prompt = field(default_factory=Prompt)

    def run(self, store: Store, work: Work[GradeInput]) -> Outcome:
        """Reasons: graded.undecided; graded.equal_rewards, of a group whose samples were all accepted, or all rejected.
        Facts: GradeFacts."""
        fates, rows = Fates(), list[dict[str, Any]]()
        digest, ordinal, counts = work.payload.shard.sha256, 0, dict.fromkeys(REWARDS, 0)
        keys: list[int] = []
        for problem in read_table(store, work.payload.shard, ROLLED).to_pylist():
            samples = problem.pop("samples")
            advantages = _advantages(samples)
            for sample in samples:
                record = record_of(sample["id"], digest, ordinal)
                keys.append(ordinal)
                ordinal += 1
                advantage = advantages.get(sample["id"])
                if advantage is None:
                    fates.add(record, "dropped", "graded.undecided", sample["reason"])
                    continue
                counts[sample["verdict"]] += 1
                if not advantage:
                    fates.add(record, "dropped", "graded.equal_rewards", sample["verdict"])
                    continue
                fates.add(record, "kept", None)
                rows.append(self._row(problem, sample, advantage))
        table = pa.Table.from_pylist(rows, schema=GRADED)
        written, fate_counts = fates.write(store)
        return Outcome(
            outputs=(put_table(store, "shard", table), written),
            received=Tally.of_records([digest] * len(keys), keys),
            kept=fate_counts.kept,
            dropped=fate_counts.dropped,
            reasons=fate_counts.reasons,
            facts=GradeFacts(**vars(Statistics.of(table)), judged=sum(counts.values()), accepted=counts["accepted"]),
        )

    def _row(self, problem: Mapping[str, Any], sample: Mapping[str, Any], advantage: float) -> dict[str, Any]:
        parts: Sequence[Segment] = conversation(self.prompt, problem, sample["text"])
        if sample["finish"] == "length":
            parts = _without_end(parts)
        return columns_of(problem, sample["id"], "chat", parts) | {
            "parent_id": problem["id"],
            "sample": sample["sample"],
            "verifier": sample["verifier"],
            "difficulty": problem["difficulty"],
            "domain": problem["domain"],
            "reward": REWARDS[sample["verdict"]],
            "advantage": advantage,
        }


def _advantages(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the samples of a problem that have a verdict, by id."""
    judged = [sample for sample in samples if sample["verdict"] in REWARDS]
    rewards = [REWARDS[sample["verdict"]] for sample in judged]
    return dict(zip((sample["id"] for sample in judged), group_advantages(rewards), strict=True))


def _without_end(parts: Sequence[Segment]) -> Sequence[Segment]:
    """A conversation that breaks off in its answer: without the token that ends that, and all behind it."""
    end = next(at for at, part in enumerate(parts) if part.loss_mask and part.special)
    return parts[:end]


def grade_works(stage: Grade, shards: Sequence[ObjectRef]) -> list[Work[GradeInput]]:
    """One Work a shard of rollouts."""
    return [
        Work(stage, (shard.sha256,), GradeInput(shard), label=f"shard {number}") for number, shard in enumerate(shards)
    ]
