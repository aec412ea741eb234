"""How and where a training runs: the `run` section of its config, none of which decides what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gristmill.model.train.settings import Settings
from gristmill.pipelines.settings.config import Run
from gristmill.stages.train.job import Execution
from gristmill.stages.train.reporting import Report


class TrainRun(Run):
    """As docs/training.md has its keys."""

    workers: int = Field(default=0, ge=0)
    trainer: Literal["in_process", "ray"] = "in_process"
    ranks: int = Field(default=1, ge=1)
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)
    windows_per_pass: int = Field(default=1, ge=1)
    checkpoint_every: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1)
    ahead: int = Field(default=0, ge=0)
    shard: bool = False
    recompute: bool | float = False
    compile: bool = False
    device: str = "auto"
    report: Report = Report()

    @model_validator(mode="after")
    def _can_be(self) -> TrainRun:
        _ = self.execution  # refuses what cannot be
        return self

    @property
    def execution(self) -> Execution:
        """How a stage is carried out."""
        settings = Settings(
            windows_per_pass=self.windows_per_pass,
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            ahead=self.ahead,
            shard=self.shard,
            recompute=self.recompute,
            compile=self.compile,
        )
        return Execution(
            trainer=self.trainer,
            ranks=self.ranks,
            cpus=self.cpus,
            gpus=self.gpus,
            device=self.device,
            settings=settings,
            report=self.report,
            shared_filesystem=self.shared_filesystem,
        )
