"""The hub's own files of Phi-4-multimodal: read bit for bit, alike in transformers, refused by the hub's own names."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import hf
import hf_hub
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from gristmill.model.hf import phi4mm
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import counts
from gristmill.model.phi4.presets import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = "model-00001-of-00002.safetensors"


# Read.


def test_every_tensor_is_bit_for_bit_that_of_transformers_form(written_multimodal: Path, hub_folder: Path) -> None:
    listed = json.loads((hub_folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert sum(key.endswith(".base_layer.weight") for key in listed) == 12
    assert "model.layers.2.mlp.gate_up_proj.lora_A.speech.weight" in listed
    assert "model.embed_tokens_extend.audio_embed.encoder.encoders.1.self_attn.linear_k.bias" in listed
    assert "model.embed_tokens_extend.image_embed.sub_GN" in listed
    model = load_hf(hub_folder)
    hf.assert_same_model(model, load_hf(written_multimodal))
    assert [adapter.name for adapter in model.config.adapters] == ["vision", "speech"]


def test_bfloat16_stays_as_it_is_stored(written_multimodal: Path, hub_folder: Path) -> None:
    for file in hub_folder.glob("*.safetensors"):
        hf.edit(file, lambda tensors: tensors.update({key: tensor.bfloat16() for key, tensor in tensors.items()}))
    hf.assert_same_tensors(
        load_hf(hub_folder).state_dict(), load_hf(written_multimodal, dtype=torch.bfloat16).state_dict()
    )


def test_what_the_hub_s_form_has_no_place_for_may_stand_in_transformers_sections(
    written_multimodal: Path, tmp_path: Path
) -> None:
    sections = {"vision_config": {"num_attention_heads": 2, "image_token_id": hf.IMAGE}}
    sections["audio_config"] = {"audio_token_id": hf.AUDIO}
    hf.assert_same_model(
        load_hf(hf_hub.as_hub(written_multimodal, tmp_path / "hub", **sections)), load_hf(written_multimodal)
    )


@pytest.mark.parametrize(
    ("kinds", "adapter"),
    [("text", None), ("text", "speech"), ("image", "vision"), ("audio", "speech"), ("image and audio", "vision")],
)
def test_logits_are_those_of_the_reference(
    written_multimodal: Path, hub_folder: Path, kinds: str, adapter: str | None
) -> None:
    reference = AutoModelForCausalLM.from_pretrained(written_multimodal, attn_implementation=hf.ATTENTION).eval()
    if adapter is not None:
        reference.load_adapter(str(written_multimodal / f"{adapter}-lora"), adapter_name=adapter)
    given = hf.inputs(kinds)
    with torch.no_grad():
        computed, expected = (
            load_hf(hub_folder)(**given, adapter=adapter).logits,
            reference(**given, use_cache=False).logits,
        )
    torch.testing.assert_close(computed, expected, atol=1e-4, rtol=0)


def test_exported_in_transformers_form_and_back(written_multimodal: Path, hub_folder: Path, tmp_path: Path) -> None:
    model = load_hf(hub_folder)
    save_hf(model, tmp_path / "out")
    hf.assert_same_model(load_hf(tmp_path / "out"), model)
    values = json.loads((tmp_path / "out" / hf.CONFIG).read_text())
    assert (values["model_type"], values["vision_config"]["num_attention_heads"]) == ("phi4_multimodal", 2)
    _, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation=hf.ATTENTION
    )
    assert not any(info.values()), info


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Of the hub's tensors, by the hub's names: those of transformers' model, and of adapters on its linears."""
    multimodal = PRESETS["multimodal"]
    config = Phi4MultimodalConfig(
        num_attention_heads=24, tie_word_embeddings=True, audio_config={"bias_max_distance": 500}
    )
    with torch.device("meta"):
        model = Phi4MultimodalForCausalLM(config)
    shapes = {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        shapes[hf_hub.hub_name(key)] = tuple(tensor.shape)
        if hf_hub.hub_name(key).endswith(".base_layer.weight"):
            for adapter in multimodal.adapters:
                stem = key.removesuffix("weight")
                shapes[f"{stem}lora_A.{adapter.name}.weight"] = (adapter.r, tensor.shape[1])
                shapes[f"{stem}lora_B.{adapter.name}.weight"] = (tensor.shape[0], adapter.r)
    return shapes


def test_the_released_model_has_a_place_for_every_name_and_the_published_counts() -> None:
    shapes = {phi4mm.from_hub(key): shape for key, shape in released_shapes().items()}
    config = phi4mm.config(hf_hub.released_hub_config(), shapes)
    expected = PRESETS["multimodal"]
    assert config == replace(expected, text=replace(expected.text, eos_token_id=(199_999,)))
    with torch.device("meta"):
        model = Multimodal(config)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes
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
    model.save_pretrained(tmp_path / "standard")
    for name, rank in (("vision", 4), ("speech", 6)):
        hf.save_adapter(model, tmp_path / "standard" / f"{name}-lora", rank, 8, seed=1)
    hub = hf_hub.as_hub(tmp_path / "standard", tmp_path / "hub", image_token_id=hf.IMAGE, audio_token_id=hf.AUDIO)
    hf.edit(hub / hf.CONFIG, lambda values: values["speech_lora"].update(lora_alpha=8, dp=0.0))
    hf.assert_same_model(load_hf(hub), load_hf(tmp_path / "standard"))
    for file in hub.glob("*.safetensors"):  # with its end cut off, nobody can tell how many layers there were
        hf.edit(file, lambda tensors: [tensors.pop(key) for key in list(tensors) if "img_processor.head." in key])
    (hub / "model.safetensors.index.json").unlink()
    hf.merge_files(hub)
    with pytest.raises(ValueError, match=r"tensors .*img_processor"):
        load_hf(hub)


# Adapters, inline and in folders.


def copied_folders(written_multimodal: Path, hub_folder: Path) -> None:
    for name in ("vision", "speech"):
        shutil.copytree(written_multimodal / f"{name}-lora", hub_folder / f"{name}-lora")


def test_the_hub_s_folders_hold_the_same_adapters_again(
    written_multimodal: Path, hub_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied_folders(written_multimodal, hub_folder)
    hf.edit(
        hub_folder / "vision-lora" / hf.ADAPTER,
        lambda tensors: tensors.update({k: v.double() for k, v in tensors.items()}),
    )
    with caplog.at_level(logging.WARNING):
        hf.assert_same_model(load_hf(hub_folder), load_hf(written_multimodal))
    assert caplog.text == ""


def test_a_folder_that_differs_from_the_adapter_inline_is_told(
    written_multimodal: Path, hub_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied_folders(written_multimodal, hub_folder)
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    hf.edit(hub_folder / "speech-lora" / hf.ADAPTER, lambda tensors: tensors[key].add_(1.0))
    hf.edit(hub_folder / "vision-lora" / "adapter_config.json", lambda values: values.update(lora_alpha=99))
    with caplog.at_level(logging.WARNING):
        hf.assert_same_model(load_hf(hub_folder), load_hf(written_multimodal))
    assert f"speech-lora/{hf.ADAPTER}: 1 of its tensors differ from the model's own files" in caplog.text
    assert "vision-lora: LoraConfig" in caplog.text and "99" in caplog.text


def without_inline(hub_folder: Path, name: str) -> None:
    def cut(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if f".{name}.weight" in key]:
            del tensors[key]

    for file in hub_folder.glob("*.safetensors"):
        hf.edit(file, cut)
    hf.merge_files(hub_folder)


def test_an_adapter_in_its_folder_alone_is_read_from_there(written_multimodal: Path, hub_folder: Path) -> None:
    without_inline(hub_folder, "vision")
    shutil.copytree(written_multimodal / "vision-lora", hub_folder / "vision-lora")
    hf.edit(hub_folder / hf.CONFIG, lambda values: values.pop("vision_lora"))
    hf.assert_same_model(load_hf(hub_folder), load_hf(written_multimodal))


def test_an_adapter_that_is_nowhere_is_none(written_multimodal: Path, hub_folder: Path) -> None:
    without_inline(hub_folder, "speech")
    assert [adapter.name for adapter in load_hf(hub_folder).config.adapters] == ["vision"]


def test_linears_without_base_layer_are_read_too(written_multimodal: Path, hub_folder: Path) -> None:
    for name in ("vision", "speech"):
        without_inline(hub_folder, name)

    def unwrap(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[key.replace(".base_layer.", ".")] = tensors.pop(key)

    hf.edit(hub_folder / "model.safetensors", unwrap)
    base = {
        name: tensor for name, tensor in load_hf(written_multimodal).state_dict().items() if ".adapters." not in name
    }
    hf.assert_same_tensors(load_hf(hub_folder).state_dict(), base)
