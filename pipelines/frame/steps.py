"""The steps that compare records of all chunks: duplicates, repeated text, near duplicates.

As the others (pipelines/frame/chunk_steps.py) each may stand anywhere in a flow, and is left out by leaving it out.
Cheap steps that drop much belong first; a filter that stands behind a comparison is run anew where the comparison came
out otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.chunk_steps import edits_of
from gristmill.pipelines.frame.flow import Comparing, Prepared, State, attachments_of
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.stages.clusters.clusters import Clusters, cluster_works
from gristmill.stages.clusters.divergence import current
from gristmill.stages.clusters.select_survivors import SelectSurvivors, survivor_works
from gristmill.stages.clusters.sizes import ClusterSizes, cluster_size_works, cluster_statistics
from gristmill.stages.core.records import Chunk
from gristmill.stages.core.work import Stage
from gristmill.stages.dedup.exact import Exact, ExactFacts, exact_works
from gristmill.stages.dedup.judge_runs import CUT_MEASURES
from gristmill.stages.dedup.paragraphs import Paragraphs
from gristmill.stages.dedup.pieces import Comparison
from gristmill.stages.dedup.substrings import Substrings, kind_of
from gristmill.stages.near.gather import Gather, gather
from gristmill.stages.near.link import Link, MergeForests, link
from gristmill.stages.near.minhash import GatherSignatures, gather_signatures_works, sign_work

log = logging.getLogger("gristmill")


@dataclass(frozen=True)
class ExactDuplicates(Comparing):
    """Records whose content another one has, of this run or of earlier versions."""

    exact: Exact

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"contents": ("content", "id")})

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (self.exact,)

    @property
    def deciders(self) -> tuple[str, ...]:
        return (self.exact.name,)

    def run(self, run: BuildContext, state: State) -> State:
        """Drops all but one of the records with equal content."""
        before = attachments_of(run.base, "contents")
        done = run.runner.map("exact", exact_works(self.exact, run.runner.store, state.records, before))
        state.records.check("exact", done)
        return state.after(
            state.records.compared(done),
            done,
            attachments=[*before, *(receipt.output("contents") for receipt in done)],
            outranked=sum(receipt.facts_as(ExactFacts).outranked for receipt in done),
        )


def _hashing(comparison: Comparison) -> Prepared:
    """The pieces of a chunk's documents, which are the same whatever is excluded."""
    return Prepared(comparison.hashing.name.replace("_", " "), comparison.hash_work)


@dataclass(frozen=True)
class RepeatedParagraphs(Comparing):
    """Documents most of whose text other pages of their host have as well."""

    paragraphs: Paragraphs

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"paragraphs": ("paragraph", "id")})
    deciders: ClassVar[tuple[str, ...]] = ("paragraphs",)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return self.paragraphs.comparison.stages

    @property
    def prepares(self) -> tuple[Prepared, ...]:
        return (_hashing(self.paragraphs.comparison),)

    def run(self, run: BuildContext, state: State) -> State:
        """Drops the documents that consist of little else."""
        before = attachments_of(run.base, "paragraphs")
        self._warn(run.base, before)
        comparison = self.paragraphs.comparison
        hashed = state.receipts_of(run.runner, _hashing(comparison))
        done, paragraphs = comparison.judge(run.runner, state.records, hashed, before)
        state.records.check("paragraphs", done)
        return state.after(
            state.records.compared(done),
            done,
            attachments=[*before, *paragraphs],
            measures=[receipt.output("shares") for receipt in done],
        )

    def _warn(self, base: Manifest | None, before: Sequence[ObjectRef]) -> None:
        """Says what of the version that is extended is not counted."""
        if base is None:
            return
        config = base.recipe.get("paragraphs")
        if not before:
            log.warning("recipe.paragraphs: %s was made without it, so that none of its pages is counted", base)
        elif not config:
            log.warning(
                "recipe.paragraphs: it was off when %s was made, so that none of its own pages is counted", base
            )
        elif (had := config["min_documents"]) < self.paragraphs.min_documents:
            log.warning("recipe.paragraphs: of %s and before no more than %d pages count for a paragraph", base, had)


@dataclass(frozen=True)
class RepeatedSubstrings(Comparing):
    """Long runs of words that earlier documents have, of this run or another version: documents that consist of them
    are dropped, or the runs are cut out of all."""

    substrings: Substrings

    deciders: ClassVar[tuple[str, ...]] = ("substrings",)

    @property
    def grows(self) -> Mapping[str, tuple[str, ...]]:
        """Runs of this many words: those of others cannot be compared with them."""
        return {kind_of(self.substrings.min_tokens): ("run",)}

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return self.substrings.comparison.stages

    @property
    def keeps_chunks(self) -> bool:
        return self.substrings.repeated != "cut"

    @property
    def prepares(self) -> tuple[Prepared, ...]:
        return (_hashing(self.substrings.comparison),)

    def run(self, run: BuildContext, state: State) -> State:
        """Drops the documents that consist of little else, or cuts them."""
        kind = kind_of(self.substrings.min_tokens)
        before = attachments_of(run.base, kind)
        if run.base is not None and not before:
            log.warning("recipe.substrings: %s was made without it, so that nothing of it is compared", run.base)
        comparison = self.substrings.comparison
        hashed = state.receipts_of(run.runner, _hashing(comparison))
        done, runs = comparison.judge(run.runner, state.records, hashed, before)
        cuts = self.substrings.repeated == "cut"
        if cuts:
            records = state.records.judged("substrings", done, CUT_MEASURES)
        else:
            state.records.check("substrings", done)
            records = state.records.compared(done)
        return state.after(
            records,
            done,
            attachments=[*before, *runs],
            measures=[ref for receipt in done for ref in receipt.outputs if ref.kind in ("ranges", "screened")],
            edits=edits_of(done) if cuts else None,
        )


@dataclass(frozen=True)
class NearDuplicates(Comparing):
    """Near duplicates, among what is new and against everything before (docs/decisions/09-near-duplicates.md).

    Each chunk is signed; signatures are collected in order of bands; records that share a band are linked, and forests
    of links merged; then each component keeps its survivors. `sign` and `gather_signatures` say what of a record is
    compared: its words, or how its pictures look. `gather` brings the signatures of a component together, where
    similarity decides.
    """

    sign: Stage[Chunk]
    gather_signatures: GatherSignatures
    gather: Gather
    select_survivors: SelectSurvivors

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {"signatures": (), "clusters": ("survivor", "id")}
    )

    @property
    def deciders(self) -> tuple[str, ...]:
        return (self.select_survivors.decider,)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (
            self.sign,
            self.gather_signatures,
            Link(),
            MergeForests(),
            self.gather,
            self.select_survivors,
            Clusters(),
            ClusterSizes(),
        )

    @property
    def prepares(self) -> tuple[Prepared, ...]:
        return (Prepared("sign", partial(sign_work, self.sign)),)

    def run(self, run: BuildContext, state: State) -> State:
        """Drops what is like another record that is kept."""
        runner, records = run.runner, state.records
        (signing,) = self.prepares
        outputs = [receipt.output("signed") for receipt in state.receipts_of(runner, signing)]
        collected = runner.map(
            "collect", gather_signatures_works(self.gather_signatures, runner.store, outputs, records)
        )
        records.check(self.select_survivors.decider, collected)

        # What earlier versions left: their signatures are linked with the new ones, and no text of theirs is read.
        old, new = attachments_of(run.base, "signatures"), [receipt.output("signatures") for receipt in collected]
        forests, before = attachments_of(run.base, "forest"), attachments_of(run.base, "clusters")
        divergence = attachments_of(run.base, "divergence")

        linked = link(runner, self.gather_signatures.bands, old, new, forests[-1] if forests else None)
        gathered = gather(runner, linked, signatures=self.gather.signatures)
        chosen = runner.map("choose", survivor_works(self.select_survivors, linked, gathered, before, divergence))
        members = runner.map("clusters", cluster_works([receipt.output("members") for receipt in chosen]))
        clusters = [*before, *(ref for receipt in members if (ref := receipt.output("clusters")).records)]
        counted = runner.map("sizes", cluster_size_works(clusters))

        # One empty table where there is no cluster at all, so that readers find the schema.
        kept = [*old, *new, linked.forest, *(clusters or [members[0].output("clusters")])]
        if run.base is not None:
            kept.append(_divergence(runner.store, divergence, chosen))
        return state.after(
            records.compared(chosen),
            chosen,
            attachments=kept,
            statistics={"clusters": cluster_statistics(counted)},
        )


def _divergence(store: Store, earlier: Sequence[ObjectRef], chosen: Sequence[Receipt]) -> ObjectRef:
    """One table of what this version keeps and drops otherwise than one run over everything would."""
    outputs = [ref for receipt in chosen for ref in receipt.outputs]
    new = [ref for ref in outputs if ref.kind == "divergence"]
    rejudged = [ref for ref in outputs if ref.kind == "rejudged"]
    return put_table(store, "divergence", current(store, earlier, rejudged, new))
