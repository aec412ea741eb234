"""Versions of trained models and their evaluations, and folders of runs, as trainings leave them, without training."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_file, scratch
from gristmill.lake.store.sealed import write_note
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest, VersionRef, run_key
from gristmill.lake.versions.versions import Versions
from gristmill.model.train.metrics import MetricsFile, Progress
from gristmill.stages.train.folder import ABOUT, RunAbout, RunFolder, read_about
from gristmill.stages.train.result import METRICS, TrainFacts

STEP = Progress(1, 40, 3, 2.5, 1e-2, 0.7, 30, 66, False, 0.5, 132.0, 5.5, None)


def steps(losses: Sequence[float], planned: int | None = None, since: int = 0, **changes: Any) -> list[Progress]:
    """A step for each loss; half of the tokens are targets, the rate rises by 1e-3 a step."""
    return [
        replace(
            STEP, step=i, steps=planned or len(losses), loss=loss, lr=1e-3 * i, since=since * (i > since), **changes
        )
        for i, loss in enumerate(losses, 1)
    ]


def commit_model(
    store: Store,
    dataset: str,
    metrics: Sequence[Progress],
    *,
    tokens: int = 1000,
    peak_lr: float = 1e-2,
    parameters: int = 500,
    trainable: Sequence[str] = ("language",),
) -> Manifest:
    """A version of a model with these metrics; without any it is as an imported one."""
    statistics: dict[str, Any] = {"parameters": parameters}
    attachments = []
    if metrics:
        with scratch() as folder:
            path = folder / "metrics.jsonl"
            write_metrics(path, metrics)
            attachments.append(put_file(store, METRICS, path, len(metrics)))
        facts = TrainFacts(
            steps=len(metrics),
            tokens=tokens,
            targets=tokens // 2,
            peak_lr=peak_lr,
            final_loss=metrics[-1].loss,
            skipped=0,
            order="0" * 64,
            world=1,
            seconds=3.0,
            positions=len(metrics),
            model={},
        )
        statistics["training"] = {"stage": "s", **asdict(facts)}
    recipe = {"stage": {"trainable": list(trainable)}, "lr": peak_lr}
    return _commit(store, dataset, "model", recipe, statistics=statistics, attachments=tuple(attachments))


def commit_evaluation(store: Store, model: Manifest, nats: float | None, on: str = "held") -> Manifest:
    """A version with the perplexity of a model on `on`@v1; None: it was evaluated on something else."""
    scores = [{"task": "exact", "metric": "accuracy", "source": "", "value": 0.5}]
    if nats is not None:
        scores.append({"task": "perplexity", "metric": "nats_per_token", "source": f"{on}@v1", "value": 99.0})
        scores.append({"task": "perplexity", "metric": "nats_per_token", "source": "", "value": nats})
    sources = (
        model.ref.model_copy(update={"role": "evaluated"}),
        VersionRef(dataset=on, version=1, digest="d" * 64, role="on"),
    )
    recipe = {"model": str(model), "on": [on]}
    return _commit(store, f"{model.dataset}.eval", "verdicts", recipe, statistics={"scores": scores}, sources=sources)


def put_run(store: Store, key: str, metrics: Sequence[Progress], **about: Any) -> RunAbout:
    """The folder of a run that said so of itself a while ago, here unless `host` and `pid` say otherwise."""
    folder = RunFolder(store, key)
    folder.announce(RunAbout(key, "pretrain", about.pop("dataset", "nano.pretrain"), 40, world=about.pop("world", 1)))
    known = read_about(store, key)
    assert known is not None and known.host == platform.node() and known.pid == os.getpid()
    changed = replace(known, **about)
    store.put(folder.prefix + ABOUT, write_note({}, **asdict(changed)))
    write_metrics(folder.metrics_file, metrics)
    return changed


def write_metrics(path: Path, metrics: Sequence[Progress]) -> None:
    """A file of metrics."""
    with MetricsFile(path, 0) as file:
        for progress in metrics:
            file.write(progress)


def _commit(store: Store, dataset: str, form: Form, recipe: dict[str, Any], **changes: Any) -> Manifest:
    zero = Tally()
    key = run_key(dataset, recipe, [], (), changes.get("sources", ()))
    draft = Draft(
        dataset=dataset,
        form=form,
        run_key=key,
        recipe=recipe,
        stages=(),
        received=zero,
        kept=zero,
        dropped=zero,
        quarantined=zero,
        **changes,
    )
    return Versions(store).commit(draft)
