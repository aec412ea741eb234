"""Checkpoints: bit-equal there and back, in transformers' format, and alike in transformers and peft."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folders(written_text: Path, written_multimodal: Path) -> dict[str, Path]:
    """What transformers and peft wrote, with both adapters; not to be changed."""
    return {"text": written_text, "multimodal": written_multimodal}


def difference(model: Multimodal, reference: Any, given: dict[str, Tensor], adapter: str | None) -> float:
    with torch.no_grad():
        return (model(**given, adapter=adapter).logits - reference(**given).logits).abs().max().item()


@pytest.mark.parametrize("kind", ["text", "multimodal"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 60_000, 1])
def test_there_and_back_bit_for_bit(
    folders: dict[str, Path], kind: str, dtype: torch.dtype | None, shard_bytes: int, tmp_path: Path
) -> None:
    model = load_hf(folders[kind], dtype=dtype)
    save_hf(model, tmp_path / "out", shard_bytes=shard_bytes)
    assert (tmp_path / "out" / hf.WEIGHTS).exists() == (shard_bytes > 60_000)
    hf.assert_same_model(load_hf(tmp_path / "out"), model)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype or torch.float32}


@pytest.mark.parametrize("kind", ["text", "multimodal"])
def test_what_we_write_is_what_transformers_and_peft_wrote(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    save_hf(load_hf(folders[kind]), tmp_path / "out")
    for file in (hf.WEIGHTS, f"vision-lora/{hf.ADAPTER}", f"speech-lora/{hf.ADAPTER}"):
        hf.assert_same_tensors(load_file(tmp_path / "out" / file), load_file(folders[kind] / file))
    assert "lm_head.weight" not in load_file(tmp_path / "out" / hf.WEIGHTS)


def test_an_untied_head_comes_along(tmp_path: Path) -> None:
    reference = hf.tiny_text(tie_word_embeddings=False)
    reference.save_pretrained(tmp_path / "theirs")
    model = load_hf(tmp_path / "theirs")
    save_hf(model, tmp_path / "out")
    hf.assert_same_tensors(load_file(tmp_path / "out" / hf.WEIGHTS), load_file(tmp_path / "theirs" / hf.WEIGHTS))
    assert difference(model, reference, hf.inputs("text"), None) < 1e-4


def test_same_model_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        save_hf(load_hf(folders["multimodal"]), tmp_path / name, shard_bytes=100_000)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert len(written[0]) > 10


@pytest.mark.parametrize("kind", ["text", "multimodal"])
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 60_000])
def test_transformers_loads_ours_whole_and_alike(
    folders: dict[str, Path], kind: str, shard_bytes: int, tmp_path: Path
) -> None:
    model = load_hf(folders[kind])
    save_hf(model, tmp_path / "out", shard_bytes=shard_bytes)
    attention = hf.ATTENTION if kind == "multimodal" else None
    reference, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation=attention
    )
    assert not any(info.values()), info
    given = hf.inputs("image and audio" if kind == "multimodal" else "text")
    assert difference(model, reference.eval(), given, None) < 1e-4


def test_peft_loads_our_adapters_alike(folders: dict[str, Path], tmp_path: Path) -> None:
    model = load_hf(folders["multimodal"])
    save_hf(model, tmp_path / "out")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation=hf.ATTENTION).eval()
    base = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    for name in ("vision", "speech"):
        reference.load_adapter(str(tmp_path / "out" / f"{name}-lora"), adapter_name=name)
    for kinds, name in (("text", "vision"), ("text", "speech"), ("image and audio", "vision"), ("audio", "speech")):
        given = hf.inputs(kinds)
        reference.set_adapter(name)
        assert difference(model, reference, given, name) < 1e-4
        assert difference(model, reference, given, None) > 0.1
    reference.disable_adapters()
    assert difference(model, reference, hf.inputs("image"), None) < 1e-4
    # its report of missing keys, of parameters that have an adapter's name in theirs, is no more than a report
    now = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in reference.state_dict().items()
        if ".lora_" not in name
    }
    hf.assert_same_tensors(now, base)


def test_adapters_take_their_scale_from_the_folder(folders: dict[str, Path]) -> None:
    wanted = (LoraConfig("vision", 4, 8.0, 0.0), LoraConfig("speech", 6, 9.0, 0.125))
    assert load_hf(folders["text"]).config.adapters == wanted


def test_a_model_without_adapters_has_no_folders(folders: dict[str, Path], text_folder: Path, tmp_path: Path) -> None:
    for name in ("vision", "speech"):
        shutil.rmtree(text_folder / f"{name}-lora")
    model = load_hf(text_folder)
    save_hf(model, tmp_path / "out")
    assert model.config.adapters == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "generation_config.json",
        hf.WEIGHTS,
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [("model.model.", "model."), (".weight", ".default.weight"), (".weight", ".vision.weight")],
)
def test_other_spellings_of_peft_s_keys(folders: dict[str, Path], text_folder: Path, old: str, new: str) -> None:
    def rename(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[key.replace(old, new, 1)] = tensors.pop(key)

    hf.edit(text_folder / "vision-lora" / hf.ADAPTER, rename)
    hf.assert_same_model(load_hf(text_folder), load_hf(folders["text"]))


def test_the_end_of_the_vision_encoder_may_lack(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["multimodal"], tmp_path / "cut")
    unused = ("img_processor.encoder.layers.2.", "img_processor.post_layernorm.", "img_processor.head.")

    def cut(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if any(part in key for part in unused)]:
            del tensors[key]
        for key in tensors:
            tensors[key] = tensors[key].bfloat16()

    hf.edit(folder / hf.WEIGHTS, cut)
    short, whole = load_hf(folder), load_hf(folders["multimodal"], dtype=torch.bfloat16)
    given = hf.inputs("image")
    assert torch.equal(short(**given, adapter=None).logits, whole(**given, adapter=None).logits)
    assert short.vision_encoder.head.probe.dtype == torch.bfloat16
    assert short.vision_encoder.head.probe.abs().sum() == 0
    save_hf(short, tmp_path / "out")
    hf.assert_same_model(load_hf(tmp_path / "out"), short)


def test_a_loaded_model_is_ready(folders: dict[str, Path]) -> None:
    model = load_hf(folders["multimodal"])
    fresh = Multimodal(model.config)
    trainable = {name: parameter.requires_grad for name, parameter in fresh.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trainable
    assert not model.training
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert model.audio_encoder.encoder_embedding.global_mean.abs().sum() > 0


def test_a_loaded_model_does_not_lean_on_its_files(text_folder: Path) -> None:
    model = load_hf(text_folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for file in text_folder.rglob("*.safetensors"):
        file.write_bytes(b"\0" * file.stat().st_size)
    hf.assert_same_tensors(model.state_dict(), before)


_PEAK = """
import resource, sys, torch
from pathlib import Path
from gristmill.model.hf.checkpoint import load_hf
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = load_hf(sys.argv[1])
print(peak() - before, sum(one.numel() * one.element_size() for one in model.parameters()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_loading_takes_the_memory_of_one_copy(tmp_path: Path) -> None:
    config = replace(PRESETS["small"], vision=None, audio=None, adapters=())
    save_hf(Multimodal.seeded(config, 0), tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    peak, size = map(int, done.stdout.split())
    largest = 4 * config.text.vocab_size * config.text.hidden_size  # is mapped while it is copied
    assert size > 300_000_000
    assert peak < 1.05 * size + largest


def small_vocab() -> ModelConfig:
    nano = PRESETS["nano"]
    return replace(nano, text=replace(nano.text, vocab_size=290, num_hidden_layers=1))


def test_card_and_tokenizer_go_along(tmp_path: Path) -> None:
    data = train_tokenizer(["a tokenizer of some hundred entries"] * 4, 290)
    save_hf(Multimodal.seeded(small_vocab(), 0), tmp_path / "out", card="# A model\n\nfür alle\n", tokenizer=data)
    reference = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "<|user|>a tokenizer<|image|><|end|>"
    pieces = [Segment("<|user|>", special=True), Segment("a tokenizer"), Segment("<|image|>", special=True)]
    encoded = Tokenizer.from_bytes(data).encode([[*pieces, Segment("<|end|>", special=True)]])
    assert reference(text)["input_ids"] == encoded.ids.tolist()
    assert (reference.eos_token_id, reference.pad_token_id, reference.image_token_id, reference.audio_token_id) == (
        0,
        0,
        11,
        12,
    )
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# A model\n\nfür alle\n"
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == data


def test_no_tokenizer_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        save_hf(Multimodal.seeded(small_vocab(), 0), tmp_path / "out", tokenizer=b"no json")
    assert list(tmp_path.iterdir()) == []
