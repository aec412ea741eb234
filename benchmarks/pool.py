"""Runs Works in worker processes of this machine and watches what memory all of them take together.

The workers are spawned and import what a worker of Ray's imports of ours, and no benchmark: what is measured is the
stages' own. The resident sets of this process and of the workers are summed 50 times a second; shared pages (code of
libraries) count once for each process, which makes the sum greater than what the machine gives.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks.harness import own_process
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.core.work import Work, execute
from gristmill.stages.near.union_find import kernels
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.workers import Piece, Result

EVERY = 0.02
START = "start"
_together: Any = None  # of a worker: a barrier of all of them


@dataclass
class Memory:
    """Bytes: the greatest sum by stage, and the greatest of one process by stage. Seconds (wall) by stage."""

    stage: str = START
    peaks: dict[str, int] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def watching(self, processes: Sequence[psutil.Process]) -> Iterator[None]:
        """Notes the memory of these processes as long as it is open."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(EVERY):
                stage = self.stage
                sizes = [process.memory_info().rss for process in processes]
                self.peaks[stage] = max(self.peaks.get(stage, 0), sum(sizes))
                self.largest[stage] = max(self.largest.get(stage, 0), *sizes)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            time.sleep(5 * EVERY)  # for START
            yield
        finally:
            stop.set()
            thread.join()


class PoolRunner(Runner):
    """A runner on worker processes that notes memory and time of each stage."""

    def __init__(self, store: Store, pool: ProcessPoolExecutor, workers: int, memory: Memory) -> None:
        super().__init__(store, workers=workers)
        self.pool, self.memory = pool, memory

    def over(self, store: Store) -> PoolRunner:
        """The same workers over another store; memory and time are noted in the same place."""
        return PoolRunner(store, self.pool, self.workers, self.memory)

    def map(self, title: str, works: Any) -> list[Receipt]:
        self.memory.stage, started = title, time.perf_counter()
        receipts = super().map(title, works)
        taken = time.perf_counter() - started
        self.memory.seconds[title] = self.memory.seconds.get(title, 0.0) + taken
        return receipts

    @contextmanager
    def open_workers(self) -> Iterator[PoolWorkers]:
        yield PoolWorkers(self.pool, self.store)


class PoolWorkers:
    """Hands pieces to the pool, which queues them."""

    def __init__(self, pool: ProcessPoolExecutor, store: Store) -> None:
        self.pool, self.store = pool, store
        self._numbers: dict[Future[Receipt], int] = {}

    def add(self, piece: Piece) -> None:
        """Queues a piece."""
        number, work = piece
        self._numbers[self.pool.submit(run_work, self.store.uri, work)] = number

    def next(self) -> Result:
        """The next result. Raises what the work raised."""
        ready = next(iter(wait(self._numbers, return_when=FIRST_COMPLETED).done))
        return self._numbers.pop(ready), ready.result()


@contextmanager
def pool_runner(store: Store, workers: int) -> Iterator[PoolRunner]:
    """A runner whose workers are up and have loaded the compiled loops."""
    context = own_process()
    barrier = context.Barrier(workers)
    with ProcessPoolExecutor(workers, context, initializer=_ready, initargs=(barrier,)) as pool:
        numbers = {future.result() for future in [pool.submit(_process_id) for _ in range(workers)]}
        memory = Memory()
        with memory.watching([psutil.Process(), *map(psutil.Process, numbers)]):
            yield PoolRunner(store, pool, workers, memory)


def run_work(uri: str, work: Work[Any]) -> Receipt:
    """Runs in a worker."""
    return execute(open_store(uri, probe=False), work)


def _ready(barrier: Any) -> None:
    global _together
    kernels()
    _together = barrier


def _process_id() -> int:
    """The number of a worker, another for each call: each waits until all have one."""
    _together.wait(60)
    return multiprocessing.current_process().pid or 0
