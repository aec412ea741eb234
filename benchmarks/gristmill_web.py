"""The web pipeline of this project as benchmarks run it: on one crawl, with what it came to read from the lake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.cpu_time import cpu_seconds
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.stages.core.work import Work
from gristmill.stages.read.inputs import scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.scan import Scan
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.sources import Phase


class Stopwatch(Runner):
    """A runner that notes the CPU time of each stage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cpu: dict[str, float] = {}

    def map(self, title: str, works: Any) -> list[Receipt]:
        started = cpu_seconds()
        todo: list[Work] = list(works)
        receipts = super().map(title, todo)
        self.cpu[title] = self.cpu.get(title, 0.0) + cpu_seconds() - started
        return receipts

    def pipelined(self, count: int, phases: Sequence[Phase]) -> list[list[Receipt]]:
        """A map a phase: of these it notes the time."""
        return self.phase_after_phase(count, phases)


@dataclass(frozen=True)
class Outcome:
    """A committed run; `cpu`: seconds by stage, where pages are read as their file is scanned both in "scan". What it
    holds is read when asked for, which nobody times. URLs go by their hash."""

    crawl: Path
    manifest: Manifest
    store: Store
    cpu: dict[str, float]

    @cached_property
    def ledger(self) -> list[dict[str, Any]]:
        """Its rows."""
        return [row for ref in self.manifest.ledgers for row in read_table(self.store, ref).to_pylist()]

    @cached_property
    def read(self) -> Counter[str]:
        """What came to the extraction: pages with all that HTTP asks for."""
        return Counter(row["id"][:16] for row in self.ledger if not (row["reason"] or "").startswith("read."))

    @cached_property
    def passed(self) -> Counter[str]:
        """What passed all filters, exact duplicates too."""
        return Counter(row["id"][:16] for row in self.ledger if row["fate"] == "kept" or row["stage"] == "exact")

    @cached_property
    def duplicates(self) -> int:
        """How many exact duplicates were dropped."""
        return sum(row["stage"] == "exact" for row in self.ledger)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why a record was dropped, with what the ledger says it had."""
        lost = [row for row in self.ledger if row["reason"]]
        return {row["id"][:16]: " ".join(filter(None, (row["reason"], row["value"]))) for row in lost}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Hash of a URL -> the text in the shards."""
        shards = [read_table(self.store, ref, ["url", "text"]) for ref in self.manifest.shards]
        return {url_hash(row["url"]): row["text"] for shard in shards for row in shard.to_pylist()}


def run_gristmill(crawl: Path, folder: Path, **extract: Any) -> Outcome:
    """Our pipeline on one WARC file, in a new lake below `folder`. `extract`: settings of the extraction."""
    store = open_store(str(folder / "lake"))
    runner = Stopwatch(store, workers=0)
    started = cpu_seconds()
    recipe = {"inputs": [str(crawl)], "minhash": None, "extract": extract}
    config = WebConfig.model_validate({"recipe": recipe, "run": {"workers": 0}})
    manifest = run_pipeline(config, store, runner).manifest
    rest = cpu_seconds() - started - sum(runner.cpu.values())
    return Outcome(crawl, manifest, store, {**runner.cpu, "commit and the rest": rest})


def scan_apart(cpu: dict[str, float], crawl: Path, folder: Path) -> dict[str, float]:
    """CPU seconds by stage of a run on one file, as if it were scanned first and then read. The scan is done alone for
    it, in a new lake below `folder`."""
    runner = Stopwatch(open_store(str(folder / "lake")), workers=0)
    scan_inputs(runner, Scan(), Listing([str(crawl)], []))
    alone = runner.cpu["scan"]
    return {**cpu, "scan": alone, "extract": cpu["extract"] + cpu["scan"] - alone}
