"""What the reasoning pipeline makes is trained on as it is: chains by their likelihood, pairs by preference."""

from __future__ import annotations

import json

import evaluations
import pytest
import reasonings
from mixtures import mix, windows
from reasonings import rows_of, three
from training import stage, train

from gristmill.lake.store.objects import read_object
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.model.phi4.parts import Part
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.models.model_versions import part_shards
from gristmill.stages.run.runner import Runner

WINDOW = 128
UPON = {"init_from": {"language": "base@v1"}, "batch": 2, "steps": 4, "optim": {"lr": 1e-4}}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake with `reasoning@v1` and `reasoning.pairs@v1`."""
    folder = tmp_path_factory.mktemp("reasoning")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    problems = reasonings.lines(folder / "in" / "problems.jsonl", [reasonings.problem(i) for i in range(24)])
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        reasonings.reason(store, [problems])
    return store


def perplexity(store, model):
    """Of worked answers that no stage here has seen."""
    config = evaluations.config(["math@v1"], dataset="eval", model=model, tasks={"math@v1": "perplexity"})
    return run_pipeline(config, store, Runner(store, workers=0)).manifest.statistics["scores"][0]["value"]


def test_pairs_are_mixed_and_preferences_learned_of_them(lake):
    pairs = three(lake, "reasoning")[1]
    mixture = mix(lake, {str(pairs): {"weight": 1, "max_epochs": 1}}, window=WINDOW, dataset="pairs").manifest
    assert len(windows(lake, mixture)) > 0
    gates = ["trained_parts", "preference"]
    prefer = stage("prefer", **UPON, data=str(mixture), loss="dpo", nll_weight=0.5, gates=gates)
    manifest = train(lake, prefer, model="base@v1").manifest
    verdict = manifest.statistics["gates"]["preference"]
    assert verdict["passed"] and verdict["facts"]["margin"] > 0 and verdict["facts"]["pairs"] > 2
    ref = next(ref for ref in manifest.attachments if ref.kind == "metrics")
    first, *_, last = [json.loads(line)["measures"] for line in read_object(lake, ref).splitlines()]
    assert first["margin"] == pytest.approx(0, abs=1e-4) and last["margin"] > 0.01
    assert verdict["facts"]["gained"] > 0, "a token of the right chains is likelier than before"
    before, after = perplexity(lake, "base@v1"), perplexity(lake, "nano.prefer@v1")
    assert after < 1.1 * before, "answers that are in no pair are as likely as they were"
    assert verify(lake, ["nano.prefer", "pairs"], deep=True) == []


def test_chains_are_mixed_and_fine_tuned_on(lake):
    chains = three(lake, "reasoning")[2]
    mixture = mix(lake, {str(chains): {"weight": 1, "max_epochs": 1}}, window=WINDOW, dataset="chains").manifest
    assert mixture.received.count == chains.kept.count == len(rows_of(lake, chains))
    manifest = train(lake, stage("tune", **UPON, data=str(mixture)), model="base@v1").manifest
    assert {ref.role for ref in manifest.sources} >= {"trained_on", "init_from.language"}
    assert Part.LANGUAGE in part_shards(manifest)
