"""Our chain from texts to who is kept, as pipelines/frame/steps.py runs it, and what it came to as sets of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.cpu_time import cpu_seconds
from benchmarks.harness import Differ
from gristmill.filters.signatures.minhash import MinHash
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_refs, read_table
from gristmill.stages.clusters.clusters import cluster_works
from gristmill.stages.clusters.select_survivors import SelectSurvivors, survivor_works
from gristmill.stages.core.records import Chunk, Records
from gristmill.stages.near.gather import gather
from gristmill.stages.near.link import link
from gristmill.stages.near.minhash import GatherSignatures, Sign, gather_signatures_works, sign_work
from gristmill.stages.run.runner import Runner

SETTINGS = MinHash()
BANDS_ALONE = SelectSurvivors(None)


@dataclass(frozen=True)
class ChainResult:
    """What our stages came to. Read when asked for, which nobody times."""

    store: Store
    collections: ObjectRef
    forest: ObjectRef
    chosen: list[Receipt]
    cpu: dict[str, float]

    @cached_property
    def clusters(self) -> list[list[int]]:
        """Components of two documents and more: their numbers, sorted."""
        members: dict[int, list[int]] = {}
        table = read_table(self.store, self.forest)
        for child, root in zip(table["child"].to_pylist(), table["root"].to_pylist(), strict=True):
            members.setdefault(root, [root]).append(child)
        return sorted(sorted(component) for component in members.values())

    @cached_property
    def kept(self) -> set[int]:
        """Numbers of the documents that stay, through all collections."""
        excluded = set(self._keys([receipt.output("losers") for receipt in self.chosen]))
        signed = self._keys(read_refs(self.store, self.collections))
        if not excluded <= set(signed):
            raise Differ("dedup: exclusions that are in no collection")
        return {number for number, key in enumerate(signed) if key not in excluded}

    def _keys(self, refs: Iterable[ObjectRef]) -> list[tuple[str, int]]:
        """(input, ordinal) of every row of these tables, in order."""
        keys: list[tuple[str, int]] = []
        for ref in refs:
            table = read_table(self.store, ref, ["input", "ordinal"])
            keys += zip(table["input"].to_pylist(), table["ordinal"].to_pylist(), strict=True)
        return keys


class Stopwatch(Runner):
    """A runner in this process that notes the CPU time of each stage."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, workers=0)
        self.cpu: dict[str, float] = {}

    def map(self, title: str, works: Any) -> list[Receipt]:
        started = cpu_seconds()
        receipts = super().map(title, works)
        self.cpu[title] = self.cpu.get(title, 0.0) + cpu_seconds() - started
        return receipts


def collected(runner: Runner, chunks: Sequence[Chunk]) -> list[ObjectRef]:
    """Texts to collections of signatures."""
    records, stage = Records.of(chunks), GatherSignatures(SETTINGS.bands, SETTINGS.rows)
    signed = [r.output("signed") for r in runner.map("sign", [sign_work(Sign(SETTINGS), chunk) for chunk in chunks])]
    return [
        r.output("signatures")
        for r in runner.map("collect", gather_signatures_works(stage, runner.store, signed, records))
    ]


def linked(runner: Stopwatch, refs: Sequence[ObjectRef], stage: SelectSurvivors = BANDS_ALONE) -> ChainResult:
    """Collections to exclusions, as pipelines/frame/steps.py does it; by default datatrove's rule, that whatever hangs
    together by shared bands has one survivor."""
    together = link(runner, SETTINGS.bands, [], refs)
    gathered = gather(runner, together, signatures=stage.min_similarity is not None)
    chosen = runner.map("choose", survivor_works(stage, together, gathered))
    runner.map("clusters", cluster_works([r.output("members") for r in chosen]))
    return ChainResult(runner.store, together.collections, together.forest, chosen, runner.cpu)


def chain(store: Store, chunks: Sequence[Chunk]) -> ChainResult:
    """Texts to exclusions."""
    runner = Stopwatch(store)
    return linked(runner, collected(runner, chunks))
