"""A node in a process of its own: `python -m gristmill.orchestration.kickoff.child`, with its config on stdin.

The config is one line of JSON. Stdin stays open for as long as the kickoff lives: when it ends, however it ends, this
process stops what it does, as by Ctrl-C, and is gone some seconds later in any case. So a kickoff that is killed leaves
nothing behind that the next one would meet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from io import FileIO

from gristmill.orchestration.ending import without_destructors
from gristmill.pipelines.command import Request, run, set_up_logging
from gristmill.pipelines.settings.exits import INCOMPLETE

GRACE_SECONDS = 10.0
"""From the end of stdin to the end of this process."""


def end_with(stdin: FileIO) -> None:
    """Waits for the end of stdin, then ends this process."""
    stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)  # `run` takes it as Ctrl-C
    time.sleep(GRACE_SECONDS)
    os._exit(INCOMPLETE)


def main() -> int:
    """Runs the config of stdin's first line; returns its exit code."""
    ended = without_destructors()
    set_up_logging()
    stdin = FileIO(sys.stdin.fileno(), closefd=False)  # without a buffer, whose lock a waiting thread would hold
    config = json.loads(stdin.readline())
    threading.Thread(target=end_with, args=(stdin,), name="end with stdin", daemon=True).start()
    code = run(Request(config))
    ended.append(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
