"""A process that trains one small stage in a new lake, and prints what came of it: LAKE TRAINER RANKS [STEPS EVERY]."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import Any

from training import prepare, stage, train

from gristmill.lake.store.objects import read_object
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.stages.train import ray_train
from gristmill.stages.train.folder import runs


def main(lake: str, trainer: str, ranks: str, steps: str = "6", every: str = "2") -> None:
    """Prints a line of JSON. `every`: steps between two checkpoints."""
    shown: list[int] = []

    @contextmanager
    def reporting(*_: Any) -> Any:
        yield lambda progress: shown.append(progress.step)

    ray_train.reporting = reporting  # type: ignore[assignment]
    store = open_store(lake)
    if not Versions(store).numbers("mix"):  # a run that was killed goes on in the same lake
        prepare(store)
    run = {"trainer": trainer, "ranks": int(ranks), "checkpoint_every": int(every)}
    manifest = train(store, stage(batch=4, steps=int(steps)), run=run).manifest
    lines = read_object(store, next(ref for ref in manifest.attachments if ref.kind == "metrics")).splitlines()
    left = [about.stage for about in runs(store)] + [info.key for info in store.list("runs/")]
    training = manifest.statistics["training"]
    logged = [json.loads(line)["step"] for line in lines]
    shards = [ref.sha256 for ref in manifest.shards]
    print(json.dumps({**training, "metrics": logged, "shown": shown, "left": left, "shards": shards}))


if __name__ == "__main__":
    main(*sys.argv[1:])
