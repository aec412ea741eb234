"""What is asked about runs: which there are and how far each is, and the metrics of one, running or long finished.

A run has a folder until its receipt is written (stages/train/folder.py); afterwards its version has the metrics. A run
is alive as long as a live lease names its work; that is the rule by which gc leaves its folder alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object
from gristmill.lake.versions.lease import live_work
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.runs.curve import Smoothed, half_life
from gristmill.model.train.metrics import Progress
from gristmill.stages.train.folder import RunAbout, RunFolder, runs
from gristmill.stages.train.process import Process
from gristmill.stages.train.result import METRICS

SILENT = 120.0
"""Seconds without a sign of life after which a run is called silent: a dozen of its beats."""
_KEY = re.compile(r"[0-9a-f]{6,64}")

State = Literal["running", "silent", "ended"]


@dataclass(frozen=True)
class RunRow:
    """A run that has no receipt yet. `state`: "silent" gave no sign of life for SILENT seconds, as in a long step;
    "ended": its process is gone, and the same command goes on where it was. `loss`: smoothed; `tokens_per_second`: over
    the last steps; both, and `seconds_left`, None before the first step. `silent_for`: seconds since a sign of life."""

    key: str
    dataset: str
    stage: str
    state: State
    step: int
    steps: int
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    skipped: int
    world: int
    host: str
    pid: int
    started: float
    silent_for: float


def run_rows(store: Store, now: float | None = None) -> list[RunRow]:
    """Every run without a receipt, the newest first. Raises Unreadable for a damaged folder."""
    now = time.time() if now is None else now
    live = live_work(store, now)
    return [_row(store, about, live, now) for about in runs(store)]


def metrics_of_version(store: Store, manifest: Manifest) -> list[Progress]:
    """The steps that a version of a model came from; none where it was not trained here. Raises DamagedObject."""
    ref = next((ref for ref in manifest.attachments if ref.kind == METRICS), None)
    return [] if ref is None else [Progress.from_json(line) for line in read_object(store, ref).splitlines()]


def metrics_of_run(store: Store, key: str) -> list[Progress]:
    """The steps of a run without a receipt, by its key."""
    return [Progress.of(line) for line in RunFolder(store, key).metrics()]


def find_run(store: Store, prefix: str) -> RunAbout | None:
    """The run whose key begins so; None for what is no beginning of a key, or of none that there is.

    Raises ValueError where several begin so.
    """
    if not _KEY.fullmatch(prefix):
        return None
    matches = [about for about in runs(store) if about.key.startswith(prefix)]
    if len(matches) > 1:
        listed = ", ".join(f"{about.key[:12]} ({about.dataset})" for about in matches)
        raise ValueError(f"{prefix}: several runs begin so: {listed}; give more of the key")
    return matches[0] if matches else None


def _row(store: Store, about: RunAbout, live: Collection[str], now: float) -> RunRow:
    metrics = metrics_of_run(store, about.key)
    half = half_life(about.steps)
    loss, tokens, seconds = Smoothed(half), Smoothed(half), Smoothed(half)
    for progress in metrics:
        loss.add(progress.loss, progress.targets)
        tokens.add(progress.tokens)
        seconds.add(progress.seconds)
    silent_for = max(0.0, now - about.alive)
    return RunRow(
        key=about.key,
        dataset=about.dataset,
        stage=about.stage,
        state=_state(about, live, silent_for),
        step=metrics[-1].step if metrics else 0,
        steps=about.steps,
        loss=_known(loss.value),
        tokens_per_second=_known(tokens.value / seconds.value) if metrics and seconds.value > 0 else None,
        seconds_left=metrics[-1].seconds_left if metrics else None,
        skipped=sum(progress.skipped for progress in metrics),
        world=about.world,
        host=about.host,
        pid=about.pid,
        started=about.started,
        silent_for=silent_for,
    )


def _state(about: RunAbout, live: Collection[str], silent_for: float) -> State:
    process = Process(about.host, about.pid, about.boot, about.namespace)
    if about.key not in live or process.is_gone():
        return "ended"
    return "silent" if silent_for >= SILENT else "running"


def _known(value: float) -> float | None:
    return value if value == value else None  # NaN is unlike itself
