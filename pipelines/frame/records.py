"""The version of some inputs, on top of an earlier one or alone: one build for every pipeline whose records are read.

A pipeline differs from another by its flow (pipelines/frame/flow.py) alone. Of a growing dataset only what is new is
read: earlier versions take part by what their steps left for it, and the draft refers to their shards and ledgers
beside its own. Between steps the tallies must agree, and the ledger must account for every record of every input.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

import pyarrow as pa

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, read_table
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed, bundle_receipts, funnel, not_empty
from gristmill.pipelines.frame.chunk_steps import Stretch, run_steps
from gristmill.pipelines.frame.flow import Flow, State, attachments_of
from gristmill.pipelines.frame.growth import divergence_counts
from gristmill.pipelines.frame.inputs import allowed_works, versions_read
from gristmill.pipelines.frame.recipe import BuildContext, InputRecipe, Resolved
from gristmill.pipelines.frame.refused import check_quarantine
from gristmill.pipelines.frame.sources import classifier_refs, named_by_digest, with_classifiers
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.clusters.divergence import DIVERGENCE
from gristmill.stages.core.records import Chunk, Records
from gristmill.stages.core.shards import Statistics, ledger_works, shard_works
from gristmill.stages.near.compact import Compact, compacted
from gristmill.stages.read.list_media import list_media
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.sources import Phase

PROVENANCE: Mapping[str, tuple[str, ...]] = MappingProxyType({"refs": (), "receipts": ()})
"""Attachments that every version adds to, whatever its steps: lists of objects (spans, measures), and receipts."""

ID = "id"
"""The column of a version's rows with the ids of its records."""
LEDGER = Compact("ledger", ("id", "input", "ordinal"))
"""Merges small ledgers of earlier versions; each of them is sorted by these columns."""


class RecordRecipe(InputRecipe):
    """A recipe that is its flow: what reads the inputs, the steps, what writes the shards."""

    @property
    @abstractmethod
    def flow(self) -> Flow:
        """The reading, the steps in order, and the writing."""

    @property
    def compared(self) -> Collection[str]:
        """What the steps compare with."""
        return self.flow.grows

    @property
    def reading_along(self) -> ReadStage | None:
        """What reads the inputs in its flow."""
        stage = self.flow.read
        return stage if stage.reads_along else None

    @property
    def decides_reading(self) -> Mapping[str, str]:
        """Settings of filters by which records are dropped before a filter measures them, and the setting that has it
        so; both without `recipe.`."""
        return {}

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """The scan, and those of the flow."""
        return (*self.scan.identity(), *self.flow.stages(suppression))

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Its records come from the inputs alone; versions among these are its sources. Raises BadConfig, and
        GateFailed for a version without a record."""
        identity, stages = self.identity(suppression), self.stages(suppression)
        read = versions_read(self.inputs, versions)
        if read and self.flow.read.read.id != ID:
            raise BadConfig(f"read.id={self.flow.read.read.id!r}: {read[0]} has the ids of its records in {ID!r}")
        if not self.allow_empty and (empty := [str(manifest) for manifest in read if not manifest.kept.count]):
            raise GateFailed(
                f"recipe.inputs: {', '.join(empty)}: no record was kept. Leave it out of recipe.inputs, or set"
                " recipe.allow_empty=true if that is as it should be; nothing was committed."
            )
        sources = (*(manifest.ref for manifest in read), *classifier_refs(self, versions))
        return Resolved(identity, stages, self._build, sources, merging=partial(_merging, self.flow))

    def with_digests(self, versions: Versions) -> Self:
        """With the digests of the classifiers that it names by their versions."""
        return with_classifiers(self, versions)

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Classifiers count by their bytes, wherever they lie."""
        return named_by_digest(self, super().identity(suppression))

    def _build(self, run: BuildContext) -> Draft:
        """The version of these inputs on top of a base. Raises GateFailed, Incomplete, PlanOnly, BalanceError."""
        runner, store, flow = run.runner, run.runner.store, self.flow
        base = None if run.base is None else _compacted(runner, run.base, flow)
        upon = replace(run, base=base)  # steps refer to the base as the new version will: in few objects
        begin = Stretch.ahead(flow.steps)
        state = run_steps(upon, _begun(self, upon, begin), flow.steps[len(begin.steps) :])
        written = runner.map("shards", shard_works(flow.write, store, state.records))
        check_balance("shards", state.records.tally, {"kept": total(r.kept for r in written)})
        state = state.after(state.records, written)
        fates = put_refs(store, [receipt.output("fates") for receipt in state.decided])
        merged = runner.map("ledger", ledger_works(fates, run.received.count))
        return _draft(self, run, base, state, written, merged)


def _added(flow: Flow) -> dict[str, tuple[str, ...]]:
    """Kinds of attachments that every version adds to, and by which columns each is sorted."""
    listed = {media.KIND: media.KEYS} if flow.read.notes_media else {}
    return {**flow.grows, **listed, **PROVENANCE}


def _growing(flow: Flow, base: Manifest) -> list[tuple[Compact, list[ObjectRef]]]:
    """The attachments that every version adds to, each kind with the stage that merges its objects."""
    return [(Compact(kind, keys), attachments_of(base, kind)) for kind, keys in _added(flow).items()]


def _merging(flow: Flow, base: Manifest) -> tuple[StageId, ...]:
    """The stages that merge objects of the version that is extended: part of a run key where there is something to
    merge, since the version then refers to what they make. Known from its manifest alone."""
    stages: list[StageId] = []
    for stage, refs in (*_growing(flow, base), (LEDGER, list(base.fates))):
        if stage.split(refs).merged:
            stages += stage.identity()
    return tuple(stages)


def _compacted(runner: Runner, base: Manifest, flow: Flow) -> Manifest:
    """The version that is extended, as the next one refers to it: the same rows in a bounded number of objects."""
    merged = {stage.kind: compacted(runner, stage, refs) for stage, refs in _growing(flow, base)}
    others = [ref for ref in base.attachments if ref.kind not in merged]
    children = [ref for ref in base.ledgers if ref.kind != LEDGER.kind]
    ledgers = (*compacted(runner, LEDGER, base.fates), *children)
    attachments = (*others, *chain.from_iterable(merged.values()))
    return base.model_copy(update={"ledgers": ledgers, "attachments": attachments})


def _begun(recipe: RecordRecipe, run: BuildContext, stretch: Stretch) -> State:
    """What the inputs hold, without what was taken down, after the stretch of steps that begins the flow. Each chunk
    goes on as soon as it was read."""
    reads = recipe.flow.read
    works = allowed_works(run.runner, reads, run.inputs, run.suppression, run.dataset)

    def chunk_of(receipt: Receipt) -> Chunk:
        return Chunk.read(receipt, reads.text_bytes(receipt))

    reading = Phase(reads.name, lambda number, _: works[number], partial(_check_read, recipe, run))
    phases = stretch.phases(lambda _, receipts: (chunk_of(receipts[0]), receipts[1:]), None)
    done, *judged = run.runner.pipelined(len(works), [reading, *phases])
    state = State(Records.of(map(chunk_of, done)), decided=tuple(done))
    if reads.notes_media:
        state = _with_media(run, state)
    return stretch.concluded(state, judged)


def _check_read(recipe: RecordRecipe, run: BuildContext, done: Sequence[Receipt]) -> None:
    """Raises BalanceError, or GateFailed, where no more of this run is to be done than what was read."""
    reads = recipe.flow.read
    check_balance(reads.name, run.received, {"read": total(receipt.received for receipt in done)})
    if recipe.limit is None:  # a preview of ten records is no basis for a rate
        check_quarantine(run.runner.store, done, run.inputs, recipe.max_quarantine_rate)
    if recipe.flow.if_none is not None:
        _check_any(done, recipe.flow.if_none, reads.unwanted_reasons)


def _with_media(run: BuildContext, state: State) -> State:
    """With the table of the media of all that was read, beside that of the base."""
    before = attachments_of(run.base, media.KIND)
    new = list_media(run.runner, state.decided)
    kept = [ref for ref in (*before, *new) if ref.records] or new[:1]  # one stays, for its columns
    return state.after(state.records, (), attachments=kept)


def _check_any(receipts: Sequence[Receipt], if_none: str, unwanted: Collection[str]) -> None:
    """Raises GateFailed where every record was dropped as it was read, none for these reasons: data of another form,
    not bad data."""
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    if reasons and not any(receipt.passed.count for receipt in receipts) and not reasons.keys() & set(unwanted):
        mostly = ", ".join(f"{reason} ({n:,})" for reason, n in reasons.most_common(3))
        records = f"{total(receipt.received for receipt in receipts).count:,}"
        raise GateFailed(if_none.format(records=records, reasons=mostly))


def _draft(
    recipe: RecordRecipe,
    run: BuildContext,
    base: Manifest | None,
    state: State,
    written: Sequence[Receipt],
    merged: Sequence[Receipt],
) -> Draft:
    """What is to be committed. `base`: the version that is extended, compacted; `written`, `merged`: receipts of shards
    and ledgers."""
    store, inputs, suppression = run.runner.store, run.inputs, run.suppression.digest
    received = run.received + (base.received if base else Tally())
    # Spans, without which a run over known inputs would scan them again after a gc; measures, for replay.
    own = put_refs(store, [*(scanned.spans for scanned in inputs), *state.measures])
    attached = {ref.kind for ref in state.attachments} | PROVENANCE.keys()
    carried = [ref for ref in base.attachments if ref.kind not in attached] if base else []
    return Draft(
        dataset=run.dataset,
        form=run.form,
        run_key=run.key,
        parent=None if base is None else base.ref,
        sources=run.resolved.sources,
        inputs=tuple(scanned.as_input() for scanned in inputs),
        recipe=run.resolved.identity,
        stages=run.stages,
        shards=not_empty([*(base.shards if base else ()), *(r.output("shard") for r in written)]),
        ledgers=(*(base.ledgers if base else ()), *(r.output("ledger") for r in merged), *state.ledgers),
        attachments=(
            *attachments_of(base, "refs"),
            own,
            *attachments_of(base, "receipts"),
            bundle_receipts(store, [*state.decided, *merged]),
            *state.attachments,
            *carried,  # of steps that are off in this recipe: the next version must not have to forget them
        ),
        schemas={"shard": str(recipe.flow.write.schema.remove_metadata())},
        received=received,
        kept=total(r.kept for r in merged) + (base.kept if base else Tally()),
        dropped=total(r.dropped for r in merged) + (base.dropped if base else Tally()),
        quarantined=total(r.quarantined for r in merged) + (base.quarantined if base else Tally()),
        samples=None if state.samples is None else state.samples + (base.samples or Tally() if base else Tally()),
        verdicts=_verdicts(state, base),
        machine_fates=sum(r.machine_fates for r in state.decided) + (base.machine_fates if base else 0),
        funnel=funnel(received.count, recipe.flow.deciders(suppression), state.decided, base.funnel if base else ()),
        statistics=_statistics(store, base, state, written),
    )


def _verdicts(state: State, base: Manifest | None) -> dict[str, Tally]:
    """The children by verdict, those of the base too."""
    before = base.verdicts if base else {}
    return {
        name: state.verdicts.get(name, Tally()) + before.get(name, Tally()) for name in {**before, **state.verdicts}
    }


def _statistics(store: Store, base: Manifest | None, state: State, written: Sequence[Receipt]) -> dict[str, Any]:
    """Of all shards; and of an extended version how it differs from one run over everything."""
    counts = Statistics() if base is None else Statistics.read(base.statistics)
    for receipt in written:
        counts += receipt.facts_as(Statistics)
    divergence = [read_table(store, ref) for ref in state.attachments if ref.kind == "divergence"]
    table = pa.concat_tables([DIVERGENCE.empty_table(), *divergence])
    # The version has the edited texts of its base too, whether or not this recipe edits.
    edits = Counter(base.statistics.get("edits", {}) if base else {})
    edits.update(state.edits)
    edited = {"edits": dict(edits)} if edits else {}
    return {**asdict(counts), **state.statistics, **edited, **divergence_counts(base, state.outranked, table)}
