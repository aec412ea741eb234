"""How much memory do linking and components take, of 20 million signatures?

Signatures are made up (benchmarks/synthetic_signatures.py) and on disk; link, merge, gather, choose and clusters run
through the runner on two worker processes (benchmarks/pool.py: Ray's own would only add what Ray takes). What is
bounded: the peak of the sum of resident sets beyond 1 GB, over the documents. The forest found has to be the one that
the agreements make, by scipy; in a tiny run also the one of all pairs in all buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Differ, Figure, Report, Row, alone
from benchmarks.pool import START, Memory, pool_runner
from benchmarks.synthetic_signatures import COLLECT, Truth, Written, by_all_buckets, read_truth, write
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.stages.clusters.clusters import cluster_works
from gristmill.stages.clusters.select_survivors import SelectSurvivors, survivor_works
from gristmill.stages.clusters.sizes import cluster_size_works, cluster_statistics
from gristmill.stages.near.gather import gather
from gristmill.stages.near.link import link
from gristmill.stages.run.runner import Runner

WORKERS = 2
GIGABYTE = 1_000_000_000
BY_SIMILARITY = "choose by similarity"
BOUND = 64
"""Bytes a document beyond the first gigabyte."""


@dataclass(frozen=True)
class Outcome:
    """What the stages wrote."""

    forest: ObjectRef
    chosen: list[Receipt]
    clusters: list[Receipt]
    sizes: dict[str, Any]


def deduplicate(runner: Runner, refs: Sequence[ObjectRef]) -> Outcome:
    """What the pipeline does from signatures on, without a least similarity, which has a truth to be held to; and the
    choice once more with it, which gathers signatures as well and compares them."""
    linked = link(runner, COLLECT.bands, [], refs)
    chosen = runner.map(
        "choose", survivor_works(SelectSurvivors(None), linked, gather(runner, linked, signatures=False))
    )
    runner.map(BY_SIMILARITY, survivor_works(SelectSurvivors(), linked, gather(runner, linked, signatures=True)))
    clusters = runner.map("clusters", cluster_works([r.output("members") for r in chosen]))
    counted = runner.map("sizes", cluster_size_works([r.output("clusters") for r in clusters]))
    return Outcome(linked.forest, chosen, clusters, cluster_statistics(counted))


def written(uri: str, documents: int, truth: Path) -> Written:
    """By a process of its own, whose memory is gone with it."""
    return alone(write, uri, documents, truth)


def check(store: Store, outcome: Outcome, truth: Truth) -> None:
    """Raises Differ unless forest, exclusions, fates and clusters are those of the truth."""
    forest = read_table(store, outcome.forest)
    for name, expected in truth._asdict().items():
        column = forest[name].to_numpy()
        if not np.array_equal(column, expected):
            raise Differ(f"dedup_memory: {name} of {len(column)} documents, by scipy {len(expected)}, or others")
    sizes = np.unique(truth.root, return_counts=True)[1] + 1
    expected_counts = (len(truth.child), len(sizes), int(sizes.max()))
    exclusions = sum(r.output("losers").records for r in outcome.chosen)
    counts = (exclusions, outcome.sizes["clusters"], outcome.sizes["largest"])
    if counts != expected_counts:
        raise Differ(f"dedup_memory: exclusions, clusters, largest are {counts}, by scipy {expected_counts}")


def run(tiny: bool) -> Report:
    """The report; `tiny` with a thousandth of the signatures."""
    documents = 20_000 if tiny else 20_000_000
    with scratch() as folder:
        uri = str(folder / "lake")
        signatures = (write if tiny else written)(uri, documents, folder / "truth.npz")
        with pool_runner(open_store(uri), WORKERS) as runner:
            outcome = deduplicate(runner, signatures.refs)
        store, truth = open_store(uri), read_truth(signatures.truth)
        check(store, outcome, truth)
        if tiny:
            check(store, outcome, by_all_buckets(store, signatures.refs))
        return report(documents, signatures, outcome, runner.memory, len(truth.child))


def report(documents: int, signatures: Written, outcome: Outcome, memory: Memory, exclusions: int) -> Report:
    """The figures."""
    start = memory.peaks[START]
    stages = {name: memory.peaks.get(name, start) for name in memory.seconds}
    linking = max(stages.get(name, 0) for name in ("link", "merge"))
    whole = max(stages.values())
    same = f"the forest, all {exclusions:,} losers, by scipy"
    rows = [
        Row(f"{what}, summed peak", _once(peak / 1e6), "MB", same)
        for what, peak in {"link and components": linking, "link to clusters": whole}.items()
    ]
    rows += [
        Row(f"{what}, beyond 1 GB, a document (bound: {BOUND})", _once((peak - GIGABYTE) / documents), "bytes")
        for what, peak in {"link and components": linking, "link to clusters": whole}.items()
        if peak > GIGABYTE
    ]
    rows += [Row(f"{name}: wall time", _once(seconds), "s") for name, seconds in memory.seconds.items()]
    return Report(
        name="dedup_memory",
        data=f"{documents:,} made-up signatures of {COLLECT.bands} bands, {exclusions:,} of them to be dropped",
        rounds=1,
        rows=tuple(rows),
        notes=(
            f"resident sets of the driver and {WORKERS} worker processes, summed; before work {start / 1e6:,.0f} MB",
            "peak by stage: " + ", ".join(f"{name} {peak / 1e6:,.0f} MB" for name, peak in stages.items()),
        ),
        details={
            "documents": documents,
            "bytes_on_disk": sum(ref.bytes for ref in signatures.refs),
            "losers": exclusions,
            "start": start,
            "peaks": stages,
            "largest_process": {name: memory.largest.get(name, 0) for name in stages},
            "seconds": memory.seconds,
            "works": {"choose": len(outcome.chosen), "clusters": len(outcome.clusters)},
        },
    )


def _once(value: float) -> Figure:
    return Figure(value, value, value)
