"""How much a command says on stderr, and in which form: `grist -q`, `grist -v`, else what a run has to say.

The level of the logger `gristmill` is the one place that knows: progress, notes and the log ask it.
"""

from __future__ import annotations

import logging
import sys

from gristmill.pipelines.settings.plain import PlainFormatter

log = logging.getLogger("gristmill")
QUIET, NORMAL, VERBOSE = logging.ERROR, logging.INFO, logging.DEBUG


def set_up_logging() -> None:
    """The program's log on stderr, with nothing in it that acts on a terminal; at its level, or the usual one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if log.level == logging.NOTSET:
        log.setLevel(NORMAL)


def is_quiet() -> bool:
    """Whether errors alone are to be said."""
    return log.getEffectiveLevel() >= QUIET
