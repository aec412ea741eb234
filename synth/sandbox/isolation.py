"""How far a program is from the rest of the machine: which layers were reached, and below which nothing is run.

A layer that the platform lacks is not an error by itself. `Isolation` says what was reached, a level sums it up, and
a sandbox whose level is below the configured minimum refuses to run, naming the layers that are missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

Level = Literal["none", "process", "restricted", "namespaces"]
LEVELS: tuple[Level, ...] = ("none", "process", "restricted", "namespaces")
"""From the weakest: nothing; limits of a process, and no new privileges; also a filter of system calls and of files;
also namespaces of its own for processes, network, IPC and mounts, with no privilege outside."""


@dataclass(frozen=True)
class Limits:
    """What an execution may use. Exceeding one is undecided, not wrong: it depends on the machine.

    `cpu_s`: processor seconds of the program, and of the tests; `wall_s`: seconds by the clock of both together.
    `memory`: bytes of address space of a process; `processes`: processes and threads; `files`: open files.
    `scratch`: bytes that can be written below /tmp. `message`: bytes of a value that is passed.
    """

    cpu_s: int = 10
    wall_s: float = 30.0
    memory: int = 1 << 30
    processes: int = 16
    files: int = 64
    scratch: int = 16 << 20
    message: int = 16 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"Limits: {field.name}={getattr(self, field.name)}: allowed is more than 0")
        if self.memory < 64 << 20:
            raise ValueError(f"Limits: memory={self.memory}: an interpreter needs at least {64 << 20}")


@dataclass(frozen=True)
class Isolation:
    """Which layers a program is behind. `cgroup`: limits of memory and processes for all that a server starts."""

    limits: bool = False
    no_new_privileges: bool = False
    uid_dropped: bool = False
    capabilities_dropped: bool = False
    user_namespace: bool = False
    pid_namespace: bool = False
    network_namespace: bool = False
    ipc_namespace: bool = False
    mount_namespace: bool = False
    jail: bool = False
    seccomp: bool = False
    landlock: bool = False
    cgroup: bool = False
    bubblewrap: bool = False

    @property
    def level(self) -> Level:
        """The level that is reached."""
        reached: Level = "none"
        for level in LEVELS[1:]:
            if self.missing(level):
                break
            reached = level
        return reached

    def missing(self, level: Level) -> tuple[str, ...]:
        """The layers that a level needs and that were not reached."""
        needs = {
            "process": ("limits", "no_new_privileges"),
            "restricted": ("seccomp",),
            "namespaces": ("pid_namespace", "network_namespace", "ipc_namespace", "mount_namespace"),
        }
        below = LEVELS[1 : LEVELS.index(level) + 1]
        names = [name for step in below for name in needs[step] if not getattr(self, name)]
        if level in ("restricted", "namespaces") and not self.landlock and not self.jail:
            names.append("landlock or jail")
        if level == "namespaces" and not self.capabilities_dropped:
            names.append("capabilities_dropped")
        return tuple(names)

    def to_json(self) -> dict[str, object]:
        """The layers and the level, for a report."""
        return {**asdict(self), "level": self.level}


class NotIsolated(RuntimeError):
    """The isolation that is configured as the minimum was not reached on this machine."""


def require(isolation: Isolation, minimum: Level) -> None:
    """Raises NotIsolated if `isolation` is below `minimum`."""
    if LEVELS.index(isolation.level) < LEVELS.index(minimum):
        raise NotIsolated(
            f"programs would run at the level {isolation.level!r}, the minimum is {minimum!r}: missing are "
            f"{', '.join(isolation.missing(minimum))}. Run where user namespaces are allowed (in a container: "
            "--security-opt seccomp=unconfined, or bubblewrap), or set a lower minimum for programs that you trust"
        )
