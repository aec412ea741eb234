"""What tests of the web pipeline share: a small crawl, a run in this process, and the fates it came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.stages.read.scans import Scans
from gristmill.stages.run.runner import Runner

CHUNK = 200_000
"""Bytes: small, so that a small crawl is still several pieces of work."""


def config(inputs: list[Path | str], **recipe: Any) -> WebConfig:
    """The config of a run over these inputs."""
    # part-0005 of the sample is damaged on purpose: 5 of its 60 records
    defaults = {"scan": {"chunk_bytes": CHUNK}, "shards": {"target_bytes": 100_000}, "max_quarantine_rate": 0.2}
    return WebConfig.model_validate({"recipe": {"inputs": [str(i) for i in inputs], **defaults, **recipe}})


def run(lake: Path | str, inputs: list[Path | str], workers: int = 0, plan: bool = False, **recipe: Any) -> Result:
    """A run in this process, or with workers on Ray."""
    store = open_store(str(lake))
    return run_pipeline(config(inputs, **recipe), store, Runner(store, workers=workers, plan=plan))


def in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is read while it is scanned, as of a file that others have the size of."""
    monkeypatch.setattr(Scans, "_along", lambda self, previews: {})


def crawl_files(sample: Path) -> list[Path | str]:
    """The files of the first run."""
    return sorted((sample / "crawl").iterdir())


def summary(manifest: Manifest) -> tuple[int, int, int, int]:
    """How many records came in, were kept, dropped and quarantined."""
    m = manifest
    return m.received.count, m.kept.count, m.dropped.count, m.quarantined.count
