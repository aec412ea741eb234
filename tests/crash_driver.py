"""Kills a run of the web pipeline at the n-th step that touches the disk, for many n, and resumes it each time.

Run as a program: `crash_driver.py SAMPLE FOLDER SEED RANDOM_POINTS`. Every run is a forked child of a process that has
no threads (pytest may hold Ray, whose threads do not survive a fork). Prints one JSON object a crash point.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import web

from gristmill.filters.signatures import minhash
from gristmill.filters.text.english import english
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.stages.near import union_find as forest

STEPS = ("fsync", "link", "replace", "rename", "unlink")
"""What the local store does to the disk; a crash before each of them, and so after the one before."""


def in_child(body: Callable[[], None]) -> int:
    """The exit code of `body` in a forked child; negative: killed by that signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_steps(report: Callable[[int, str], None], crash_before: int | None) -> None:
    """Wraps the steps: `report(n, name)` before each, SIGKILL before step `crash_before`."""
    n = 0

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def step(*args: object, **kwargs: object) -> object:
            nonlocal n
            n += 1
            report(n, name)
            if n == crash_before:
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "fsync":  # the crash is the process's: what it wrote before stays, flushed or not
                return None
            return original(*args, **kwargs)

        setattr(os, name, step)

    for name in STEPS:
        wrap(name)


def run(lake: Path, sample: Path, note: Path, crash_before: int | None = None) -> int:
    """One run; `note` gets the number of steps, and the number at which the commit began."""

    def body() -> None:
        seen = {"steps": 0, "commit": 0}

        def report(n: int, name: str) -> None:
            seen["steps"] = n

        commit = Versions.commit

        def noted(self: Versions, *args: object, **kwargs: object) -> object:
            seen["commit"] = seen["steps"]
            result = commit(self, *args, **kwargs)  # type: ignore[arg-type]
            seen["committed"] = seen["steps"]
            return result

        Versions.commit = noted  # type: ignore[method-assign, assignment]
        count_steps(report, crash_before)
        web.run(lake, web.crawl_files(sample))
        note.write_text(json.dumps(seen))

    return in_child(body)


def versions(lake: Path) -> list[tuple[int, str]]:
    """(number, digest) of every version of `web`."""
    store = Versions(open_store(str(lake), probe=False))
    return [(m.version, m.digest) for m in store.manifests("web")]


def main(sample: Path, folder: Path, seed: int, points: int) -> None:
    """Crashes a run at drawn steps and at each step of its commit; prints an outcome a line."""
    note = folder / "note.json"
    minhash.warm()  # once here, not in every child
    forest.kernels()
    english()
    assert run(folder / "whole", sample, note) == 0
    seen = json.loads(note.read_text())
    whole = versions(folder / "whole")
    commit = list(range(seen["commit"] + 1, seen["committed"] + 2))
    chosen = sorted({*commit, *random.Random(seed).sample(range(1, seen["steps"] + 1), points)})
    for n in chosen:
        lake = folder / f"crash{n}"
        killed = run(lake, sample, note, crash_before=n)
        at_crash = versions(lake) if killed < 0 else None
        resumed = run(lake, sample, note)
        outcome = {
            "step": n,
            "in_commit": n in commit,
            "killed": killed,
            "visible_after_crash": at_crash,
            "resumed": resumed,
            "same": versions(lake) == whole,
        }
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
