"""Where works come from: all at once, from a producer that may wait for receipts, or phase after phase of each piece.

A source is asked what to look up next while others are under way. It knows nothing of workers but how many pieces they
have, so that each way to run works is the one loop of the runner (stages/run/runner.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gristmill.lake.accounts.receipt import Receipt
from gristmill.stages.core.work import WarmStage, Work
from gristmill.stages.run.workers import Piece

PLAN_AHEAD = 1024
"""Works of a stream that a plan looks up at a time."""
MOST_FAILURES = 100
"""Failures after which a stream takes no more from its producer, which may be endless."""
LAG, MOST_LOOK_UPS = 16, 1024
"""Pieces a worker that may wait for a later phase, and works that are looked up at most at a time. Those that wait are
announced together, as a request each would cost as much as the work; they are in the page cache still; and workers have
them to do while a piece lags behind."""
ANNOUNCEMENTS = 256
"""About so many announcements a phase at most, however many pieces there are: gc reads each of them."""


class Now(NamedTuple):
    """What is under way: `pending` pieces; `results` that came so far, of which so many are `failures`."""

    pending: int
    results: int
    failures: int


class Source(Protocol):
    """Numbered works, each in a place: the phase that it belongs to, 0 where there is one alone."""

    def take(self, now: Now) -> tuple[int, list[Piece]]:
        """Works of one place to look up now; none: ask again after the next result. Where nothing is under way either,
        that was all."""

    @property
    def waits(self) -> bool:
        """Whether more would come after another result."""


class AllAtOnce:
    """Works that are known."""

    waits = False

    def __init__(self, works: Sequence[Work[Any]]) -> None:
        self._pieces = list(enumerate(works))

    def take(self, now: Now) -> tuple[int, list[Piece]]:
        """All of them, then none."""
        taken, self._pieces = self._pieces, []
        return 0, taken


class Produced:
    """Works of a producer, numbered as they come; None: it waits for a receipt. `ahead`: how many workers are to have
    waiting; None: a plan, for which as many are taken as there are."""

    def __init__(self, works: Iterator[Work[Any] | None], ahead: int | None) -> None:
        self._works, self._ahead = works, ahead
        self._count, self._results = 0, -1
        self.waits = False

    def take(self, now: Now) -> tuple[int, list[Piece]]:
        """As many as `ahead` says, when workers have no more than that left: often enough that none runs out of work,
        and seldom enough that works are announced and looked up together."""
        room = self._room(now)
        if not room or (self.waits and now.results == self._results):
            return 0, []
        self._results, self.waits = now.results, False
        pieces: list[Piece] = []
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
        return 0, pieces

    def _room(self, now: Now) -> int:
        if now.failures >= MOST_FAILURES:
            return 0
        if self._ahead is None:
            return PLAN_AHEAD
        slots = max(1, self._ahead)
        room = 2 * slots - now.pending
        return room if room >= slots else 0


def _passes(receipts: Sequence[Receipt]) -> None:
    """The check of a phase that has none."""


@dataclass(frozen=True)
class Phase:
    """A stage that every piece goes through. `work`: of a piece, by its number and its receipts of the phases before.
    `check`: called with the receipts of all pieces, in order, once the last is there; what it raises ends the run."""

    title: str
    work: Callable[[int, Sequence[Receipt]], Work[Any]]
    check: Callable[[Sequence[Receipt]], None] = _passes


def _records(piece: Piece) -> int:
    """How many come in to it, as far as that is known: about how long it takes."""
    received = piece[1].received
    return 0 if received is None else received.count


class Phased:
    """Pieces that go through phases, each as soon as it was through the one before, whatever the others are at."""

    waits = False

    def __init__(self, count: int, phases: Sequence[Phase], workers: int) -> None:
        self.phases, self._workers = phases, max(1, workers)
        self.done: list[dict[int, Receipt]] = [{} for _ in phases]  # by phase, then piece
        self._ready = [deque(range(count)), *(deque[int]() for _ in phases[1:])]
        self._count, self._together = count, max(LAG * self._workers, count // ANNOUNCEMENTS)

    def take(self, now: Now) -> tuple[int, list[Piece]]:
        """Of the last phase that has enough to look up together; of the first all at once, what has most records first,
        so that little is left to do beside it at the end. Where workers would be idle, whatever there is."""
        enough = self._together if now.pending >= self._workers else 1
        for place in reversed(range(len(self.phases))):
            ready = self._ready[place]
            if len(ready) >= (enough if place else 1):
                most = MOST_LOOK_UPS if place else self._count
                numbers = [ready.popleft() for _ in range(min(most, len(ready)))]
                pieces = [(number, self.work(place, number)) for number in numbers]
                return place, pieces if place else sorted(pieces, key=_records, reverse=True)
        return 0, []

    def work(self, place: int, number: int) -> Work[Any]:
        """What a piece is to do in a phase, which it was through all before. Raises TypeError for a stage with a
        set-up: among the works of others its workers would be given up and set up anew all the time."""
        phase = self.phases[place]
        work = phase.work(number, [done[number] for done in self.done[:place]])
        if isinstance(work.stage, WarmStage):
            raise TypeError(f"{phase.title}: {work.stage.name} has a set-up; give its works to `Runner.map`")
        return work

    def through(self, place: int, number: int, receipt: Receipt) -> bool:
        """A piece was through a phase. Whether all are now."""
        self.done[place][number] = receipt
        if place + 1 < len(self.phases):
            self._ready[place + 1].append(number)
        return len(self.done[place]) == self._count

    def receipts(self, place: int) -> list[Receipt]:
        """Of all pieces in a phase, in their order."""
        return [self.done[place][number] for number in range(self._count)]
