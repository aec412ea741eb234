"""Who is shown a run's steps: services from the process of rank 0, and a live line where the run was started.

Both look at the same: rank 0 writes each step to the metrics file of the run's folder. So the line is the same whether
the trainer is this process, a worker of Ray, or a rank on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.lake.accounts.receipt import Receipt
from gristmill.model.train.metrics import Progress as Step
from gristmill.stages.report.live import LiveLine, MetricsTail, NewSteps, following
from gristmill.stages.report.reporter import Reporter
from gristmill.stages.report.sinks import About, sinks_of
from gristmill.stages.report.sinks import Report as Report
from gristmill.stages.run.progress import EVERY, Progress
from gristmill.stages.train.folder import RunFolder

if TYPE_CHECKING:
    from gristmill.model.train.stage import TrainStage
    from gristmill.stages.train.folder import RunAbout

READ_REMOTE = 15.0
"""Seconds between two looks at the metrics of a run whose folder is in an object store."""


@contextmanager
def reporting(report: Report, about: RunAbout, stage: TrainStage, metrics: Path) -> Iterator[Callable[[Step], None]]:
    """What to hand each step to, on rank 0. `metrics`: the file that has the steps before this process."""
    of_run = About(about.key, about.dataset, {"world": about.world, **dotted(stage.to_dict())})
    with Reporter(sinks_of(report, of_run), metrics) as show:
        yield show


class RunProgress(Progress):
    """In the runner's place of progress by pieces, of which a training has one: the steps of the run in a folder."""

    def __init__(
        self, folder: RunFolder, title: str, *, terminal: bool | None = None, every: float = EVERY, look: float = 0.0
    ) -> None:
        """`title`: of the run, for people; `look`: seconds between two looks at its metrics; 0: what suits its lake."""
        super().__init__(terminal=terminal, every=every)
        self._folder, self._title, self._look = folder, title, look

    @contextmanager
    def stage(self, title: str, *, total: int | None, done: int) -> Iterator[Callable[[Receipt], None]]:
        """The live line while the run works; a run that was done before is said to be so."""
        if done == total:
            with super().stage(title, total=total, done=done) as advance:
                yield advance
            return
        source, look = self._source()
        live = LiveLine(terminal=self.terminal, every=self.every)
        with live.run(self._title) as show, following(show, source, self._look or look):
            yield lambda receipt: None

    def _source(self) -> tuple[Callable[[], Sequence[Step]], float]:
        """What gives the new steps, and how often to ask it."""
        if self._folder.store.uri.startswith("s3://"):
            return NewSteps(lambda: [Step.of(line) for line in self._folder.metrics()]), READ_REMOTE
        return MetricsTail(self._folder.metrics_file), 1.0


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as one level: `{"optim.lr": 0.001}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat
