"""Control groups for a fork server and all it starts: a limit of memory and of processes that no fork escapes.

Version 2 where its controllers are, else the two hierarchies of version 1. A group that cannot be made or written is
no error: the limits of each process hold without it. Groups are removed by whoever started the server; what an earlier
one left behind, empty, goes as well.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "gristmill-sandbox-"


def make(name: str, memory: int, processes: int) -> list[str]:
    """Makes groups with these limits and returns their folders; none, where this machine lets us make none."""
    folders: list[str] = []
    for base, settings in _hierarchies(memory, processes):
        _sweep(base)
        folder = base / f"{_PREFIX}{name}"
        try:
            folder.mkdir()
            folders.append(str(folder))
            for file, value in settings.items():
                (folder / file).write_text(str(value))
        except OSError:
            remove(folders)
            return []
    return folders


def join(folders: list[str]) -> None:
    """Moves this process into groups. Raises OSError."""
    for folder in folders:
        Path(folder, "cgroup.procs").write_text(str(os.getpid()))


def remove(folders: list[str]) -> None:
    """Removes groups in which no process is left."""
    for folder in folders:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _hierarchies(memory: int, processes: int) -> list[tuple[Path, dict[str, int]]]:
    controllers = _ROOT / "cgroup.controllers"
    if controllers.exists():
        if {"memory", "pids"} <= set(controllers.read_text().split()):
            return [(_ROOT, {"memory.max": memory, "pids.max": processes})]
        return []
    limits = [("memory", {"memory.limit_in_bytes": memory}), ("pids", {"pids.max": processes})]
    return [(_ROOT / name, settings) for name, settings in limits if (_ROOT / name).is_dir()]


def _sweep(base: Path) -> None:
    """Removes empty groups of servers that are gone."""
    for folder in base.glob(f"{_PREFIX}*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not Path("/proc", process).exists():
            remove([str(folder)])
