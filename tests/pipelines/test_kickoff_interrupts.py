"""A Ctrl-C that Python raised where no exception gets out, in a finalizer, ends a kickoff all the same."""

from __future__ import annotations

import signal
from queue import SimpleQueue

import pytest

from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.run import _next_of
from gristmill.stages.run import cluster


class Finalized:
    """Is interrupted while it is finalized: Python ignores what its finalizer raises."""

    def __del__(self) -> None:
        cluster._interrupt(signal.SIGINT, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_ignored_ends_the_wait_for_nodes() -> None:
    finished: SimpleQueue[End] = SimpleQueue()
    before = cluster.interrupts()
    Finalized()
    with pytest.raises(KeyboardInterrupt):
        _next_of(finished, before)
    finished.put(End("a", "made"))
    assert _next_of(finished, before).node == "a"  # what is done is taken first
