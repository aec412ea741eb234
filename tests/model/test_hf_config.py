"""config.json: transformers reads ours, we read transformers', and what we do not implement is refused by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from transformers import GenerationConfig, Phi3Config, Phi4MultimodalConfig
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from gristmill.model.hf.config import from_hf, to_hf
from gristmill.model.hf.sidecars import generation_config
from gristmill.model.phi4.config import AudioConfig, ModelConfig, RopeParameters, TextConfig, VisionConfig
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.phi4.rope import tables

CLASSES = {"phi3": Phi3Config, "phi4_multimodal": Phi4MultimodalConfig}
TINY = {"phi3": hf.text_config, "phi4_multimodal": hf.multimodal_config}


def as_file(config: Any) -> dict[str, Any]:
    """What transformers writes of a config."""
    return json.loads(config.to_json_string(use_diff=False))


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good file with one other value."""
    values = as_file(hf.multimodal_config())
    *outer, field = path.split(".")
    (values[outer[0]] if outer else values)[field] = value
    return values


@pytest.mark.parametrize("kind", CLASSES)
def test_transformers_reads_what_we_write_as_what_it_wrote(kind: str) -> None:
    file = as_file(TINY[kind]())
    written = to_hf(from_hf(file))
    again = as_file(CLASSES[kind](**written))
    assert {key: again[key] for key in file if key not in ("architectures", "dtype")} == {
        key: file[key] for key in file if key not in ("architectures", "dtype")
    }
    assert written["architectures"] == [f"{'Phi3' if kind == 'phi3' else 'Phi4Multimodal'}ForCausalLM"]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_missing_field_means_the_default_of_their_class(kind: str) -> None:
    read = from_hf({"model_type": kind})
    assert read == from_hf(as_file(CLASSES[kind]()))
    assert (
        read.text.num_attention_heads,
        read.text.tie_word_embeddings,
        read.text.rope_parameters.partial_rotary_factor,
    ) == (32, False, 1.0)
    assert read.audio is None or read.audio.bias_max_distance == 1000


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "nano-vision"])
def test_presets_come_back(name: str) -> None:
    config = PRESETS[name]
    assert from_hf(json.loads(json.dumps(to_hf(config))), config.adapters) == config


def test_a_preset_that_only_sees_needs_the_missing_part() -> None:
    with pytest.raises(ValueError, match="the model has vision and no audio"):
        to_hf(PRESETS["nano-vision"])


def test_every_field_of_ours_is_written_and_read() -> None:
    rope = RopeParameters(5e4, 0.5, (1.5, 2.0), (2.0, 3.0), 1.25)
    text = TextConfig(64, 32, 5, 4, 2, 24, 1e-4, False, 512, 32, rope, 1, 2, (3, 4, 5))
    vision = VisionConfig(16, 24, 4, 2, 96, 12, 1e-3, -3, 6)
    audio = AudioConfig(24, 36, 3, 2, 40, 8, 5, 4, 500, 7, 1e-5, 8)
    config = ModelConfig(text, vision, audio)
    assert from_hf(to_hf(config)) == config


def test_the_released_file_is_the_preset() -> None:
    released = PRESETS["multimodal"]
    scaling = {"type": "longrope"}
    scaling |= {"short_factor": [1.0] * 48, "long_factor": list(map(float, released.text.rope_parameters.long_factor))}
    values = {
        "model_type": "phi4_multimodal",
        "num_attention_heads": 24,
        "tie_word_embeddings": True,
        "partial_rotary_factor": 0.75,
        "rope_scaling": scaling,
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "auto_map": {"AutoConfig": "configuration.Config"},
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "transformers_version": "4.51.0",
        "audio_config": {"bias_max_distance": 500},
    }
    assert from_hf(values, released.adapters) == released


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", ["longrope", "su", "yarn"])
def test_the_old_form_of_rope_is_the_new_one(kind: str, name: str) -> None:
    new = as_file(TINY[kind]())
    old = {key: value for key, value in new.items() if key != "rope_parameters"}
    old |= {"rope_theta": 10_000.0, "partial_rotary_factor": 0.75}
    old["rope_scaling"] = {"type": name, **{key: hf.LONGROPE[key] for key in ("short_factor", "long_factor")}}
    assert from_hf(old) == from_hf(new)
    if name != "su":  # which transformers 5.23 takes for longrope only after it missed a field of longrope
        assert CLASSES[kind](**old).rope_parameters["long_factor"] == list(
            from_hf(old).text.rope_parameters.long_factor
        )


@pytest.mark.parametrize(
    "changes",
    [{}, {"factor": 8.0}, {"factor": 0.5}, {"attention_factor": 1.5}, {"attention_factor": 1.5, "factor": 8.0}],
    ids=str,
)
def test_the_scale_of_rope_is_theirs(changes: dict[str, float]) -> None:
    config = hf.text_config(rope_parameters={**hf.LONGROPE, **changes})
    model_config = from_hf(as_file(config))
    assert model_config.text.rope_scale == Phi3RotaryEmbedding(config).attention_scaling
    assert from_hf(to_hf(model_config)) == model_config


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    "rope",
    [
        RopeParameters(short_factor=(), long_factor=()),
        RopeParameters(short_factor=(1.0, 2.0, 3.0), long_factor=()),
        RopeParameters(short_factor=(), long_factor=(1.0, 2.0, 3.0)),
        RopeParameters(short_factor=(), long_factor=(), attention_factor=1.5),
    ],
    ids=["default", "short only", "long only", "factor only"],
)
def test_factors_that_we_leave_out_are_written_as_what_they_mean(rope: RopeParameters, long: bool) -> None:
    text = replace(from_hf(as_file(hf.text_config())).text, rope_parameters=rope)
    position = torch.arange(80 if long else 50)[None]
    angles = tables(text, position, torch.tensor([[long]]), torch.float32)
    expected = Phi3RotaryEmbedding(Phi3Config(**to_hf(ModelConfig(text))))(torch.zeros(1), position)
    assert all(torch.equal(table[:, 0], other) for table, other in zip(angles, expected, strict=True))


def test_transformers_stops_where_we_do(tmp_path: Path) -> None:
    config = PRESETS["multimodal"]
    (tmp_path / "generation_config.json").write_text(json.dumps(generation_config(config)))
    read = GenerationConfig.from_pretrained(tmp_path)
    assert (read.eos_token_id, read.pad_token_id, read.bos_token_id) == ([199_999, 200_020], 199_999, 199_999)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hidden_act", "gelu"),
        ("resid_pdrop", 0.1),
        ("embd_pdrop", 0.1),
        ("attention_dropout", 0.1),
        ("quantization_config", {"bits": 4}),
        ("attention_bias", True),
        ("sliding_window", 2047),
        ("sliding_window", "many"),
        ("head_dim", 16),
        ("hidden_size", "wide"),
        ("hidden_size", True),
        ("hidden_size", None),
        ("rms_norm_eps", "small"),
        ("tie_word_embeddings", "no"),
        ("original_max_position_embeddings", None),
        ("rope_parameters.rope_type", "linear"),
        ("rope_parameters.short_factor", None),
        ("rope_parameters.partial_rotary_factor", 1.5),
        ("rope_parameters.original_max_position_embeddings", 4096),
        ("rope_parameters.factor", "8"),
        ("vision_config", "siglip"),
        ("vision_config.num_channels", 1),
        ("vision_config.hidden_act", "gelu"),
        ("vision_config.attention_dropout", 0.1),
        ("vision_config.image_size", 384),
        ("audio_config.activation", "relu"),
        ("audio_config.conv_activation", "relu"),
        ("audio_config.conv_glu_type", "sigmoid"),
        ("audio_config.nemo_activation", "swish"),
        ("audio_config.chunk_size", 18),
        ("audio_config.dropout_rate", 0.1),
        ("audio_config.depthwise_multiplier", 2),
        ("audio_config.downsample_rate", 2),
        ("audio_config.bias_symmetric", True),
        ("audio_config.ext_pw_out_channel", 64),
        ("audio_config.depthwise_separable_out_channel", 64),
        ("audio_config.head_dim", 4),
    ],
    ids=str,
)
def test_what_is_not_implemented_is_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"config.json: {path}={value!r} is not implemented here; allowed")):
        from_hf(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "llama", "model_type='llama' is not implemented; allowed are phi3 and phi4_multimodal"),
        ("hidden_size", 50, "hidden_size=50 is no multiple of num_attention_heads=6"),
        ("num_attention_heads", 0, "hidden_size=48 is no multiple of num_attention_heads=0"),
        ("eos_token_id", 300, "eos_token_id=300"),
        ("eos_token_id", ["end"], "eos_token_id='end'"),
        ("rope_parameters.long_factor", [1.0, 2.0], "long_factor has 2 entries"),
        ("rope_parameters.long_factor", [1.0, 2.0, "3"], "rope_parameters.long_factor='3'"),
        ("vision_config.feature_layer", 2, "feature_layer=2"),
        ("vision_config.image_token_id", 300, "vision.image_token_id=300"),
        ("audio_config.time_reduction", 6, "time_reduction=6"),
    ],
    ids=str,
)
def test_values_that_make_no_model_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        from_hf(changed(path, value))


def test_the_hub_s_own_form_needs_its_weights() -> None:
    with pytest.raises(ValueError, match=r"model_type='phi4mm'.* in a folder with its weights"):
        from_hf({"model_type": "phi4mm"})


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("given", "expected"), [(0, (0,)), ([0], (0,)), ([0, 7], (0, 7)), (7, (7,))])
def test_token_0_ends_a_text_like_any_other(kind: str, given: Any, expected: tuple[int, ...]) -> None:
    values = {**as_file(TINY[kind]()), "eos_token_id": given, "bos_token_id": None, "pad_token_id": 0}
    read = from_hf(values).text
    assert (read.eos_token_id, read.bos_token_id, read.pad_token_id) == (expected, expected[0], 0)
    assert from_hf(to_hf(from_hf(values))).text.eos_token_id == expected


def test_no_end_token_is_what_each_class_makes_of_it() -> None:
    assert from_hf({**as_file(hf.text_config()), "eos_token_id": None, "bos_token_id": 5}).text.eos_token_id == ()
    assert from_hf({**as_file(hf.text_config()), "eos_token_id": [], "bos_token_id": 5}).text.eos_token_id == ()
    large = {"model_type": "phi4_multimodal", "eos_token_id": None}
    assert (
        from_hf(large).text.eos_token_id
        == (199_999, 200_020)
        == tuple(Phi4MultimodalConfig(eos_token_id=None).eos_token_id)
    )


def test_an_error_shows_a_value_in_short_however_large() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    for value in (["x"] * 100_000, "y" * 100_000, deep, {"a": deep}):
        for path in ("hidden_size", "rope_parameters.long_factor", "vision_config", "hidden_act", "head_dim"):
            with pytest.raises(ValueError) as error:
                from_hf(changed(path, value))
            assert len(str(error.value)) < 500


@pytest.mark.parametrize("value", ["x", [1], 1 << 38])
def test_a_size_is_not_multiplied_before_its_type_is_known(value: Any) -> None:
    values = {**changed("head_dim", value), "num_attention_heads": 1 << 39, "hidden_size": 1 << 39}
    with pytest.raises(ValueError, match="head_dim="):
        from_hf(values)


@pytest.mark.parametrize("lacks", ["vision", "audio"])
def test_one_of_image_and_sound_alone_is_no_phi4_multimodal(lacks: str) -> None:
    config = replace(PRESETS["nano"], **{lacks: None})
    with pytest.raises(ValueError, match=f"no {lacks}.*needs both"):
        to_hf(config)


@pytest.mark.parametrize(("field", "value"), [("window", 8), ("layer_norm_eps", 1e-6)])
def test_what_transformers_has_no_field_for_is_not_written(field: str, value: float) -> None:
    nano = PRESETS["nano"]
    assert nano.audio is not None
    with pytest.raises(ValueError, match=rf"audio\.{field}={value}"):
        to_hf(replace(nano, audio=replace(nano.audio, **{field: value})))
