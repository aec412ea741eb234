"""The web pipeline's stages in order, from scanned inputs to the draft of a version.

Of a growing dataset only what is new is read: earlier versions take part by their content hashes, signatures and
clusters, and the draft refers to their shards and ledgers beside its own. Between stages the tallies must agree, and
at commit the ledger must account for every record of every input.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.balance import Tally, check_balance, total
from lake.manifest import Draft, Manifest
from lake.objects import ObjectRef, put_refs, put_table, read_table
from lake.receipt import Receipt, StageId
from lake.store import Store
from pipelines.allowed import read_allowed
from pipelines.assembly import bundle_receipts, funnel, not_empty
from pipelines.growth import divergence_counts
from pipelines.refused import check_quarantine
from stages.choose import choose_works
from stages.cluster_sizes import cluster_size_works, cluster_statistics
from stages.clusters import cluster_works
from stages.compact import Compact, compacted
from stages.divergence import DIVERGENCE, current
from stages.exact import exact_works
from stages.gather import gather
from stages.inputs import ScannedInput
from stages.link import link
from stages.minhash import collect_works, sign_work
from stages.reading import read_works
from stages.runner import Runner
from stages.shards import SCHEMA, Statistics, ledger_works, shard_works
from stages.work import Work

if TYPE_CHECKING:
    from lake.suppress import Suppression
    from pipelines.web_recipe import Recipe
    from stages.paragraphs import Paragraphs

log = logging.getLogger("gristmill")

FUNNEL = ("read", "extract", "forget", "language", "gopher_quality", "exact", "paragraphs", "minhash")
MERGED = {
    "contents": ("content", "id"),
    "paragraphs": ("paragraph", "id"),
    "signatures": (),
    "clusters": ("survivor", "id"),
    "refs": (),
    "receipts": (),
}
"""Attachments that every night adds to: kind -> how they are sorted."""
LEDGER = Compact("ledger", ("id", "input", "ordinal"))
COMPARED = ("contents", "paragraphs", "signatures", "clusters")
"""Attachments that what is new is compared with."""


@dataclass
class Night:
    """What one run came to so far. `decided`: receipts whose fates enter the ledger; `losers`: who is left out;
    `measures`: tables kept for replay, beside those of the screen."""

    extracted: list[Receipt]
    screened: list[Receipt]
    decided: list[Receipt]
    passed: Tally
    losers: list[ObjectRef] = field(default_factory=list)
    attachments: list[ObjectRef] = field(default_factory=list)
    measures: list[ObjectRef] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)


def build(
    recipe: Recipe,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    key: str,
    suppression: Suppression,
    base: Manifest | None = None,
) -> Draft:
    """The version of these inputs on top of `base`. Raises GateFailed, Incomplete, PlanOnly, BalanceError."""
    merging = compaction(base)
    if base is not None:
        base = _compacted(runner, base)
    came_in = total(one.tally for one in inputs)
    night = _read(recipe, runner, inputs, came_in, suppression)
    _exact(recipe, runner, night, base)
    if recipe.paragraphs is not None:
        _paragraphs(recipe.paragraphs, runner, night, base)
    else:  # a night that does not look at them must not make the next one forget
        night.attachments += held(base, "paragraphs")
    if recipe.minhash is not None:
        _near(recipe, runner, night, base)
    store = runner.store
    losers = put_refs(store, night.losers)
    written = runner.map("shards", shard_works(recipe.shards, _pairs(night), night.screened, losers))
    check_balance("shards", night.passed, {"kept": total(r.kept for r in written)})
    night.decided += written
    fates = put_refs(store, [r.output("fates") for r in night.decided])
    merged = runner.map("ledger", ledger_works(fates, came_in.count))
    draft = _draft(recipe, store, inputs, key, suppression.digest, base, night, written, merged)
    return draft.model_copy(update={"stages": recipe.stages(suppression.digest, merging)})


def compaction(base: Manifest | None) -> tuple[StageId, ...]:
    """The stages that merge objects of the version that is extended: part of a run key where there is something to
    merge, since the version then refers to what they make. Known from its manifest alone."""
    if base is None:
        return ()
    lists = [(Compact(kind, keys), held(base, kind)) for kind, keys in MERGED.items()]
    lists.append((LEDGER, list(base.ledgers)))
    return tuple(part for stage, refs in lists if stage.split(refs).merged for part in stage.identity())


def _compacted(runner: Runner, base: Manifest) -> Manifest:
    """The version that is extended, as the next one refers to it: the same rows in a bounded number of objects."""
    merged = {kind: compacted(runner, Compact(kind, keys), held(base, kind)) for kind, keys in MERGED.items()}
    others = [ref for ref in base.attachments if ref.kind not in merged]
    ledgers = compacted(runner, LEDGER, base.ledgers)
    attachments = (*others, *(ref for refs in merged.values() for ref in refs))
    return base.model_copy(update={"ledgers": tuple(ledgers), "attachments": attachments})


def _read(
    recipe: Recipe, runner: Runner, inputs: Sequence[ScannedInput], came_in: Tally, suppression: Suppression
) -> Night:
    """Extraction, without what was taken down, and the filters."""
    extracted = read_allowed(runner, "extract", read_works(recipe.extract, inputs), suppression, recipe.target)
    check_balance("extract", came_in, {"read": total(r.came_in for r in extracted)})
    if recipe.limit is None:  # a look at ten records is no basis for a rate
        check_quarantine(runner.store, extracted, inputs, recipe.max_quarantine_rate)
    screened = runner.map("screen", [_screen_work(recipe, receipt) for receipt in extracted])
    return Night(extracted, screened, [*extracted, *screened], total(r.passed for r in screened))


def _pairs(night: Night) -> list[tuple[ObjectRef, ObjectRef]]:
    """(text, verdicts) of each chunk."""
    return [(a.output("text"), b.output("screened")) for a, b in zip(night.extracted, night.screened, strict=True)]


def _leave_out(night: Night, receipts: Sequence[Receipt]) -> None:
    night.decided += receipts
    night.losers += [ref for r in receipts if (ref := r.output("losers")).records]
    night.passed = total(r.passed for r in receipts)


def _exact(recipe: Recipe, runner: Runner, night: Night, base: Manifest | None) -> None:
    screened = put_refs(runner.store, [r.output("screened") for r in night.screened])
    losers, before = put_refs(runner.store, night.losers), held(base, "contents")
    done = runner.map("exact", exact_works(recipe.exact, screened, night.passed, losers, before))
    check_balance("exact", night.passed, {"compared": total(r.came_in for r in done)})
    _leave_out(night, done)
    night.attachments += [*before, *(r.output("contents") for r in done)]
    night.statistics["exact_outranked"] = sum(r.facts["outranked"] for r in done)


def _paragraphs(config: Paragraphs, runner: Runner, night: Night, base: Manifest | None) -> None:
    """Documents most of whose text other pages of their host have as well."""
    before = held(base, "paragraphs")
    if base is not None and not before:
        log.warning("recipe.paragraphs: %s was made without it, so that none of its pages is counted", base)
    elif base is not None and not base.recipe["paragraphs"]:
        log.warning("recipe.paragraphs: it was off when %s was made, so that none of its own pages is counted", base)
    elif base is not None and (had := base.recipe["paragraphs"]["min_documents"]) < config.min_documents:
        log.warning("recipe.paragraphs: of %s and before no more than %d pages count for a paragraph", base, had)
    chunks = [(*pair, r.passed) for pair, r in zip(_pairs(night), night.screened, strict=True)]
    done, paragraphs = config.judge(runner, chunks, night.losers, before)
    check_balance("paragraphs", night.passed, {"judged": total(r.came_in for r in done)})
    _leave_out(night, done)
    night.measures += [r.output("shares") for r in done]
    night.attachments += [*before, *paragraphs]


def _near(recipe: Recipe, runner: Runner, night: Night, base: Manifest | None) -> None:
    """Near duplicates, among what is new and against everything before."""
    passed = [r.passed for r in night.screened]
    works = [sign_work(recipe.sign, *pair, tally) for pair, tally in zip(_pairs(night), passed, strict=True)]
    signed = runner.map("sign", works)
    losers = put_refs(runner.store, night.losers)
    collected = runner.map("collect", collect_works(recipe.collect, signed, night.screened, losers))
    check_balance("minhash", night.passed, {"signed": total(r.came_in for r in collected)})

    old, new = held(base, "signatures"), [r.output("signatures") for r in collected]
    before = held(base, "clusters")
    forests, said = held(base, "forest"), held(base, "divergence")
    linked = link(runner, recipe.collect.bands, old, new, forests[-1] if forests else None)
    gathered = gather(runner, linked, signatures=recipe.gather.signatures)
    chosen = runner.map("choose", choose_works(recipe.choose, linked, gathered, before, said))
    members = runner.map("clusters", cluster_works([r.output("members") for r in chosen]))
    clusters = [*before, *(ref for r in members if (ref := r.output("clusters")).records)]
    counted = runner.map("sizes", cluster_size_works(clusters))
    night.decided += chosen
    night.losers += [ref for r in chosen if (ref := r.output("losers")).records]
    night.passed -= total(r.dropped for r in chosen)
    night.attachments += [*old, *new, linked.forest, *(clusters or [members[0].output("clusters")])]
    if base is not None:
        night.attachments.append(_divergence(runner.store, said, chosen))
    night.statistics["clusters"] = cluster_statistics(r.facts for r in counted)


def _divergence(store: Store, earlier: Sequence[ObjectRef], chosen: Sequence[Receipt]) -> ObjectRef:
    """One table of what this version keeps and drops otherwise than one run."""
    new, rejudged = (
        [ref for r in chosen for ref in r.outputs if ref.kind == kind] for kind in ("divergence", "rejudged")
    )
    return put_table(store, "divergence", current(store, earlier, rejudged, new))


def held(base: Manifest | None, kind: str) -> list[ObjectRef]:
    """The attachments of one kind of the version that is extended."""
    return [] if base is None else [ref for ref in base.attachments if ref.kind == kind]


def _screen_work(recipe: Recipe, extracted: Receipt) -> Work:
    text = extracted.output("text")
    return Work(recipe.screen, (text.sha256,), {"text": text.model_dump()}, extracted.passed, text.sha256[:12])


def _draft(
    recipe: Recipe,
    store: Store,
    inputs: Sequence[ScannedInput],
    key: str,
    suppression: str,
    base: Manifest | None,
    night: Night,
    written: Sequence[Receipt],
    merged: Sequence[Receipt],
) -> Draft:
    zero = Tally()
    came_in = total(one.tally for one in inputs) + (base.came_in if base else zero)
    statistics = Statistics.merged([*([base.statistics] if base else []), *(r.facts for r in written)])
    divergence = [read_table(store, ref) for ref in night.attachments if ref.kind == "divergence"]
    table = pa.concat_tables([DIVERGENCE.empty_table(), *divergence])
    growth = divergence_counts(base, night.statistics.pop("exact_outranked"), table)
    spans = [one.spans for one in inputs]
    own = put_refs(store, [*spans, *(r.output("screened") for r in night.screened), *night.measures])
    return Draft(
        dataset=recipe.target,
        form="documents",
        run_key=key,
        parent=None if base is None else base.ref,
        inputs=tuple(one.as_input() for one in inputs),
        recipe=recipe.identity(suppression),
        stages=recipe.stages(suppression),
        shards=not_empty([*(base.shards if base else ()), *(r.output("shard") for r in written)]),
        ledgers=(*(base.ledgers if base else ()), *(r.output("ledger") for r in merged)),
        attachments=(
            *held(base, "refs"),
            own,  # spans, without which a no-op night would scan every input again after a gc; measures, for replay
            *held(base, "receipts"),
            bundle_receipts(store, [*night.decided, *merged]),
            *night.attachments,
        ),
        schemas={"shard": str(SCHEMA.remove_metadata())},
        came_in=came_in,
        kept=total(r.kept for r in merged) + (base.kept if base else zero),
        dropped=total(r.dropped for r in merged) + (base.dropped if base else zero),
        quarantined=total(r.quarantined for r in merged) + (base.quarantined if base else zero),
        machine_fates=sum(r.machine_fates for r in night.decided) + (base.machine_fates if base else 0),
        funnel=funnel(came_in.count, FUNNEL, night.decided, base.funnel if base else ()),
        statistics={**statistics, **night.statistics, **growth},
    )
