"""What a pipeline is to the frame (pipelines/frame/run.py): a recipe that says what is made, and of what.

`resolve` looks up what the recipe names, and runs nothing: the result has the run's key and `build`, the stages in
order. Where records come from input files (`InputRecipe`) the frame finds and scans the files, leaves out what was
taken down, and extends the dataset by what is new; versions of other datasets are `sources`. A dataset may be made from
both. A `Chain` makes several versions, one after the other.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.form import FORMS, Form
from gristmill.lake.versions.manifest import Draft, Manifest, VersionRef, run_key
from gristmill.lake.versions.recipes import recipe_changes
from gristmill.lake.versions.versions import Versions, check_name
from gristmill.pipelines.settings.config import BadConfig, Root, Run
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.read.scan import Scan
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Outlook

log = logging.getLogger("gristmill")


def _merges_nothing(base: Manifest) -> tuple[StageId, ...]:
    """`Resolved.merging` of a pipeline that refers to the objects of its base as they are."""
    return ()


@dataclass(frozen=True)
class Resolved:
    """A recipe whose names were looked up: versions by number, files by content.

    `identity` is the recipe as the manifest keeps it and `stages` are those that will run; with `sources` (versions)
    and `files` (digests of files that are taken in whole, such as a checkpoint's) they give the run's key.
    `merging`: the stages that run as well where a version is extended, to merge its objects. `reproducible`: another
    run gives the same bytes, so that lost objects can be made again.
    """

    identity: dict[str, Any]
    stages: tuple[StageId, ...]
    build: Callable[[BuildContext], Draft]
    sources: tuple[VersionRef, ...] = ()
    files: tuple[str, ...] = ()
    merging: Callable[[Manifest], tuple[StageId, ...]] = _merges_nothing
    reproducible: bool = True

    def stages_upon(self, base: Manifest | None) -> tuple[StageId, ...]:
        """All stages of a run on top of `base`; None: of one that extends nothing."""
        return self.stages if base is None else (*self.stages, *self.merging(base))

    def key(self, dataset: str, inputs: Iterable[str] = (), base: Manifest | None = None) -> str:
        """The run's key. `inputs`: digests of scanned inputs; `base`: the version that is extended."""
        sources = self.sources if base is None else (base.ref.model_copy(update={"role": "extends"}), *self.sources)
        return run_key(dataset, self.identity, (*self.files, *inputs), self.stages_upon(base), sources)


@dataclass(frozen=True)
class BuildContext:
    """What the frame hands to `Resolved.build`: where to run the stages, and what the draft is to say of itself.

    `inputs` are the files to take in, `suppression` the records to leave out of them, and `base` the version that is
    extended; a recipe that is made from versions alone has no use for the three. `how`: the config's run settings.
    """

    runner: Runner
    dataset: str
    form: Form
    key: str
    resolved: Resolved
    suppression: Suppression
    inputs: tuple[ScannedInput, ...] = ()
    base: Manifest | None = None
    how: Run = Run()

    @property
    def stages(self) -> tuple[StageId, ...]:
        """Those of the run's key, which the draft has to claim."""
        return self.resolved.stages_upon(self.base)

    @property
    def received(self) -> Tally:
        """The records of the inputs, as the scans counted them."""
        return total(file.tally for file in self.inputs)


class Recipe(Root):
    """What decides the data. Every recipe has the dataset that it makes, and how much of it."""

    form: ClassVar[Form]
    """What the records of its versions are (lake/versions/form.py)."""

    dataset: str
    limit: int | None = Field(default=None, ge=1, description="a preview of so much; commits to DATASET.limit")

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

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """Files and patterns by the key that names them: inside a job they have to be absolute."""
        return {}

    def makes(self) -> Mapping[str, Form]:
        """Dataset -> form of each version that it comes to, in the order in which they are made."""
        return {self.target: self.form}

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for what can be seen before any work, in every link of a chain."""

    def with_digests(self, versions: Versions) -> Self:
        """The recipe whose parts know the versions that they name by content, before its identity is asked for.

        Raises BadConfig for a version that cannot be used.
        """
        return self

    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        """What to make after `done`, the versions that the links before it came to; None: that was the last one. Most
        recipes are a single link, themselves."""
        return None if done else self

    @abstractmethod
    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Looks up what the recipe names. `suppression`: digest of what was taken down; "" for nothing.

        Raises BadConfig for a version or file that cannot be used.
        """


class Chain(Recipe):
    """A recipe of several versions, each made after the one before it: a link is a recipe of its own, with its dataset,
    lease, run key and commit. So a chain goes on at the first link without a version, and none is made twice."""

    @abstractmethod
    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        """As in Recipe."""

    @abstractmethod
    def makes(self) -> Mapping[str, Form]:
        """As in Recipe."""

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises TypeError: what a link names may be what the one before it makes."""
        raise TypeError(f"{self.dataset}: a chain is resolved link by link")


class InputRecipe(Recipe):
    """A recipe whose records come from `inputs`. They count by content: their paths are no part of the run key.

    `extends` names the dataset itself: only inputs it has not seen are taken, on top of its latest version.
    `unreadable_files`: a file that is of no format, empty, or nothing but damage fails the run, or is quarantined.
    """

    extends: str | None = None
    inputs: tuple[str, ...] = ()
    allow_empty: bool = False
    unreadable_files: Literal["fail", "quarantine"] = "fail"
    scan: Scan = Scan()
    max_quarantine_rate: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _can_grow(self) -> InputRecipe:
        if self.extends is not None and self.extends != self.dataset:
            raise ValueError(f"extends: {self.extends!r} is not {self.dataset!r}; a dataset extends itself")
        if self.extends is not None and self.limit is not None:
            raise ValueError("limit: a preview of a few records, on which nothing is built; leave extends out")
        return self

    def addresses(self) -> Mapping[str, Sequence[str]]:
        """The inputs."""
        return {"recipe.inputs": self.inputs}

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """The recipe as the manifest keeps it: without addresses, with the digest of what was taken down.

        Unreadable files are among the inputs or there is no version, so what is done about them is no part of it.
        """
        kept = self.model_dump(mode="json", exclude={"inputs": True, "unreadable_files": True})
        return kept | {"suppression": suppression} if suppression else kept

    @abstractmethod
    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """Every stage that decides the data. `suppression`: as in `resolve`."""

    @property
    def compared(self) -> Collection[str]:
        """Kinds of attachments of the base that new records are compared with."""
        return ()

    @property
    def reading_along(self) -> ReadStage | None:
        """The stage that reads the inputs, if it can do so while they are scanned."""
        return None

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        """Keys of the recipe that have to be those of `base`, the version that this one extends -> why."""
        return {}

    def check_form(self, base: Manifest) -> None:
        """Raises BadConfig where `base`, the version that this one extends, holds records of another form."""
        if base.form != self.form:
            there, here = FORMS[base.form].called, FORMS[self.form].called
            raise BadConfig(
                f"recipe.extends: {base} holds {there}, this pipeline makes {here}:"
                " one dataset cannot hold both. Give recipe.dataset and recipe.extends another name"
            )

    def check_base(self, base: Manifest) -> None:
        """Raises BadConfig where `base`, the version that this one extends, holds records of another form, or differs
        in a key that has to be equal."""
        self.check_form(base)
        identity = self.identity()
        for name, why in self.fixed_by(base).items():
            before, now = base.recipe.get(name), identity[name]
            if name not in base.recipe or before != now:
                was = f"has {name} {before}" if name in base.recipe else f"was made by a release without {name}"
                raise BadConfig(
                    f"recipe.{name}: {base} {was}, this recipe has {now}: {why}."
                    " Take its settings, or make another dataset of all inputs"
                )
        if changed := recipe_changes(base.recipe, identity):
            log.warning("%s was made with other %s; what is new follows this recipe", base, ", ".join(changed))


class PipelineConfig(Root):
    """A whole config: which pipeline, its recipe, how and where it runs. Each pipeline has a subclass of its own."""

    pipeline: str
    recipe: Recipe
    run: Run = Run()

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for what can be seen before any work: in the recipe, and where it does not fit the run."""
        self.recipe.check(versions)

    def outlook(self, versions: Versions) -> Outlook | None:
        """What is known of the run before it begins, for `--plan`. None of its stages is run for it."""
        return None
