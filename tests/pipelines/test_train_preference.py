"""Training on preferences: references once, before it; what is learned; and the same bits after a stop."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from mixtures import mix
from preferences import prepare_pairs
from training import config, stage, stop_at, train

from gristmill.lake.accounts.facts import facts_from_json, facts_to_json
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.gates.preference import MOST_LOST, PreferenceFinding, finding
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly
from gristmill.stages.train.folder import runs

WINDOW = 128


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of a lake with pairs, texts to begin from, and a model of these."""
    folder = tmp_path_factory.mktemp("prepared")
    store = open_store(str(folder / "lake"))
    prepare_pairs(store, folder / "in", window=WINDOW)
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.1)
    train(store, stage())
    return folder / "lake"


@pytest.fixture
def lake(prepared, tmp_path):
    """A copy of it."""
    return copied(prepared, tmp_path / "lake")


def copied(prepared, folder):
    shutil.copytree(prepared, folder)
    return open_store(str(folder))


def prefer(**changes):
    """A stage of preferences upon `nano.pretrain`."""
    fields = {"init_from": {"language": "nano.pretrain@v1"}, "data": "pairs@v1", "loss": "dpo", "batch": 4}
    fields |= {"steps": 8, "optim": {"lr": 3e-3}, "nll_weight": 0.5, "gates": ["trained_parts", "preference"]}
    return stage("prefer", **{**fields, **changes})


def lines_of(store, manifest):
    ref = next(ref for ref in manifest.attachments if ref.kind == "metrics")
    return [json.loads(line) for line in read_object(store, ref).splitlines()]


def test_preferences_are_learned_and_the_chosen_answers_stay_likely(lake):
    runner = Runner(lake, workers=0)
    manifest = train(lake, prefer(), runner=runner).manifest
    assert runner.history == [("reference", 0, 1), ("train", 0, 1), ("gates", 0, 2)]
    first, *_, last = [line["measures"] for line in lines_of(lake, manifest)]
    assert (first["margin"], first["accuracy"]) == (pytest.approx(0, abs=1e-4), pytest.approx(0.5, abs=0.5))
    assert last["margin"] > 0.5 and last["accuracy"] == 1.0
    assert last["chosen_logprob"] > first["chosen_logprob"] and last["nll"] < first["nll"]
    verdict = manifest.statistics["gates"]["preference"]
    assert verdict["passed"] and verdict["facts"]["accuracy"] > 0.9 and verdict["facts"]["gained"] > 0
    assert {ref.role: str(ref) for ref in manifest.sources} == {
        "trained_on": "pairs@v1",
        "init_from.language": "nano.pretrain@v1",
        "tokenizer": "bpe@v1",
    }
    training = manifest.statistics["training"]
    assert training["targets"] == sum(line["targets"] for line in lines_of(lake, manifest)) > 8 * 4
    assert verify(lake, ["nano.prefer"], deep=True) == []
    assert not train(lake, prefer(), runner=(again := Runner(lake, workers=0))).new and not again.history


def test_references_are_what_the_base_says_of_each_answer(lake):
    manifest = train(lake, prefer(steps=1)).manifest
    (ref,) = (ref for ref in manifest.attachments if ref.kind == "reference")
    stored = {row["key"]: row["logprobs"] for row in read_table(lake, ref).to_pylist()}
    model = load_model(lake, "nano.pretrain@v1").model
    reader = read_windows(lake, Versions(lake).resolve("pairs@v1"))
    assert len(stored) == len(reader) > 3
    for number in range(len(reader)):
        window = reader.sample(number)
        bounds, ids, mask = (window.arrays[name] for name in ("cu_seqlens", "input_ids", "loss_mask"))
        expected = []
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):  # noqa: RUF007  each answer by itself
            with torch.inference_mode():
                logits = model(torch.from_numpy(ids[start:end].astype(np.int64))[None]).logits[0]
            logprobs = logits.log_softmax(-1)[:-1].gather(
                1, torch.from_numpy(ids[start + 1 : end].astype(np.int64))[:, None]
            )
            expected.append(float(logprobs[:, 0][torch.from_numpy(mask[start + 1 : end])].sum()))
        assert stored[window.key] == pytest.approx(expected, abs=1e-3)


def test_references_serve_every_stage_from_the_same_model_on_the_same_windows(lake):
    train(lake, prefer(steps=1))
    runner = Runner(lake, workers=0)
    train(lake, prefer(steps=2, beta=0.3), runner=runner)
    assert runner.history[:2] == [("reference", 1, 0), ("train", 0, 1)]
    train(lake, prefer(steps=1, precision="bfloat16", gates=[]), runner=(other := Runner(lake, workers=0)))
    assert other.history[0] == ("reference", 0, 1)


def test_an_adapter_that_no_pair_reaches_is_refused(lake):
    with pytest.raises(BadConfig, match="lora_vision would get no gradient from data=pairs@v1, whose windows have no"):
        train(lake, prefer(trainable=["lora_vision"]))


def test_a_run_that_stopped_goes_on_with_the_same_bits(lake, prepared, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Incomplete, match="the disk is gone"):
            train(lake, prefer())
    (about,) = runs(lake)
    link = config(prefer()).recipe.link([]).looked_up(Versions(lake))
    assert link.reached(lake, about.dataset) == 5
    runner = Runner(lake, workers=0)
    resumed = train(lake, prefer(), runner=runner).manifest
    assert runner.history[:2] == [("reference", 1, 0), ("train", 0, 1)]
    unbroken = train(copied(prepared, tmp_path / "other"), prefer()).manifest
    assert [ref.sha256 for ref in resumed.shards] == [ref.sha256 for ref in unbroken.shards]


def test_the_gate_looks_at_no_pair_that_was_not_trained_on(lake):
    manifest = train(lake, prefer(steps=2, batch=2)).manifest
    reader = read_windows(lake, Versions(lake).resolve("pairs@v1"))
    pairs = [len(reader.sample(reader.at(place)).arrays["cu_seqlens"]) // 2 for place in range(len(reader))]
    assert len(pairs) > 4
    assert manifest.statistics["gates"]["preference"]["facts"]["pairs"] == sum(pairs[:4]) < sum(pairs)


def test_plan_names_the_references_first(lake):
    runner = Runner(lake, workers=0, plan=True)
    with pytest.raises(PlanOnly) as plan:
        train(lake, prefer(), runner=runner)
    assert plan.value.title == "reference" and not runner.ran.nothing_to_do


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mix@v1"}, r"stages\.0\.loss=dpo: it needs windows of pairs, .*those of data=mix@v1 have none"),
        ({"loss": "cross_entropy"}, r"stages\.0\.loss=cross_entropy: the windows of data=pairs@v1 are pairs"),
        ({"beta": 0}, r"beta=0.0: allowed is above 0"),
        ({"nll_weight": -1}, r"nll_weight=-1.0: allowed is 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(lake, changes, message):
    with pytest.raises((BadConfig, ValueError), match=message):
        train(lake, prefer(**changes))


def test_the_gate_of_preferences_does_not_apply_without_them(lake):
    manifest = train(lake, stage("plain", gates=["preference"])).manifest
    verdict = manifest.statistics["gates"]["preference"]
    assert verdict["passed"] is None and verdict["why"].startswith("does not apply: the stage learns by cross_entropy")


@pytest.mark.parametrize(
    ("margin", "gained", "why"),
    [
        ([1.0, 2.0, -0.5], -MOST_LOST + 0.01, None),
        ([1.0, -2.0, -0.5], 0.1, "the preferences were not learned"),
        ([5.0, -1.0, -1.0], 0.1, "the preferences were not learned"),  # one pair alone lifts the mean
        ([1.0, 2.0, 3.0], -MOST_LOST - 0.01, "chosen answers may lose 0.69 nats a token"),
        ([math.nan] * 3, math.nan, "the preferences were not learned.*chosen answers may lose"),
        ([math.inf, 1.0, 1.0], -math.inf, "the preferences were not learned.*chosen answers may lose"),
    ],
)
def test_the_gate_asks_for_a_margin_and_for_answers_that_stay_likely(margin, gained, why):
    verdict = finding([np.array(margin)], [np.array([gained] * 3)])
    assert verdict.passed == (why is None)
    if why is not None:
        assert re.search(why, verdict.why)
    kept = facts_from_json(PreferenceFinding, facts_to_json(verdict), "a receipt")
    assert kept == verdict and math.isfinite(gained) == (kept.gained is not None)
