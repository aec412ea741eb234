"""Mixtures of preferences: windows whose segments are pairs, which neither packing nor a takedown parts."""

from __future__ import annotations

import re
from itertools import pairwise

import mixtures
import numpy as np
import pytest
from forget_lake import do
from mixtures import mix
from preferences import pair, preferences, prepare_pairs

from gristmill.lake.store.objects import iter_batches, read_table
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.pipelines.training.plan import window_of
from gristmill.stages.evaluate.pieces import pieces_of
from gristmill.stages.gates.texts import texts_of
from gristmill.stages.mix.tokenize import TextShard

COUNT = 40


@pytest.fixture
def lake(store, tmp_path):
    """A store with a mixture of pairs."""
    prepare_pairs(store, tmp_path / "in", COUNT)
    return store


def segments_of(store, manifest):
    """Of every window its segments, as (text, text that is learned)."""
    tokenizer = tokenizer_of(Versions(store), manifest)
    windows = []
    for window in mixtures.windows(store, manifest):
        bounds, ids, mask = (window.arrays[name] for name in ("cu_seqlens", "input_ids", "loss_mask"))
        segments = pairwise(bounds)
        windows.append([(tokenizer.decode(ids[a:b]), tokenizer.decode(ids[a:b][mask[a:b]])) for a, b in segments])
    return windows


def expected(i):
    """The two segments of a pair."""
    row = pair(i)
    return [
        (f"<|user|>{row['prompt']}<|end|><|assistant|>{row[side]}<|end|><|endoftext|>", f"{row[side]}<|end|>")
        for side in ("chosen", "rejected")
    ]


def test_windows_hold_whole_pairs_side_by_side(lake):
    manifest = Versions(lake).resolve("pairs@v1")
    windows = segments_of(lake, manifest)
    assert len(windows) > 5 and all(len(segments) % 2 == 0 for segments in windows)
    pairs = [segments[n : n + 2] for segments in windows for n in range(0, len(segments), 2)]
    assert sorted(pairs) == sorted(expected(i) for i in range(COUNT))
    assert manifest.schemas["segments"] == "chosen, rejected"
    assert manifest.statistics["samples"] == COUNT
    assert window_of(manifest).segments == pytest.approx(2 * COUNT / len(windows))
    assert manifest.samples.count == manifest.verdicts["packed"].count == COUNT
    assert verify(lake, ["taste", "pairs"], deep=True) == []


def test_a_model_is_not_evaluated_on_rejected_answers(lake):
    with pytest.raises(ValueError, match=r"pairs@v1 holds windows of pairs, whose rejected .*; evaluate on samples"):
        list(pieces_of(Versions(lake).resolve("pairs@v1"), None, 5))


def test_a_pair_that_is_longer_than_a_window_is_dropped(lake, tmp_path):
    rows = [pair(1), {**pair(2), "rejected": "Who would know? " * 30}]
    preferences(lake, tmp_path / "long", rows, name="long")
    manifest = mix(lake, {"long@v1": {"weight": 1, "max_epochs": 1}}, dataset="short").manifest
    fates = [row for ref in manifest.fates for row in read_table(lake, ref).to_pylist()]
    assert sorted((row["fate"], row["reason"]) for row in fates) == [("dropped", "mix.too_long"), ("kept", None)]
    assert segments_of(lake, manifest) == [expected(1)]


def test_pairs_are_not_mixed_with_what_is_learned(lake):
    with pytest.raises(
        BadConfig, match="taste@v1 holds pairs of preferences and web@v1 documents: a stage of training"
    ):
        mix(lake, {"taste@v1": 1, "web@v1": 1})


def test_a_takedown_takes_both_sides(lake):
    manifest = Versions(lake).resolve("pairs@v1")
    member = mixtures.windows(lake, manifest)[0].meta["members"][0]["member"]
    do(lake, Suppression(ids=frozenset([member])))
    left = Versions(lake).resolve("pairs@v2")
    windows = segments_of(lake, left)
    assert sum(map(len, windows)) == 2 * COUNT - 2
    pairs = [segments[n : n + 2] for segments in windows for n in range(0, len(segments), 2)]
    assert all(
        chosen[0].partition("<|assistant|>")[0] == rejected[0].partition("<|assistant|>")[0]
        for chosen, rejected in pairs
    )
    assert left.schemas == manifest.schemas and left.statistics["samples"] == COUNT - 1
    masks = [window.arrays["loss_mask"] for window in mixtures.windows(lake, left)]
    assert left.statistics["loss_tokens"] == np.concatenate(masks).sum()
    assert verify(lake, ["taste", "pairs"], deep=True) == []


def test_a_held_out_prompt_or_answer_is_met_in_either_side(lake):
    (taste,) = Versions(lake).resolve("taste@v1").shards
    texts = TextShard(taste, samples=True, pairs=True)
    batch = next(iter_batches(lake, taste, texts.columns)).slice(0, 2)
    read = texts_of(batch, samples=True)
    rows = [pair(int(re.search(r"\d+", whole)[0])) for whole in read.wholes.to_pylist()]
    assert [column.to_pylist() for column in read.excerpts] == [
        [row["prompt"] for row in rows],
        [f"{row['prompt']}\n{row['chosen']}" for row in rows],
        [f"{row['prompt']}\n{row['rejected']}" for row in rows],
    ]
