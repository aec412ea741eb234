"""The runner: many Works, a bounded number in flight on Ray, none done twice, none forgotten.

It asks for each receipt first and runs only what is missing. Ray Core tasks carry the work with Ray's own
retries: a worker that dies is Ray's to restart (input that kills its reader is isolated below, in `stages.reading`). A
Work that still fails does not stop the others: all failures come back together as `Incomplete`, and the same command
runs only those again. `workers=0` runs in this process, for debuggers and small tests.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lake.balance import BalanceError
from lake.outage import is_outage
from lake.receipt import NotDeterministic, Receipt, finished
from lake.store import Store, open_store
from stages.cluster import check_reachable, connect
from stages.progress import Progress
from stages.work import Work, execute

log = logging.getLogger("gristmill")

RETRIES = 3
_DEFECTS = (BalanceError, NotDeterministic, TypeError, AttributeError, NameError, ImportError, SyntaxError)
"""Faults of ours: no rerun will help, so they end the run with their traceback."""


class Incomplete(Exception):
    """Some work failed; everything else is done and has receipts. The same command tries only these again."""

    def __init__(self, title: str, failures: Sequence[tuple[str, Exception]], done: int) -> None:
        self.errors = tuple(error for _, error in failures)
        shown = "\n".join(f"  {label}: {_named(error)}" for label, error in failures[:10])
        more = f"\n  and {len(failures) - 10} more" if len(failures) > 10 else ""
        super().__init__(
            f"{title}: {len(failures)} of {len(failures) + done} pieces of work failed:\n{shown}{more}\n"
            "What is done is kept: run the same command again to try only these."
        )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}"


class PlanOnly(Exception):
    """`--plan` reached the first stage with work to do."""

    def __init__(self, title: str, done: int, todo: Sequence[str]) -> None:
        self.title, self.done, self.todo = title, done, tuple(todo)
        super().__init__(f"{title}: {done} done, {len(todo)} to run")


class Runner:
    """Runs stages against one store. `announce` is told the keys of each stage's work before it begins (leases)."""

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
        if workers < 0:
            raise ValueError(f"workers={workers}: 0 (in this process) or more")
        self.store, self.workers, self.plan = store, workers, plan
        self.shared_filesystem = shared_filesystem
        self.progress = progress or Progress()
        self.announce = announce or (lambda title, keys: None)
        self.history: list[tuple[str, int, int]] = []  # (title, done before, run now)
        self._names: dict[str, str] = {}  # sha256 of an object -> the label of the work that wrote it

    def map(self, title: str, works: Iterable[Work]) -> list[Receipt]:
        """The receipts of the works, in their order.

        Raises Incomplete, PlanOnly, a defect of a stage, or the error of an outage, of which lake.outage knows whether
        to wait for its end: it would meet every other piece as well.
        """
        todo = list(works)
        self.announce(title, [work.key for work in todo if work.inputs is not None])
        receipts = self._finished(todo)
        missing = [i for i, receipt in enumerate(receipts) if receipt is None]
        self.history.append((title, len(todo) - len(missing), len(missing)))
        if missing and self.plan:
            raise PlanOnly(title, len(todo) - len(missing), [self._name(todo[i]) for i in missing])
        failures: list[tuple[str, Exception]] = []
        with self.progress.stage(title, total=len(todo), done=len(todo) - len(missing)) as advance:
            run = self._inline if self.workers == 0 else self._on_ray
            for i, result in run([(i, todo[i]) for i in missing]):
                if isinstance(result, Receipt):
                    receipts[i] = _same_code(todo[i], result)
                    advance(result)
                else:
                    failures.append((self._name(todo[i]), result))
                    log.error("%s: %s failed: %s", title, self._name(todo[i]), _named(result))
        if failures:
            raise Incomplete(title, failures, len(todo) - len(failures))
        for work, receipt in zip(todo, receipts, strict=True):
            self._names |= {ref.sha256: self._name(work) for ref in receipt.outputs} if receipt else {}
        return [receipt for receipt in receipts if receipt is not None]

    def _name(self, work: Work) -> str:
        """The label; of work that is labelled by the hash of what it reads, that of the work which wrote it: a file."""
        digest = next((sha for sha in work.inputs or () if work.label and sha.startswith(work.label)), None)
        return self._names.get(digest, work.label) if digest else work.label

    def about_to(self, title: str, label: str) -> None:
        """A step that is no Work, such as the commit. Raises PlanOnly where only a plan was asked for."""
        if self.plan:
            self.history.append((title, 0, 1))
            raise PlanOnly(title, 0, [label])

    def _finished(self, works: Sequence[Work]) -> list[Receipt | None]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda w: finished(self.store, w.key) if w.inputs is not None else None, works))

    def _inline(self, works: Sequence[tuple[int, Work]]) -> Iterator[tuple[int, Receipt | Exception]]:
        for i, work in works:
            try:
                yield i, execute(self.store, work)
            except _DEFECTS:
                raise
            except Exception as error:
                if is_outage(error):
                    raise
                yield i, error  # reported as a failure of this piece; the others go on

    def _on_ray(self, works: Sequence[tuple[int, Work]]) -> Iterator[tuple[int, Receipt | Exception]]:
        if not works:
            return
        connect(self.workers)
        import ray

        check_reachable(self.store, self.shared_filesystem)
        remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_execute)
        waiting = deque(works)
        flying: dict[Any, tuple[int, Work]] = {}
        outage: Exception | None = None
        while flying or (waiting and outage is None):
            while waiting and len(flying) < self.workers and outage is None:
                i, work = waiting.popleft()
                flying[remote.options(name=work.stage.name).remote(self.store.uri, work)] = i, work
            (ready,), _ = ray.wait(list(flying), num_returns=1)
            i, work = flying.pop(ready)
            try:
                yield i, ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                if isinstance(cause, _DEFECTS):
                    for other in flying:
                        ray.cancel(other)
                    raise cause from error
                if is_outage(cause):
                    outage = outage or cause  # nothing more is begun, and those under way come to their end
                else:
                    yield i, cause
            except ray.exceptions.RayError as error:  # the node is gone, or the like: another run may do better
                yield i, error
        if outage is not None:
            raise outage


def _same_code(work: Work, receipt: Receipt) -> Receipt:
    if work.inputs is not None and receipt.work_key != work.key:
        raise NotDeterministic(
            f"{work.label or work.stage.name}: the worker on {receipt.info.get('host')} ran another version of this"
            " stage, or with another language model. Give every node the same code and model, then run again."
        )
    return receipt


def _execute(uri: str, work: Work) -> Receipt:
    return execute(open_store(uri, probe=False), work)
