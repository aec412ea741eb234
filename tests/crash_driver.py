"""Kills runs at the n-th step that touches the disk, for many n, and resumes them each time.

Run as a program: `crash_driver.py KIND --points N`, where KIND is `web` for a crawl, `images` for two nights of images
and a mixture of them, `speech` for two nights of clips and files that are cut, or `reasoning` for two nights of
problems whose samples are drawn, judged and selected. Every run is a forked child of a process that has no threads
(pytest may hold Ray, whose threads do not survive a fork). Prints one JSON object a crash point; exit code 1 if a
digest differs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import web

from gristmill.filters.signatures import minhash
from gristmill.filters.text.english import english
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.stages.near import union_find as forest
from gristmill.synth.sample import write_sample

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


class Kind(NamedTuple):
    """`run`: of a lake and a folder of inputs. `datasets`: what it makes. `write`: the inputs."""

    run: Callable[[Path, Path], object]
    datasets: tuple[str, ...]
    write: Callable[[Path], object]


def nights(name: str) -> Kind:
    """Of a module of recipes that run in turn."""
    importlib.import_module("torch")  # all of them have to do with models: once here, not in every child
    module: Any = importlib.import_module(name)
    return Kind(lambda lake, sample: module.run_in_process(sample, lake), module.DATASETS, module.write_nights)


def crawl(lake: Path, sample: Path) -> object:
    """A run of the web pipeline, without Ray and without a child process."""
    return web.run(lake, web.crawl_files(sample), extract={"seconds_per_record": None})


def crawls() -> Kind:
    """Of the web pipeline; a model has no part in it."""
    return Kind(crawl, ("web",), lambda folder: folder.exists() or write_sample(folder, pages=150))


KINDS: dict[str, Callable[[], Kind]] = {"web": crawls}
KINDS |= {
    "images": partial(nights, "image_nights"),
    "speech": partial(nights, "speech_nights"),
    "reasoning": partial(nights, "reasoning_nights"),
}


def run(kind: Kind, lake: Path, sample: Path, note: Path, crash_before: int | None = None) -> int:
    """One run; `note` gets the number of steps, and those between which it committed."""

    def body() -> None:
        steps, commits = 0, list[tuple[int, int]]()

        def report(n: int, name: str) -> None:
            nonlocal steps
            steps = n

        commit = Versions.commit

        def noted(self: Versions, *args: object, **kwargs: object) -> object:
            began = steps
            result = commit(self, *args, **kwargs)  # type: ignore[arg-type]
            commits.append((began, steps))
            return result

        Versions.commit = noted  # type: ignore[method-assign, assignment]
        count_steps(report, crash_before)
        kind.run(lake, sample)
        note.write_text(json.dumps({"steps": steps, "commits": commits}))

    return in_child(body)


def versions(kind: Kind, lake: Path) -> list[tuple[int, str]]:
    """(number, digest) of every version of its datasets, one dataset after the other."""
    store = Versions(open_store(str(lake), probe=False))
    return [(m.version, m.digest) for name in kind.datasets for m in store.manifests(name)]


def crash(kind: Kind, sample: Path, folder: Path, seed: int, points: int) -> bool:
    """Crashes a run at drawn steps, one with a single commit at each step of it, too; prints an outcome a line. Whether
    all of them came to the same."""
    note = folder / "note.json"
    minhash.warm()  # once here, not in every child
    forest.kernels()
    english()
    kind.write(sample)
    assert run(kind, folder / "whole", sample, note) == 0
    seen = json.loads(note.read_text())
    whole = versions(kind, folder / "whole")
    began, ended = seen["commits"][-1]
    commit = list(range(began + 1, ended + 2)) if len(seen["commits"]) == 1 else []
    # One of each equal part of a run: kills are nowhere far apart.
    random_ = random.Random(seed)
    edges = [1 + n * seen["steps"] // points for n in range(points + 1)]
    chosen = sorted({*commit, *(random_.randrange(low, high) for low, high in pairwise(edges))})
    all_same = True
    for n in chosen:
        lake = folder / f"crash{n}"
        killed = run(kind, lake, sample, note, crash_before=n)
        at_crash = versions(kind, lake) if killed < 0 else None
        resumed = run(kind, lake, sample, note)
        same = versions(kind, lake) == whole
        outcome = {
            "step": n,
            "in_commit": n in commit,
            "killed": killed,
            "visible_after_crash": at_crash,
            "resumed": resumed,
            "same": same,
        }
        all_same &= resumed == 0 and same
        print(json.dumps(outcome), flush=True)
    return all_same


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="crash_driver", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--points", type=int, default=40, help="drawn steps, beside those of the commit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=Path, help="the inputs; they are written where they are not")
    parser.add_argument("--folder", type=Path, help="for lakes, which stay")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="grist-crash-") as name:
        folder = given.folder or Path(name)
        same = crash(KINDS[given.kind](), given.sample or folder / "in", folder, given.seed, given.points)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
