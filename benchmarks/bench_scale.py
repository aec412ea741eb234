"""What do two workers cost beside one, and how much memory does ten times the crawl take?

The web pipeline whole, from WARC to deduplicated shards, on generated crawls, in worker processes of this machine
(benchmarks/pool.py). One worker and two build the same version in turns: that there are two should cost next to
nothing in CPU time. Memory is the sum of two workers and of the process that drives them, each page extracted in the
worker itself, since a child process would be nobody's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Arm, Places, Report, Row, alike, alone, contest, figure
from benchmarks.pool import Memory, PoolRunner, pool_runner
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.synth.sample import write_sample

TIMES = 10
CHUNK_BYTES = 1 << 20
"""Of a piece of work: both crawls have more of them than there are workers."""


def crawl(folder: Path, pages: int) -> Path:
    """A generated crawl of about so many pages, written by a process of its own, whose memory is gone with it."""
    alone(partial(write_sample, folder, pages=pages))
    return folder / "crawl"


def built(lake: Path, files: Path, runner: PoolRunner) -> str:
    """The digest of the version that these workers make of a crawl."""
    store = open_store(str(lake))
    recipe: dict[str, Any] = {
        "inputs": [f"{files}/*"],
        "scan": {"chunk_bytes": CHUNK_BYTES},
        "extract": {"seconds_per_record": None},
        "max_quarantine_rate": 0.2,
    }
    config = WebConfig.model_validate({"recipe": recipe})
    return run_pipeline(config, store, runner.over(store)).manifest.content_digest


def memory_of(lake: Path, files: Path) -> Memory:
    """Of two workers and the process that drives them, from an empty lake to a commit."""
    with pool_runner(open_store(str(lake)), 2) as runner:
        built(lake, files, runner)
    return runner.memory


def run(tiny: bool) -> Report:
    """The report; `tiny` on a small crawl."""
    pages, times_as_many, rounds = (100, 2, 1) if tiny else (3000, TIMES, 3)
    with scratch() as folder:
        places = Places(folder)
        few, more = crawl(folder / "few", pages), crawl(folder / "more", times_as_many * pages)
        memories = [memory_of(places.fresh(), files) for files in (few, more)]
        peaks = [max(memory.peaks.values()) for memory in memories]
        store = open_store(str(places.fresh()))
        with pool_runner(store, 1) as single, pool_runner(store, 2) as double:
            arms = {
                "one worker": Arm(lambda: built(places.fresh(), few, single)),
                "two workers": Arm(lambda: built(places.fresh(), few, double)),
            }
            times = contest(arms, rounds, alike("scale: the version"))
    return Report(
        name="scale",
        data=f"generated crawls of {pages:,} pages and of {times_as_many} times as many",
        rounds=rounds,
        rows=(
            Row("web pipeline, two workers, of the CPU time of one", times.ratio("two workers", "one worker"), "x",
                "the version's digest"),
            Row("peak memory of all processes, ten times the pages beside once", figure([peaks[1] / peaks[0]]), "x"),
            Row("the same, for ten times the pages", figure([peaks[1] / 1e6]), "MB"),
        ),
        details={
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "wall_seconds": {name: figure(times.wall[name]).median for name in times.wall},
            "peaks_mb": [{stage: size / 1e6 for stage, size in memory.peaks.items()} for memory in memories],
        },
    )  # fmt: skip
