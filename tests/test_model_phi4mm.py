"""The hub's own files of Phi-4-multimodal: read bit for bit, alike in transformers, refused by the hub's own names."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from model import hf_folder, phi4mm, tensor_files
from model.checkpoint import load_hf, save_hf
from model.config import _LONG_FACTOR, PRESETS
from model.filling import filled
from model.multimodal import Multimodal
from model.parts import counts

pytestmark = pytest.mark.usefixtures("one_thread")
# What that form has no place for, and a tiny model needs: constants of the hub's code.
SMALL = {"img_processor": {"num_attention_heads": 2}, "image_token_id": hf.IMAGE, "audio_token_id": hf.AUDIO}
ADAPTER, CONFIG = "adapter_model.safetensors", "config.json"
FIRST = "model-00001-of-00002.safetensors"
IMAGE_TOKENS = 16 * 17 + 1 + 16 * 17  # of one crop and the global view


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers and peft wrote; not to be changed."""
    return hf.save_all("multimodal", tmp_path_factory.mktemp("theirs"))


@pytest.fixture
def hub(theirs: Path, tmp_path: Path) -> Path:
    """The same in the hub's form, to change."""
    return hf.as_hub(theirs, tmp_path / "hub", **SMALL)


def assert_same(one: Multimodal, other: Multimodal) -> None:
    assert one.config == other.config
    hf.assert_same_tensors(one.state_dict(), other.state_dict())


def inputs(kinds: str) -> dict[str, Tensor]:
    row, given = [torch.arange(20)], dict[str, Tensor]()
    pick = torch.Generator().manual_seed(0)
    if "image" in kinds:
        row += [torch.full((IMAGE_TOKENS,), hf.IMAGE), torch.arange(5)]
        given["image_pixel_values"] = torch.randn(1, 2, 3, 448, 448, generator=pick)
        given |= {"image_sizes": torch.tensor([[448, 448]]), "image_attention_mask": torch.ones(1, 2, 32, 32)}
    if "audio" in kinds:
        row += [torch.full((13,), hf.AUDIO), torch.arange(5)]
        given["audio_input_features"] = torch.randn(1, 98, 80, generator=pick)
        given["audio_embed_sizes"] = torch.tensor([13])
    return {"input_ids": torch.cat(row)[None], **given}


# Read.


def test_every_tensor_is_bit_for_bit_that_of_transformers_form(theirs: Path, hub: Path) -> None:
    listed = json.loads((hub / "model.safetensors.index.json").read_text())["weight_map"]
    assert sum(key.endswith(".base_layer.weight") for key in listed) == 12
    assert "model.layers.2.mlp.gate_up_proj.lora_A.speech.weight" in listed
    assert "model.embed_tokens_extend.audio_embed.encoder.encoders.1.self_attn.linear_k.bias" in listed
    assert "model.embed_tokens_extend.image_embed.sub_GN" in listed
    ours = load_hf(hub)
    assert_same(ours, load_hf(theirs))
    assert [one.name for one in ours.config.adapters] == ["vision", "speech"]


def test_bfloat16_stays_as_it_is_stored(theirs: Path, hub: Path) -> None:
    for file in hub.glob("*.safetensors"):
        hf.edit(file, lambda tensors: tensors.update({key: one.bfloat16() for key, one in tensors.items()}))
    hf.assert_same_tensors(load_hf(hub).state_dict(), load_hf(theirs, dtype=torch.bfloat16).state_dict())


def test_what_the_hub_s_form_has_no_place_for_may_stand_in_transformers_sections(theirs: Path, tmp_path: Path) -> None:
    sections = {"vision_config": {"num_attention_heads": 2, "image_token_id": hf.IMAGE}}
    sections["audio_config"] = {"audio_token_id": hf.AUDIO}
    assert_same(load_hf(hf.as_hub(theirs, tmp_path / "hub", **sections)), load_hf(theirs))


@pytest.mark.parametrize(
    ("kinds", "adapter"),
    [("text", None), ("text", "speech"), ("image", "vision"), ("audio", "speech"), ("image and audio", "vision")],
)
def test_logits_are_those_of_the_reference(theirs: Path, hub: Path, kinds: str, adapter: str | None) -> None:
    reference = AutoModelForCausalLM.from_pretrained(theirs, attn_implementation=hf.ATTENTION).eval()
    if adapter is not None:
        reference.load_adapter(str(theirs / f"{adapter}-lora"), adapter_name=adapter)
    given = inputs(kinds)
    with torch.no_grad():
        found, expected = load_hf(hub)(**given, adapter=adapter).logits, reference(**given, use_cache=False).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_exported_in_transformers_form_and_back(theirs: Path, hub: Path, tmp_path: Path) -> None:
    ours = load_hf(hub)
    save_hf(ours, tmp_path / "out")
    assert_same(load_hf(tmp_path / "out"), ours)
    values = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert (values["model_type"], values["vision_config"]["num_attention_heads"]) == ("phi4_multimodal", 2)
    _, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation=hf.ATTENTION
    )
    assert not any(info.values()), info


def released() -> dict[str, Any]:
    """config.json of microsoft/Phi-4-multimodal-instruct, as published."""
    values = Phi4MultimodalConfig(
        num_attention_heads=24,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 48,
            "long_factor": list(_LONG_FACTOR),
            "original_max_position_embeddings": 4096,
        },
        audio_config={"bias_max_distance": 500},
    )
    file = hf.hub_config(json.loads(values.to_json_string(use_diff=False)), eos_token_id=199_999)
    file["vision_lora"] |= {"r": 256, "lora_alpha": 512, "dp": 0.0}
    file["speech_lora"] |= {"r": 320, "lora_alpha": 640, "dp": 0.01}
    return file


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Of the hub's tensors, by the hub's names: those of transformers' model, and of adapters on its linears."""
    multimodal = PRESETS["multimodal"]
    config = Phi4MultimodalConfig(
        num_attention_heads=24, tie_word_embeddings=True, audio_config={"bias_max_distance": 500}
    )
    with torch.device("meta"):
        model = Phi4MultimodalForCausalLM(config)
    shapes = {}
    for key, one in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        shapes[hf.hub_name(key)] = tuple(one.shape)
        if hf.hub_name(key).endswith(".base_layer.weight"):
            for adapter in multimodal.adapters:
                stem = key.removesuffix("weight")
                shapes[f"{stem}lora_A.{adapter.name}.weight"] = (adapter.rank, one.shape[1])
                shapes[f"{stem}lora_B.{adapter.name}.weight"] = (one.shape[0], adapter.rank)
    return shapes


def test_the_released_model_has_a_place_for_every_name_and_the_published_counts() -> None:
    shapes = {phi4mm.from_hub(key): shape for key, shape in released_shapes().items()}
    config = phi4mm.config(released(), shapes)
    expected = PRESETS["multimodal"]
    assert config == replace(expected, text=replace(expected.text, eos=(199_999,)))
    with torch.device("meta"):
        model = Multimodal(config)
    assert {name: tuple(one.shape) for name, one in model.state_dict().items()} == shapes
    parts = {str(part): number for part, number in counts(model).items()}
    assert parts == {
        "language": 3_836_021_760,
        "vision_encoder": 428_565_440,
        "vision_projector": 12_984_576,
        "lora_vision": 369_098_752,
        "audio_encoder": 441_238_144,
        "audio_projector_speech": 12_589_056,
        "audio_projector_vision": 12_589_056,
        "lora_speech": 461_373_440,
    }


def test_the_image_encoder_s_sizes_are_seen_where_the_file_has_no_place_for_them(tmp_path: Path) -> None:
    model = hf.tiny_multimodal(vision_config={**hf.VISION, "num_attention_heads": 16, "num_hidden_layers": 2})
    model.save_pretrained(tmp_path / "theirs")
    for name, rank in (("vision", 4), ("speech", 6)):
        hf.save_adapter(model, tmp_path / "theirs" / f"{name}-lora", rank, 8, seed=1)
    hub = hf.as_hub(tmp_path / "theirs", tmp_path / "hub", image_token_id=hf.IMAGE, audio_token_id=hf.AUDIO)
    hf.edit(hub / CONFIG, lambda values: values["speech_lora"].update(lora_alpha=8, dp=0.0))
    assert_same(load_hf(hub), load_hf(tmp_path / "theirs"))
    for file in hub.glob("*.safetensors"):  # with its end cut off, nobody can tell how many layers there were
        hf.edit(file, lambda tensors: [tensors.pop(key) for key in list(tensors) if "img_processor.head." in key])
    (hub / "model.safetensors.index.json").unlink()
    merge(hub)
    with pytest.raises(ValueError, match=r"tensors .*img_processor"):
        load_hf(hub)


def merge(hub: Path) -> None:
    """One file instead of several."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(hub.glob("*.safetensors")):
        tensors |= hf.load_file(file)
        file.unlink()
    (hub / "model.safetensors.index.json").unlink(missing_ok=True)
    hf.save_file(tensors, hub / "model.safetensors")


# Adapters, inline and in folders.


def copied_folders(theirs: Path, hub: Path) -> None:
    for name in ("vision", "speech"):
        shutil.copytree(theirs / f"{name}-lora", hub / f"{name}-lora")


def test_the_hub_s_folders_hold_the_same_adapters_again(
    theirs: Path, hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied_folders(theirs, hub)
    hf.edit(hub / "vision-lora" / ADAPTER, lambda tensors: tensors.update({k: v.double() for k, v in tensors.items()}))
    with caplog.at_level(logging.WARNING):
        assert_same(load_hf(hub), load_hf(theirs))
    assert caplog.text == ""


def test_a_folder_that_differs_from_the_adapter_inline_is_told(
    theirs: Path, hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied_folders(theirs, hub)
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    hf.edit(hub / "speech-lora" / ADAPTER, lambda tensors: tensors[key].add_(1.0))
    hf.edit(hub / "vision-lora" / "adapter_config.json", lambda values: values.update(lora_alpha=99))
    with caplog.at_level(logging.WARNING):
        assert_same(load_hf(hub), load_hf(theirs))
    assert f"speech-lora/{ADAPTER}: 1 of its tensors differ from the model's own files" in caplog.text
    assert "vision-lora: AdapterConfig" in caplog.text and "99" in caplog.text


def without_inline(hub: Path, name: str) -> None:
    def cut(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if f".{name}.weight" in key]:
            del tensors[key]

    for file in hub.glob("*.safetensors"):
        hf.edit(file, cut)
    merge(hub)


def test_an_adapter_in_its_folder_alone_is_read_from_there(theirs: Path, hub: Path) -> None:
    without_inline(hub, "vision")
    shutil.copytree(theirs / "vision-lora", hub / "vision-lora")
    hf.edit(hub / CONFIG, lambda values: values.pop("vision_lora"))
    assert_same(load_hf(hub), load_hf(theirs))


def test_an_adapter_that_is_nowhere_is_none(theirs: Path, hub: Path) -> None:
    without_inline(hub, "speech")
    assert [one.name for one in load_hf(hub).config.adapters] == ["vision"]


def test_linears_without_base_layer_are_read_too(theirs: Path, hub: Path) -> None:
    for name in ("vision", "speech"):
        without_inline(hub, name)

    def unwrap(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[key.replace(".base_layer.", ".")] = tensors.pop(key)

    hf.edit(hub / "model.safetensors", unwrap)
    base = {name: one for name, one in load_hf(theirs).state_dict().items() if ".adapters." not in name}
    hf.assert_same_tensors(load_hf(hub).state_dict(), base)


# Refused.


def test_names_of_neither_form_have_no_place(hub: Path) -> None:
    keys = (
        "model.layers.0.self_attn.qkv_proj.lora_A.smell.weight",
        "model.embed_tokens_extend.image_embed.image_newline",
    )
    merge(hub)
    for key in keys:
        hf.edit(hub / "model.safetensors", lambda tensors, key=key: tensors.update({key: torch.ones(4, 48)}))
        with pytest.raises(ValueError, match=f"no place for: {key} in"):
            load_hf(hub)
        hf.edit(hub / "model.safetensors", lambda tensors, key=key: tensors.pop(key))


def test_an_adapter_inline_needs_its_numbers(hub: Path) -> None:
    for change, message in (
        ({"speech_lora": None}, "speech_lora=None"),
        ({"speech_lora": {"r": 6}}, "speech_lora: lora_alpha=None"),
        ({"speech_lora": {"r": 7, "lora_alpha": 9}}, r"lora_A.speech.weight is \[6, .*\[7, "),
    ):
        hf.edit(hub / CONFIG, lambda values, change=change: values.update(change))
        with pytest.raises(ValueError, match=message):
            load_hf(hub)


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
    values = released() | {"img_processor": {}}
    with pytest.raises(ValueError) as told:
        phi4mm.config(changed(values, tuple(path.split(".")), value), {})
    assert str(told.value).startswith(f"config.json: {path}={value!r} is not implemented here; allowed: ")


HOSTILE = (None, True, -1, 0, 1 << 39, 1 << 70, 1e300, float("nan"), "x", [], [[1]], {}, {"a": 1}, [1e9] * 400)


def test_hostile_values_anywhere_are_an_error_or_the_model_of_other_numbers(theirs: Path, hub: Path) -> None:
    good = json.loads((hub / CONFIG).read_text()) | {"rope_theta": 10_000.0}
    found = stored(hub)
    shapes = {name: one.shape for name, one in found.items()}
    expected = phi4mm.config(good, shapes)
    refused = 0
    for path in leaves(good):
        for value in HOSTILE:
            try:
                config = phi4mm.config(changed(good, path, value), shapes)
                if value == 1 << 39 and config != expected:  # sizes: no memory is taken for them
                    filled(config, found, None, "cpu", may_lack=True)
            except ValueError as error:
                assert len(str(error)) < 6000
                refused += 1
    assert refused > 600


def stored(hub: Path) -> dict[str, Any]:
    return tensor_files.by_name((phi4mm.from_hub(one.key), one) for one in hf_folder.tensors(hub))
