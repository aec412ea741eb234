"""A kickoff under way: each node starts when all that it needs is done and there is room, and its end comes by a queue.
Of several that could start, the one that the longest chain of others waits for does.

A node that fails holds back what needs it, and nothing else. Who starts a node's work decides where it runs (inline, a
thread that waits for a process, a task of a flow); here is only the order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.ask import all_committed
from gristmill.pipelines.kickoff.bring import Bring, Done, End
from gristmill.pipelines.kickoff.graph import Graph, Node
from gristmill.pipelines.kickoff.held import held_back
from gristmill.pipelines.kickoff.room import Room, Share, share_of
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import DEFECT, DONE, INCOMPLETE
from gristmill.stages.run.cluster import interrupts

log = logging.getLogger("gristmill")

Start = Callable[[Node, Callable[[], End]], None]
"""Calls its second argument, once, wherever that is to happen; it never raises."""


class Watch(Protocol):
    """Who is told how it goes, in the thread that `run_graph` was called in."""

    def started(self, node: str) -> None:
        """A node starts."""

    def ended(self, end: End) -> None:
        """A node ended, or will not start."""


def standing(graph: Graph, names: Sequence[str], store: Store) -> tuple[dict[str, list[Manifest]], dict[str, str]]:
    """(the versions of those of these nodes that are done, with all that comes before them; why gates hold others of
    them back). The nodes are in order."""
    done: dict[str, list[Manifest]] = {}
    gated: dict[str, str] = {}
    wanted = set(names).union(*(graph.before(name) for name in names))
    for name, node in graph.nodes.items():
        if name in wanted and all(need in done for need in node.needs):
            versions = all_committed(node.config(done), store)
            if versions is None:
                continue
            if why := held_back(store, versions, node.given.gates, node.given.accept):
                gated[name] = why
            else:
                done[name] = versions
    return done, gated


def given(graph: Graph, chosen: Sequence[str], store: Store) -> dict[str, list[Manifest]]:
    """The versions of what the chosen nodes need and is not among them. Raises BadConfig where it is not done."""
    before = set[str]().union(*(graph.before(name) for name in chosen)) - set(chosen)
    outside = [name for name in graph.nodes if name in before]
    done, _ = standing(graph, outside, store)
    if missing := [name for name in outside if name not in done]:
        needs = next(node for node in chosen if missing[-1] in graph.before(node))
        raise BadConfig(
            f"{needs} needs {missing[-1]}, which is not done, or held by a gate: run that first, or leave out --only"
            " and --from"
        )
    return done


def run_graph(
    graph: Graph, chosen: Sequence[str], done: Done, bring: Bring, start: Start, room: Room, watch: Watch
) -> list[End]:
    """The end of each chosen node, in order. `done`: of what they need and is not among them. An interrupt ends the
    wait for nodes under way; who started them has to stop them."""
    ends: dict[str, End] = {}
    versions: dict[str, Sequence[Manifest]] = dict(done)
    running: dict[str, Share] = {}
    finished: SimpleQueue[End] = SimpleQueue()

    def work_of(node: Node) -> Callable[[], End]:
        needed = {need: versions[need] for need in node.needs}

        def work() -> End:
            end = _whatever(lambda: bring(node, needed), node)
            finished.put(end)
            return end

        return work

    by_urgency, interrupted = graph.by_urgency(chosen), interrupts()
    while True:
        for name in by_urgency:
            if name in ends or name in running:
                continue
            node = graph.nodes[name]
            if (end := _held(node, ends)) is not None:
                ends[name] = end
                watch.ended(end)
            elif all(need in versions for need in node.needs) and room.has(share_of(node.outline), running.values()):
                running[name] = share_of(node.outline)
                watch.started(name)
                start(node, work_of(node))
        if not running:
            return [ends[name] for name in chosen]
        try:
            end = _next_of(finished, interrupted)
        except KeyboardInterrupt:
            return [ends.get(name) or End(name, "stopped", why="interrupted", code=INCOMPLETE) for name in chosen]
        del running[end.node]
        ends[end.node] = end
        if end.passes:
            versions[end.node] = end.versions
        watch.ended(end)


def _next_of(finished: SimpleQueue[End], interrupted: int) -> End:
    """The next end. Raises KeyboardInterrupt, also where one came that Python raised in a finalizer or a callback of
    the garbage collector, from where no exception gets out: then `interrupts()` is more than `interrupted`."""
    while True:
        try:
            return finished.get(timeout=1)
        except Empty:
            if interrupts() > interrupted:
                raise KeyboardInterrupt from None


def _held(node: Node, ends: Mapping[str, End]) -> End | None:
    """The end of a node that cannot start, because of one before it."""
    for need in node.needs:
        if need in ends and not ends[need].passes:
            before = ends[need]
            return End(node.name, "held", why=before.why if before.state == "held" else need, code=before.code)
    return None


def _whatever(bring: Callable[[], End], node: Node) -> End:
    """The end of a node, also where it is no end that anybody foresaw: other branches go on."""
    try:
        return bring()
    except Exception as error:
        log.exception("node %s", node.name)
        return End(node.name, "failed", why=f"{type(error).__name__}: {error}", code=DEFECT)


def code_of(ends: Sequence[End]) -> int:
    """The exit code of a kickoff: 0, or of several the lowest, about which another run of the same command does the
    least."""
    return min((end.code for end in ends if end.code != DONE), default=DONE)
