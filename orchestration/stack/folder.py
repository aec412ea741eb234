"""Where a local stack keeps what it knows: one folder with who runs where, logs, two secrets, Prefect's database.

Everything listens on 127.0.0.1, and what takes orders asks for a secret made here, because whoever may submit a job
runs code as you, and the other users of this machine share that address. The secrets lie in files that only you can
read; Prefect finds its own through a profile, so that no secret stands on a command line or on the screen.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.orchestration.stack import processes
from gristmill.orchestration.stack.health import Server
from gristmill.orchestration.stack.processes import Identity

POOL = "gristmill"
MARK = "GRIST_STACK_ID"
PARTS = ("ray", "prefect", "worker")
PORTS = {"ray": 8265, "prefect": 4200, "gcs": 6379, "agent": 52365, "agent_grpc": 52366, "client": 10001}
"""`ray` is the job server and dashboard; gcs, agent and client are Ray's own. A port that is taken: any free one."""


class StackError(OSError):
    """The stack cannot do what was asked; the message says why, with the end of a log where a part does not start."""


def state_folder() -> Path:
    """Where stacks live: $GRIST_HOME, else the user's state folder. Raises ValueError where there is neither."""
    if given := os.environ.get("GRIST_HOME"):
        return Path(given).absolute()
    if given := os.environ.get("XDG_STATE_HOME"):
        return Path(given) / "gristmill"
    try:
        return Path.home() / ".local/state/gristmill"
    except RuntimeError:
        raise ValueError("this user has no home folder: set GRIST_HOME to a folder for the state of stacks") from None


@dataclass(frozen=True)
class Stack:
    """`folder`: all of its state. Nothing of it is kept in memory: every call reads what is there now."""

    folder: Path

    @classmethod
    def named(cls, name: str = "local") -> Stack:
        """The stack of that name in the user's state folder. Raises ValueError for a name that is no folder's."""
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"stack {name!r}: letters, digits, '-' and '_'")
        return cls(state_folder() / name)

    @property
    def name(self) -> str:
        """What it is called: the last part of its folder."""
        return self.folder.name

    @property
    def worker_name(self) -> str:
        """Under which its worker registers with Prefect: one a machine."""
        return f"{self.name}-{platform.node()}"

    @property
    def prefect(self) -> Server:
        """Prefect's API, with its password."""
        return Server.with_password(f"http://127.0.0.1:{self.ports['prefect']}/api", self.secret("prefect"))

    @property
    def ray(self) -> Server:
        """Ray's job server, with its token."""
        return Server.with_token(f"http://127.0.0.1:{self.ports['ray']}", self.secret("ray"))

    @property
    def ports(self) -> dict[str, int]:
        """The ports of PORTS, as they were chosen when the stack was started."""
        return {**PORTS, **self.state().get("ports", {})}

    @property
    def ray_folder(self) -> Path | None:
        """The private folder above Ray's sessions; None where Ray never ran. Not in `folder`: that path is too long
        for a socket, and not Ray's usual one, which has a file that names "the current cluster" of this machine."""
        kept = self.state().get("ray_folder")
        return Path(kept) if kept else None

    def secret(self, part: str) -> str:
        """The secret of `ray` (a token) or `prefect` ("user:password"); "" before the first start."""
        path = self.folder / f"{part}-secret"
        return path.read_text().strip() if path.exists() else ""

    def log(self, part: str) -> Path:
        """The file to which a part writes its output."""
        return self.folder / "logs" / f"{part}.log"

    def state(self) -> dict[str, Any]:
        """What stack.json holds: id, parts (name -> Identity), ports, ray_folder; {} before the first start.

        Raises StackError where the file is damaged.
        """
        file = self.folder / "stack.json"
        try:
            return dict(json.loads(file.read_text()))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StackError(f"{file} is damaged ({error}): end what still runs by hand, and delete it") from None

    def write(self, **changes: Any) -> None:
        """Changes keys of stack.json, in one step."""
        path = self.folder / "stack.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"format": 1, **self.state(), **changes}, indent=1))
        os.replace(fresh, path)

    def process(self, part: str) -> Identity | None:
        """The part's process if it runs."""
        recorded = self.state().get("parts", {}).get(part)
        process = Identity(*recorded) if recorded else None
        return process if process is not None and processes.alive(process) else None

    def mark(self, part: str) -> str:
        """What a part and its children have in their environment, as $GRIST_STACK_ID."""
        return f"{self.state().get('id')}-{part}"

    def family(self, *parts: str) -> list[Identity]:
        """Every process of these parts, or of all: what the stack started, and what those started."""
        return [process for part in parts or PARTS for process in processes.marked(MARK, self.mark(part))]

    def exports(self) -> dict[str, str]:
        """What a shell needs in order to speak to this stack. No secret: both lie in files only you can read.

        RAY_API_SERVER_ADDRESS and not RAY_ADDRESS: that one would also redirect every `grist run` of the shell.
        RAY_AUTH_TOKEN empty: Ray would take the token of another cluster in it before the file's.
        """
        return {
            "PREFECT_API_URL": self.prefect.url,
            "PREFECT_PROFILES_PATH": str(self.folder / "profiles.toml"),
            "RAY_API_SERVER_ADDRESS": self.ray.url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "ray-secret"),
        }

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StackError(f"another `grist up` or `down` of {self.name} is at work: wait for it") from None
            yield


def private(path: Path, text: str, again: bool = False) -> None:
    """A file only this user can read, from its first byte on. One that others could have written is made anew."""
    if again or not _kept_private(path):
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n" if again else text)
        os.replace(fresh, path)


def _kept_private(path: Path) -> bool:
    """Whether it is a file of this user's that nobody else can read or write."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077
