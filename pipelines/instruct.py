"""The instruct pipeline: lines of instruction data in, a versioned dataset of samples out.

scan -> instruct (conversation rules, tool calls, holes in code) -> exact duplicates -> shards -> ledger -> commit. One
run makes one dataset of one form; a mixture says what several of them are worth. Refusals are a dataset like any other,
with a share of their own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from lake.balance import check_balance, total
from lake.lease import Lease
from lake.manifest import Draft, run_key
from lake.objects import ObjectRef, put_refs
from lake.receipt import Receipt, StageId
from lake.store import Store
from lake.suppress import Suppression
from lake.suppress_guard import guarded_list
from pipelines.allowed import read_allowed
from pipelines.assembly import (
    Committer,
    GateFailed,
    Result,
    bundle_receipts,
    funnel,
    input_files,
    not_empty,
    scanned,
)
from pipelines.config import Named, Root, Run
from pipelines.refused import check_quarantine
from stages.exact import Exact, exact_works
from stages.inputs import ScannedInput
from stages.instruct import SHARD, Instruct, WriteSamples
from stages.reading import read_works
from stages.runner import Runner
from stages.scan import Scan
from stages.shards import MergeLedger, Statistics, ledger_works, shard_works
from stages.suppress import suppressed

FUNNEL = ("read", "instruct", "forget", "exact")


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

    def stages(self, suppression: str) -> tuple[StageId, ...]:
        parts = (self.scan, suppressed(self.instruct, suppression), self.exact, self.shards, MergeLedger())
        return tuple(one for part in parts for one in part.identity())

    def identity(self, suppression: str) -> dict[str, Any]:
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
        runner.begin(lease.announce)
        inputs = scanned(runner, recipe.scan, files, recipe.limit, recipe.allow_empty)
        suppression = guarded_list(store)
        key = recipe.run_key([one.digest for one in inputs], suppression.digest)
        end = Committer(runner, recipe.target, suppression.digest, started)
        return end.once(key, lambda: _build(recipe, runner, inputs, key, suppression))


def _build(recipe: Recipe, runner: Runner, inputs: Sequence[ScannedInput], key: str, suppression: Suppression) -> Draft:
    store, came_in = runner.store, total(one.tally for one in inputs)
    made = read_allowed(runner, "instruct", read_works(recipe.instruct, inputs), suppression, recipe.target)
    check_balance("instruct", came_in, {"read": total(r.came_in for r in made)})
    if recipe.limit is None:  # a look at ten records is no basis for a rate
        check_quarantine(store, made, inputs, recipe.max_quarantine_rate)
    _check_any(made)
    pairs = [(r.output("text"), r.output("screened")) for r in made]
    passed, losers = total(r.passed for r in made), list[ObjectRef]()
    screened = put_refs(store, [one for _, one in pairs])
    compared = runner.map("exact", exact_works(recipe.exact, screened, passed, put_refs(store, losers)))
    check_balance("exact", passed, {"compared": total(r.came_in for r in compared)})
    losers += _losers(compared)
    written = runner.map("shards", shard_works(recipe.shards, pairs, made, put_refs(store, losers)))
    check_balance("shards", total(r.passed for r in compared), {"kept": total(r.kept for r in written)})
    decided = [*made, *compared, *written]
    fates = put_refs(store, [r.output("fates") for r in decided])
    merged = runner.map("ledger", ledger_works(fates, came_in.count))
    return Draft(
        dataset=recipe.target,
        form="samples",
        run_key=key,
        inputs=tuple(one.as_input() for one in inputs),
        recipe=recipe.identity(suppression.digest),
        stages=recipe.stages(suppression.digest),
        shards=not_empty([r.output("shard") for r in written]),
        ledgers=tuple(r.output("ledger") for r in merged),
        attachments=(put_refs(store, [one.spans for one in inputs]), bundle_receipts(store, [*decided, *merged])),
        schemas={"shard": str(SHARD.remove_metadata())},
        came_in=came_in,
        kept=total(r.kept for r in merged),
        dropped=total(r.dropped for r in merged),
        quarantined=total(r.quarantined for r in merged),
        machine_fates=sum(r.machine_fates for r in decided),
        funnel=funnel(came_in.count, FUNNEL, decided),
        statistics=Statistics.merged(r.facts for r in written),
    )


def _check_any(made: Sequence[Receipt]) -> None:
    """Raises GateFailed where no line is a sample: data of another form, not bad data."""
    reasons: Counter[str] = Counter()
    for receipt in made:
        reasons.update(receipt.reasons)
    if reasons and not any(r.passed.count for r in made):
        mostly = ", ".join(f"{reason} ({n:,})" for reason, n in reasons.most_common(3))
        raise GateFailed(
            f"not one of {sum(r.came_in.count for r in made):,} lines is a sample: {mostly}. Is recipe.instruct.form"
            " another one, or the name of a field? Nothing was committed."
        )


def _losers(receipts: Sequence[Receipt]) -> list[ObjectRef]:
    return [ref for r in receipts if (ref := r.output("losers")).records]
