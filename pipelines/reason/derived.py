"""The draft of a version that is made of rollouts, whatever of them it holds: shards, ledger, funnel, statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.objects import put_refs
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.pipelines.frame.assembly import bundle_receipts, funnel, not_empty
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.sources import as_inputs
from gristmill.stages.core.shards import Statistics, ledger_works

ROLE = "rolled_out"
"""In which the version of rollouts stands among the sources."""


def draft_of(
    run: BuildContext,
    rollouts: Manifest,
    decider: str,
    rows: pa.Schema,
    written: Sequence[Receipt],
    before: Sequence[Receipt],
    statistics: Statistics,
    **more: Any,
) -> Draft:
    """`decider`: what the reasons begin with; `rows`: of the shards; `written`: receipts of what wrote these, `before`
    of what ran before; `more`: statistics beside those of texts. Raises Incomplete, PlanOnly, BalanceError."""
    store = run.runner.store
    received = total(receipt.received for receipt in written)
    fates = put_refs(store, [receipt.output("fates") for receipt in written])
    merged = run.runner.map("ledger", ledger_works(fates, received.count))
    texts = {name: getattr(statistics, name) for name in ("documents", "text_bytes", "languages", "bytes_from")}
    return Draft(
        dataset=run.dataset,
        form=run.form,
        run_key=run.key,
        sources=run.resolved.sources,
        inputs=tuple(as_inputs(rollouts)),
        recipe=run.resolved.identity,
        stages=run.stages,
        shards=not_empty([receipt.output("shard") for receipt in written]),
        ledgers=tuple(receipt.output("ledger") for receipt in merged),
        attachments=(bundle_receipts(store, [*before, *written, *merged]),),
        schemas={"shard": str(rows.remove_metadata())},
        received=received,
        kept=total(receipt.kept for receipt in merged),
        dropped=total(receipt.dropped for receipt in merged),
        quarantined=total(receipt.quarantined for receipt in merged),
        funnel=funnel(received.count, (decider,), written),
        statistics={**texts, **more},
    )


def most_frequent(written: Sequence[Receipt]) -> str:
    """The reasons of all shards together, with how often each was given."""
    sums: Counter[str] = Counter()
    for receipt in written:
        sums.update(receipt.reasons)
    return ", ".join(f"{reason} ({count:,})" for reason, count in sums.most_common(4))


def summed(facts: Sequence[Statistics]) -> Statistics:
    """Of all shards."""
    statistics = Statistics()
    for of_shard in facts:
        statistics += of_shard
    return statistics


def samples_of(rollouts: Manifest) -> int:
    """How many the ledger of a version of rollouts accounts for."""
    return 0 if rollouts.samples is None else rollouts.samples.count
