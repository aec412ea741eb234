"""Reading what may be read: the first stage of a pipeline over crawls, without what was taken down.

The stage is wrapped (stages/read/suppress.py) where this lake has a suppression list. What was read before, for the
newest version of the dataset or with nothing taken down, is taken over, and gc is told so.
"""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.reading import ReadStage, read_works
from gristmill.stages.read.suppress import keys_before, suppressed_works
from gristmill.stages.run.runner import Runner


def read_allowed(
    runner: Runner, stage: ReadStage, inputs: Iterable[ScannedInput], suppression: Suppression, dataset: str
) -> list[Receipt]:
    """Runs a stage that reads over inputs, without what was taken down. What was read for the dataset's newest version,
    with fewer taken down, is not read again."""
    works = read_works(stage, inputs)
    if not suppression:
        return runner.map(stage.name, works)
    versions = Versions(runner.store)
    latest = [versions.manifest(dataset, n) for n in versions.numbers(dataset)[-1:]]
    earlier = [digest for manifest in latest if (digest := manifest.recipe.get("suppression"))]
    todo = list(suppressed_works(runner.store, stage, works, suppression, earlier))
    # What they take over must not go meanwhile.
    runner.announce(f"{stage.name} before", [key for work in todo for key in keys_before(work)])
    return runner.map(stage.name, todo)
