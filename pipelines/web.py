"""The web pipeline: crawls in, an accounted, versioned dataset of clean text out.

scan (input side of the balance) -> extract (read + HTML to text) -> screen (language, Gopher quality) -> exact
duplicates -> near duplicates -> shards -> ledger -> commit. Every stage is Work with receipts, so the same command
finishes a killed run. With `extends` a run takes only the inputs that the dataset has not seen, pins the version it
builds on, and starts its linking anew if another run took the slot meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lake.diff import changed_on_the_way, recipe_changes
from lake.growth import Growth, move_base, plan_growth
from lake.lease import Lease
from lake.manifest import Draft, Manifest
from lake.store import Store
from lake.suppress import Suppression
from lake.suppress_guard import guarded_list
from lake.versions import CommitConflict, Versions
from pipelines.assembly import (
    Committer,
    Result,
    TakenDown,
    check_not_taken_down,
    input_files,
    made_again,
    scanned,
)
from pipelines.config import BadConfig
from pipelines.growth import growth_report
from pipelines.records import build
from pipelines.web_recipe import Recipe, WebConfig
from stages.inputs import Listing, ScannedInput
from stages.minhash import N_WORDS
from stages.runner import Runner

log = logging.getLogger("gristmill")


def run_web(config: WebConfig, store: Store, runner: Runner) -> Result:
    """Runs the pipeline to a committed version, or returns the one this run made before.

    Raises BadConfig, Incomplete, GateFailed, CommitConflict, PlanOnly, BalanceError.
    """
    started, recipe = time.time(), config.recipe
    files = _check(recipe)
    with Lease(store, recipe.target) as lease:
        runner.announce = lease.announce
        inputs = scanned(runner, recipe.scan, files, recipe.limit, recipe.allow_empty)
        run = _Run(recipe, runner, inputs, guarded_list(store), started)
        return run.whole() if recipe.extends is None else run.night()


def _check(recipe: Recipe) -> Listing:
    """The input files. Raises BadConfig for what can be seen before any work."""
    files = input_files(recipe.inputs)
    try:
        recipe.language.check()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadConfig(f"recipe.language: {error}") from error
    measures = [N_WORDS, *recipe.screen.measures()]
    if unknown := sorted({name.removeprefix("-") for name in recipe.survivor} - set(measures)):
        raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {', '.join(measures)}")
    return files


@dataclass(frozen=True)
class _Run:
    """One run. `suppression` is what was taken down when it began."""

    recipe: Recipe
    runner: Runner
    inputs: Sequence[ScannedInput]
    suppression: Suppression
    started: float

    @cached_property
    def end(self) -> Committer:
        return Committer(self.runner, self.recipe.target, self.suppression.digest, self.started)

    @property
    def versions(self) -> Versions:
        return self.end.versions

    @cached_property
    def digests(self) -> list[str]:
        return [one.digest for one in self.inputs]

    def whole(self) -> Result:
        """A version of these inputs and nothing else."""
        key = self.recipe.run_key(self.digests, self.suppression.digest)
        return self.end.once(key, lambda: build(self.recipe, self.runner, self.inputs, key, self.suppression))

    def night(self) -> Result:
        """What is new in these inputs, on top of the latest version; that version, if nothing is."""
        target, pin = self.recipe.target, not self.runner.plan
        plan = plan_growth(self.versions, target, self.recipe.identity(), self.digests, pin=pin)
        while isinstance(plan, Growth):
            log.info("%s: %d of %d inputs are new to v%d", target, len(plan.new), len(self.inputs), plan.base)
            base = self.versions.manifest(target, plan.base) if plan.base else None
            key = self.key_of_night(base, plan.new)
            check_not_taken_down(self.versions, target, key)
            draft = self.grown(base, plan.new, key)
            try:
                done = self.end.commit(draft, expected_parent=plan.base)
            except TakenDown:
                raise
            except CommitConflict:
                log.warning("%s: v%d is no longer the latest version; linking starts anew", target, plan.base)
                plan = move_base(self.versions, plan, self.digests)
                continue
            if report := growth_report(done.manifest, changed_on_the_way(self.versions, done.manifest)):
                log.info("%s: %s", done.manifest, report)
            return done
        if self.versions.missing((*plan.shards, *plan.ledgers)):
            return self.mended(plan)
        return Result(plan, new=False)

    def key_of_night(self, base: Manifest | None, new: Sequence[str]) -> str:
        sources = () if base is None else (base.ref.model_copy(update={"role": "extends"}),)
        return self.recipe.run_key(new, self.suppression.digest, sources)

    def grown(self, base: Manifest | None, new: Sequence[str], key: str) -> Draft:
        """`base` with the new inputs. Raises BadConfig where they could not be compared with it."""
        if base is not None:
            _check_base(self.recipe, base)
            if lost := self.versions.missing(ref for ref in base.attachments if ref.kind in self.recipe.flow.grows):
                raise BadConfig(
                    f"{base}: {lost[0]}, and what is new cannot be compared without it. Copy it back (`grist verify"
                    f" {base}` names all that is lost), or make another dataset of all inputs"
                )
        wanted = set(new)
        inputs = [one for one in self.inputs if one.digest in wanted]
        return build(self.recipe, self.runner, inputs, key, self.suppression, base)

    def mended(self, latest: Manifest) -> Result:
        """The latest version, after its own lost objects were made again. Those of its ancestors are theirs to mend."""
        if latest.parent is not None and latest.parent.role == "forget":
            raise BadConfig(f"{latest} lost objects that `grist forget` made; `grist verify` says what to do")
        if latest.recipe.get("suppression", "") != self.suppression.digest:
            raise BadConfig(
                f"{latest} lost objects, and cannot be made again as it was: records were taken down since."
                " `grist verify` names what is lost; copy it back, or withdraw this version and run again"
            )
        base = self.versions.manifest(latest.dataset, latest.parent.version) if latest.parent else None
        new = [one.digest for one in latest.inputs]
        draft = self.grown(base, new, self.key_of_night(base, new))
        if still := self.versions.missing((*latest.shards, *latest.ledgers)):
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
    if changed := recipe_changes(before, recipe.identity()):
        log.warning("%s was made with other %s; what is new follows this recipe", base, ", ".join(changed))
