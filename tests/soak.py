"""`make soak`: runs of pipelines under seeded kill -9s, and the same content digests as without any.

An episode is a lake and two increments of the web pipeline, with `--of images` two of the vision pipeline, a tokenizer
and a mixture of text and images, with `--of speech` two of the speech pipeline, long files that are cut, and a
mixture of clips, or with `--of reasoning` two of the reasoning pipeline, whose samples a model in the lake draws, and a
mixture of the chains that were selected.
Each run is killed after a random number of new receipts, or in the wait for one: a worker (which Ray replaces: the run
goes on, and the next kill is of the same run), the driver alone (what it started has to follow it), the driver and all
it started, or a run without Ray; the same command is given again until it has committed. Episodes go on until there
were as many kills as asked, and the first ones have each kind of victim in turn.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import image_nights
import psutil
import speech_nights
import web

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.synth.sample import write_sample

ROOT = Path(__file__).parents[1]
VICTIMS = ("worker", "driver", "everything", "process")
"""`process`: a run without Ray."""
ORPHANS: list[psutil.Process] = []
"""What killed drivers had started. All of it ends by itself; Ray takes about a minute for that."""
_READ, _COMPARED = ["scan", "extract", "screen", "exact"], ["sign", "collect", "link", "merge_forests", "gather"]
_IMAGES = ["image", "sign_images", "collect_looks", "choose_pictures", "image_shards", "tokenize_media"]
_SPEECH = ["cut", "audio", "sign_clips", "collect_sounds", "choose_clips", "clip_shards"]
_MIXED = ["tokenizer", "tokenize", "plan", "account", "pack", "ledger"]
_CHAINS = ["problems", "settle", "rollouts", "choose_samples", "chains", "step_pairs"]
_HOSTED = ["Worker", "Worker.run"]
"""Who hosts what is dear to set up, as engines and verifiers."""
TASKS = frozenset([*_READ, *_COMPARED, "choose", "clusters", "shards", *_IMAGES, *_SPEECH, *_CHAINS, *_MIXED, *_HOSTED])
Run = Callable[[Path, int], list[str]]
"""The command of a run in a lake, with so many workers."""


class Kind(NamedTuple):
    """What is run. `runs`: one after the other. `datasets`: what they make."""

    runs: list[Run]
    datasets: tuple[str, ...]


def command(pipeline: str, lake: Path, workers: int, settings: list[str]) -> list[str]:
    """A run of a pipeline, with these `--set`."""
    run = [sys.executable, "-m", "pipelines", "run", f"conf/{pipeline}.yaml", "--lake", str(lake)]
    return [*run, "--set", f"run.workers={workers}", *settings]


def crawls(folder: Path) -> Kind:
    """Two increments of the web pipeline."""
    write_sample(folder / "sample", pages=150)
    first = web.crawl_files(folder / "sample")

    def increment(inputs: list[Path | str]) -> Run:
        recipe = {"extends": "web", "max_quarantine_rate": 0.2, "scan": {"chunk_bytes": web.CHUNK}}
        recipe |= {"shards": {"target_bytes": 100_000}, "inputs": [str(path) for path in inputs]}
        return lambda lake, workers: command("web", lake, workers, image_nights.settings(recipe))

    runs = [increment(first), increment([*first, *sorted((folder / "sample" / "night2").iterdir())])]
    return Kind(runs, ("web",))


def images(folder: Path) -> Kind:
    """Two increments of the vision pipeline, a tokenizer and a mixture."""
    image_nights.write_nights(folder)

    def night(pipeline: str, recipe: dict[str, object]) -> Run:
        def run(lake: Path, workers: int) -> list[str]:
            image_nights.begin(folder, lake)
            return command(pipeline, lake, workers, image_nights.settings(recipe))

        return run

    return Kind([night(*each) for each in image_nights.recipes(folder)], image_nights.DATASETS)


def speech(folder: Path) -> Kind:
    """Two increments of the speech pipeline, one of long files that are cut, a tokenizer and a mixture."""
    speech_nights.write_nights(folder)

    def night(pipeline: str, recipe: dict[str, object]) -> Run:
        return lambda lake, workers: command(pipeline, lake, workers, image_nights.settings(recipe))

    return Kind([night(*each) for each in speech_nights.recipes(folder)], speech_nights.DATASETS)


def reasoning(folder: Path) -> Kind:
    """Two increments of the reasoning pipeline, three versions each, and a mixture."""
    import reasoning_nights  # it teaches a model: torch takes seconds to import

    reasoning_nights.write_nights(folder)

    def night(pipeline: str, recipe: dict[str, object]) -> Run:
        def run(lake: Path, workers: int) -> list[str]:
            reasoning_nights.begin(folder, lake)
            return command(pipeline, lake, workers, reasoning_nights.settings(pipeline, recipe))

        return run

    return Kind([night(*each) for each in reasoning_nights.recipes(folder)], reasoning_nights.DATASETS)


KINDS = {"web": crawls, "images": images, "speech": speech, "reasoning": reasoning}


def start(command: list[str]) -> subprocess.Popen[str]:
    """Starts a run whose output is kept."""
    return subprocess.Popen(
        command,
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


def hurt(lake: Path, run_of: Run, dice: random.Random, victims: Iterator[str]) -> tuple[int, int | None]:
    """(kills, exit code or None if it was killed) of one run, of the next of `victims`; of none where there is none.
    After a worker's death the run goes on, and is hurt again."""
    victim = next(victims, None)
    run = start(run_of(lake, 0 if victim in ("process", None) else 2))
    kills = 0
    while victim:
        if not _is_killed(run, lake, dice, victim):
            break
        kills += 1
        victim = next(victims, None) if victim == "worker" else None
    _, errors = run.communicate()
    if run.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"a run ended with exit code {run.returncode}: {errors}")
    return kills, run.returncode if run.returncode == 0 else None


def _is_killed(run: subprocess.Popen[str], lake: Path, dice: random.Random, victim: str) -> bool:
    """Whether a victim was killed after some new receipts; the run may have ended before."""
    threshold, pause = receipts(lake) + dice.randrange(0, 12), dice.random() * 0.05
    while run.poll() is None:
        if receipts(lake) >= threshold:
            time.sleep(pause)
            if kill(run, victim):
                print(json.dumps({"killed": victim, "receipts": receipts(lake)}), flush=True)
                return True
            if victim != "worker":
                return False
        time.sleep(0.02)  # to look takes time, too
    return False


def episode(lake: Path, runs: list[Run], dice: random.Random, before: int, kills: int) -> int:
    """All runs; the number of kills when they are done. `before`: how many there were, of `kills` in all."""
    done = before
    for run_of in runs:
        code = None
        while code is None:
            more = (VICTIMS[n] if n < len(VICTIMS) else dice.choice(VICTIMS) for n in range(done, kills))
            killed, code = hurt(lake, run_of, dice, more)
            done += killed
    return done


def state(lake: Path, datasets: tuple[str, ...]) -> list[tuple[int, str]]:
    """(number, digest) of every version; ends the process if the lake is not whole."""
    store = open_store(str(lake), probe=False)
    if findings := verify(store, list(datasets), deep=True):
        sys.exit(f"{lake}: {findings[0].message}")
    return [(m.version, m.digest) for name in datasets for m in Versions(store).manifests(name)]


def main(arguments: list[str]) -> int:
    """So many kills, and whether the digests are those without kills."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--of", choices=sorted(KINDS), default="web")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    dice, total, started = random.Random(given.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="grist-soak-") as name:
        folder = Path(name)
        kind = KINDS[given.of](folder)
        episode(folder / "whole", kind.runs, dice, 0, 0)
        whole = state(folder / "whole", kind.datasets)
        number = 0
        while total < given.kills:
            lake = folder / f"episode{number}"
            before, total = total, episode(lake, kind.runs, dice, total, given.kills)
            same = state(lake, kind.datasets) == whole
            print(json.dumps({"episode": number, "kills": total - before, "same": same}), flush=True)
            if not same:
                return 1
            number += 1
        psutil.wait_procs(ORPHANS)
    print(json.dumps({"kills": total, "episodes": number, "seconds": round(time.monotonic() - started), "same": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
