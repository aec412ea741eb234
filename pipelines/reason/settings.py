"""How and where the reasoning pipeline runs: none of it can change which samples are drawn, but for an engine's bits."""

from __future__ import annotations

from gristmill.pipelines.settings.config import Run
from gristmill.stages.generate.draw import Hosts


class ReasoningRun(Run):
    """`hosts`: where engines run, and how a server is asked."""

    hosts: Hosts = Hosts()
