"""What a worker does for the flow runs that it starts, for one that a shell started: it ends when Prefect cancels it.

`prefect flow-run cancel` gives a flow run the state Cancelling, and whoever started its process ends that. Of a kickoff
that a shell started this is nobody: a thread asks the server, and interrupts the process as Ctrl-C does, by a signal of
its own: a process that a script put into the background (`&`) ignores Ctrl-C's, and while a flow runs Prefect takes
SIGTERM for a crash. The flow run says which process it is, so that a dead one is known for one
(orchestration/stack/reaper.py).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import TracebackType

import httpx
from prefect.client.orchestration import get_client

from gristmill.orchestration.stack.health import Server, Unreachable
from gristmill.orchestration.stack.owner import OWNER, this_process
from gristmill.orchestration.stack.reaper import MARK

log = logging.getLogger("gristmill")

EVERY = 3.0
"""Seconds between two questions."""
CANCELLED = ("CANCELLING", "CANCELLED")
INTERRUPT = signal.SIGUSR1


class ByHand:
    """Within it, the main thread is interrupted (KeyboardInterrupt) when its flow run is cancelled; `cancelled` says
    whether it was. Nothing where a worker started it, which does that itself, nor in another thread."""

    def __init__(self, server: Server, flow_run: str) -> None:
        self.server, self.flow_run, self.cancelled = server, flow_run, False
        self._over = threading.Event()
        self._signals = threading.Lock()

    def __enter__(self) -> ByHand:
        if MARK not in os.environ and threading.current_thread() is threading.main_thread():
            self._sign()
            signal.signal(INTERRUPT, signal.default_int_handler)  # for good: without it the signal ends a process
            threading.Thread(target=self._ask, name="cancellation", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._signals:  # nobody is interrupted afterwards
            self._over.set()

    def _sign(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                client.update_flow_run_labels(self.flow_run, {OWNER: this_process()})  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            log.warning("if this process is killed, Prefect will show it as Running: %s", error)

    def _ask(self) -> None:
        while not self._over.wait(EVERY):
            try:
                state = self.server.ask(f"/flow_runs/{self.flow_run}")["state_type"]
            except Unreachable:  # it may be back at the next question
                continue
            if state in CANCELLED:
                with self._signals:
                    if not self._over.is_set():
                        self.cancelled = True
                        # To the main thread itself: what waits there for a lock goes on waiting otherwise.
                        signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
                return
