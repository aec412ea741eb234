"""Workers: pieces of work go in, and what became of each comes out, in the order in which they are done.

The contract that the runner needs, and the simplest that meets it: one piece after another in this process, for
debuggers and small tests. Those on Ray are in stages/run/ray_workers.py. A WarmStage is set up once a worker.
"""

from __future__ import annotations

import logging
import platform
from collections import deque
from typing import Any, Protocol

from gristmill.lake.accounts.balance import BalanceError
from gristmill.lake.accounts.receipt import NotDeterministic, Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import is_outage
from gristmill.stages.core.work import WarmStage, Work, execute, execute_warm

log = logging.getLogger("gristmill")

DEFECTS = (BalanceError, NotDeterministic, TypeError, AttributeError, NameError, ImportError, SyntaxError)
"""Faults of this code: no rerun will help, so they end the run with their traceback."""

Piece = tuple[int, Work[Any]]
"""A work, and its number in the stream."""
Result = tuple[int, Receipt | Exception]
"""The number of a work, and its receipt or why it has none."""


class SetUpFailed(Exception):
    """What a stage needs could not be set up: every other work would meet the same."""

    def __init__(self, stage: str, host: str, error: Exception) -> None:
        super().__init__(stage, host, error)
        self.stage, self.host, self.error = stage, host, error

    def __str__(self) -> str:
        return f"{self.stage}: its set-up failed on {self.host}: {type(self.error).__name__}: {self.error}"


class Workers(Protocol):
    """Takes pieces and gives back results, in any order."""

    def add(self, piece: Piece) -> None:
        """Queues a piece."""

    def next(self) -> Result:
        """The next result, of a piece without one. Raises a defect, SetUpFailed, or the error of an outage once
        what was under way then is done."""


class InProcess:
    """One piece after another, when its result is asked for. What stages set up is kept until the end."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._waiting: deque[Piece] = deque()
        self._warm: list[tuple[WarmStage[Any, Any], Any]] = []

    def add(self, piece: Piece) -> None:
        """Queues a piece."""
        self._waiting.append(piece)

    def next(self) -> Result:
        """Runs the piece that was added first. Raises a defect, SetUpFailed, or the error of an outage."""
        number, work = self._waiting.popleft()
        try:
            if isinstance(work.stage, WarmStage):
                return number, execute_warm(self.store, work, self._warmed(work.stage))
            return number, execute(self.store, work)
        except (*DEFECTS, SetUpFailed):
            raise
        except Exception as error:
            if is_outage(error):
                raise
            return number, error  # a failure of this piece; the others go on

    def _warmed(self, stage: WarmStage[Any, Any]) -> Any:
        """What the stage sets up, once. Stages are compared and not hashed: their configs need not be hashable."""
        for known, warm in self._warm:
            if known == stage:
                return warm
        warm = set_up(self.store, stage)
        self._warm.append((stage, warm))
        return warm

    def close(self) -> None:
        """Closes what was set up."""
        while self._warm:
            stage, warm = self._warm.pop()
            try:
                close_warm(warm)
            except Exception as error:  # all of its work is done and proved
                log.warning("%s: what it set up was not closed: %s", stage.name, error)


def set_up(store: Store, stage: WarmStage[Any, Any]) -> Any:
    """What a stage needs, once a worker. Raises SetUpFailed, or a defect or the error of an outage as it is."""
    try:
        return stage.setup(store)
    except DEFECTS:
        raise
    except Exception as error:
        if is_outage(error):
            raise
        raise SetUpFailed(stage.name, platform.node(), error) from error


def close_warm(warm: Any) -> None:
    """Closes what was set up, if it can be closed."""
    close = getattr(warm, "close", None)
    if close is not None:
        close()
