"""Shapes of the model: presets, dictionaries and back, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from model.config import (
    PRESETS,
    AdapterConfig,
    AudioConfig,
    ModelConfig,
    RopeConfig,
    TextConfig,
    VisionConfig,
)

TEXT = PRESETS["nano"].text


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_goes_through_json_and_back(name: str) -> None:
    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_value_goes_through_json_and_back() -> None:
    config = ModelConfig(
        replace(TEXT, tied=False, rope=RopeConfig(short_factor=(), long_factor=(), attention_factor=1.5)),
        VisionConfig(feature_layer=-1, token=7),
        None,
        (AdapterConfig("speech", 3, 9.0, 0.25),),
        hf_compat_rope=True,
        hf_compat_mask=True,
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_a_dictionary_leaves_out_is_as_released() -> None:
    assert ModelConfig.from_dict({}) == PRESETS["mini"] == ModelConfig()
    assert ModelConfig.from_dict({"text": {"layers": 2}}) == ModelConfig(TextConfig(layers=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"texts": {}}, r"model: unknown \['texts'\]; allowed .*'text'"),
        ({"text": {"layer": 2}}, r"model.text: unknown \['layer'\]"),
        ({"text": {"rope": {"base": 2}}}, r"model.text.rope: unknown \['base'\]"),
        ({"vision": {"crops": 2}}, r"model.vision: unknown"),
        ({"adapters": [{"name": "vision", "rank": 2, "alpha": 4, "r": 2}]}, r"model.adapters: unknown \['r'\]"),
        ({"adapters": [{"rank": 2, "alpha": 4}]}, "model.adapters.*name"),
        ({"text": None}, "model.text"),
        ({"text": 3}, "model.text"),
        ({"adapters": [{"name": "vision", "rank": 0, "alpha": 4}]}, "rank"),
    ],
)
def test_a_dictionary_that_is_none_of_ours_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (TEXT, {"heads": 5}, "hidden=128 is no multiple of heads=5"),
        (TEXT, {"heads": 0}, "heads=0"),
        (TEXT, {"kv_heads": 3}, "heads=4 is no multiple of kv_heads=3"),
        (TEXT, {"rope": replace(TEXT.rope, fraction=0.97)}, "31 of 32 dims"),
        (TEXT, {"rope": replace(TEXT.rope, long_factor=(1.0,) * 11)}, "long_factor has 11 .* 12, or none"),
        (TEXT, {"rope": replace(TEXT.rope, short_factor=(1.0,) * 13)}, "short_factor has 13"),
        (TEXT, {"pad": 2048}, "pad=2048: .* 0 to 2047"),
        (TEXT, {"bos": -1}, "bos=-1"),
        (TEXT, {"eos": (0, 2048)}, "eos=2048"),
        (VisionConfig(), {"heads": 5}, "hidden=1152 is no multiple of heads=5"),
        (VisionConfig(), {"crop": 450}, "crop=450 .* patch=14"),
        (VisionConfig(), {"crop": 14 * 31}, "pool 2x2"),
        (VisionConfig(), {"feature_layer": 0}, "feature_layer=0"),
        (VisionConfig(), {"feature_layer": -29}, "-28 to -1"),
        (AudioConfig(), {"heads": 3}, "hidden=1024 is no multiple of heads=3"),
        (AudioConfig(), {"reduction": 1}, "reduction=1"),
        (AudioConfig(), {"reduction": 12}, "reduction=12"),
        (PRESETS["nano"], {"vision": VisionConfig()}, "vision.token=200010"),
        (PRESETS["nano"], {"audio": AudioConfig()}, "audio.token=200011"),
        (PRESETS["nano"], {"vision": replace(VisionConfig(), token=12)}, "both 12"),
        (PRESETS["nano"], {"adapters": (AdapterConfig("a", 1, 1.0),) * 2}, "each name once"),
    ],
)
def test_shapes_that_cannot_be_are_refused(config: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **wrong)


def test_the_released_scale_of_positions() -> None:
    assert PRESETS["mini"].text.rope.scale == pytest.approx(1.1902380714, abs=1e-10)
    rope = PRESETS["mini"].text.rope
    assert replace(rope, max_positions=4096).scale == replace(rope, long_factor=()).scale == 1
    assert replace(rope, attention_factor=1.25).scale == 1.25
    assert replace(rope, original_positions=64, max_positions=2048).scale == math.sqrt(1 + math.log(32) / math.log(64))


def test_the_released_sizes_that_follow_from_others() -> None:
    config = PRESETS["multimodal"]
    assert config.vision is not None and config.audio is not None
    assert (config.text.head_dim, config.text.rotary_dim) == (128, 96)
    assert (config.vision.grid, config.vision.used_layers, config.audio.conv_steps) == (32, 26, 3)
    assert [(one.name, one.rank, one.scale) for one in config.adapters] == [("vision", 256, 2.0), ("speech", 320, 2.0)]
