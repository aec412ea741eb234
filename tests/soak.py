"""`make soak`: two increments of the web pipeline under seeded kill -9s, and the same content digests as without any.

An episode is an empty lake and two increments. Each run is killed after a random number of new receipts, or in the wait
for one: the driver alone (what it started has to follow it), a worker (which Ray replaces, and the run goes on), the
driver and all it started, or a run without Ray; the same command is given again until both increments are committed.
Episodes go on until there were as many kills as asked, and the first ones have each kind of victim in turn.
Prints one JSON line a kill and one an episode; exit code 1 if a digest differs, a version is missing or one too many.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import web

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.synth.sample import write_sample

ROOT = Path(__file__).parents[1]
VICTIMS = ("driver", "worker", "everything", "process")
"""`process`: a run without Ray."""
ORPHANS: list[psutil.Process] = []
"""What killed drivers had started. All of it ends by itself; Ray takes about a minute for that."""
_READ, _COMPARED = ["scan", "extract", "screen", "exact"], ["sign", "collect", "link", "merge_forests", "gather"]
TASKS = frozenset([*_READ, *_COMPARED, "choose", "clusters", "shards"])


def command(lake: Path, inputs: list[Path | str], workers: int) -> list[str]:
    """A run of the web pipeline that extends `web`."""
    settings = ["recipe.extends=web", "recipe.max_quarantine_rate=0.2", f"run.workers={workers}"]
    settings += [f"recipe.scan.chunk_bytes={web.CHUNK}", "recipe.shards.target_bytes=100000"]
    settings += [f"recipe.inputs={json.dumps([str(path) for path in inputs])}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "pipelines", "run", "conf/web.yaml", "--lake", str(lake), *sets]


def start(lake: Path, inputs: list[Path | str], workers: int) -> subprocess.Popen[str]:
    """Starts a run whose output is kept."""
    return subprocess.Popen(
        command(lake, inputs, workers),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )


def receipts(lake: Path) -> int:
    """How many receipts a lake holds."""
    return sum(1 for _ in (lake / "receipts").rglob("*.json"))


def kill(run: subprocess.Popen[str], victim: str) -> bool:
    """Whether something was killed."""
    try:
        family = psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:  # it has just ended
        return False
    if victim == "worker":
        busy = [process for process in family if _title(process) in {f"ray::{task}" for task in TASKS}]
        for process in busy[:1]:
            process.kill()
        return bool(busy)
    if run.poll() is not None:
        return False
    run.send_signal(signal.SIGKILL)
    for process in family if victim == "everything" else ():
        try:
            process.kill()
        except psutil.NoSuchProcess:  # it followed its driver
            continue
    ORPHANS.extend(family)
    return True


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()  # Ray names a worker after its task
    except psutil.Error:  # ended while we looked
        return ""


def hurt(lake: Path, inputs: list[Path | str], dice: random.Random, victim: str | None) -> tuple[int, int | None]:
    """(kills, exit code or None if it was killed) of one run."""
    workers = 0 if victim in ("process", None) else 2
    threshold, pause = receipts(lake) + dice.randrange(0, 12), dice.random() * 0.05
    run = start(lake, inputs, workers)
    killed = 0
    while victim and not killed and run.poll() is None:
        if receipts(lake) >= threshold:
            time.sleep(pause)
            killed = int(kill(run, victim))
            if killed:
                print(json.dumps({"killed": victim, "receipts": receipts(lake)}), flush=True)
            elif victim != "worker":
                break
        time.sleep(0.005)
    _, errors = run.communicate()
    if run.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"a run ended with exit code {run.returncode}: {errors}")
    return killed, run.returncode if run.returncode == 0 else None


def increments(sample: Path) -> list[list[Path | str]]:
    """The inputs of the first run, and of the increment."""
    first = web.crawl_files(sample)
    return [first, [*first, *sorted((sample / "night2").iterdir())]]


def episode(lake: Path, sample: Path, dice: random.Random, before: int, kills: int) -> int:
    """Both increments; the number of kills when they are done. `before`: how many there were, of `kills` in all."""
    done = before
    for inputs in increments(sample):
        code = None
        while code is None:
            victim = VICTIMS[done] if done < len(VICTIMS) else dice.choice(VICTIMS)
            killed, code = hurt(lake, inputs, dice, victim if done < kills else None)
            done += killed
    return done


def state(lake: Path) -> list[tuple[int, str]]:
    """(number, digest) of every version; ends the process if the lake is not whole."""
    store = open_store(str(lake), probe=False)
    if findings := verify(store, deep=True):
        sys.exit(f"{lake}: {findings[0].message}")
    return [(m.version, m.digest) for m in Versions(store).manifests("web")]


def main(arguments: list[str]) -> int:
    """So many kills, and whether the digests are those without kills."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    dice, total, started = random.Random(given.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="grist-soak-") as name:
        folder = Path(name)
        write_sample(folder / "sample", pages=150)
        episode(folder / "whole", folder / "sample", dice, 0, 0)
        whole = state(folder / "whole")
        number = 0
        while total < given.kills:
            lake = folder / f"episode{number}"
            before, total = total, episode(lake, folder / "sample", dice, total, given.kills)
            same = state(lake) == whole
            print(json.dumps({"episode": number, "kills": total - before, "same": same}), flush=True)
            if not same:
                return 1
            number += 1
        psutil.wait_procs(ORPHANS)
    print(json.dumps({"kills": total, "episodes": number, "seconds": round(time.monotonic() - started), "same": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
