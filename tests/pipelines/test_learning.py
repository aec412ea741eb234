"""From rows to weights by the real pipelines: on windows that were never seen the loss falls below what is known of
tokens one by one, and below what the one before tells of the next.

`make learn` (tests/learn.py) is the long one, with answers and how many of them are right.
"""

from __future__ import annotations

import json
from pathlib import Path

import mixtures
import numpy as np
import pytest
from training import stage, train

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object
from gristmill.stages.train.result import METRICS
from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.stories import story

STEPS, BATCH = 50, 2


def entropies(windows: list[dict[str, np.ndarray]]) -> tuple[float, float]:
    """In nats a target: of targets one by one, and given the token before. Counted on the windows themselves, so that
    nothing that knows no more than that can do better on them."""
    pairs = np.concatenate([_pairs(window["input_ids"])[:, window["loss_mask"][1:]] for window in windows], axis=1)

    def of(values: np.ndarray) -> float:
        shares = np.unique(values, axis=-1, return_counts=True)[1] / values.shape[-1]
        return float(-(shares * np.log(shares)).sum())

    return of(pairs[1]), of(pairs) - of(pairs[0])


def _pairs(ids: np.ndarray) -> np.ndarray:
    """Every token but the first with the one before it, [2, tokens - 1]."""
    return np.stack([ids[:-1], ids[1:]])


@pytest.mark.usefixtures("one_thread")
def test_the_loss_falls_below_the_entropy_of_tokens_and_of_pairs(store: Store, tmp_path: Path) -> None:
    rows = [row.fields for row in distinct(story, 1200, "learning")]
    mixtures.samples(store, tmp_path, "stories", rows, form="pair")
    mixtures.tokenizer(store, "stories@v1", vocab_size=2048)
    mixture = mixtures.mix(store, {"stories@v1": {"weight": 1, "max_epochs": 1}}, window=512).manifest
    windows = [window.arrays for window in mixtures.windows(store, mixture)]
    assert len(windows) >= STEPS * BATCH, "no window is seen twice"
    single, given_one = entropies(windows)

    schedule = {"kind": "cosine", "warmup": 10}
    result = train(store, stage(batch=BATCH, steps=STEPS, optim={"lr": 4e-3}, schedule=schedule))
    (metrics,) = (ref for ref in result.manifest.attachments if ref.kind == METRICS)
    losses = [json.loads(line)["loss"] for line in read_object(store, metrics).splitlines()]
    assert losses[0] > single and np.mean(losses[-10:]) < given_one < single
