"""Reading what may be read: the works of the first stage of a pipeline, without what was taken down.

The stage is wrapped (stages/read/suppress.py) where this lake has a suppression list. What was read before, for the
newest version of the dataset or with nothing taken down, is taken over, and gc is told so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.work import Work
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.reading import ReadStage, read_works
from gristmill.stages.read.suppress import keys_before, suppressed_works
from gristmill.stages.run.runner import Runner


def allowed_works(
    runner: Runner, stage: ReadStage, inputs: Iterable[ScannedInput], suppression: Suppression, dataset: str
) -> list[Work[Any]]:
    """The works of a stage that reads over inputs, without what was taken down. What was read for the dataset's newest
    version, with fewer taken down, is not read again."""
    works = read_works(stage, inputs)
    if not suppression:
        return list(works)
    versions = Versions(runner.store)
    latest = [versions.manifest(dataset, n) for n in versions.numbers(dataset)[-1:]]
    earlier = [digest for manifest in latest if (digest := manifest.recipe.get("suppression"))]
    todo: list[Work[Any]] = list(suppressed_works(runner.store, stage, works, suppression, earlier))
    # What they take over must not go meanwhile.
    runner.announce(f"{stage.name} before", [key for work in todo for key in keys_before(work)])
    return todo
