"""Reading what may be read: the works of the first stage of a pipeline, without what was taken down.

The stage is wrapped (stages/read/suppress.py) where this lake has a suppression list. What was read before, for the
newest version of the dataset or with nothing taken down, is taken over, and gc is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.versions.growth import ancestors
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.work import Work
from gristmill.stages.read.along import ReadAlong
from gristmill.stages.read.inputs import ScannedInput
from gristmill.stages.read.reading import ReadStage, read_works
from gristmill.stages.read.scan import Alongside
from gristmill.stages.read.suppress import Listed, keys_before, suppressed_works
from gristmill.stages.run.runner import Runner

log = logging.getLogger("gristmill")


def allowed_works(
    runner: Runner, stage: ReadStage, inputs: Iterable[ScannedInput], suppression: Suppression, dataset: str
) -> list[Work[Any]]:
    """The works of a stage that reads over inputs, without what was taken down. What was read for the dataset's newest
    version, with fewer taken down, is not read again."""
    works = read_works(stage, inputs)
    if not suppression:
        return list(works)
    earlier = _lists_before(Versions(runner.store), dataset)
    todo: list[Work[Any]] = list(suppressed_works(runner.store, works, suppression, earlier))
    # What they take over must not go meanwhile.
    runner.announce(f"{stage.name} before", [key for work in todo for key in keys_before(work)])
    return todo


def alongside(store: Store, stage: ReadStage, dataset: str) -> Alongside | None:
    """How a stage reads what is new while it is scanned, without what is taken down by now: if more is until the scan
    ends, it is read again. What the dataset has already is told by its size. None where that cannot be known."""
    versions, suppression = Versions(store), guarded_list(store)
    try:
        latest = versions.latest(dataset)
        newest = [] if latest is None else ancestors(versions, versions.manifest(dataset, latest))
        sizes = frozenset(file.bytes for manifest in newest for file in manifest.inputs)
        earlier = _lists_before(versions, dataset)
    except ValueError as error:  # who needs the damaged manifest stops for it; a run that does not goes on as ever
        log.info("what %s has cannot be known: files are read after they are scanned (%s)", dataset, error)
        return None
    return Alongside(ReadAlong(stage, Listed.put(store, suppression, earlier) if suppression else None), sizes)


def _lists_before(versions: Versions, dataset: str) -> list[str]:
    """Digests of lists under which the dataset's newest version was read."""
    newest = [versions.manifest(dataset, number) for number in versions.numbers(dataset)[-1:]]
    return [digest for manifest in newest if (digest := manifest.recipe.get("suppression"))]
