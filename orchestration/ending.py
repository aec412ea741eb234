"""How a command ends: its exit code at once, when all of Python's own endings are done.

What is left then are destructors of C++ libraries, in which a pool of threads was seen to end the process by an abort
("terminate called without an active exception", once in some two hundred commands), after the answer was printed; they
take a second or more, too. Ray's own ending is waited for.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys


def without_destructors() -> list[int]:
    """Call it first. -> A list: where it has an exit code at the end, the process ends with that."""
    ended: list[int] = []
    atexit.register(_end, ended)  # the first to be registered is the last to be run
    return ended


def _end(ended: list[int]) -> None:
    if ended and "ray" not in sys.modules:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended[0])
