"""The shards of problems that a model has written: documents, each a question, with the seed that it was written from.

They are texts like any other, so that they are looked at, taken down and checked out as such; to be answered, they are
inputs of the same pipeline, as problems without a gold answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.lake.store.base import Store
from gristmill.stages.core.shards import SCHEMA as DOCUMENTS
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.select.write import WriteInput, WritesSamples
from gristmill.synth.verify.wording import worded

QUESTIONS = pa.schema(
    [*DOCUMENTS, ("parent_id", pa.string()), ("sample", pa.int32()), ("domain", pa.string())],
    metadata={"gristmill.format": "1"},
)


@dataclass(frozen=True)
class WriteQuestions(WritesSamples):
    """Outputs a shard of questions, and the fates of all samples of the shard of rollouts."""

    name: ClassVar[str] = "questions"
    VERSION: ClassVar[int] = 1
    rows: ClassVar[pa.Schema] = QUESTIONS

    def run(self, store: Store, work: Work[WriteInput]) -> Outcome:
        """Reasons and values as of `WriteChains`."""
        return self.sample_outcome(store, work.payload)

    def row(self, problem: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
        """`source` names the seed and the sample, and goes with the question when it is asked."""
        return {
            "id": sample["id"],
            "url": problem["url"],
            "text": worded(sample["text"]),
            "language": problem["language"],
            "language_score": None,
            "date": problem["date"],
            "source": f"posed:{problem['id']}:{sample['sample']}",
            "parent_id": problem["id"],
            "sample": sample["sample"],
            "domain": problem["domain"],
        }
