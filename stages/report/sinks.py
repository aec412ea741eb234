"""Where metrics go beside the run's own file: TensorBoard event files, Weights & Biases, MLflow.

Each needs a package that comes as an extra, and is imported only where it is asked for. A sink is opened with the first
step that this process did, and says up to which step it holds points: a run that goes on from a checkpoint repeats
steps, and no point of them is doubled. Calls may be slow or fail: `stages.report.reporter` calls sinks from a thread of
their own, and lives without them.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gristmill.model.train.metrics import Progress

WRITTEN_AGAIN = 1_000
"""Steps before a resume that TensorBoard is given once more: a killed process may not have written its last ones."""
BATCH = 100
"""Steps in one request to MLflow, which takes a thousand values at most."""
RUN_TAG = "gristmill.run"
"""The tag of an MLflow run that holds the work key, by which it is found again from any host."""

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""The module that a field of Report needs, which the extra of the field's name installs."""


@dataclass(frozen=True)
class Report:
    """Which services are told. `tensorboard`: a folder for event files; `wandb`: a project; `mlflow`: the address of a
    tracking server, or a database as in sqlite:////data/mlflow.db. None: not told."""

    tensorboard: str | None = None
    wandb: str | None = None
    mlflow: str | None = None

    def check(self) -> None:
        """Raises ValueError for a service whose package is not installed here, naming the extra that brings it."""
        for name, package in PACKAGES.items():
            if getattr(self, name) is not None and importlib.util.find_spec(package) is None:
                raise ValueError(
                    f"run.report.{name}={getattr(self, name)!r}: the package {package} is not installed here."
                    f" Install the extra, pip install 'gristmill[{name}]', or leave the key out"
                )


@dataclass(frozen=True)
class About:
    """Which run it is. `key`: its work key; `name`: as people know it, `nano.pretrain`; `settings`: what it was asked
    to do, plain values by name."""

    key: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name with so much of the key that no two runs are mixed up."""
        return f"{self.name}-{self.key[:8]}"


class Sink(Protocol):
    """A service. Its methods are called one after the other, from one thread; whatever they raise switches it off."""

    name: str

    def open(self, first: Progress) -> int:
        """Begins, or goes on. `first`: the first step of this process. -> The last step that it holds points of."""

    def write(self, steps: Sequence[Progress]) -> None:
        """Takes points, of rising steps."""

    def close(self, done: bool) -> None:
        """Ends. `done`: the run came to its end, and was not broken off."""


def sinks_of(report: Report, about: About) -> list[Sink]:
    """The services of a report, none of them opened."""
    sinks: list[Sink] = []
    if report.tensorboard is not None:
        sinks.append(TensorBoard(Path(report.tensorboard), about))
    if report.wandb is not None:
        sinks.append(WeightsAndBiases(report.wandb, about))
    if report.mlflow is not None:
        sinks.append(MLflow(report.mlflow, about))
    return sinks


def values_of(progress: Progress) -> dict[str, float]:
    """What is drawn of a step, by name; what is not known, and what is no finite number, is left out."""
    values: dict[str, float | None] = {
        "train/loss": progress.loss,
        "train/lr": progress.lr,
        "train/gradient_norm": progress.norm,
        "train/targets": progress.targets,
        "train/skipped": float(progress.skipped),
        "speed/tokens_per_second": progress.tokens_per_second,
        "speed/mfu": progress.mfu,
        **{f"train/{name}": value for name, value in progress.measures.items()},
    }
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


class TensorBoard:
    """Event files in a folder of the run's own. Points of steps that a run repeats are hidden by the newer file."""

    name = "tensorboard"

    def __init__(self, folder: Path, about: About) -> None:
        self._folder = folder / about.title
        self._writer: Any = None

    def open(self, first: Progress) -> int:
        """-> A step WRITTEN_AGAIN before the first: from there on this file's points replace those of older ones."""
        from torch.utils.tensorboard import SummaryWriter

        held = max(0, first.step - 1 - WRITTEN_AGAIN)
        # Without a purge at the very beginning, an event file of a run that died before its first checkpoint stays.
        self._writer = SummaryWriter(str(self._folder), purge_step=held + 1)
        return held

    def write(self, steps: Sequence[Progress]) -> None:
        """One event a value; on the disk when it returns."""
        for progress in steps:
            for name, value in values_of(progress).items():
                self._writer.add_scalar(name, value, progress.step)
        self._writer.flush()

    def close(self, done: bool) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a project whose id is the work key, so that it is resumed wherever the training goes on.

    The service takes no step twice and none before its last: what it has stays, and is the same numbers at an equal
    number of ranks. Runs of several processes at once are no case: the lease of the dataset prevents them.
    """

    name = "wandb"

    def __init__(self, project: str, about: About) -> None:
        self._project, self._about = project, about
        self._run: Any = None

    def open(self, first: Progress) -> int:
        """Resumes the run, or begins it. Never asks for a login: a run without one fails here."""
        import wandb

        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise PermissionError("there is no API key; `wandb login` stores one, WANDB_MODE=offline needs none")
        self._run = wandb.init(
            project=self._project,
            id=self._about.key[:32],
            name=self._about.title,
            config=dict(self._about.settings),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        return int(self._run.step) - 1 if self._run.resumed else 0

    def write(self, steps: Sequence[Progress]) -> None:
        """One row of its history a step, which is sent without waiting for the next."""
        for progress in steps:
            self._run.log(values_of(progress), step=progress.step, commit=True)

    def close(self, done: bool) -> None:
        """Waits until everything was sent; a run that was broken off is marked as failed."""
        self._run.finish(exit_code=0 if done else 1)


class MLflow:
    """A run of the experiment `gristmill`, found again by a tag with the work key. The value `step` says how far it is:
    a point that was stored is not sent again."""

    name = "mlflow"

    def __init__(self, uri: str, about: About) -> None:
        self._uri, self._about = uri, about
        self._client: Any = None
        self._run_id = ""

    def open(self, first: Progress) -> int:
        """Finds the run, or makes it with the run's settings as parameters."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self._uri)
        experiment = self._experiment()
        query = f"tags.`{RUN_TAG}` = '{self._about.key}'"
        known = self._client.search_runs([experiment], filter_string=query, max_results=1)
        if known:
            self._run_id = known[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return int(known[0].data.metrics.get("step", 0))
        run = self._client.create_run(experiment, tags={RUN_TAG: self._about.key}, run_name=self._about.title)
        self._run_id = run.info.run_id
        params = [Param(name, str(value)[:500]) for name, value in self._about.settings.items()]
        self._client.log_batch(self._run_id, params=params[:BATCH])
        return 0

    def write(self, steps: Sequence[Progress]) -> None:
        """A request for every BATCH of steps."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        for group in _batches(steps):
            metrics = [
                Metric(name, value, at, progress.step)
                for progress in group
                for name, value in {**values_of(progress), "step": float(progress.step)}.items()
            ]
            self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, done: bool) -> None:
        """Marks the run as finished or failed."""
        self._client.set_terminated(self._run_id, "FINISHED" if done else "FAILED")

    def _experiment(self) -> str:
        """The id of the experiment, which is made if it is not there."""
        known = self._client.get_experiment_by_name("gristmill")
        return str(known.experiment_id if known is not None else self._client.create_experiment("gristmill"))


def _batches(steps: Sequence[Progress]) -> Iterator[Sequence[Progress]]:
    for start in range(0, len(steps), BATCH):
        yield steps[start : start + BATCH]
