"""Workers on Ray: plain work is a task, the work of a WarmStage a call to an actor that was set up for its stage.

Retries, restarts and resources are Ray's. Kept here is only how many are held: tasks and actors together are never
more than `workers`, an actor has as much work at a time as its stage shares a set-up among (`Hosting`), and an actor
whose stage has nothing waiting makes room for others. Work goes to actors that are set up, so one that cannot be placed
holds up nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import is_outage
from gristmill.stages.core.work import Hosting, Resources, WarmStage, Work, execute, execute_warm
from gristmill.stages.run.cluster import check_fits, check_reachable, connect, fits_beside
from gristmill.stages.run.workers import DEFECTS, InProcess, Piece, Result, SetUpFailed, Workers, close_warm, set_up

log = logging.getLogger("gristmill")

RETRIES = 3
"""How often Ray does work again whose process died."""


class Worker:
    """What runs in an actor: one stage, set up once in the life of its process."""

    def __init__(self, uri: str, stage: WarmStage[Any, Any]) -> None:
        self.store, self.stage = open_store(uri, probe=False), stage
        self.warm: list[Any] = []  # empty until it is set up: None is a result too
        self._lock = threading.Lock()  # several pieces may come to a restarted process at a time

    def set_up(self) -> None:
        """Once: Ray calls it again in the process that replaces a dead one, or `run` does."""
        with self._lock:
            if not self.warm:
                self.warm.append(set_up(self.store, self.stage))

    def run(self, work: Work[Any]) -> Receipt:
        """Does one piece of work of the stage, and sets it up first in a process that Ray has restarted."""
        self.set_up()
        return execute_warm(self.store, work, self.warm[0])

    def close(self) -> None:
        """Closes what was set up, if anything was."""
        while self.warm:
            close_warm(self.warm.pop())


def _execute(uri: str, work: Work[Any]) -> Receipt:
    return execute(open_store(uri, probe=False), work)


@dataclass(eq=False)
class _Line:
    """What waits of one stage. `needs`: of one task or actor; `most`: of these that may be held at a time; `works` that
    an actor does side by side."""

    stage: Any
    needs: Resources
    most: int
    works: int = 1
    waiting: deque[Piece] = field(default_factory=deque)


@dataclass(eq=False)
class _Actor:
    """`busy`: the ref of its set-up (until it is `ready`), or of the pieces that it works on; empty while it waits."""

    handle: Any
    line: _Line
    busy: set[Any]
    ready: bool = False

    @property
    def idle(self) -> bool:
        return self.ready and not self.busy

    @property
    def has_room(self) -> bool:
        return self.ready and len(self.busy) < self.line.works


class OnRay:
    """Tasks and warm actors, `workers` of them at a time."""

    def __init__(self, store: Store, workers: int, shared_filesystem: bool) -> None:
        connect(workers)
        check_reachable(store, shared_filesystem)
        import ray

        self.store, self.workers, self.ray = store, workers, ray
        self._lines: list[_Line] = []  # by stage, so that what waits for an actor holds up nothing else
        self._tasks: dict[Any, Piece] = {}  # under way, by ref
        self._pieces: dict[Any, Piece] = {}  # the same in actors
        self._actors: list[_Actor] = []
        self._outage: Exception | None = None

    def add(self, piece: Piece) -> None:
        """Queues a piece. Raises TooSmall for a stage of which no node can hold one."""
        self._line(piece[1].stage).waiting.append(piece)

    def _line(self, stage: Any) -> _Line:
        """By equality: the config of a stage need not be hashable."""
        for line in self._lines:
            if line.stage == stage:
                return line
        needs, hosting = stage.resources, stage.hosting if isinstance(stage, WarmStage) else Hosting()
        most = check_fits(stage.name, needs)
        most = most if hosting.workers is None else min(most, hosting.workers)
        self._lines.append(_Line(stage, needs, most, hosting.works))
        return self._lines[-1]

    def next(self) -> Result:
        """The next result, after starting what there is room for.

        Raises a defect or SetUpFailed at once, the error of an outage when what was under way is done.
        """
        while True:
            if self._outage is None:
                self._begin()
            under_way = [*self._tasks, *self._pieces]
            if not under_way and self._outage is not None:
                raise self._outage
            starting = [ref for actor in self._actors if not actor.ready for ref in actor.busy]
            (done,), _ = self.ray.wait([*under_way, *starting], num_returns=1)
            result = self._settled(done)
            if result is not None:
                return result

    def _begin(self) -> None:
        """Starts what there is room for: of each stage that has something waiting, in turn."""
        self._give_back()
        for line in self._lines:
            begin = self._begin_warm if isinstance(line.stage, WarmStage) else self._begin_task
            while line.waiting and begin(line):
                pass

    def _give_back(self) -> None:
        """Ends actors with nothing to do that may keep other work from ever being placed: Ray does not take from them
        what they hold. The others stay, since to set them up is dear."""
        idle = [actor for actor in self._actors if actor.idle and not actor.line.waiting]
        tasks = [self._line(work.stage) for _, work in self._tasks.values()] if idle else []
        for line in self._lines:
            if line.waiting or line in tasks:
                while idle and not fits_beside(line.needs, [actor.line.needs for actor in idle]):
                    self._retire(idle.pop(0))

    def _begin_task(self, line: _Line) -> bool:
        if not self._make_room():
            return False
        number, work = line.waiting.popleft()
        options = {**_options(line.needs), "max_retries": RETRIES, "name": line.stage.name}
        task = self.ray.remote(**options)(_execute).remote(self.store.uri, work)
        self._tasks[task] = number, work
        return True

    def _begin_warm(self, line: _Line) -> bool:
        """Gives a piece to an actor that waits for one, or starts another actor for what waits."""
        actors = [actor for actor in self._actors if actor.line is line]
        free = [actor for actor in actors if actor.has_room]
        if free:
            actor = min(free, key=lambda actor: len(actor.busy))
            piece = line.waiting.popleft()
            ref = actor.handle.run.remote(piece[1])
            actor.busy.add(ref)
            self._pieces[ref] = piece
            return True
        # An actor that starts will take some of those that wait; more actors than that would be set up for nothing.
        starting = sum(not actor.ready for actor in actors)
        if starting * line.works >= len(line.waiting) or len(actors) >= line.most or not self._make_room():
            return False
        options = {**_options(line.needs), "max_restarts": -1, "max_task_retries": RETRIES}
        if line.works > 1:
            options["max_concurrency"] = line.works
        handle = self.ray.remote(**options)(Worker).remote(self.store.uri, line.stage)
        self._actors.append(_Actor(handle, line, {handle.set_up.remote()}))
        return True

    def _make_room(self) -> bool:
        """Whether one more task or actor may be held, if need be in the place of an actor with nothing to do."""
        if len(self._tasks) + len(self._actors) < self.workers:
            return True
        for actor in self._actors:
            if not actor.line.waiting and (actor.idle or not actor.ready):
                self._retire(actor)
                return True
        return False

    def _retire(self, actor: _Actor) -> None:
        """Ends an actor: if nothing is under way in it, after it closed what it set up."""
        self._actors.remove(actor)
        if actor.idle:
            try:
                self.ray.get(actor.handle.close.remote())
            except self.ray.exceptions.RayError as error:  # all of its work is done and proved
                log.warning("%s: a worker was not closed: %s", actor.line.stage.name, error)
        self.ray.kill(actor.handle)

    def _settled(self, ref: Any) -> Result | None:
        """What a ref came to; None for an actor that is set up now, or an outage that began."""
        piece = self._tasks.pop(ref, None) or self._pieces.pop(ref, None)  # neither: the ref of an actor's set-up
        actor = next((actor for actor in self._actors if ref in actor.busy), None)
        if actor is not None:
            actor.busy.discard(ref)
            actor.ready = True
        try:
            value = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            return self._failed(piece, error)
        except self.ray.exceptions.RayError as error:  # a node is gone, or a process died every time
            if actor is not None:  # what is left of it is of no use
                self._actors.remove(actor)
                self.ray.kill(actor.handle)
            if piece is None:
                assert actor is not None
                raise SetUpFailed(actor.line.stage.name, "the cluster", error) from error
            return piece[0], error
        return None if piece is None else (piece[0], value)

    def _failed(self, piece: Piece | None, error: Any) -> Result | None:
        """An error that a stage raised: raised if it is a defect or a set-up's, None if an outage begins with it."""
        cause = error.cause if isinstance(error.cause, Exception) else error
        if isinstance(cause, (*DEFECTS, SetUpFailed)):
            raise cause from error
        if is_outage(cause):
            self._outage = self._outage or cause  # nothing more is begun, and those under way come to their end
            return None
        if piece is None:
            raise cause from error
        return piece[0], cause

    def close(self) -> None:
        """Closes what was set up, in actors that have nothing under way; ends the others and what they do."""
        ends = [partial(self.ray.cancel, task) for task in self._tasks]
        ends += [partial(self._retire, actor) for actor in self._actors]
        for end in ends:
            try:
                end()
            except self.ray.exceptions.RayError as error:  # of a cluster that is gone; why is in the error that ends it
                log.warning("a worker was not ended: %s", error)


def _options(resources: Resources) -> dict[str, Any]:
    return {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "scheduling_strategy": "SPREAD"}


@contextmanager
def working(store: Store, workers: int, shared_filesystem: bool) -> Iterator[Workers]:
    """Workers for as long as they are needed: 0 for this process."""
    held = InProcess(store) if workers == 0 else OnRay(store, workers, shared_filesystem)
    try:
        yield held
    finally:
        held.close()
