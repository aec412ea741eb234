"""The web pipeline: crawls in, an accounted, versioned dataset of clean text out.

scan (input side of the balance) -> extract (read + HTML to text) -> screen (language, Gopher quality) -> exact
duplicates -> shards -> ledger -> commit. Every stage is Work with receipts, so the same command finishes a killed
run; between stages the tallies must agree, and at commit the ledger must account for every record of every input.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from filters.gopher import GopherQuality
from filters.language import LanguageFilter
from lake.balance import Tally, check_balance, total
from lake.lease import Lease
from lake.manifest import Draft, InputFile, run_key
from lake.objects import ObjectRef, put_refs
from lake.receipt import Receipt, StageId
from lake.store import Store
from lake.versions import Versions, check_name
from pipelines.assembly import (
    Result,
    bundle_receipts,
    check_quarantine,
    find_before,
    funnel,
    made,
    made_again,
)
from pipelines.config import BadConfig, Root, Run
from stages.containers import UnsupportedContainer
from stages.exact import Exact, exact_works
from stages.extract import Extract
from stages.inputs import ScannedInput, find_inputs, scan_inputs
from stages.runner import Runner
from stages.scan import Scan
from stages.screen import Screen
from stages.shards import SCHEMA, MergeLedger, Statistics, WriteShards, ledger_works, shard_groups
from stages.work import Work

FUNNEL = ("read", "extract", "language", "gopher_quality", "exact")


class Recipe(Root):
    """What decides the data. `inputs` count by content: their paths are no part of the run key."""

    dataset: str = "web"
    inputs: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1, description="records; commits to DATASET.limit")
    scan: Scan = Scan()
    extract: Extract = Extract()
    language: LanguageFilter = LanguageFilter()
    gopher_quality: GopherQuality = GopherQuality()
    exact: Exact = Exact()
    shards: WriteShards = WriteShards()
    max_quarantine_rate: float = Field(default=0.05, ge=0, le=1)

    @field_validator("dataset")
    @classmethod
    def _can_be_committed(cls, name: str) -> str:
        check_name(name)
        if name.endswith(".limit"):
            raise ValueError(f"dataset name {name!r}: names in .limit are for runs with a limit; give another")
        return name

    @property
    def target(self) -> str:
        """The dataset this commits to: a limited run never passes for a whole one."""
        return self.dataset if self.limit is None else f"{self.dataset}.limit"

    @property
    def screen(self) -> Screen:
        return Screen(filters=(self.language, self.gopher_quality))

    def stages(self) -> tuple[StageId, ...]:
        parts = (self.scan, self.extract, self.screen, self.exact, self.shards, MergeLedger())
        return tuple(one for stage in parts for one in stage.identity())

    def identity(self) -> dict[str, Any]:
        """The recipe as the manifest keeps it: without addresses."""
        return self.model_dump(mode="json", exclude={"inputs": True, "language": {"model_path"}})


class WebConfig(Root):
    pipeline: str = "web"
    recipe: Recipe = Recipe()
    run: Run = Run()


def run_web(config: WebConfig, store: Store, runner: Runner) -> Result:
    """Runs the pipeline to a committed version, or returns the one this run made before.

    Raises BadConfig, Incomplete, GateFailed, PlanOnly, BalanceError.
    """
    started, recipe, versions = time.time(), config.recipe, Versions(store)
    if not recipe.inputs:
        raise BadConfig("recipe.inputs is empty: give paths or patterns, e.g. --set recipe.inputs='[crawl/*.warc.gz]'")
    try:
        uris = find_inputs(recipe.inputs)
    except (OSError, ValueError) as error:
        raise BadConfig(f"recipe.inputs: {error}") from error
    try:
        recipe.language.check()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadConfig(f"recipe.language: {error}") from error
    with Lease(store, recipe.target) as lease:
        runner.announce = lease.announce
        try:
            inputs = scan_inputs(runner, recipe.scan, uris, recipe.limit)
        except UnsupportedContainer as error:
            raise BadConfig(f"recipe.inputs: {error}. Or leave it out of recipe.inputs") from error
        key = run_key(recipe.target, recipe.identity(), [one.digest for one in inputs], recipe.stages())
        before = find_before(versions, recipe.target, key)
        if before is not None and not versions.missing((*before.shards, *before.ledgers)):
            return Result(before, new=False)
        draft = _build(recipe, store, runner, inputs, key)
        if before is not None:
            return made_again(before, draft)
        runner.about_to("commit", recipe.target)
        draft = draft.model_copy(update={"made": made(started)})
        manifest = versions.commit(draft)
    return Result(manifest, new=manifest.made["commit_id"] == draft.made["commit_id"])


def _build(recipe: Recipe, store: Store, runner: Runner, inputs: Sequence[ScannedInput], key: str) -> Draft:
    came_in = total(one.tally for one in inputs)
    extracted = runner.map("extract", [work for one in inputs for work in _extract_works(recipe, one)])
    check_balance("extract", came_in, {"read": total(r.came_in for r in extracted)})
    if recipe.limit is None:  # a look at ten records is no basis for a rate
        check_quarantine(extracted, came_in.count, recipe.max_quarantine_rate)
    screened = runner.map("screen", [_screen_work(recipe, receipt) for receipt in extracted])

    passed = total(r.passed for r in screened)
    tables = put_refs(store, [r.output("screened") for r in screened])
    exact = runner.map("exact", exact_works(recipe.exact, tables, passed))
    check_balance("exact", passed, {"compared": total(r.came_in for r in exact)})

    losers = put_refs(store, [r.output("losers") for r in exact])
    written = runner.map("shards", _shard_works(recipe, extracted, screened, losers))
    check_balance("shards", total(r.passed for r in exact), {"kept": total(r.kept for r in written)})

    decided = [*extracted, *screened, *exact, *written]
    fates = put_refs(store, [r.output("fates") for r in decided])
    merged = runner.map("ledger", ledger_works(fates, came_in.count))
    return _draft(recipe, store, inputs, key, came_in, decided, written, merged, screened)


def _extract_works(recipe: Recipe, one: ScannedInput) -> list[Work]:
    works = []
    for first, rows in one.chunks:
        payload = {
            "uri": one.uris[0],
            "stamp": one.stamp,
            "kind": one.kind,
            "digest": one.digest,
            "spans": one.spans.model_dump(),
            "first": first,
            "rows": rows,
        }
        tally = Tally.of_records([one.digest] * rows, range(first, first + rows))
        inputs = (one.digest, f"{first}+{rows}")
        works.append(Work(recipe.extract, inputs, payload, tally, f"{one.uris[0]} records {first}+{rows}"))
    return works


def _screen_work(recipe: Recipe, extracted: Receipt) -> Work:
    text = extracted.output("text")
    return Work(recipe.screen, (text.sha256,), {"text": text.model_dump()}, extracted.passed, text.sha256[:12])


def _shard_works(
    recipe: Recipe, extracted: Sequence[Receipt], screened: Sequence[Receipt], losers: ObjectRef
) -> list[Work]:
    pairs = [(a.output("text"), b.output("screened")) for a, b in zip(extracted, screened, strict=True)]
    groups = shard_groups([r.facts["passed_bytes"] for r in screened], recipe.shards.target_bytes)
    works = []
    for n, (first, end) in enumerate(groups):
        inputs = (*(ref.sha256 for pair in pairs[first:end] for ref in pair), losers.sha256)
        chunks = [(text.model_dump(), verdicts.model_dump()) for text, verdicts in pairs[first:end]]
        payload = {"chunks": chunks, "losers": losers.model_dump()}
        works.append(Work(recipe.shards, inputs, payload, label=f"shard {n}"))
    return works


def _draft(
    recipe: Recipe,
    store: Store,
    inputs: Sequence[ScannedInput],
    key: str,
    came_in: Tally,
    decided: Sequence[Receipt],
    written: Sequence[Receipt],
    merged: Sequence[Receipt],
    screened: Sequence[Receipt],
) -> Draft:
    return Draft(
        dataset=recipe.target,
        run_key=key,
        inputs=tuple(
            InputFile(digest=one.digest, bytes=one.bytes, records=one.records, names=one.uris) for one in inputs
        ),
        recipe=recipe.identity(),
        stages=recipe.stages(),
        shards=_not_empty([r.output("shard") for r in written]),
        ledgers=tuple(r.output("ledger") for r in merged),
        attachments=(
            *(one.spans for one in inputs),  # without them a no-op night would scan every input again after a gc
            *(r.output("screened") for r in screened),
            bundle_receipts(store, [*decided, *merged]),
        ),
        schemas={"shard": str(SCHEMA.remove_metadata())},
        came_in=came_in,
        kept=total(r.kept for r in merged),
        dropped=total(r.dropped for r in merged),
        quarantined=total(r.quarantined for r in merged),
        machine_fates=sum(r.machine_fates for r in decided),
        funnel=funnel(came_in.count, FUNNEL, decided),
        statistics=Statistics.merged(r.facts for r in written),
    )


def _not_empty(shards: Sequence[ObjectRef]) -> tuple[ObjectRef, ...]:
    """Shards that hold something; an empty version keeps one, so that its readers find the schema."""
    return tuple(ref for ref in shards if ref.records) or tuple(shards[:1])
