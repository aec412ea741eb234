"""What a kickoff's file says: nodes, each a pipeline's own file with keys laid over it, and how many run side by side.

A node names what another one makes as `node:NAME`, wherever a recipe wants an exact version; `${data}` in a value is a
path of `paths`. Nothing here is part of any identity: a node's recipe is, once every version in it is an exact one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gristmill.pipelines.gates.held import Gates
from gristmill.pipelines.kickoff.refs import NAME
from gristmill.pipelines.settings.config import Root, load, override, validate
from gristmill.pipelines.settings.shipped import find_config


class NodeConfig(Root):
    """A node. `config`: a file of a pipeline, or the name of one that comes along; `recipe`, `run`: keys laid over it.

    `stage`: of a recipe of training stages only this one, by its name, with keys laid over it. `needs`: nodes that have
    to be done before, beside those that it names. `gates`: when what it makes is held; None: never. `accept`: versions
    of it that may go on though a gate holds them.
    """

    config: str
    stage: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    run: dict[str, Any] = {}
    needs: tuple[str, ...] = ()
    gates: Gates | None = Gates()
    accept: tuple[str, ...] = ()


class KickoffRun(Root):
    """How and where. `nodes`: side by side, each a process of its own; 0: one after the other, in this process.
    `cpus`: that they have together, as far as there are several; None: those of this machine; `gpus`. `each`: run
    settings of every node that does not say otherwise. Prices are of an hour."""

    lake: str = ""
    nodes: int = Field(default=2, ge=0)
    cpus: float | None = Field(default=None, gt=0)
    gpus: float = Field(default=0, ge=0)
    each: dict[str, Any] = {}
    patience_seconds: float = Field(default=600, ge=0)
    cost_per_cpu_hour: float | None = Field(default=None, ge=0)
    cost_per_gpu_hour: float | None = Field(default=None, ge=0)

    @property
    def cores(self) -> float:
        """CPUs that nodes have together."""
        return len(os.sched_getaffinity(0)) if self.cpus is None else self.cpus


class ReportConfig(Root):
    """A page on what these nodes made, written at the end of each kickoff, as far as they are done."""

    nodes: tuple[str, ...]
    file: str = "report.html"


class KickoffConfig(Root):
    """`conf/everything.yaml`. `paths`: name -> folder or address, for `${name}` in values of nodes."""

    kickoff: str
    paths: dict[str, str] = {}
    nodes: dict[str, NodeConfig]
    report: ReportConfig | None = None
    run: KickoffRun = KickoffRun()

    @field_validator("nodes")
    @classmethod
    def _named(cls, nodes: dict[str, NodeConfig]) -> dict[str, NodeConfig]:
        if not nodes:
            raise ValueError("nodes: none; give at least one")
        if wrong := next((name for name in nodes if not NAME.fullmatch(name)), None):
            raise ValueError(f"nodes.{wrong!r}: a name has lower-case letters, digits, '_' and '-', up to 60")
        return nodes


def load_kickoff(path: Path, settings: Iterable[str] = ()) -> KickoffConfig:
    """The file, or what comes along by this name, with settings laid over it. Raises BadConfig."""
    return validate(KickoffConfig, override(load(find_config(path)), settings))
