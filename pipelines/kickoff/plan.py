"""`grist kickoff --plan`: of every node whether it is done, and what the rest will take, without running anything."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
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
    one. `chosen`: whether this command asks for it; `held`: why it would not run all the same, as a gate holds back
    what it made, or it needs a node that is held or left out."""

    node: str
    pipeline: str
    needs: tuple[str, ...]
    chosen: bool
    versions: tuple[Manifest, ...]
    ready: bool
    held: str
    estimate: Estimate | None
    cost: float | None

    @property
    def done(self) -> bool:
        """Whether it is."""
        return bool(self.versions)

    @property
    def to_run(self) -> bool:
        """Whether this command would run it."""
        return self.chosen and not self.done and not self.held

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
            "held": self.held or None,
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
    done, gated = standing(graph, list(graph.nodes), store)
    held = _held(graph, chosen, done, gated)
    estimator = Estimator(graph, store)
    planned: list[Planned] = []
    for name, node in graph.nodes.items():
        ready = all(need in done for need in node.needs)
        estimate = None
        if name not in done and name not in held:
            estimate = estimator.of(node, node.config(done) if ready else None)
        cost = None if estimate is None else estimate.cost(run)
        about = (tuple(done.get(name, ())), ready, held.get(name, ""), estimate, cost)
        planned.append(Planned(name, node.pipeline, node.needs, name in chosen, *about))
    todo = [each for each in planned if each.to_run]
    return Plan(tuple(planned), _seconds(graph, todo, room), sum(e.estimate is None for e in todo), _sum(todo))


def _held(graph: Graph, chosen: Sequence[str], done: Container[str], gated: Mapping[str, str]) -> dict[str, str]:
    """Node -> why it would not run, of those that are gated and of chosen ones that cannot start."""
    held = dict(gated)
    for name in chosen:
        if name not in done and name not in held:
            for need in graph.nodes[name].needs:
                if need in held or (need not in done and need not in chosen):
                    held.setdefault(name, f"by {need}")
    return held


def _seconds(graph: Graph, todo: Sequence[Planned], room: Room) -> float:
    lasts: Mapping[str, float] = {each.node: 0.0 if each.estimate is None else each.estimate.seconds for each in todo}
    return waited(graph, lasts, room)


def _sum(todo: Sequence[Planned]) -> float | None:
    costs = [each.cost for each in todo]
    return None if None in costs else round(sum(cost or 0 for cost in costs), 4)
