"""What the reasoning pipeline makes is trained on as it is: chains by their likelihood, pairs by preference."""

from __future__ import annotations

import pytest
import reasonings
from mixtures import mix, windows
from reasonings import rows_of, three
from training import stage, train

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.model.phi4.parts import Part
from gristmill.stages.models.model_versions import part_shards

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


def test_pairs_are_mixed_and_preferences_learned_of_them(lake):
    pairs = three(lake, "reasoning")[1]
    mixture = mix(lake, {str(pairs): {"weight": 1, "max_epochs": 1}}, window=WINDOW, dataset="pairs").manifest
    assert len(windows(lake, mixture)) > 0
    gates = ["trained_parts", "preference"]
    prefer = stage("prefer", **UPON, data=str(mixture), loss="dpo", nll_weight=0.5, gates=gates)
    manifest = train(lake, prefer, model="base@v1").manifest
    verdict = manifest.statistics["gates"]["preference"]
    assert verdict["passed"] and verdict["facts"]["margin"] > 0 and verdict["facts"]["pairs"] > 2
    assert verify(lake, ["nano.prefer", "pairs"], deep=True) == []


def test_chains_are_mixed_and_fine_tuned_on(lake):
    chains = three(lake, "reasoning")[2]
    mixture = mix(lake, {str(chains): {"weight": 1, "max_epochs": 1}}, window=WINDOW, dataset="chains").manifest
    assert mixture.received.count == chains.kept.count == len(rows_of(lake, chains))
    manifest = train(lake, stage("tune", **UPON, data=str(mixture)), model="base@v1").manifest
    assert {ref.role for ref in manifest.sources} >= {"trained_on", "init_from.language"}
    assert Part.LANGUAGE in part_shards(manifest)
