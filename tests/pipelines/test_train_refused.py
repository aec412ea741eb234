"""What a training recipe may not say is refused before a worker starts, by the name of its field."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
from pydantic import ValidationError
from training import WINDOW, adapt, adapted, config, prepare, refusals, stage, train

from gristmill.model.phi4.presets import PRESETS
from gristmill.model.train.stage import TrainStage
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.training.spec import StageSpec
from gristmill.stages.run.runner import Runner

LAW = {"optim": {"lr": {"b": 0.02}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": []}, "trainable is empty: stage 'pretrain' trains nothing"),
        ({"trainable": ["tongue"]}, "Input should be 'language', 'vision_encoder'"),
        ({"init_from": {"tongue": "web@v1"}}, "Input should be 'language', 'vision_encoder'"),
        ({"data": "mix"}, "data='mix': allowed is an exact version"),
        ({"data": "mix@latest"}, "data='mix@latest': allowed is an exact version"),
        ({"data": "mix@best"}, "data='mix@best': allowed is an exact version"),
        ({"init_from": {"language": "nano.pretrain@latest"}}, "init_from.language='nano.pretrain@latest': allowed is"),
        ({"init_from": {"language": "stage:later"}}, "stages.0.init_from.language: 'stage:later' is no earlier stage"),
        ({"loss": "grpo", "reference": "stage:later"}, "stages.0.reference: 'stage:later' is no earlier stage"),
        ({"steps": None}, "steps=None, tokens=None: say how long"),
        ({"steps": 3, "epochs": 1}, "epochs=1.0: say how long by one of steps, tokens, epochs"),
        (LAW, "tokens is not given: optim.lr is a law of the tokens of the stage"),
        ({"loss": "hinge"}, "loss='hinge': allowed are cross_entropy, dpo"),
        ({"gates": ["eyes"]}, "gates='eyes': allowed are frozen_parts"),
        ({"name": "limit"}, "name='limit'"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_when_the_config_is_read(changes, message):
    with pytest.raises(ValidationError) as caught:
        config(stage(**changes))
    assert message in str(caught.value)


def test_a_rank_without_a_window_is_refused(lake):
    runner = Runner(lake, workers=0)
    wanted = config(stage(), stage("b", batch=1))
    wanted = wanted.model_copy(update={"run": wanted.run.model_copy(update={"ranks": 2})})
    with pytest.raises(BadConfig, match=r"run\.ranks=2: recipe\.stages\.1\.batch=1 leaves ranks without a"):
        run_pipeline(wanted, lake, runner)
    assert not runner.history


def test_two_stages_of_a_name_a_limit_and_a_last_stage_that_is_none_are_refused():
    with pytest.raises(ValidationError, match=r"stages\.1\.name: 'pretrain' is the name of an earlier stage"):
        config(stage(), stage())
    with pytest.raises(ValidationError, match="a model is trained whole"):
        config(stage(), limit=3)
    with pytest.raises(ValidationError, match="until: 'r9' is no stage; there are pretrain"):
        config(stage(), until="r9")


@pytest.fixture
def lake(store, monkeypatch):
    """A store with versions that may be used, and others that may not."""
    prepare(store)
    refusals(store)
    short = replace(PRESETS["nano"].text, max_position_embeddings=WINDOW - 1, original_max_position_embeddings=16)
    monkeypatch.setitem(PRESETS, "short", replace(PRESETS["nano"], text=short))
    monkeypatch.setitem(PRESETS, "narrow", replace(PRESETS["nano"], text=replace(PRESETS["nano"].text, vocab_size=300)))
    return store


UNFIT: tuple[tuple[tuple[dict[str, Any], ...], dict[str, Any], str], ...] = (
    ((stage(data="none@v1"),), {}, "recipe.stages.0.data: there is no dataset 'none'"),
    ((stage(data="mix@v7"),), {}, "recipe.stages.0.data: mix has no v7; it has v1"),
    ((stage(data="gone@v1"),), {}, "recipe.stages.0.data: gone@v1 was withdrawn (request 17)"),
    ((stage(data="mix.limit@v1"),), {}, "recipe.stages.0.data: mix.limit@v1 is a preview of a few records"),
    ((stage(data="web@v1"),), {}, "recipe.stages.0.data: web@v1 holds no packed windows"),
    (
        (stage(held_out=["none@v1"], gates=["contamination"]),),
        {},
        "recipe.stages.0.held_out: there is no dataset 'none'",
    ),
    (
        (stage(data="other@v1"),),
        {},
        "recipe.stages.0.data: the windows of other@v1 were made with bpe@v2, the model reads those of bpe@v1",
    ),
    ((stage(),), {"model": "short"}, f"recipe.stages.0.data=mix@v1: its windows have {WINDOW} tokens, the model"),
    ((stage(),), {"model": "narrow"}, "recipe.stages.0.data=mix@v1: its vocabulary has"),
    ((stage(loss="dpo"),), {}, "recipe.stages.0.loss=dpo: it needs windows of pairs"),
    (
        (stage(steps=None, epochs=0.01, schedule={"warmup": 3}),),
        {},
        "recipe.stages.0.schedule.warmup=3: the stage has",
    ),
    ((stage(trainable=["lora_vision"]),), {}, "recipe.stages.0.init_from.language is missing"),
    (
        (stage(), adapt(data="mix@v1")),
        {},
        "recipe.stages.1.trainable: lora_vision, vision_encoder, vision_projector would get no gradient from"
        " data=mix@v1, whose windows have no images: train them on a mixture with images, or leave them out",
    ),
    (
        (stage(trainable=["language", "vision_encoder"]),),
        {},
        "recipe.stages.0.init_from.vision_projector is missing",
    ),
    (
        (stage(),),
        {"model": "giant"},
        "recipe.model: 'giant': allowed are nano, nano-math, nano-vision, nano-speech, small",
    ),
    ((stage(),), {"model": "mix@v1"}, "recipe.model: mix@v1 is no model: it holds packed windows"),
    ((stage(),), {"tokenizer": ""}, "recipe.tokenizer is empty"),
    ((stage(),), {"tokenizer": "mix@v1"}, "recipe.tokenizer: mix@v1 has no tokenizer; it holds packed windows"),
    ((stage(init_from={"language": "bpe@v1"}),), {}, "recipe.stages.0.init_from.language: bpe@v1 is no model"),
    ((), {}, "recipe.stages is empty"),
    # the third stage is looked at before the first one runs
    (
        (stage(), adapt(), stage("c", init_from={"audio_encoder": "stage:adapt"})),
        {},
        "stage:adapt has no audio_encoder; it has language",
    ),
    (
        (stage(), adapt(), stage("c", init_from=adapted("stage:adapt"))),
        {},
        "recipe.stages.2.init_from.lora_vision: stage:adapt: the adapter belongs to the language model that it was",
    ),
    (
        (
            stage(),
            adapt(),
            stage("c", init_from={"language": "stage:pretrain"}),
            adapt(name="d", init_from=adapted("stage:adapt") | {"language": "stage:c"}),
        ),
        {},
        "recipe.stages.3.init_from.lora_vision: the adapter of stage:adapt was trained upon another language model",
    ),
)
"""Stages, other keys of the recipe, and what is wrong with them."""


def test_what_does_not_fit_is_refused_before_anything_runs(lake):
    for stages, recipe, message in UNFIT:
        runner = Runner(lake, workers=0)
        with pytest.raises(BadConfig) as caught:
            run_pipeline(config(*stages, **recipe), lake, runner)
        assert message in str(caught.value)
        assert not runner.history, message


def test_an_adapter_of_one_branch_does_not_go_with_the_language_model_of_another(lake):
    """As `init_from` names versions: by the digests in their manifests."""
    train(lake, stage(), adapt())
    train(lake, stage(seed=1), dataset="rival")
    parts = adapted("nano.adapt@v1")
    with pytest.raises(BadConfig, match="was trained upon another language model"):
        train(lake, adapt(name="both", init_from=parts | {"language": "rival.pretrain@v1"}))
    assert train(lake, adapt(name="both", init_from=parts)).new


def test_a_part_of_another_shape_or_vocabulary_is_refused(lake, monkeypatch):
    monkeypatch.setitem(
        PRESETS, "deep", replace(PRESETS["nano"], text=replace(PRESETS["nano"].text, num_hidden_layers=5))
    )
    train(lake, stage())
    from_nano = {"language": "nano.pretrain@v1"}
    with pytest.raises(
        BadConfig, match=r"does not fit recipe\.model: its text\.num_hidden_layers is 4, the model's is 5"
    ):
        train(lake, stage("b", init_from=from_nano), model="deep")
    with pytest.raises(BadConfig, match=r"init_from\.language: the tokenizer of nano\.pretrain@v1 is"):
        train(lake, stage("b", init_from=from_nano, data="other@v1"), tokenizer="bpe@v2")


def test_a_recipe_gives_every_field_of_a_stage_by_its_name_and_default():
    given = StageSpec.model_fields
    for field in fields(TrainStage):
        assert field.name in given
        if field.default is not MISSING:
            assert given[field.name].default == field.default
