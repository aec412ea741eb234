"""Services that metrics are sent to, as much of their clients as is used: what a real one would double, fails here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


class Wandb(ModuleType):
    """As much of wandb as is used, with a server that takes no step twice."""

    def __init__(self, login: bool = True, mode: str = "online") -> None:
        super().__init__("wandb")
        self.runs: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
        self.asked: list[dict[str, Any]] = []
        self.ended: list[int] = []
        self.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode))
        self.login = lambda prompt: login and not prompt
        self.Settings = SimpleNamespace

    def init(self, **how: Any) -> SimpleNamespace:
        """Begins or resumes a run."""
        self.asked.append(how)
        history = self.runs[how["id"]]
        run = SimpleNamespace(resumed=bool(history), step=max(history, default=-1) + 1)

        def log(values: dict[str, float], step: int, commit: bool) -> None:
            assert commit and step >= run.step, "a step that wandb drops"
            history[step], run.step = values, step + 1

        run.log, run.finish = log, lambda exit_code: self.ended.append(exit_code)
        return run


class MLflowServer:
    """As much of a tracking server and its client as is used: points add up, none replaces another."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] | None = None
        self.experiment: str | None = None
        self.status = ""
        self.requests: list[int] = []

    def modules(self) -> dict[str, ModuleType]:
        """mlflow and mlflow.entities."""
        mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
        mlflow.MlflowClient = self.client  # type: ignore[attr-defined]
        entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
        entities.Metric = lambda key, value, at, step: (key, step, value)  # type: ignore[attr-defined]
        return {"mlflow": mlflow, "mlflow.entities": entities}

    def client(self, tracking_uri: str) -> MLflowServer:
        """It is its own client."""
        assert tracking_uri == "http://tracking"
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        """None before it was created."""
        return SimpleNamespace(experiment_id="7") if self.experiment == name else None

    def create_experiment(self, name: str) -> str:
        """-> Its id."""
        assert self.experiment is None
        self.experiment = name
        return "7"

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[SimpleNamespace]:
        """The run, if the tag that is asked for is its own."""
        assert experiments == ["7"]
        if self.tags is None or filter_string != f"tags.`gristmill.run` = '{self.tags['gristmill.run']}'":
            return []
        latest = max((step for name, step, _ in self.points if name == "step"), default=None)
        metrics = {} if latest is None else {"step": float(latest)}
        return [SimpleNamespace(info=SimpleNamespace(run_id="r"), data=SimpleNamespace(metrics=metrics))]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        """The only run."""
        assert self.tags is None and experiment == "7" and run_name == "nano.pretrain-abababab"
        self.tags, self.status = tags, "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def update_run(self, run_id: str, status: str) -> None:
        """It runs again."""
        assert run_id == "r"
        self.status = status

    def log_batch(
        self, run_id: str, metrics: Sequence[tuple[str, int, float]] = (), params: Sequence[tuple[str, str]] = ()
    ) -> None:
        """At most a thousand values."""
        assert run_id == "r" and len(metrics) <= 1000 and len(params) <= 100 and self.status == "RUNNING"
        self.points += metrics
        self.params.update(params)
        self.requests.append(len(metrics))

    def set_terminated(self, run_id: str, status: str) -> None:
        """The end."""
        self.status = status


class EventWriter:
    """As much of torch's SummaryWriter as is used."""

    opened: list[tuple[str, int]] = []
    points: list[tuple[str, int]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.opened.append((Path(folder).name, purge_step))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A point."""
        self.points.append((name, step))

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
