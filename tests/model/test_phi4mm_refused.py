"""The hub's own files of Phi-4-multimodal, spoilt: refused by the hub's own names, whatever stands in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hf
import hf_hub
import pytest
import torch

from gristmill.model.hf import folder as hf_folder
from gristmill.model.hf import phi4mm, tensor_files
from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.hf.filling import filled


def test_names_of_neither_form_have_no_place(hub_folder: Path) -> None:
    keys = (
        "model.layers.0.self_attn.qkv_proj.lora_A.smell.weight",
        "model.embed_tokens_extend.image_embed.image_newline",
    )
    hf.merge_files(hub_folder)
    for key in keys:
        hf.edit(hub_folder / "model.safetensors", lambda tensors, key=key: tensors.update({key: torch.ones(4, 48)}))
        with pytest.raises(ValueError, match=f"no place for: {key} in"):
            load_hf(hub_folder)
        hf.edit(hub_folder / "model.safetensors", lambda tensors, key=key: tensors.pop(key))


def test_an_index_and_its_files_that_disagree_are_told_apart(hub_folder: Path) -> None:
    index = hub_folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    first, file = min(places.items())
    unlisted = {key: place for key, place in places.items() if key != first}
    for changed, message in (
        ({**places, "model.gone": file}, f"model.gone should be in {file}, and is in no file"),
        (unlisted, f"{first} should be in no file, and is in {file}"),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(ValueError, match=message):
            load_hf(hub_folder)


def test_an_adapter_inline_needs_its_numbers(hub_folder: Path) -> None:
    for change, message in (
        ({"speech_lora": None}, "speech_lora=None"),
        ({"speech_lora": {"r": 6}}, "speech_lora: lora_alpha=None"),
        ({"speech_lora": {"r": 7, "lora_alpha": 9}}, r"lora_A.speech.weight is \[6, .*\[7, "),
    ):
        hf.edit(hub_folder / hf.CONFIG, lambda values, change=change: values.update(change))
        with pytest.raises(ValueError, match=message):
            load_hf(hub_folder)


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if isinstance(values, dict):
        for name, inner in values.items():
            yield from leaves(inner, (*path, name))


def changed(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(values))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


AUDIO, IMAGE = "audio_processor.config.", "embd_layer.image_embd_layer."


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hidden_act", "gelu"),
        ("num_attention_heads", None),
        ("full_attn_mod", 2),
        ("interpolate_factor", 2),
        ("sliding_window", 100),
        ("embd_layer", None),
        ("embd_layer", "default"),
        ("audio_processor", None),
        ("audio_processor.name", "whisper"),
        (f"{AUDIO}activation", "relu"),
        (f"{AUDIO}conv_glu_type", None),
        (f"{AUDIO}chunk_size", 18),
        (f"{AUDIO}batch_norm", True),
        (f"{AUDIO}causal", False),
        (f"{AUDIO}input_layer", "conv2d"),
        (f"{AUDIO}depthwise_seperable_out_channel", 256),
        (f"{AUDIO}ext_pw_out_channel", 0),
        (f"{AUDIO}encoder_embedding_config.input_size", 40),
        (f"{AUDIO}nemo_conv_settings.is_causal", True),
        (f"{AUDIO}relative_attention_bias_args.type", "alibi"),
        (f"{AUDIO}relative_attention_bias_args.t5_bias_symmetric", True),
        ("embd_layer.audio_embd_layer.projection_cls", "linear"),
        ("embd_layer.audio_embd_layer.downsample_rate", 2),
        ("embd_layer.audio_embd_layer.use_qformer", True),
        (f"{IMAGE}projection_cls", "linear"),
        (f"{IMAGE}hd_transform_order", "glb_sub"),
        (f"{IMAGE}image_token_compression_cls", None),
        (f"{IMAGE}use_hd_transform", False),
        ("img_processor.type_feature", "cls_patch"),
    ],
    ids=str,
)
def test_what_is_not_implemented_is_refused_by_the_hub_s_name(path: str, value: Any) -> None:
    values = hf_hub.released_hub_config() | {"img_processor": {}}
    with pytest.raises(ValueError) as error:
        phi4mm.config(changed(values, tuple(path.split(".")), value), {})
    assert str(error.value).startswith(f"config.json: {path}={value!r} is not implemented here; allowed: ")


HOSTILE = (None, True, -1, 0, 1 << 39, 1 << 70, 1e300, float("nan"), "x", [], [[1]], {}, {"a": 1}, [1e9] * 400)


def test_hostile_values_anywhere_are_an_error_or_the_model_of_other_numbers(
    written_multimodal: Path, hub_folder: Path
) -> None:
    good = json.loads((hub_folder / hf.CONFIG).read_text()) | {"rope_theta": 10_000.0}
    computed = stored(hub_folder)
    shapes = {name: tensor.shape for name, tensor in computed.items()}
    expected = phi4mm.config(good, shapes)
    refused = 0
    for path in leaves(good):
        for value in HOSTILE:
            try:
                config = phi4mm.config(changed(good, path, value), shapes)
                if value == 1 << 39 and config != expected:  # sizes: no memory is taken for them
                    filled(config, computed, None, "cpu", may_lack=True)
            except ValueError as error:
                assert len(str(error)) < 6000
                refused += 1
    assert refused > 600


def stored(hub_folder: Path) -> dict[str, Any]:
    return tensor_files.by_name((phi4mm.from_hub(tensor.key), tensor) for tensor in hf_folder.tensors(hub_folder))
