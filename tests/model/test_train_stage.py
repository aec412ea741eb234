"""A stage says what it is, and what is wrong with it by the name of the field; rates are those of the sources."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from train_windows import stage

from gristmill.model.assembly.fits import DataFacts, check
from gristmill.model.augment.spec_augment import SpecAugment
from gristmill.model.phi4.config import LoraConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import PeakLaw, Schedule
from gristmill.model.train.stage import steps_of

NANO = PRESETS["nano"]
TEXT = replace(NANO, vision=None, audio=None, adapters=())
FACTS = DataFacts(window=1024, windows=100, tokens=100_000, tokenizer="abc", vocab_size=2048)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "V 1"}, "name='V 1': allowed are"),
        ({"trainable": ()}, "trainable is empty: stage 'pretrain' trains nothing; allowed are language, vision_enc"),
        ({"trainable": ("language", "lora")}, "trainable names 'lora', which is no part; allowed are language"),
        ({"init_from": {"head": "a@v1"}}, "init_from names 'head', which is no part"),
        ({"init_from": {"language": "lm@latest"}}, "init_from.language='lm@latest': allowed is an exact version"),
        ({"init_from": {"language": ""}}, "init_from.language='': allowed is an exact version"),
        ({"data": "mix"}, "data='mix': allowed is an exact version"),
        ({"data": "mix@v0"}, "data='mix@v0'"),
        ({"loss": "mse"}, "loss='mse': allowed are cross_entropy, dpo"),
        ({"gates": ("text", "taste")}, "gates='taste': allowed are frozen_parts"),
        ({"precision": "float16"}, "precision='float16': allowed are float32, bfloat16"),
        ({"batch": 0}, "batch=0: allowed is 1 or more"),
        ({"steps": 0}, "steps=0: allowed is 1 or more"),
        ({"steps": None}, "steps=None, tokens=None: say how long by one of them"),
        ({"tokens": 5}, "steps=12, tokens=5: say how long by one of them"),
        ({"max_skipped": -1}, "max_skipped=-1"),
        ({"optim": Optim(PeakLaw(1.0))}, "tokens is not given: optim.lr is a law of the tokens"),
        ({"schedule": Schedule("cosine", 12)}, "schedule.warmup=12: the stage has 12 steps"),
        ({"schedule": Schedule("wsd", 10, decay=0.5)}, "of which the rate falls in 6"),
        ({"loss": "dpo", "beta": 0}, "beta=0: allowed is above 0"),
        ({"loss": "grpo", "beta": -0.1}, "beta=-0.1: allowed is above 0, or 0"),
        ({"loss": "grpo", "clip_ratio": 0}, "clip_ratio=0: allowed is above 0, below 1"),
        ({"loss": "grpo", "reference": "base"}, "reference='base': allowed is an exact version"),
        ({"loss": "dpo", "reference": "base@v1"}, "reference='base@v1': for loss=grpo"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        stage(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optim(0.0), "optim.lr=0.0"),
        (lambda: Optim(math.inf), "optim.lr=inf"),
        (lambda: Optim(1e-3, betas=(0.9, 1.0)), "optim.betas"),
        (lambda: Optim(1e-3, eps=0), "optim.eps"),
        (lambda: Optim(1e-3, weight_decay=-1), "optim.weight_decay"),
        (lambda: Optim(1e-3, clip=0.0), "optim.clip"),
        (lambda: PeakLaw(-1.0), "lr.b=-1.0"),
        (lambda: PeakLaw(1.0, 0.32), "lr.exponent=0.32"),
        (lambda: Schedule("linear"), "schedule.kind='linear': allowed are cosine, wsd, constant"),
        (lambda: Schedule(warmup=-1), "schedule.warmup=-1"),
        (lambda: Schedule(floor=1.5), "schedule.floor=1.5"),
        (lambda: Schedule("wsd", decay=0.0), "schedule.decay=0.0"),
    ],
)
def test_an_optimizer_or_schedule_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_a_stage_is_plain_values_and_does_not_change() -> None:
    fields = {"init_from": {"vision_encoder": "v@v2", "language": "lm@v3"}, "trainable": ["vision_projector"]}
    v1 = stage(**fields)
    values = json.loads(json.dumps(v1.to_dict()))
    assert values == v1.to_dict()
    assert values["init_from"] == {"language": "lm@v3", "vision_encoder": "v@v2"}
    assert values["trainable"] == ["vision_projector"] and values["optim"]["betas"] == [0.9, 0.95]
    later = {"spec_augment", "clip_ratio", "reference"}
    assert set(values) == set(vars(v1)) - later, "keys that came later, where they are not given"
    policy = stage(**fields, loss="grpo", reference="lm@v1")
    assert policy.to_dict()["reference"] == "lm@v1" and policy.to_dict()["clip_ratio"] == 0.2
    assert policy.identity() == stage(**fields, loss="grpo", reference="lm@v2").identity(), "names decide no weights"
    hiding = stage(**fields, spec_augment=SpecAugment(time_width=20))
    assert hiding.to_dict()["spec_augment"]["time_width"] == 20 and hiding.identity() != v1.identity()
    with pytest.raises(TypeError):
        v1.init_from[Part.LANGUAGE] = "lm@v4"  # type: ignore[index]
    fields["init_from"]["language"] = "lm@v9"  # type: ignore[index]
    assert v1.init_from[Part.LANGUAGE] == "lm@v3"


def test_a_stage_fits_its_model_and_data() -> None:
    check(stage(), TEXT, "abc", FACTS)
    base = dict.fromkeys((part for part in Part if part is not Part.VISION_PROJECTOR), "base@v1")
    seeing = replace(FACTS, crop_size=64, arrays=(*FACTS.arrays, "tiles"))
    check(stage(trainable={Part.VISION_PROJECTOR}, init_from=base), NANO, "abc", seeing)


@pytest.mark.parametrize(
    ("trainable", "arrays", "message"),
    [
        (set(Part) - {Part.LANGUAGE}, (), "whose windows have no clips and no images: train them on a mixture with"),
        ({Part.AUDIO_ENCODER, Part.LORA_SPEECH}, ("tiles",), "trainable: audio_encoder, lora_speech would get no grad"),
        ({Part.VISION_ENCODER, Part.LANGUAGE}, ("mel",), "trainable: vision_encoder would get no gradient from data="),
        ({Part.AUDIO_PROJECTOR_VISION}, ("mel",), "no gradient from data=mix@v1, whose windows have no images: train"),
        ({Part.AUDIO_PROJECTOR_VISION}, ("tiles",), "audio_projector_vision would get no gradient"),
        (set(Part), ("tiles", "mel"), None),
        ({Part.AUDIO_ENCODER, Part.AUDIO_PROJECTOR_SPEECH, Part.LORA_SPEECH}, ("mel",), None),
    ],
)
def test_parts_that_no_window_reaches_are_named(
    trainable: set[Part], arrays: tuple[str, ...], message: str | None
) -> None:
    base = dict.fromkeys(set(Part) - trainable, "base@v1")
    facts = replace(FACTS, arrays=(*FACTS.arrays, *arrays))
    if message is None:
        check(stage(trainable=trainable, init_from=base), NANO, "abc", facts)
        return
    with pytest.raises(ValueError) as error:
        check(stage(trainable=trainable, init_from=base), NANO, "abc", facts)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "config", "facts", "message"),
    [
        (
            {"trainable": {Part.LORA_VISION}},
            {},
            {},
            "trainable names lora_vision, which the model has not; it has lang",
        ),
        ({"init_from": {"audio_encoder": "a@v1"}}, {}, {}, "init_from names audio_encoder, which the model has not"),
        ({}, {"adapters": (LoraConfig("vision", 2, 4.0),)}, {}, "init_from.lora_vision is missing"),
        ({}, {"vision": NANO.vision}, {}, "init_from.vision_encoder is missing"),
        ({}, {}, {"window": 131_073}, "data=mix@v1: its windows have 131073 tokens, the model takes 131072"),
        ({}, {}, {"tokenizer": "abd"}, "its tokenizer is abd, the model's is abc"),
        ({}, {}, {"vocab_size": 2049}, "its vocabulary has 2049 entries, the model 2048"),
        ({}, {}, {"crop_size": 64}, "its crops have side 64, the model takes none"),
        ({}, {}, {"mels": 80}, "its clips have mel bands 80, the model takes none"),
        ({}, {}, {"reduction": 8}, "its clips are reduced by 8, the model takes none"),
        ({}, {}, {"audio_token": 12}, "its clips stand at token 12, the model takes none"),
        ({}, {}, {"windows": 0}, "the mixture has 0 windows"),
        ({"steps": None, "tokens": 6000, "schedule": Schedule(warmup=3)}, {}, {}, "the stage has 2 steps"),
    ],
)
def test_what_does_not_fit_is_refused_by_field(
    changes: dict[str, Any], config: dict[str, Any], facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        check(stage(**changes), replace(TEXT, **config), "abc", replace(FACTS, **facts))
    assert message in str(error.value)


def test_crops_of_another_size_are_refused() -> None:
    base = dict.fromkeys((part for part in Part if part is not Part.VISION_PROJECTOR), "base@v1")
    with pytest.raises(ValueError, match="its crops have side 448, the model takes 64"):
        check(stage(trainable={Part.VISION_PROJECTOR}, init_from=base), NANO, "abc", replace(FACTS, crop_size=448))


def test_the_law_is_the_papers() -> None:
    law = PeakLaw(2.0)
    assert law.peak(2_000_000) / law.peak(1_000_000) == pytest.approx(0.801, abs=5e-4)  # spec: doubling D
    assert law.peak(10_000_000) / law.peak(1_000_000) == pytest.approx(0.479, abs=5e-4)
    pretrain = stage(steps=None, tokens=1_000_000, optim=Optim(law))
    assert pretrain.peak == law.peak(1_000_000) == pytest.approx(2 * 1e6**-0.32)
    assert stage().peak == 1e-2


def test_tokens_become_steps_by_the_mean_window() -> None:
    for tokens, steps in ((1, 1), (3000, 1), (3001, 2), (300_000, 100)):  # 3 windows of 1,000 tokens on average
        assert steps_of(stage(steps=None, tokens=tokens), FACTS.windows, FACTS.tokens) == steps
    assert steps_of(stage(), 1, 0) == 12
    with pytest.raises(ValueError, match=r"tokens=9: the shards of data=mix@v1 count none; give steps instead"):
        steps_of(stage(steps=None, tokens=9), 5, 0)


def test_a_cosine_is_that_of_transformers_after_the_warm_up() -> None:
    transformers = pytest.importorskip("transformers.optimization")
    shared = {"num_warmup_steps": 10, "num_training_steps": 100, "num_cycles": 0.5, "min_lr_rate": 0.1}
    reference = transformers._get_cosine_schedule_with_warmup_lr_lambda
    schedule = Schedule("cosine", 10, 0.1)
    for step in range(10, 100):
        assert schedule.share(step, 100) == pytest.approx(reference(step, **shared), abs=1e-12)


def test_rates_rise_stay_and_fall() -> None:
    wsd = [Schedule("wsd", 4, 0.1, 0.25).share(step, 20) for step in range(20)]
    assert wsd[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and wsd[4:16] == [1.0] * 12
    assert wsd[16:] == pytest.approx([0.1 + 0.9 * (1 - math.sqrt(done / 5)) for done in range(1, 5)])
    cosine = [Schedule("cosine", 4).share(step, 20) for step in range(20)]
    assert cosine[3] == cosine[4] == 1.0 and sorted(cosine[4:], reverse=True) == cosine[4:] and cosine[-1] > 0
    assert {Schedule("constant", 2).share(step, 9) for step in range(2, 9)} == {1.0}
