"""Reading what may be read: the first stage of a pipeline over crawls, without what was taken down.

The stage is wrapped (stages/suppress.py) where this lake has a suppression list. What was read before, for the newest
version of the dataset or with nothing taken down, is taken over, and gc is told so.
"""

from __future__ import annotations

from collections.abc import Iterable

from lake.receipt import Receipt
from lake.suppress import Suppression
from lake.versions import Versions
from stages.runner import Runner
from stages.suppress import keys_before, suppressed_works
from stages.work import Work


def read_allowed(
    runner: Runner, title: str, works: Iterable[Work], suppression: Suppression, dataset: str
) -> list[Receipt]:
    """Runs the works of a stage that reads, without what was taken down. What was read for the dataset's newest
    version, with fewer taken down, is not read again."""
    versions = Versions(runner.store)
    numbers = versions.numbers(dataset)[-1:] if suppression else []
    earlier = [digest for n in numbers if (digest := versions.manifest(dataset, n).recipe.get("suppression"))]
    todo = list(suppressed_works(runner.store, suppression, works, earlier))
    if suppression:  # what they take over must not go meanwhile
        runner.announce(f"{title} before", [key for work in todo for key in keys_before(work)])
    return runner.map(title, todo)
