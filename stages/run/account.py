"""What is known of the works of one title: how many were done before, ran now, failed; and what people are shown of it.

A map or a stream has one account, works that go through phases have one each, of which several are open at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from gristmill.lake.accounts.receipt import Receipt
from gristmill.stages.run.progress import Advance, Progress
from gristmill.stages.run.unfinished import Failed, named

log = logging.getLogger("gristmill")


class Account:
    """`total`: how many works there are; None where only their producer knows. Workers have some of them within `with`,
    in which progress is shown."""

    def __init__(self, title: str, total: int | None, progress: Progress) -> None:
        self.title, self.total = title, total
        self.before = self.ran = 0
        self.todo: list[str] = []  # names of the works that had no receipt
        self.failures: list[tuple[str, Exception]] = []
        self._progress, self._shown = progress, ExitStack()
        self._advance: Advance | None = None
        self._concluded = False

    @property
    def begun(self) -> bool:
        """Whether workers had any of it."""
        return self._advance is not None

    def __enter__(self) -> Account:
        shown = self._progress.stage(self.title, total=self.total, done=self.before)
        self._advance = self._shown.enter_context(shown)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._shown.__exit__(kind, error, tb)

    def close(self) -> None:
        """Nothing of it is under way any more: its time ends here."""
        self._shown.close()

    def looked_up(self, before: Sequence[Receipt], todo: Sequence[str]) -> None:
        """These were done before, and works of these names were not."""
        self.before += len(before)
        self.todo += todo
        if self._advance is not None:
            for receipt in before:
                self._advance(receipt, before=True)

    def add_run(self, receipt: Receipt) -> None:
        """One was done now."""
        self.ran += 1
        if self._advance is not None:
            self._advance(receipt)

    def add_failure(self, name: str, error: Exception) -> None:
        """One of this name failed."""
        self.failures.append((name, error))
        log.error("%s: %s failed: %s", self.title, name, named(error))

    @property
    def failed(self) -> Failed:
        """What its part of `Incomplete` is."""
        return Failed(self.title, self.failures, self.before + self.ran)

    def conclude(self) -> None:
        """All of it is done: says in what time, or that there was nothing to do."""
        self.close()
        if not (self.todo or self._concluded):
            with self._progress.stage(self.title, total=self.before, done=self.before):
                pass
        self._concluded = True
