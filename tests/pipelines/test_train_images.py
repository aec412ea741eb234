"""Training on a mixture of images and text: parts of vision learn, all else stays, and what does not fit is refused."""

from __future__ import annotations

import json

import pytest
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts
from models import save_nano
from safetensors.torch import load
from training import stage, train

from gristmill.lake.store.objects import read_object
from gristmill.lake.versions.versions import Versions
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


def adapt(language="base@v1", **changes):
    """A stage that trains an adapter and the projector, upon this language model and the encoder that was taken in."""
    return stage(
        "adapt",
        init_from={"language": language, "vision_encoder": "base@v1"},
        trainable=sorted(LEARNED),
        gates=["frozen_parts", "trained_parts"],
        optim={"lr": 1e-2},
        **{"batch": 4, "steps": 16, **changes},
    )


def test_adapter_and_projector_learn_on_batches_of_images_and_text(store, base):
    manifest = mix(store, {"web@v1": 1, "pics@v1": 2}, window=128, max_waste=0.1, images=CUT).manifest
    reader = read_windows(store, manifest)
    kinds = [[reader.counts(reader.at(4 * step + place)).crops > 0 for place in range(4)] for step in range(16)]
    assert any(set(batch) == {True, False} for batch in kinds)
    mix(store, {"web@v1": 1}, window=128, max_waste=0.1, dataset="text")
    language = stage(
        "language", data="text@v1", init_from={"language": "base@v1"}, batch=4, steps=30, optim={"lr": 1e-2}
    )
    trained = train(store, language, adapt("stage:language"), model="base@v1", tokenizer="").manifest
    before = part_shards(base) | part_shards(Versions(store).resolve("nano.language@v1"))
    after = part_shards(trained)
    assert {part for part in after if after[part] != before[part]} == LEARNED
    assert set(after) == LEARNED | {Part.LANGUAGE, Part.VISION_ENCODER}
    lines = read_object(store, next(ref for ref in trained.attachments if ref.kind == "metrics")).splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 16 and sum(losses[-3:]) < 0.9 * sum(losses[:3]), losses


@pytest.mark.parametrize(
    ("cut", "says"),
    [({"crop": 32}, "side 32, the model takes 64"), ({"patch": 16}, "patches of 16, the model takes 8")],
)
def test_a_mixture_of_other_crops_than_the_model_takes_is_refused(store, base, cut, says):
    mix(store, {"pics@v1": 1}, window=256, images={**CUT, **cut})
    with pytest.raises(BadConfig, match=f"data=mix@v1: its crops have .*{says}"):
        train(store, adapt(), model="base@v1", tokenizer="")


def test_a_mixture_whose_images_stand_at_another_token_than_the_models_is_refused(store, base):
    mix(store, {"pics@v1": 1}, window=256, images={**CUT, "token": "<|audio|>"})
    with pytest.raises(BadConfig, match="data=mix@v1: its images stand at token 12, the model takes 11"):
        train(store, adapt(), model="base@v1", tokenizer="")


def warmup(**changes):
    """A stage that makes an encoder from nothing, by what is said of images."""
    return stage(
        "warmup",
        init_from={"language": "base@v1"},
        trainable=["vision_encoder"],
        loss="siglip",
        gates=["frozen_parts", "trained_parts", "text"],
        **{"batch": 2, "steps": 3, **changes},
    )


def test_an_encoder_is_warmed_up_and_a_projector_aligned_to_it(store, base):
    mix(store, {"pics@v1": 1}, window=256, images=CUT)
    encoder = {"language": "base@v1", "vision_encoder": "stage:warmup"}
    align = stage("align", init_from=encoder, trainable=["vision_projector"], batch=2, steps=2)
    result = train(store, warmup(), align, model="base@v1", tokenizer="")
    warm = Versions(store).resolve("nano.warmup@v1")
    parts, taken, aligned = part_shards(warm), part_shards(base), part_shards(result.manifest)
    assert set(parts) == {Part.LANGUAGE, Part.VISION_ENCODER, Part.VISION_PROJECTOR}
    assert parts[Part.LANGUAGE] == taken[Part.LANGUAGE] and parts[Part.VISION_ENCODER] != taken[Part.VISION_ENCODER]
    assert aligned[Part.VISION_ENCODER] == parts[Part.VISION_ENCODER]
    assert aligned[Part.VISION_PROJECTOR] != parts[Part.VISION_PROJECTOR], "that one is as its seed made it"
    gates = warm.statistics["gates"]
    assert [gates[name]["passed"] for name in ("frozen_parts", "trained_parts", "text")] == [True] * 3
    names = {name for ref in parts[Part.VISION_ENCODER] for name in load(read_object(store, ref))}
    assert names and all(name.startswith("vision_encoder.") for name in names), "its towers are thrown away"


def test_what_a_warm_up_needs_is_said_before_it_runs(store, base):
    mix(store, {"pics@v1": 1}, window=256, images=CUT)
    mix(store, {"web@v1": 1}, window=128, dataset="text")
    for changes, says in (
        ({"data": "text@v1"}, "loss=siglip: it needs windows with tiles; those of data=text@v1 hold"),
        ({"trainable": ["vision_encoder", "vision_projector"]}, "loss=siglip trains vision_encoder, and nothing else"),
        ({"init_from": {}}, "init_from.language is missing"),
    ):
        with pytest.raises((BadConfig, ValueError), match=says):
            train(store, {**warmup(), **changes}, model="base@v1", tokenizer="")
