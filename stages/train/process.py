"""Who a process is, as a note in a store says it, and whether it is known to be gone.

A pid counts within a pid namespace of a boot of a machine. Containers may share the name of their host and have pids of
their own each, so only a process of this very namespace can be asked for; of any other nothing is known.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Process(NamedTuple):
    """`boot`, `namespace`: what its pid counts in, as Linux names them; empty where a system does not say."""

    host: str
    pid: int
    boot: str
    namespace: str

    @classmethod
    def of_note(cls, note: Mapping[str, Any]) -> Process:
        """Whom a note names, of which one from before may say less."""
        return cls(note["host"], note["pid"], note.get("boot", ""), note.get("namespace", ""))

    def is_gone(self) -> bool:
        """Whether it was a process of this machine, and is none any more. False where that cannot be known."""
        own = this_process()
        return self._replace(pid=own.pid) == own and not process_exists(self.pid)


def this_process() -> Process:
    """This one."""
    boot = namespace = ""
    with suppress(OSError):  # /proc is Linux's
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return Process(platform.node(), os.getpid(), boot, namespace)


def process_exists(pid: int) -> bool:
    """Whether this process's namespace has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
