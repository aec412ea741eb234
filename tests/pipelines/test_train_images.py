"""Training on a mixture of images and text: parts of vision learn, all else stays, and what does not fit is refused."""

from __future__ import annotations

import json

import pytest
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts
from models import save_nano
from training import stage, train

from gristmill.lake.store.objects import read_object
from gristmill.model.phi4.parts import Part
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import part_shards
from gristmill.stages.run.runner import Runner

LEARNED = {Part.LORA_VISION, Part.VISION_PROJECTOR}


@pytest.fixture
def base(store, tmp_path):
    """A model that was taken in, its tokenizer, and `mix@v1` of pictures and text."""
    folder = save_nano(tmp_path / "checkpoint")
    taken_in = {"recipe": {"dataset": "base", "folder": str(folder)}}
    model = run_pipeline(ModelRunConfig.model_validate(taken_in), store, Runner(store, workers=0)).manifest
    added = {"recipe": {"dataset": "bpe", "file": str(folder / "tokenizer.json")}}
    run_pipeline(TokenizerConfig.model_validate(added), store, Runner(store, workers=0))
    documents(store, "web", texts(20, longest=200))
    pictures(store, tmp_path / "in", [([(64, 64)], "It is {}, that is all there is.") for _ in range(24)])
    return model


def adapt(base, **changes):
    """A stage that trains an adapter and the projector on all other parts of the base."""
    parts = dict.fromkeys(part_shards(base), "base@v1")
    gates = ["frozen_parts", "trained_parts"]
    fields = {"init_from": parts, "trainable": sorted(LEARNED), "gates": gates, "optim": {"lr": 3e-3}}
    return stage("adapt", **{**fields, "batch": 2, "steps": 12, **changes})


def test_adapter_and_projector_learn_on_batches_of_images_and_text(store, base):
    manifest = mix(store, {"web@v1": 1, "pics@v1": 2}, window=128, max_waste=0.1, images=CUT).manifest
    reader = read_windows(store, manifest)
    kinds = [[reader.counts(reader.at(2 * step + place)).crops > 0 for place in range(2)] for step in range(12)]
    assert [True, False] in kinds or [False, True] in kinds  # a batch of both
    trained = train(store, adapt(base), model="base@v1", tokenizer="").manifest
    before, after = part_shards(base), part_shards(trained)
    assert {part for part in Part if after[part] != before[part]} == LEARNED
    lines = read_object(store, next(ref for ref in trained.attachments if ref.kind == "metrics")).splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 12 and sum(losses[-3:]) < 0.9 * sum(losses[:3]), losses


def test_a_mixture_of_other_crops_than_the_model_takes_is_refused(store, base):
    mix(store, {"pics@v1": 1}, window=256, images={**CUT, "crop": 32})
    with pytest.raises(BadConfig, match=r"data=mix@v1: its crops have side 32, the model takes 64"):
        train(store, adapt(base), model="base@v1", tokenizer="")
