"""The step that leaves out problems of which something is held out, before anything is drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import NOTHING
from gristmill.pipelines.frame.flow import State, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.sources import check_texts, exact
from gristmill.pipelines.reason.roll_out import posings
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.core.work import Stage
from gristmill.stages.gates.held_out import HeldOutIndex, IndexHeldOut, index_work
from gristmill.stages.generate.contamination import NAME, Decontaminate, FindContaminated, find_works
from gristmill.stages.run.runner import Runner

KEY = "recipe.decontaminate.against"
ROLE = "held_out"
"""In which a held-out version stands among the sources: nothing of it goes into the version."""


@dataclass(frozen=True)
class Decontamination(Step):
    """Drops problems that give away a held-out item."""

    decontaminate: Decontaminate

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING
    deciders: ClassVar[tuple[str, ...]] = (NAME,)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return IndexHeldOut(self.decontaminate.overlap), FindContaminated(self.decontaminate.overlap)

    def run(self, run: BuildContext, state: State) -> State:
        """Raises DamagedObject where a held-out version is."""
        runner = run.runner
        index, _ = indexed(runner, held_out(Versions(runner.store), self.decontaminate), self.decontaminate)
        stage = FindContaminated(self.decontaminate.overlap)
        works = find_works(stage, posings(runner.store, state.records), index)
        done = runner.map("decontaminate", works)
        records = state.records.judged("decontaminate", done, ())
        return state.after(records, done, measures=[receipt.output("screened") for receipt in done])


def indexed(runner: Runner, versions: Sequence[Manifest], asked: Decontaminate) -> tuple[HeldOutIndex, Receipt]:
    """The index of what is held out, and the receipt of its making."""
    (receipt,) = runner.map("index held-out", [index_work(versions, asked.overlap)])
    return HeldOutIndex.of(receipt), receipt


def held_out(versions: Versions, asked: Decontaminate) -> list[Manifest]:
    """The versions that are named. Raises BadConfig for one that cannot be used."""
    manifests = []
    for name in asked.against:
        manifest = exact(versions, name, KEY)
        check_texts(manifest, KEY)
        if name != str(manifest):
            raise BadConfig(f"{KEY}: {name} is a tag; give the version, {manifest}")
        manifests.append(manifest)
    return manifests


def refs_of(versions: Versions, asked: Decontaminate | None) -> tuple[VersionRef, ...]:
    """What is held out as sources of a version."""
    if asked is None:
        return ()
    return tuple(manifest.ref.model_copy(update={"role": ROLE}) for manifest in held_out(versions, asked))
