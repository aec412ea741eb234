"""Keeps a server for the process that started this one: it runs as long as that process holds the other end of stdin.

A worker may be killed in a moment, and a server that outlives it holds its GPU for good. The kernel's own signal for
that goes by the thread that started a child, which in a worker may end before the worker does; so this process stands
between them: alone in its thread, it ends the server and all that the server started once stdin is closed, and the
kernel ends the server if this process is killed itself. Run as a file, with nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0
"""Seconds from SIGTERM to SIGKILL."""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Runs the command until it ends or stdin is closed; its exit code, as a shell tells it."""
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a group of its own, by which all that it starts is ended
        preexec_fn=_die_with_parent,  # this process has one thread
    )
    ended = os.pidfd_open(server.pid)
    select.select([sys.stdin.fileno(), ended], [], [])
    # The server is not waited for before its group was killed: until then nobody else can have its number.
    if not select.select([ended], [], [], 0)[0]:
        os.killpg(server.pid, signal.SIGTERM)
        select.select([ended], [], [], _GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
