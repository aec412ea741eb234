"""The train pipeline: stages become versions, once each, on exact sources."""

from __future__ import annotations

import pytest
import torch
from training import prepare, stage, train

from gristmill.lake.versions.versions import Versions
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.train.folder import runs


@pytest.fixture
def lake(store):
    """A store with a mixture of tiny windows."""
    prepare(store)
    return store


def test_a_stage_becomes_a_version_of_a_model_and_is_never_trained_again(lake):
    first = train(lake, stage())
    assert first.new and str(first.manifest) == "nano.pretrain@v1" and first.manifest.form == "model"
    training = first.manifest.statistics["training"]
    assert (training["stage"], training["steps"], training["positions"]) == ("pretrain", 3, 6)
    assert training["final_loss"] > 0 and len(training["order"]) == 64
    assert {ref.role: str(ref) for ref in first.manifest.sources} == {"trained_on": "mix@v1", "tokenizer": "bpe@v1"}
    assert not runs(lake)  # the checkpoints went with the receipt
    loaded = load_model(lake, "nano.pretrain@v1")
    assert loaded.tokenizer is not None and loaded.model.config.vision is None
    with torch.inference_mode():
        assert loaded.model(torch.arange(9)[None]).logits.isfinite().all()

    runner = Runner(lake, workers=0)
    again = train(lake, stage(), runner=runner)
    assert not again.new and again.manifest == first.manifest and not runner.history
    assert Versions(lake).numbers("nano.pretrain") == [1]
