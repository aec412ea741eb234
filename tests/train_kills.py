"""Processes that kill themselves while they train, at an event that is counted: no clock decides where."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest

from gristmill.model.train import state

LOCAL = ("step", "file", "rename", "renamed", "removal")
"""After a step; when a file of a checkpoint is written; before and after a rename; before a folder is removed."""
REMOTE = ("upload", "uploaded", "deletion")
"""Before and after a file goes into a store; before an object is deleted there."""


def kill_me() -> None:
    """kill -9 of this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def killing(event: str, count: int, patch: pytest.MonkeyPatch, store: type | None = None) -> Callable[[Any], None]:
    """Arranges that this process kills itself at an event, before which there were `count` of the same.

    `store`: the class of the store that has the remote ones. -> What to give to `on_step`.
    """
    left = count

    def tick(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            kill_me()

    def around(place: Any, name: str, before: bool) -> None:
        honest = getattr(place, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if before:
                tick()
            answer = honest(*arguments, **named)
            if not before:
                tick()
            return answer

        patch.setattr(place, name, call)

    places = {
        "file": (state, "save_file", False),
        "rename": (os, "rename", True),
        "renamed": (os, "rename", False),
        "removal": (shutil, "rmtree", True),
        "upload": (store, "put_file", True),
        "uploaded": (store, "put_file", False),
        "deletion": (store, "delete", True),
    }
    if event == "step":
        return tick
    around(*places[event])
    return lambda _: None


def in_child(work: Callable[[], object]) -> int:
    """Does work in a process of its own. -> The signal that ended it; 0: none did, and it worked."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(event: str, count: int, train: Callable[[Any], object], store: type | None = None) -> bool:
    """Trains in a process that is killed at that event; `train` is handed an `on_step`. -> Whether it came to that."""

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            train(killing(event, count, patch, store))

    return in_child(work) == signal.SIGKILL
