"""A kickoff as asked for, looked up and checked: whatever can be refused is refused here, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import Patience
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.command import open_lake
from gristmill.pipelines.kickoff.bring import Bring, CarryOut, Done, End, bring
from gristmill.pipelines.kickoff.check import check
from gristmill.pipelines.kickoff.config import KickoffConfig, load_kickoff
from gristmill.pipelines.kickoff.graph import Graph, Node
from gristmill.pipelines.kickoff.plan import Plan, plan
from gristmill.pipelines.kickoff.room import Room
from gristmill.pipelines.kickoff.run import given
from gristmill.pipelines.settings.config import lake_uri


@dataclass(frozen=True)
class Asked:
    """A kickoff as a command or a flow asks for it. `only`, `since`: names of nodes (`Graph.selected`)."""

    config: Path
    settings: tuple[str, ...] = ()
    lake: str | None = None
    only: tuple[str, ...] = ()
    since: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """`chosen`: the nodes to bring, in order; `done`: the versions of what they need and is not among them."""

    config: KickoffConfig
    graph: Graph
    chosen: list[str]
    store: Store
    patience: Patience
    done: dict[str, list[Manifest]]

    @property
    def room(self) -> Room:
        """Of this machine."""
        return Room(self.config.run.nodes, self.config.run.cores, self.config.run.gpus)

    def plan(self, room: Room | None = None) -> Plan:
        """What is done, and what the rest will take: here, or where there is so much `room`."""
        return plan(self.graph, self.chosen, self.store, self.config.run, room or self.room)

    def bringing(self, carry_out: CarryOut) -> Bring:
        """How a node is brought to its end, by who carries it out."""

        def of_this(node: Node, done: Done) -> End:
            return bring(node, done, self.store, carry_out, self.patience)

        return of_this


def prepare(asked: Asked, in_job: bool = False, for_plan: bool = False) -> Prepared:
    """`in_job`: addresses have to be absolute, as nodes run elsewhere; `for_plan`: nothing has to be done yet. Raises
    BadConfig, and the error of an outage."""
    config = load_kickoff(asked.config, asked.settings)
    uri = lake_uri(asked.lake, config.run.lake, in_job=in_job)
    graph = Graph.of(config, uri)
    chosen = graph.selected(asked.only, asked.since)
    patience = Patience(f"store {uri}", config.run.patience_seconds)
    store = patience.wait(lambda: open_lake(uri, to_read=for_plan))
    patience.wait(lambda: check(graph, chosen, Versions(store), in_job))
    done = {} if for_plan else patience.wait(lambda: given(graph, chosen, store))
    return Prepared(config, graph, chosen, store, patience, done)


def counted(ends: Sequence[End]) -> dict[str, int]:
    """How many nodes came to each end."""
    return {state: sum(end.state == state for end in ends) for state in dict.fromkeys(end.state for end in ends)}
