"""The frame of every pipeline: from a config to a committed version, whatever was done before or happens meanwhile.

Lease, scan of the inputs, what was taken down, look-up, key. A run that was done before is returned, mended where it
lost objects; else its stages run and the draft is committed; in a chain of versions, one after the other. With
`extends` only what is new is built, on top of the pinned latest version, and anew if another run took the slot. A
pipeline is the rest: a recipe (pipelines/frame/recipe.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from gristmill.lake.accounts.receipt import NotDeterministic
from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.versions.growth import Growth, move_base, plan_growth
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.recipes import changed_on_the_way
from gristmill.lake.versions.versions import CommitConflict, Versions
from gristmill.pipelines.frame.assembly import GateFailed, provenance
from gristmill.pipelines.frame.growth import growth_report
from gristmill.pipelines.frame.inputs import alongside, input_files, of_versions, scanned_inputs, versions_read
from gristmill.pipelines.frame.recipe import BuildContext, InputRecipe, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly

log = logging.getLogger("gristmill")


class TakenDown(CommitConflict):
    """A takedown came first: another base would not help, the run has to begin again."""


def run_pipeline(config: PipelineConfig, store: Store, runner: Runner) -> Result:
    """Runs a pipeline to a committed version, or returns the one that this run made before: of a chain, the last one.

    Raises BadConfig, Incomplete, GateFailed, CommitConflict, PlanOnly, BalanceError.
    """
    config.check(Versions(store))
    done: list[Result] = []
    try:
        while (link := config.recipe.link([result.manifest for result in done])) is not None:
            if done:
                log.info("%s %s; next: %s", done[-1].manifest, "is new" if done[-1].new else "is there", link.target)
            done.append(_run_link(link, config.run, store, runner))
    except PlanOnly as plan:
        plan.outlook = config.outlook(Versions(store))
        raise
    return replace(done[-1], before=tuple(result.manifest for result in done[:-1]))


def _run_link(recipe: Recipe, how: Run, store: Store, runner: Runner) -> Result:
    """Makes one version, or returns it. Raises as `run_pipeline`."""
    started = time.time()
    versions = Versions(store)
    recipe = recipe.with_digests(versions)
    files = input_files(recipe.inputs, versions) if isinstance(recipe, InputRecipe) else None
    with Lease(store, recipe.target) as lease:
        runner.begin(lease.announce)
        inputs: tuple[ScannedInput, ...] = ()
        if isinstance(recipe, InputRecipe) and files is not None:
            stage = recipe.reading_along
            along = None if stage is None else partial(alongside, store, stage, recipe.target)
            scanned = scanned_inputs(runner, recipe, files, along)
            inputs = of_versions(scanned, versions_read(recipe.inputs, versions), store)
        # After the scan, which may take hours, and before sources are looked up: what goes from now on is noticed.
        suppression = guarded_list(store)
        resolved = recipe.resolve(versions, suppression.digest)
        run = _Run(runner, recipe, resolved, how, inputs, suppression, started)
        if isinstance(recipe, InputRecipe) and recipe.extends is not None:
            return run.extend(recipe)
        return run.whole()


@dataclass(frozen=True)
class _Run:
    """One run. `suppression` is what was taken down when it began, at `started`."""

    runner: Runner
    recipe: Recipe
    resolved: Resolved
    how: Run
    inputs: tuple[ScannedInput, ...]
    suppression: Suppression
    started: float

    @cached_property
    def versions(self) -> Versions:
        """Of the store that the runner works on."""
        return Versions(self.runner.store)

    @cached_property
    def digests(self) -> list[str]:
        """Of the inputs, in their order."""
        return [scanned.digest for scanned in self.inputs]

    def whole(self) -> Result:
        """A version of what the recipe names and nothing else."""
        key = self.resolved.key(self.recipe.target, self.digests)
        before = self.versions.find_run(self.recipe.target, key)
        if before is None:
            self._check_not_taken_down(key)
            return self.commit(self._draft(self.digests))
        if not self._lost(before):
            return Result(before, new=False)
        self._check_reproducible(before)
        return _made_again(before, self._draft(self.digests))

    def extend(self, recipe: InputRecipe) -> Result:
        """What is new in these inputs, on top of the latest version; that version, if nothing is."""
        target, pin = recipe.target, not self.runner.plan
        plan = plan_growth(self.versions, target, recipe.identity(), self.digests, pin=pin)
        ran = self.runner.ran
        while isinstance(plan, Growth):
            self.runner.ran = ran.copy()  # what was merged of another base is no part of this version
            log.info("%s: %d of %d inputs are new to v%d", target, len(plan.new), len(self.inputs), plan.base)
            base = self.versions.manifest(target, plan.base) if plan.base else None
            self._check_not_taken_down(self.resolved.key(target, plan.new, base))
            draft = self._draft_upon(recipe, base, plan.new)
            try:
                result = self.commit(draft, expected_parent=plan.base)
            except TakenDown:
                raise
            except CommitConflict:
                log.warning("%s: v%d is no longer the latest version; linking starts anew", target, plan.base)
                plan = move_base(self.versions, plan, self.digests)
                continue
            if report := growth_report(result.manifest, changed_on_the_way(self.versions, result.manifest)):
                log.info("%s: %s", result.manifest, report)
            return result
        recipe.check_form(plan)
        return self._mended(recipe, plan) if self._lost(plan) else Result(plan, new=False)

    def _draft(self, digests: Iterable[str], base: Manifest | None = None) -> Draft:
        """The pipeline's stages, run for some of the inputs.

        Raises what stages and runner raise, ValueError if the draft is not of this run, WrongClaim unless the stages
        that it claims, of which its run key is made, are those that ran.
        """
        wanted = set(digests)
        inputs = tuple(scanned for scanned in self.inputs if scanned.digest in wanted)
        dataset, form = self.recipe.target, self.recipe.form
        key = self.resolved.key(dataset, wanted, base)
        context = BuildContext(self.runner, dataset, form, key, self.resolved, self.suppression, inputs, base, self.how)
        draft = self.resolved.build(context)
        promised = {
            "dataset": dataset,
            "form": form,
            "run_key": key,
            "parent": None if base is None else base.ref,
            "sources": self.resolved.sources,
            "recipe": self.resolved.identity,
            "stages": context.stages,
        }
        if wrong := [name for name, value in promised.items() if getattr(draft, name) != value]:
            raise ValueError(f"{dataset}: the draft's {', '.join(wrong)} are not those of its run")
        self.runner.ran.check(dataset, draft.stages)
        return draft

    def _draft_upon(self, recipe: InputRecipe, base: Manifest | None, new: Iterable[str]) -> Draft:
        """`base` with the new inputs. Raises BadConfig where they could not be compared with it."""
        if base is not None:
            recipe.check_base(base)
            self._check_compared(recipe, base)
        return self._draft(new, base)

    def _check_compared(self, recipe: InputRecipe, base: Manifest) -> None:
        """Raises BadConfig where what the new records are compared with is lost."""
        compared = [ref for ref in base.attachments if ref.kind in recipe.compared]
        if lost := self.versions.missing(compared):
            raise BadConfig(
                f"{base}: {lost[0]}, and what is new cannot be compared without it. Copy it back (`grist verify"
                f" {base}` names all that is lost), or make another dataset of all inputs"
            )
        if recipe.compared and not compared and base.received.count:
            log.warning(
                "%s was made by a release that kept nothing to compare new records with: copies of what it has are kept"
                " as well. A run without extends, over all inputs, keeps one of each, and can be extended",
                base,
            )

    def _lost(self, manifest: Manifest) -> list[str]:
        """One line for every shard or ledger of a version that is not there."""
        return self.versions.missing((*manifest.shards, *manifest.ledgers))

    def _mended(self, recipe: InputRecipe, latest: Manifest) -> Result:
        """The latest version, after its own lost objects were made again. Those of its ancestors are theirs to mend."""
        if latest.parent is not None and latest.parent.role == "forget":
            raise BadConfig(f"{latest} lost objects that `grist forget` made; `grist verify` says what to do")
        if latest.recipe.get("suppression", "") != self.suppression.digest:
            raise BadConfig(
                f"{latest} lost objects, and cannot be made again as it was: records were taken down since."
                " `grist verify` names what is lost; copy it back, or withdraw this version and run again"
            )
        self._check_reproducible(latest)
        base = self.versions.manifest(latest.dataset, latest.parent.version) if latest.parent else None
        draft = self._draft_upon(recipe, base, [file.digest for file in latest.inputs])
        if still := self._lost(latest):
            raise BadConfig(f"{latest}: {still[0]}, and these inputs do not make it; `grist verify` names what is lost")
        return _made_again(latest, draft)

    def _check_reproducible(self, before: Manifest) -> None:
        """Raises BadConfig for a version that lost objects which no run would make again."""
        if not self.resolved.reproducible:
            raise BadConfig(
                f"{before} lost objects ({self._lost(before)[0]}), and no other run makes the same ones. Copy them back"
                f" (`grist verify {before}` names all that is lost), or withdraw it and run with another recipe"
            )

    def _check_not_taken_down(self, key: str) -> None:
        """Raises GateFailed if this very run made a version that was withdrawn: the same data would come back."""
        if why := self.versions.taken_down(self.recipe.target, key):
            raise GateFailed(
                f"this very run made a version before, and {why}. The same inputs and recipe would bring the same data"
                " back: change them; nothing was committed."
            )

    def commit(self, draft: Draft, expected_parent: int | None = None) -> Result:
        """Commits, unless something was taken down since the run began; what slips through in between is withdrawn.

        Raises TakenDown and other CommitConflicts, PlanOnly, BalanceError.
        """
        self.runner.about_to("commit", self.recipe.target)
        self._check_still_allowed()
        draft = draft.model_copy(update={"made": provenance(self.started)})
        manifest = self.versions.commit(draft, expected_parent=expected_parent)
        new = manifest.made["commit_id"] == draft.made["commit_id"]
        try:
            self._check_still_allowed()
        except TakenDown:
            if new:
                why = "records were taken down while it was committed"
                self.versions.withdraw(manifest.dataset, manifest.version, why)
            raise
        return Result(manifest, new)

    def _check_still_allowed(self) -> None:
        """Raises TakenDown if something was asked to be forgotten since the run began, or a source was withdrawn: it
        would come back with it."""
        gone = [str(ref) for ref in self.resolved.sources if ref.version in self.versions.withdrawn(ref.dataset)]
        if gone:
            raise TakenDown(
                f"{', '.join(gone)}, from which it was made, was withdrawn while this run was under way. Nothing that"
                " was made from it is given out: name another version, and run again."
            )
        if Suppression.load(self.runner.store).digest != self.suppression.digest:
            raise TakenDown(
                "records were taken down (`grist forget`) while this run was under way, and it may hold them. Nothing"
                " that holds them is given out: run the same command again, it leaves them out."
            )


def _made_again(before: Manifest, draft: Draft) -> Result:
    """The version as it was, after its lost shards or ledgers were made again from the same inputs."""
    if before.digest != draft.content_digest:
        raise NotDeterministic(
            f"{before}: its lost objects cannot be made again, this run gives other content"
            f" ({draft.content_digest[:12]}, not {before.digest[:12]}). Compare the packages and code of"
            f" `grist show {before}` with today's."
        )
    log.info("%s had lost objects; they were made again", before)
    return Result(before, new=False)
