"""The runner: many Works, a bounded number in flight, none done twice, none forgotten.

It asks for each receipt first and hands only what is missing to workers (on Ray, or in this process).
`map` wants all receipts, in order; `stream` gives each as it comes, and takes works from a producer that may depend on
receipts that came. A Work that fails does not stop the others: all failures come back together as `Incomplete`, and the
same command runs only those again. What ran, or was taken from a receipt, is noted: a version claims just that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

from gristmill.lake.accounts.receipt import NotDeterministic, Receipt, StageId, finished
from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Work
from gristmill.stages.run.progress import Progress
from gristmill.stages.run.ran import Ran
from gristmill.stages.run.ray_workers import working
from gristmill.stages.run.unfinished import Incomplete, PlanOnly, named
from gristmill.stages.run.workers import Piece, SetUpFailed, Workers

log = logging.getLogger("gristmill")

PLAN_AHEAD = 1024
"""Works of a stream that a plan looks up at a time."""
MOST_FAILURES = 100
"""Failures after which a stream takes no more from its producer, which may be endless."""


class Done(NamedTuple):
    """A work of a stream, and its receipt."""

    work: Work[Any]
    receipt: Receipt


class Runner:
    """Runs stages against one store. `announce` gets the title and keys of works before they begin (leases)."""

    def __init__(
        self,
        store: Store,
        *,
        workers: int,
        shared_filesystem: bool = False,
        plan: bool = False,
        progress: Progress | None = None,
        announce: Callable[[str, Sequence[str]], None] | None = None,
    ) -> None:
        """`workers`: pieces of work at a time, 0 for this process; `plan`: run nothing. Raises ValueError."""
        if workers < 0:
            raise ValueError(f"workers={workers}: 0 (in this process) or more")
        self.store, self.workers, self.plan = store, workers, plan
        self.shared_filesystem = shared_filesystem
        self.progress = progress or Progress()
        self.announce = announce or (lambda title, keys: None)
        self.history: list[tuple[str, int, int]] = []  # (title, done before, run now)
        self.ran = Ran()
        self._names: dict[str, str] = {}  # sha256 of an object -> the label of the work that wrote it

    def begin(self, announce: Callable[[str, Sequence[str]], None]) -> None:
        """A run begins, perhaps once more after an outage: what was done before it has receipts."""
        self.announce = announce
        self.history.clear()
        self.ran = Ran()

    def map(self, title: str, works: Iterable[Work[Any]]) -> list[Receipt]:
        """The receipts of the works, in their order.

        Raises Incomplete, PlanOnly, WrongCluster, a defect of a stage, or the error of an outage, of which
        lake.store.outage knows whether to wait for its end: it would meet every other piece as well.
        """
        todo = list(works)
        receipts = {number: receipt for number, _, receipt in self._run(title, iter(todo), len(todo))}
        return [receipts[number] for number in range(len(todo))]

    def stream(self, title: str, works: Iterable[Work[Any] | None], ahead: int | None = None) -> Iterator[Done]:
        """Each work with its receipt, in the order in which they are done. Nothing runs until it is iterated.

        `works` may be a generator: it is asked for the next ones when workers have little left (at most about twice
        `ahead`, by default `workers`, are ahead of the receipts given out), and not while the caller is busy. So it may
        depend on the receipts that came: where it must see another one first, it yields None, and is asked again after
        that one.
        Raises as `map`, Incomplete when all else is done; RuntimeError where the producer waits for nothing.
        """
        for _, work, receipt in self._run(title, iter(works), None, ahead):
            yield Done(work, receipt)

    def _run(
        self, title: str, works: Iterator[Work[Any] | None], total: int | None, ahead: int | None = None
    ) -> Iterator[tuple[int, Work[Any], Receipt]]:
        """Number, work and receipt of each. `total`: how many there are; None where only the producer knows."""
        flow = _Flow(self, title, _Source(works), total, self.workers if ahead is None else ahead)
        with flow.until_end:  # workers are closed and the progress ends, also where the caller leaves a stream early
            for number, work, receipt in flow.receipts():
                self.ran.add(receipt)
                self._names |= {ref.sha256: self.name_of(work) for ref in receipt.outputs}
                yield number, work, receipt
        flow.conclude()

    @contextmanager
    def shown_by(self, progress: Progress) -> Iterator[None]:
        """Another progress while it lasts, for a stage whose pieces say more of themselves."""
        before, self.progress = self.progress, progress
        try:
            yield
        finally:
            self.progress = before

    def open_workers(self) -> AbstractContextManager[Workers]:
        """Who does the work of one map or stream: Ray, or this process."""
        return working(self.store, self.workers, self.shared_filesystem)

    def name_of(self, work: Work[Any]) -> str:
        """The label; of work that is labelled by the hash of what it reads, that of the work which wrote it: a file."""
        digest = next((sha for sha in work.inputs or () if work.label and sha.startswith(work.label)), None)
        return self._names.get(digest, work.label) if digest else work.label

    def about_to(self, title: str, label: str, stages: Sequence[StageId] = ()) -> None:
        """A step that is no Work, such as the commit. `stages`: what it is, where it decides data. Raises PlanOnly
        where only a plan was asked for."""
        if self.plan:
            self.history.append((title, 0, 1))
            raise PlanOnly(title, 0, [label])
        self.ran.add_stages(stages)

    def finished(self, works: Sequence[Work[Any]]) -> list[Receipt | None]:
        """Receipts of works that were done before."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda w: finished(self.store, w.key) if w.inputs is not None else None, works))


class _Source:
    """Works from a producer, numbered as they come. `waits`: it yielded None when it was asked last."""

    def __init__(self, works: Iterator[Work[Any] | None]) -> None:
        self._works, self._count = works, 0
        self.waits = False

    def take(self, room: int) -> list[Piece]:
        """At most `room` works; fewer where it has no more, or waits for a receipt."""
        pieces: list[Piece] = []
        self.waits = False
        while len(pieces) < room and not self.waits:
            try:
                work = next(self._works)
            except StopIteration:  # and again, should it be asked again
                break
            if work is None:
                self.waits = True
            else:
                pieces.append((self._count, work))
                self._count += 1
        return pieces


class _Flow:
    """One map or stream under way: what was taken from the producer, what workers have, what failed."""

    def __init__(self, runner: Runner, title: str, source: _Source, total: int | None, ahead: int) -> None:
        self.runner, self.title, self.source, self.total, self.ahead = runner, title, source, total, ahead
        self.before = self.ran = 0
        self.todo: list[str] = []  # names of the works that had no receipt
        self.failures: list[tuple[str, Exception]] = []
        self.until_end = ExitStack()
        self.until_end.callback(lambda: runner.history.append((title, self.before, len(self.todo))))
        self._open: dict[int, Work[Any]] = {}  # what workers have, by number
        self._workers: Workers | None = None
        self._advance: Callable[[Receipt], None] = lambda receipt: None

    def receipts(self) -> Iterator[tuple[int, Work[Any], Receipt]]:
        """As they come. Ends where the producer has no more, or waits though nothing is under way."""
        if self.total == 0:
            self.runner.announce(self.title, [])
        while True:
            taken = self.source.take(self._room())
            if taken:
                yield from self._looked_up(taken)
            if self._workers is not None and self._workers.pending:
                yield from self._next(self._workers)
            elif not taken:
                return

    def _room(self) -> int:
        """How many works to take now.

        A map takes all at once. A stream takes as many as `ahead` says, when workers have no more than that left: often
        enough that none runs out of work, and seldom enough that works are announced and looked up together.
        """
        if self.total is not None:
            return self.total - len(self.todo) - self.before
        if len(self.failures) >= MOST_FAILURES:
            return 0
        if self.runner.plan:
            return PLAN_AHEAD
        slots = max(1, self.ahead)
        room = 2 * slots - (self._workers.pending if self._workers is not None else 0)
        return room if room >= slots else 0

    def _looked_up(self, taken: Sequence[Piece]) -> Iterator[tuple[int, Work[Any], Receipt]]:
        """What of these was done before; workers get the rest first, so that they need not wait for the caller."""
        works = [work for _, work in taken]
        self.runner.announce(self.title, [work.key for work in works if work.inputs is not None])
        receipts = self.runner.finished(works)
        missing = [piece for piece, receipt in zip(taken, receipts, strict=True) if receipt is None]
        self.todo += [self.runner.name_of(work) for _, work in missing]
        self.before += len(taken) - len(missing)
        if missing and not self.runner.plan:
            self._hand_over(missing)
        for (number, work), receipt in zip(taken, receipts, strict=True):
            if receipt is not None:
                yield number, work, _same_code(work, receipt)

    def _hand_over(self, missing: Sequence[Piece]) -> None:
        if self._workers is None:
            runner = self.runner
            self._workers = self.until_end.enter_context(runner.open_workers())
            bar = runner.progress.stage(self.title, total=self.total, done=self.before)
            self._advance = self.until_end.enter_context(bar)
        for number, work in missing:
            self._open[number] = work
            self._workers.add((number, work))

    def _next(self, workers: Workers) -> Iterator[tuple[int, Work[Any], Receipt]]:
        """The next receipt; none if a piece failed."""
        try:
            number, result = workers.next()
        except SetUpFailed as error:  # every other piece would meet it
            self.failures.append(("set-up", error))
            raise self._incomplete() from error
        work = self._open.pop(number)
        if isinstance(result, Receipt):
            self.ran += 1
            receipt = _same_code(work, result)
            self._advance(receipt)
            yield number, work, receipt
        else:
            self.failures.append((self.runner.name_of(work), result))
            log.error("%s: %s failed: %s", self.title, self.runner.name_of(work), named(result))

    def _incomplete(self) -> Incomplete:
        return Incomplete(self.title, self.failures, self.before + self.ran)

    def conclude(self) -> None:
        """Raises at the end what stood against it: PlanOnly, Incomplete, or that the producer waits in vain."""
        if self.runner.plan and self.todo:
            raise PlanOnly(self.title, self.before, self.todo)
        if self.failures:
            raise self._incomplete()
        if self.source.waits:
            raise RuntimeError(f"{self.title}: who makes its works waits for a receipt, and no work is under way")
        if not self.todo:
            if not self.before:
                self.runner.ran.nothing_to_do = True
            with self.runner.progress.stage(self.title, total=self.before, done=self.before):
                pass


def _same_code(work: Work, receipt: Receipt) -> Receipt:
    """The receipt, whose key was computed where the work ran: another one means another stage, VERSION or config."""
    if work.inputs is not None and receipt.work_key != work.key:
        raise NotDeterministic(
            f"{work.label or work.stage.name}: the worker on {receipt.info.get('host')} ran another version of this"
            " stage, or with another language model. Give every node the same code and model, then run again."
        )
    return receipt
