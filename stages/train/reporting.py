"""Who is shown a run's steps: services from the process that carries it out, a live line where the run was started.

The line follows the metrics in the run's folder, so it is the same whether the trainer is this process, a worker of
Ray, or ranks on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.model.train.metrics import Progress as Step
from gristmill.stages.report.live import LiveLine
from gristmill.stages.report.reporter import Reporter
from gristmill.stages.report.sinks import About, sinks_of
from gristmill.stages.report.sinks import Report as Report
from gristmill.stages.run.progress import EVERY, Advance, Progress
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.follow import followed

if TYPE_CHECKING:
    from gristmill.model.train.stage import TrainStage
    from gristmill.stages.train.folder import RunAbout


@contextmanager
def reporting(report: Report, about: RunAbout, stage: TrainStage, metrics: Path) -> Iterator[Callable[[Step], None]]:
    """What to hand each step to. `metrics`: the file that has the steps before the first of these."""
    of_run = About(about.key, about.dataset, {"world": about.world, **dotted(stage.to_dict())})
    with Reporter(sinks_of(report, of_run), metrics) as show:
        yield show


class RunProgress(Progress):
    """In the runner's place of progress by pieces, of which a training has one: the steps of the run in a folder."""

    def __init__(self, folder: RunFolder, title: str, *, terminal: bool | None = None, every: float = EVERY) -> None:
        """`title`: of the run, for people."""
        super().__init__(terminal=terminal, every=every)
        self._folder, self._title = folder, title

    @contextmanager
    def stage(self, title: str, *, total: int | None, done: int) -> Iterator[Advance]:
        """The live line while the run works; a run that was done before is said to be so."""
        if done == total:
            with super().stage(title, total=total, done=done) as advance:
                yield advance
            return
        live = LiveLine(terminal=self.terminal, every=self.every)
        folder = self._folder
        with live.run(self._title) as show, followed(folder.store, folder.metrics_key, show):
            yield lambda receipt, before=False: None


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level: `{"optim.lr": 0.001}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat
