"""Checkpoints that are damaged, foreign, incomplete or in the way: refused by what is wrong with which file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from transformers import AutoModelForCausalLM

from gristmill.model.hf import tensor_files
from gristmill.model.hf.checkpoint import load_hf, save_hf

EMBEDDING = "model.embed_tokens.weight"


def test_nothing_is_unpickled(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(torch, "load", opened)
    (text_folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert load_hf(text_folder).config.text.num_hidden_layers == 3
    (text_folder / hf.WEIGHTS).unlink()
    hf.assert_refused(
        text_folder, r"model\.safetensors is missing \(pytorch_model\.bin is not read: unpickling runs code"
    )


def test_a_pickled_adapter_is_refused(text_folder: Path) -> None:
    (text_folder / "speech-lora" / hf.ADAPTER).rename(text_folder / "speech-lora" / "adapter_model.bin")
    hf.assert_refused(
        text_folder, r"speech-lora/adapter_model\.safetensors is missing \(adapter_model\.bin is not read"
    )


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
@pytest.mark.parametrize("file", [hf.WEIGHTS, f"vision-lora/{hf.ADAPTER}"])
def test_a_file_cut_short_is_refused(text_folder: Path, file: str, keep: int) -> None:
    content = (text_folder / file).read_bytes()
    (text_folder / file).write_bytes(content[:keep])
    hf.assert_refused(text_folder, f"{file}: no safetensors file, or cut short")


@pytest.mark.parametrize(
    "name", ["config.json", "vision-lora/adapter_config.json", f"vision-lora/{hf.ADAPTER}", hf.WEIGHTS]
)
def test_missing_files_are_named(text_folder: Path, name: str) -> None:
    (text_folder / name).unlink()
    hf.assert_refused(text_folder, f"{name} is missing")


@pytest.mark.parametrize(("content", "message"), [("{", "no JSON"), ("[]", "holds list"), ("\x00\xff", "no JSON")])
def test_a_config_that_is_none_is_refused(text_folder: Path, content: str, message: str) -> None:
    (text_folder / "config.json").write_text(content, encoding="latin-1")
    hf.assert_refused(text_folder, f"config.json: {message}")


def test_tensors_too_few_too_many_too_large(text_folder: Path) -> None:
    norm = "model.layers.1.input_layernorm.weight"
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors.pop(norm))
    hf.assert_refused(text_folder, rf"tensors missing, of \d+: language\.layers\.1\.input_layernorm\.weight \({norm}\)")
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors.update({norm: torch.ones(47)}))
    hf.assert_refused(text_folder, rf"{norm} is \[47\]; by the config \[48\] is needed")
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors.update({norm: torch.ones(48, dtype=torch.int8)}))
    hf.assert_refused(text_folder, rf"{norm} holds I8; allowed are")
    hf.edit(
        text_folder / hf.WEIGHTS,
        lambda tensors: tensors.update({norm: torch.ones(48), "model.extra": torch.ones(1)}),
    )
    hf.assert_refused(text_folder, rf"no place for: model\.extra in .*{hf.WEIGHTS}")


@pytest.mark.parametrize("key", ["language.norm.weight", "model.layers.0.self_attn.o_proj.adapters.vision.A"])
def test_our_own_names_mean_nothing_in_their_files(text_folder: Path, key: str) -> None:
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors.update({key: torch.ones(48)}))
    hf.assert_refused(text_folder, f"no place for: {key} in")


def test_a_head_beside_a_tied_embedding_must_be_it(written_text: Path, text_folder: Path) -> None:
    hf.edit(
        text_folder / hf.WEIGHTS,
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}),
    )
    hf.assert_same_tensors(load_hf(text_folder).state_dict(), load_hf(written_text).state_dict())
    hf.edit(
        text_folder / hf.WEIGHTS,
        lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"].double()}),
    )
    hf.assert_same_tensors(load_hf(text_folder).state_dict(), load_hf(written_text).state_dict())
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors["lm_head.weight"][0].add_(1.0))
    hf.assert_refused(text_folder, r"lm_head\.weight is not the embedding")


@pytest.mark.parametrize("eos", [0, [0], [7, 0]])
def test_the_end_tokens_of_generation_config_count_token_0_too(text_folder: Path, eos: Any) -> None:
    (text_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    assert load_hf(text_folder).config.text.eos_token_id == tuple(eos if isinstance(eos, list) else [eos])
    (text_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": None}))
    assert load_hf(text_folder).config.text.eos_token_id == (280, 281)


def test_a_json_file_that_is_none_of_a_checkpoint_s_size_is_refused_unread(text_folder: Path) -> None:
    with (text_folder / "config.json").open("ab") as file:
        file.truncate(1 << 33)
    hf.assert_refused(text_folder, r"config\.json: 8,589,934,592 bytes; allowed are 67,108,864")


def sharded(written_text: Path, folder: Path) -> Path:
    save_hf(load_hf(written_text), folder, shard_bytes=60_000)
    return folder / "model.safetensors.index.json"


@pytest.mark.parametrize(
    "name", ["../theirs.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b.safetensors", ""]
)
def test_an_index_stays_in_its_folder(written_text: Path, tmp_path: Path, name: str) -> None:
    index = sharded(written_text, tmp_path / "out")
    hf.edit(index, lambda values: values["weight_map"].update({"model.norm.weight": name}))
    hf.assert_refused(tmp_path / "out", "weight_map names .* allowed are .safetensors files of its own folder")


@pytest.mark.parametrize("stored", [False, True])
def test_what_an_index_lists_and_transformers_does_without_is_no_fault(
    written_text: Path, tmp_path: Path, stored: bool
) -> None:
    index = sharded(written_text, tmp_path / "out")
    places = json.loads(index.read_text())["weight_map"]
    first, last = min(places.values()), max(places.values())
    frequencies = ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")
    extra = {"lm_head.weight": last, **dict.fromkeys(frequencies, first)}
    hf.edit(index, lambda values: values["weight_map"].update(extra))
    if stored:
        held = places["model.embed_tokens.weight"]
        frequency = torch.arange(3)  # of no floating type either
        hf.edit(
            tmp_path / "out" / first, lambda tensors: tensors.update({key: frequency.clone() for key in frequencies})
        )
        hf.edit(tmp_path / "out" / held, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    model = load_hf(tmp_path / "out")
    hf.assert_same_tensors(model.state_dict(), load_hf(written_text).state_dict())
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]


def test_a_tied_head_without_its_embedding_is_the_embedding(written_text: Path, text_folder: Path) -> None:
    hf.edit(text_folder / hf.WEIGHTS, lambda tensors: tensors.update({"lm_head.weight": tensors.pop(EMBEDDING)}))
    hf.assert_same_tensors(load_hf(text_folder).state_dict(), load_hf(written_text).state_dict())


def test_a_head_of_its_own_that_is_listed_and_not_stored_is_missing(written_text: Path, tmp_path: Path) -> None:
    index = sharded(written_text, tmp_path / "out")
    hf.edit(tmp_path / "out" / "config.json", lambda values: values.update(tie_word_embeddings=False))
    hf.edit(index, lambda values: values["weight_map"].update({"lm_head.weight": min(values["weight_map"].values())}))
    hf.assert_refused(tmp_path / "out", r"tensors missing, of \d+: language\.lm_head\.weight \(lm_head\.weight\)")


def test_an_index_and_its_files_agree(written_text: Path, tmp_path: Path) -> None:
    index = sharded(written_text, tmp_path / "out")
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    hf.edit(index, lambda values: values["weight_map"].update({"model.norm.weight": names[0]}))
    hf.assert_refused(tmp_path / "out", rf"model\.norm\.weight should be in {names[0]}, and is in {names[-1]}")
    hf.edit(index, lambda values: values["weight_map"].update({"model.norm.weight": names[-1], "model.more": names[0]}))
    hf.assert_refused(tmp_path / "out", rf"model\.more should be in {names[0]}, and is in no file")
    (tmp_path / "out" / names[0]).unlink()
    hf.assert_refused(tmp_path / "out", f"{names[0]} is missing")
    hf.edit(index, lambda values: values.pop("weight_map"))
    hf.assert_refused(tmp_path / "out", "weight_map=None")


def test_a_folder_with_something_in_it_is_left_alone(written_text: Path, tmp_path: Path) -> None:
    model = load_hf(written_text)
    (tmp_path / "out").mkdir()
    save_hf(model, tmp_path / "out")
    before = (tmp_path / "out" / hf.WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_hf(model, tmp_path / "out")
    assert (tmp_path / "out" / hf.WEIGHTS).read_bytes() == before
    with pytest.raises(ValueError, match="is not an empty folder"):
        save_hf(model, tmp_path / "out" / hf.WEIGHTS)


def test_a_save_that_fails_leaves_nothing(written_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_hf(load_hf(written_text), tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
