"""`grist kickoff --plan`: of every node whether it is done, and what the rest will take, without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.kickoff.config import KickoffRun
from gristmill.pipelines.kickoff.estimate import Estimate, Estimator, waited
from gristmill.pipelines.kickoff.graph import Graph
from gristmill.pipelines.kickoff.room import Room
from gristmill.pipelines.kickoff.run import standing


@dataclass(frozen=True)
class Planned:
    """A node: its `versions` if it is done; else whether all that it needs is (`ready`), and an estimate if there is
    one. `chosen`: whether this command would run it."""

    node: str
    pipeline: str
    needs: tuple[str, ...]
    chosen: bool
    versions: tuple[Manifest, ...]
    ready: bool
    estimate: Estimate | None
    cost: float | None

    @property
    def done(self) -> bool:
        """Whether it is."""
        return bool(self.versions)

    def to_json(self) -> dict[str, Any]:
        """Seconds, and the configured money."""
        estimate = self.estimate
        known = {} if estimate is None else {"seconds": round(estimate.seconds, 1), "work": round(estimate.work, 1)}
        return {
            "node": self.node,
            "pipeline": self.pipeline,
            "needs": list(self.needs),
            "chosen": self.chosen,
            "done": list(map(str, self.versions)) or None,
            "ready": self.ready,
            "estimate": None if estimate is None else {**known, "cost": self.cost, "from": list(estimate.basis)},
        }


@dataclass(frozen=True)
class Plan:
    """All nodes in order. `seconds` until those are done that are not, as far as they are known; `unknown`: of how many
    nothing is known; `cost`: None where a price or a node is not known."""

    nodes: tuple[Planned, ...]
    seconds: float
    unknown: int
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """The graph with what is done, and sums."""
        sums = {"seconds": round(self.seconds, 1), "unknown": self.unknown, "cost": self.cost}
        return {"plan": [planned.to_json() for planned in self.nodes], **sums}


def plan(graph: Graph, chosen: Sequence[str], store: Store, run: KickoffRun, room: Room) -> Plan:
    """Raises BadConfig where a version or an input cannot be used."""
    done = standing(graph, list(graph.nodes), store)
    estimator = Estimator(graph, store)
    planned: list[Planned] = []
    for name, node in graph.nodes.items():
        ready = all(need in done for need in node.needs)
        estimate = None
        if name not in done:
            estimate = estimator.of(node, node.config(done) if ready else None)
        cost = None if estimate is None else estimate.cost(run)
        versions = tuple(done.get(name, ()))
        planned.append(Planned(name, node.pipeline, node.needs, name in chosen, versions, ready, estimate, cost))
    todo = [each for each in planned if each.chosen and not each.done]
    return Plan(tuple(planned), _seconds(graph, todo, room), sum(e.estimate is None for e in todo), _sum(todo))


def _seconds(graph: Graph, todo: Sequence[Planned], room: Room) -> float:
    lasts: Mapping[str, float] = {each.node: 0.0 if each.estimate is None else each.estimate.seconds for each in todo}
    return waited(graph, lasts, room)


def _sum(todo: Sequence[Planned]) -> float | None:
    costs = [each.cost for each in todo]
    return None if None in costs else round(sum(cost or 0 for cost in costs), 4)
