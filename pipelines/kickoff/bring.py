"""A node brought to its versions: ask the lake, run what is not there, ask the gates.

The lake alone knows what is done, so nothing is noted here, and a node that was killed is simply not there yet. Who
runs it (this process, one of its own, a job on a cluster) is handed in; all else is the same for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import Patience
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.ask import all_committed
from gristmill.pipelines.command import Ended
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.kickoff.graph import Node
from gristmill.pipelines.kickoff.held import hold_back
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import BAD_CONFIG, DONE, GATE, INCOMPLETE

Done = Mapping[str, Sequence[Manifest]]
"""Node -> the versions that it came to."""
CarryOut = Callable[[Node, PipelineConfig], Ended]
"""Runs a node whose versions are exact."""
Bring = Callable[[Node, Done], "End"]
"""Brings a node to its end; the versions are those of what it needs."""
State = Literal["there", "made", "gated", "failed", "held", "stopped"]


@dataclass(frozen=True)
class End:
    """What became of a node. `there`: done before; `made`: by this kickoff; `gated`: made, and a gate holds back what
    comes after it; `failed`; `held`, by another node; `stopped` before it was done. `why`: of the last four."""

    node: str
    state: State
    versions: tuple[Manifest, ...] = ()
    why: str = ""
    code: int = DONE
    seconds: float = 0

    @property
    def passes(self) -> bool:
        """Whether what needs it may start."""
        return self.state in ("there", "made")


def bring(node: Node, done: Done, store: Store, carry_out: CarryOut, patience: Patience) -> End:
    """The end of a node. `done`: of all that it needs. Raises KeyboardInterrupt, and defects."""
    started = time.monotonic()

    def end(state: State, versions: Sequence[Manifest] = (), why: str = "", code: int = DONE) -> End:
        return End(node.name, state, tuple(versions), why, code, time.monotonic() - started)

    try:
        config = node.config(done)
        versions = patience.wait(lambda: all_committed(config, store))
        state: State = "there"
        if versions is None:
            ended = carry_out(node, config)
            if ended.code != DONE:
                return end("failed", why=ended.error, code=ended.code)
            state = "made" if ended.new else "there"  # it could not be told without reading its inputs
            # By what the run says: the lake alone cannot tell of files that are as new as this, or changed since.
            versions = patience.wait(lambda: [exact(Versions(store), ref, "its result") for ref in ended.versions])
        why = patience.wait(lambda: hold_back(store, versions, node.given.gates, node.given.accept))
    except BadConfig as error:
        return end("failed", why=str(error), code=BAD_CONFIG)
    except OSError as error:  # the store (Unreachable) or an input that went away
        return end("failed", why=f"{error}; what is done is kept: run the same command again", code=INCOMPLETE)
    if not versions:
        return end("failed", why="it did not say what it made: run the same command again", code=INCOMPLETE)
    return end("gated", versions, why, GATE) if why else end(state, versions)
