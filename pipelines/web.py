"""The web pipeline: crawls in, an accounted, versioned dataset of clean text out.

scan (input side of the balance) -> extract (read + HTML to text) -> screen (language, Gopher quality) -> exact
duplicates -> repeated paragraphs (an option) -> near duplicates -> shards -> ledger -> commit. Every stage is Work with
receipts, so the same command finishes a killed run. With `extends` a run takes only the inputs that the dataset has
not seen, pins the version it builds on, and starts its linking anew if another run took the slot meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from filters.gopher import GopherQuality
from filters.language import LanguageFilter
from filters.minhash import MinHash
from lake.growth import Growth, move_base, plan_growth
from lake.lease import Lease
from lake.manifest import Draft, Manifest, VersionRef
from lake.manifest import run_key as key_of_run
from lake.receipt import StageId
from lake.store import Store
from lake.suppress import Suppression
from lake.versions import CommitConflict, Versions, check_name
from pipelines.assembly import Result, find_before, made, made_again
from pipelines.config import BadConfig, Root, Run
from pipelines.growth import growth_report
from pipelines.web_build import COMPARED, build
from stages.clusters import Choose, Clusters
from stages.containers import UnsupportedContainer
from stages.exact import Exact
from stages.extract import Extract
from stages.inputs import ScannedInput, find_inputs, scan_inputs
from stages.link import Link, MergeForests
from stages.minhash import N_WORDS, Collect, Sign
from stages.paragraphs import Paragraphs
from stages.runner import Runner
from stages.scan import Scan
from stages.screen import Screen
from stages.shards import MergeLedger, WriteShards

log = logging.getLogger("gristmill")


class Recipe(Root):
    """What decides the data. `inputs` count by content: their paths are no part of the run key.

    `extends` names the dataset itself: only inputs it has not seen are taken, on top of its latest version.
    """

    dataset: str = "web"
    extends: str | None = None
    inputs: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1, description="records; commits to DATASET.limit")
    scan: Scan = Scan()
    extract: Extract = Extract()
    language: LanguageFilter = LanguageFilter()
    gopher_quality: GopherQuality = GopherQuality()
    exact: Exact = Exact()
    paragraphs: Paragraphs | None = None
    minhash: MinHash | None = MinHash()
    survivor: tuple[str, ...] = (N_WORDS,)
    shards: WriteShards = WriteShards()
    max_quarantine_rate: float = Field(default=0.05, ge=0, le=1)

    @field_validator("dataset")
    @classmethod
    def _can_be_committed(cls, name: str) -> str:
        check_name(name)
        if name.endswith(".limit"):
            raise ValueError(f"dataset name {name!r}: names in .limit are for runs with a limit; give another")
        return name

    @model_validator(mode="after")
    def _can_grow(self) -> Recipe:
        if self.extends is not None and self.extends != self.dataset:
            raise ValueError(f"extends: {self.extends!r} is not {self.dataset!r}; a dataset extends itself")
        if self.extends is not None and self.limit is not None:
            raise ValueError("limit: a look at a few records, on which nothing is built; leave extends out")
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {N_WORDS}")
        return self

    @property
    def target(self) -> str:
        """The dataset this commits to: a limited run never passes for a whole one."""
        return self.dataset if self.limit is None else f"{self.dataset}.limit"

    @property
    def screen(self) -> Screen:
        return Screen(filters=(self.language, self.gopher_quality))

    @property
    def sign(self) -> Sign:
        return Sign(self.minhash or MinHash())

    @property
    def collect(self) -> Collect:
        one = self.minhash or MinHash()
        return Collect(one.bands, one.rows, self.survivor)

    def stages(self) -> tuple[StageId, ...]:
        near = (self.sign, self.collect, Link(), MergeForests(), Choose(), Clusters()) if self.minhash else ()
        repeated = (self.paragraphs,) if self.paragraphs else ()
        parts = (self.scan, self.extract, self.screen, self.exact, *repeated, *near, self.shards, MergeLedger())
        return tuple(one for stage in parts for one in stage.identity())

    def identity(self) -> dict[str, Any]:
        """The recipe as the manifest keeps it: without addresses."""
        return self.model_dump(mode="json", exclude={"inputs": True, "language": {"model_path"}})

    def run_key(self, inputs: Sequence[str], suppression: Suppression, sources: Sequence[VersionRef] = ()) -> str:
        """Of these input digests, with what was taken down so far left out."""
        identity = self.identity()
        if suppression.digest:
            identity["suppression"] = suppression.digest
        return key_of_run(self.target, identity, inputs, self.stages(), sources)


class WebConfig(Root):
    pipeline: str = "web"
    recipe: Recipe = Recipe()
    run: Run = Run()


def run_web(config: WebConfig, store: Store, runner: Runner) -> Result:
    """Runs the pipeline to a committed version, or returns the one this run made before.

    Raises BadConfig, Incomplete, GateFailed, PlanOnly, BalanceError.
    """
    started, recipe, versions = time.time(), config.recipe, Versions(store)
    uris = _check(recipe)
    with Lease(store, recipe.target) as lease:
        runner.announce = lease.announce
        try:
            inputs = scan_inputs(runner, recipe.scan, uris, recipe.limit)
        except UnsupportedContainer as error:
            raise BadConfig(f"recipe.inputs: {error}. Or leave it out of recipe.inputs") from error
        suppression = Suppression.load(store)
        if recipe.extends is None:
            return _whole(recipe, versions, runner, inputs, suppression, started)
        return _night(recipe, versions, runner, inputs, suppression, started)


def _check(recipe: Recipe) -> list[str]:
    """The input files. Raises BadConfig for what can be seen before any work."""
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
    measures = [N_WORDS, *recipe.screen.measures()]
    if unknown := sorted({name.removeprefix("-") for name in recipe.survivor} - set(measures)):
        raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {', '.join(measures)}")
    return uris


def _whole(
    recipe: Recipe,
    versions: Versions,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    suppression: Suppression,
    started: float,
) -> Result:
    """A version of these inputs and nothing else."""
    key = recipe.run_key([one.digest for one in inputs], suppression)
    before = find_before(versions, recipe.target, key)
    if before is not None and not versions.missing((*before.shards, *before.ledgers)):
        return Result(before, new=False)
    draft = build(recipe, runner, inputs, key, suppression=suppression)
    if before is not None:
        return made_again(before, draft)
    runner.about_to("commit", recipe.target)
    _still_allowed(versions, suppression)
    draft = draft.model_copy(update={"made": made(started)})
    manifest = versions.commit(draft)
    return _committed(versions, draft, manifest, suppression)


def _night(
    recipe: Recipe,
    versions: Versions,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    suppression: Suppression,
    started: float,
) -> Result:
    """What is new in these inputs, on top of the latest version; that version, if nothing is."""
    listed = [one.digest for one in inputs]
    plan = plan_growth(versions, recipe.target, recipe.identity(), listed, pin=not runner.plan)
    while isinstance(plan, Growth):
        log.info("%s: %d of %d inputs are new to v%d", plan.dataset, len(plan.new), len(inputs), plan.base)
        base = versions.manifest(plan.dataset, plan.base) if plan.base else None
        draft = _grown(recipe, runner, inputs, base, plan.new, suppression)
        runner.about_to("commit", recipe.target)
        _still_allowed(versions, suppression)
        draft = draft.model_copy(update={"made": made(started)})
        try:
            manifest = versions.commit(draft, expected_parent=plan.base)
        except CommitConflict as error:
            log.warning("%s Linking starts anew on the version that was first.", error)
            plan = move_base(versions, plan, listed)
            continue
        if report := growth_report(manifest):
            log.info("%s: %s", manifest, report)
        return _committed(versions, draft, manifest, suppression)
    if versions.missing((*plan.shards, *plan.ledgers)):
        return _mended(recipe, versions, runner, inputs, plan, suppression)
    return Result(plan, new=False)


def _committed(versions: Versions, draft: Draft, manifest: Manifest, suppression: Suppression) -> Result:
    """The result, unless a takedown came between the last look and the commit: then the version is withdrawn."""
    new = manifest.made["commit_id"] == draft.made["commit_id"]
    try:
        _still_allowed(versions, suppression)
    except CommitConflict:
        if new:
            versions.withdraw(manifest.dataset, manifest.version, "records were taken down while it was committed")
        raise
    return Result(manifest, new=new)


def _still_allowed(versions: Versions, suppression: Suppression) -> None:
    """Raises CommitConflict if something was asked to be forgotten since the run began: it would come back with it."""
    if Suppression.load(versions.store).digest != suppression.digest:
        raise CommitConflict(
            "records were taken down (`grist forget`) while this run was under way, and it may hold them. Nothing that"
            " holds them is given out: run the same command again, it leaves them out."
        )


def _grown(
    recipe: Recipe,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    base: Manifest | None,
    new: Sequence[str],
    suppression: Suppression,
    mended: Manifest | None = None,
) -> Draft:
    if base is not None:
        _check_base(recipe, base)
        compared = [ref for ref in base.attachments if ref.kind in COMPARED]
        if lost := Versions(runner.store).missing(compared):
            raise BadConfig(
                f"{base}: {lost[0]}, and what is new cannot be compared without it. Copy it back (`grist verify {base}`"
                " names all that is lost), or make another dataset of all inputs"
            )
    sources = () if base is None else (base.ref.model_copy(update={"role": "extends"}),)
    key = recipe.run_key(new, suppression, sources)
    if mended is None:
        find_before(Versions(runner.store), recipe.target, key)  # refuses what was withdrawn
    return build(recipe, runner, [one for one in inputs if one.digest in set(new)], key, base, suppression)


def _mended(
    recipe: Recipe,
    versions: Versions,
    runner: Runner,
    inputs: Sequence[ScannedInput],
    latest: Manifest,
    suppression: Suppression,
) -> Result:
    """The latest version, after its own lost objects were made again. Those of its ancestors are theirs to mend."""
    if latest.parent is not None and latest.parent.role == "forget":
        raise BadConfig(f"{latest} lost objects that `grist forget` made; `grist verify` says what to do")
    base = versions.manifest(latest.dataset, latest.parent.version) if latest.parent else None
    draft = _grown(recipe, runner, inputs, base, [one.digest for one in latest.inputs], suppression, latest)
    if still := versions.missing((*latest.shards, *latest.ledgers)):
        raise BadConfig(f"{latest}: {still[0]}, and these inputs do not make it; `grist verify` names what is lost")
    return made_again(latest, draft)


def _check_base(recipe: Recipe, base: Manifest) -> None:
    """Raises BadConfig where the new documents could not be compared with the old ones."""
    before = base.recipe
    for name in ("minhash", "survivor") if recipe.minhash or before.get("minhash") else ():
        theirs, ours = before.get(name), recipe.identity()[name]
        if name not in before or theirs != ours:
            was = f"has {name} {theirs}" if name in before else "was made by a release without near duplicates"
            raise BadConfig(
                f"recipe.{name}: {base} {was}, this recipe has {ours}: signatures of other settings cannot be compared."
                " Take its settings, or make another dataset of all inputs"
            )
    changed = sorted(
        k for k, v in recipe.identity().items() if before.get(k) != v and k not in ("minhash", "survivor", "extends")
    )
    if changed:
        log.warning("%s was made with other %s; what is new follows this recipe", base, ", ".join(changed))
