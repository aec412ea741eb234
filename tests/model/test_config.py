"""Shapes of the model: presets, dictionaries and back, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from gristmill.model.phi4.config import AudioConfig, LoraConfig, ModelConfig, RopeParameters, TextConfig, VisionConfig
from gristmill.model.phi4.presets import PRESETS

TEXT = PRESETS["nano"].text


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_goes_through_json_and_back(name: str) -> None:
    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_value_goes_through_json_and_back() -> None:
    config = ModelConfig(
        replace(
            TEXT,
            tie_word_embeddings=False,
            rope_parameters=RopeParameters(short_factor=(), long_factor=(), attention_factor=1.5),
        ),
        VisionConfig(feature_layer=-1, image_token_id=7),
        None,
        (LoraConfig("speech", 3, 9.0, 0.25),),
        hf_compat_rope=True,
        hf_compat_mask=True,
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_a_dictionary_leaves_out_is_as_released() -> None:
    assert ModelConfig.from_dict({}) == PRESETS["mini"] == ModelConfig()
    assert ModelConfig.from_dict({"text": {"num_hidden_layers": 2}}) == ModelConfig(TextConfig(num_hidden_layers=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"texts": {}}, r"model: unknown \['texts'\]; allowed .*'text'"),
        ({"text": {"layer": 2}}, r"model.text: unknown \['layer'\]"),
        ({"text": {"rope_parameters": {"base": 2}}}, r"model.text.rope_parameters: unknown \['base'\]"),
        ({"vision": {"crops": 2}}, r"model.vision: unknown"),
        ({"adapters": [{"name": "vision", "r": 2, "lora_alpha": 4, "rank": 2}]}, r"model.adapters: unknown \['rank'\]"),
        ({"adapters": [{"r": 2, "lora_alpha": 4}]}, "model.adapters.*name"),
        ({"text": None}, "model.text"),
        ({"text": 3}, "model.text"),
        ({"adapters": [{"name": "vision", "r": 0, "lora_alpha": 4}]}, "r=0"),
    ],
)
def test_a_dictionary_that_is_none_of_ours_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("config", "wrong", "message"),
    [
        (TEXT, {"num_attention_heads": 5}, "hidden_size=128 is no multiple of num_attention_heads=5"),
        (TEXT, {"num_attention_heads": 0}, "num_attention_heads=0"),
        (TEXT, {"num_key_value_heads": 3}, "num_attention_heads=4 is no multiple of num_key_value_heads=3"),
        (TEXT, {"rope_parameters": replace(TEXT.rope_parameters, partial_rotary_factor=0.97)}, "31 of 32 dims"),
        (
            TEXT,
            {"rope_parameters": replace(TEXT.rope_parameters, long_factor=(1.0,) * 11)},
            "long_factor has 11 .* 12, or none",
        ),
        (TEXT, {"rope_parameters": replace(TEXT.rope_parameters, short_factor=(1.0,) * 13)}, "short_factor has 13"),
        (TEXT, {"original_max_position_embeddings": 1}, "original_max_position_embeddings=1: allowed is 2"),
        (TEXT, {"max_position_embeddings": 0}, "max_position_embeddings=0"),
        (TEXT, {"pad_token_id": 2048}, "pad_token_id=2048: .* 0 to 2047"),
        (TEXT, {"bos_token_id": -1}, "bos_token_id=-1"),
        (TEXT, {"eos_token_id": (0, 2048)}, "eos_token_id=2048"),
        (VisionConfig(), {"num_attention_heads": 5}, "hidden_size=1152 is no multiple of num_attention_heads=5"),
        (VisionConfig(), {"crop_size": 450}, "crop_size=450 .* patch_size=14"),
        (VisionConfig(), {"crop_size": 14 * 31}, "pool 2x2"),
        (VisionConfig(), {"feature_layer": 0}, "feature_layer=0"),
        (VisionConfig(), {"feature_layer": -29}, "-28 to -1"),
        (AudioConfig(), {"num_attention_heads": 3}, "hidden_size=1024 is no multiple of num_attention_heads=3"),
        (AudioConfig(), {"time_reduction": 1}, "time_reduction=1"),
        (AudioConfig(), {"time_reduction": 12}, "time_reduction=12"),
        (PRESETS["nano"], {"vision": VisionConfig()}, "vision.image_token_id=200010"),
        (PRESETS["nano"], {"audio": AudioConfig()}, "audio.audio_token_id=200011"),
        (PRESETS["nano"], {"vision": replace(VisionConfig(), image_token_id=12)}, "both 12"),
        (PRESETS["nano"], {"adapters": (LoraConfig("a", 1, 1.0),) * 2}, "each name once"),
    ],
)
def test_shapes_that_cannot_be_are_refused(config: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **wrong)


def test_the_released_scale_of_positions() -> None:
    text = PRESETS["mini"].text
    rope = text.rope_parameters
    assert text.rope_scale == pytest.approx(1.1902380714, abs=1e-10)
    assert replace(text, max_position_embeddings=4096).rope_scale == 1
    assert replace(text, rope_parameters=replace(rope, long_factor=())).rope_scale == 1
    assert replace(text, rope_parameters=replace(rope, attention_factor=1.25)).rope_scale == 1.25
    stretched = replace(text, original_max_position_embeddings=64, max_position_embeddings=2048)
    assert stretched.rope_scale == math.sqrt(1 + math.log(32) / math.log(64))


def test_the_released_sizes_that_follow_from_others() -> None:
    config = PRESETS["multimodal"]
    assert config.vision is not None and config.audio is not None
    assert (config.text.head_dim, config.text.rotary_dim) == (128, 96)
    assert (config.vision.grid, config.vision.used_layers, config.audio.conv_steps) == (32, 26, 3)
    assert [(adapter.name, adapter.r, adapter.scaling) for adapter in config.adapters] == [
        ("vision", 256, 2.0),
        ("speech", 320, 2.0),
    ]
