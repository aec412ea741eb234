"""The runner: many Works, a bounded number in flight, none done twice, none forgotten.

It asks for each receipt first and hands only what is missing to workers (on Ray, or in this process).
`map` wants all receipts, in order; `stream` gives each as it comes, and takes works from a producer that may depend on
receipts that came; `pipelined` takes pieces through several stages, with no barrier between these. A Work that fails
does not stop the others: all failures come back together as `Incomplete`, and the same command runs only those again.
What ran, or was taken from a receipt, is noted: a version claims just that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, NamedTuple

from gristmill.lake.accounts.receipt import NotDeterministic, Receipt, StageId, finished
from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Work
from gristmill.stages.run.account import Account
from gristmill.stages.run.progress import Progress
from gristmill.stages.run.ran import Ran
from gristmill.stages.run.ray_workers import working
from gristmill.stages.run.sources import AllAtOnce, Now, Phase, Phased, Produced, Source
from gristmill.stages.run.unfinished import Incomplete, PlanOnly
from gristmill.stages.run.workers import Piece, SetUpFailed, Workers


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
        if not todo:
            self.announce(title, [])
        flow = _Flow(self, [Account(title, len(todo), self.progress)], AllAtOnce(todo))
        receipts = {number: receipt for _, number, _, receipt in self._run(flow)}
        return [receipts[number] for number in range(len(todo))]

    def stream(self, title: str, works: Iterable[Work[Any] | None], ahead: int | None = None) -> Iterator[Done]:
        """Each work with its receipt, in the order in which they are done. Nothing runs until it is iterated.

        `works` may be a generator: it is asked for the next ones when workers have little left (at most about twice
        `ahead`, by default `workers`, are ahead of the receipts given out), and not while the caller is busy. So it may
        depend on the receipts that came: where it must see another one first, it yields None, and is asked again after
        that one.
        Raises as `map`, Incomplete when all else is done; RuntimeError where the producer waits for nothing.
        """
        slots = self.workers if ahead is None else ahead
        source = Produced(iter(works), None if self.plan else slots)
        flow = _Flow(self, [Account(title, None, self.progress)], source)
        for _, _, work, receipt in self._run(flow):
            yield Done(work, receipt)

    def pipelined(self, count: int, phases: Sequence[Phase]) -> list[list[Receipt]]:
        """The receipts of `count` pieces that go through all phases: a list a phase, in the order of the pieces.

        The same as a map a phase, without a barrier between them: no piece waits for another, and of a few that wait
        for workers those in later phases come first, so that not many are on their way. Of a piece that fails in one
        phase nothing runs in the next; the others go on. Raises as `map`, and what checks raise; TypeError for a stage
        with a set-up.
        """
        if self.plan or not count:
            return self.phase_after_phase(count, phases)
        source = Phased(count, phases, self.workers)
        accounts = [Account(phase.title, count, self.progress) for phase in phases]
        flow = _Flow(self, accounts, source, most=2 * max(1, self.workers))
        with closing(self._run(flow)) as running:  # a check that fails ends what is under way at once
            for place, number, _, receipt in running:
                if source.through(place, number, receipt):
                    accounts[place].conclude()  # while others go on: the time is its own
                    phases[place].check(source.receipts(place))
        return [source.receipts(place) for place in range(len(phases))]

    def phase_after_phase(self, count: int, phases: Sequence[Phase]) -> list[list[Receipt]]:
        """As `pipelined`, with a barrier: a plan ends at the first phase with something to do, and what each takes can
        be measured."""
        done: list[list[Receipt]] = []
        for phase in phases:
            works = [phase.work(number, [receipts[number] for receipts in done]) for number in range(count)]
            done.append(self.map(phase.title, works))
            phase.check(done[-1])
        return done

    def _run(self, flow: _Flow) -> Generator[tuple[int, int, Work[Any], Receipt]]:
        """Phase, number, work and receipt of each."""
        with flow.until_end:  # workers are closed and the progress ends, also where the caller leaves a stream early
            for place, number, work, receipt in flow.receipts():
                self.ran.add(receipt)
                self._names |= {ref.sha256: self.name_of(work) for ref in receipt.outputs}
                yield place, number, work, receipt
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


class _Flow:
    """A map, a stream or phases under way: what workers have, what waits for them, and an account a phase. `most`:
    pieces that workers are to have at a time; None: all."""

    def __init__(self, runner: Runner, accounts: Sequence[Account], source: Source, most: int | None = None) -> None:
        self.runner, self.accounts, self.source, self.most = runner, accounts, source, most
        self.until_end = ExitStack()
        for account in reversed(accounts):  # the first in the history first
            self.until_end.callback(self._note, account)
        self._waiting: list[deque[tuple[int, Work[Any]]]] = [deque() for _ in accounts]
        self._open: dict[int, tuple[int, int, Work[Any]]] = {}  # what workers have: phase, number, work
        self._count = self._results = 0  # pieces that workers got, and what came of any
        self._workers: Workers | None = None

    def _note(self, account: Account) -> None:
        self.runner.history.append((account.title, account.before, len(account.todo)))

    def receipts(self) -> Iterator[tuple[int, int, Work[Any], Receipt]]:
        """As they come. Ends where the source has no more, or waits though nothing is under way."""
        while True:
            pending = len(self._open) + sum(map(len, self._waiting))
            failures = sum(len(account.failures) for account in self.accounts)
            place, taken = self.source.take(Now(pending, self._results, failures))
            if taken:
                yield from self._looked_up(place, taken)
            elif pending:
                yield from self._next(self._fed())
            else:
                break
        for account in self.accounts:
            account.close()  # before the workers: what they take to end is no part of its time

    def _looked_up(self, place: int, taken: Sequence[Piece]) -> Iterator[tuple[int, int, Work[Any], Receipt]]:
        """What of these was done before; workers get the rest first, so that they need not wait for the caller."""
        account, runner = self.accounts[place], self.runner
        works = [work for _, work in taken]
        runner.announce(account.title, [work.key for work in works if work.inputs is not None])
        receipts = runner.finished(works)
        missing = [piece for piece, receipt in zip(taken, receipts, strict=True) if receipt is None]
        before = [receipt for receipt in receipts if receipt is not None]
        account.looked_up(before, [runner.name_of(work) for _, work in missing])
        if missing and not runner.plan:
            self._waiting[place].extend(missing)
            self._fed()
            if not account.begun:
                self.until_end.enter_context(account)
        self._results += len(before)
        for (number, work), receipt in zip(taken, receipts, strict=True):
            if receipt is not None:
                yield place, number, work, _same_code(work, receipt)

    def _fed(self) -> Workers:
        """The workers, with as much as they are to have of what waits for them: of later phases first."""
        if self._workers is None:
            self._workers = self.until_end.enter_context(self.runner.open_workers())
        for place, waiting in reversed(list(enumerate(self._waiting))):
            while waiting and (self.most is None or len(self._open) < self.most):
                number, work = waiting.popleft()
                self._open[self._count] = place, number, work
                self._workers.add((self._count, work))
                self._count += 1
        return self._workers

    def _next(self, workers: Workers) -> Iterator[tuple[int, int, Work[Any], Receipt]]:
        """The next receipt; none if a piece failed."""
        try:
            count, result = workers.next()
        except SetUpFailed as error:  # every other piece would meet it; phases have no stage with a set-up
            self.accounts[0].failures.append(("set-up", error))
            raise Incomplete(self.accounts[0].failed) from error
        place, number, work = self._open.pop(count)
        self._results += 1
        if isinstance(result, Receipt):
            receipt = _same_code(work, result)
            self.accounts[place].add_run(receipt)
            yield place, number, work, receipt
        else:
            self.accounts[place].add_failure(self.runner.name_of(work), result)

    def conclude(self) -> None:
        """Raises at the end what stood against it: PlanOnly, Incomplete, or that the producer waits in vain."""
        first = self.accounts[0]
        if self.runner.plan and first.todo:
            raise PlanOnly(first.title, first.before, first.todo)
        if failed := [account.failed for account in self.accounts if account.failures]:
            raise Incomplete(*failed)
        if self.source.waits:
            raise RuntimeError(f"{first.title}: who makes its works waits for a receipt, and no work is under way")
        for account in self.accounts:
            account.conclude()
            if not (account.before or account.todo):
                self.runner.ran.nothing_to_do = True


def _same_code(work: Work, receipt: Receipt) -> Receipt:
    """The receipt, whose key was computed where the work ran: another one means another stage, VERSION or config."""
    if work.inputs is not None and receipt.work_key != work.key:
        raise NotDeterministic(
            f"{work.label or work.stage.name}: the worker on {receipt.info.get('host')} ran another version of this"
            " stage, or with another language model. Give every node the same code and model, then run again."
        )
    return receipt
