"""The instruct pipeline: lines of instruction data in, a versioned dataset of samples out.

scan -> instruct (conversation rules, tool calls, holes in code) -> exact duplicates -> shards -> ledger -> commit. One
run makes one dataset of one form; a mixture says what several of them are worth. Refusals are a dataset like any other,
with a share of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from lake.lease import Lease
from lake.manifest import run_key
from lake.receipt import StageId
from lake.store import Store
from lake.suppress_guard import guarded_list
from pipelines.assembly import Committer, Result, input_files, scanned
from pipelines.config import Named, Root, Run
from pipelines.flow import Flow
from pipelines.records import build
from pipelines.steps import ExactDuplicates
from stages.exact import Exact
from stages.instruct import Instruct, WriteSamples
from stages.runner import Runner
from stages.scan import Scan

IF_NONE = (
    "not one of {records} lines is a sample: {reasons}. Is recipe.instruct.form another one, or the name of a field?"
    " Nothing was committed."
)


class Recipe(Named):
    """What decides the data. `inputs` count by content: their paths are no part of the run key."""

    dataset: str = "instruct"
    inputs: tuple[str, ...] = ()
    allow_empty: bool = False
    scan: Scan = Scan()
    instruct: Instruct = Instruct()
    exact: Exact = Exact()
    shards: WriteSamples = WriteSamples()
    max_quarantine_rate: float = Field(default=0.05, ge=0, le=1)

    @property
    def flow(self) -> Flow:
        """From a line to a sample, in order."""
        return Flow(self.instruct, (ExactDuplicates(self.exact),), self.shards, IF_NONE)

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """Every stage that decides the data. `suppression`: digest of what was taken down; "" for nothing."""
        return (*self.scan.identity(), *self.flow.stages(suppression))

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """The recipe as the manifest keeps it: without addresses, with the digest of what was taken down."""
        kept = self.model_dump(mode="json", exclude={"inputs"})
        return kept | {"suppression": suppression} if suppression else kept

    def run_key(self, inputs: Sequence[str], suppression: str) -> str:
        return run_key(self.target, self.identity(suppression), inputs, self.stages(suppression))


class InstructConfig(Root):
    pipeline: str = "instruct"
    recipe: Recipe = Recipe()
    run: Run = Run()


def run_instruct(config: InstructConfig, store: Store, runner: Runner) -> Result:
    """Runs the pipeline to a committed version, or returns the one this run made before.

    Raises BadConfig, Incomplete, GateFailed, CommitConflict, PlanOnly, BalanceError.
    """
    started, recipe = time.time(), config.recipe
    files = input_files(recipe.inputs)
    with Lease(store, recipe.target) as lease:
        runner.announce = lease.announce
        inputs = scanned(runner, recipe.scan, files, recipe.limit, recipe.allow_empty)
        suppression = guarded_list(store)
        key = recipe.run_key([one.digest for one in inputs], suppression.digest)
        end = Committer(runner, recipe.target, suppression.digest, started)
        return end.once(key, lambda: build(recipe, runner, inputs, key, suppression))
