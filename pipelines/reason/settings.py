"""How and where the reasoning pipeline runs: nothing of it decides which samples are asked for."""

from __future__ import annotations

from gristmill.pipelines.settings.config import Run
from gristmill.stages.generate.draw import Hosts


class ReasoningRun(Run):
    """`hosts`: where engines run, and how a server is asked; `judge`: the same of a model that judges, None: there."""

    hosts: Hosts = Hosts()
    judge: Hosts | None = None
