"""Files by part: bit-equal there and back, the same bytes for the same part, and refused unless all are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hf
import pytest
import torch

from gristmill.model.hf.checkpoint import load_hf, load_parts, part_files
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part


def part_folder(model: Multimodal, folder: Path, shard_bytes: int = 1 << 30) -> dict[Part, list[Path]]:
    folder.mkdir()
    return {part: part_files(model, part, folder, shard_bytes) for part in Part}


@pytest.mark.parametrize("shard_bytes", [1 << 30, 20_000])
def test_parts_there_and_back(written_multimodal: Path, shard_bytes: int, tmp_path: Path) -> None:
    model = load_hf(written_multimodal, dtype=torch.bfloat16)
    files = part_folder(model, tmp_path / "parts", shard_bytes)
    every = [file for of_part in files.values() for file in of_part]
    hf.assert_same_tensors(load_parts(model.config, reversed(every)).state_dict(), model.state_dict())
    assert sorted(every) == sorted((tmp_path / "parts").iterdir())
    assert files[Part.LANGUAGE][0].name == "language-00000.safetensors"
    assert (len(files[Part.LANGUAGE]) > 1) == (shard_bytes == 20_000)


def test_a_part_that_is_shared_is_the_same_bytes(written_multimodal: Path, tmp_path: Path) -> None:
    model = load_hf(written_multimodal)
    before = part_folder(model, tmp_path / "before", 20_000)
    with torch.no_grad():
        model.language.layers[0].self_attn.qkv_proj.adapters["vision"].B.add_(1.0)
    after = part_folder(model, tmp_path / "after", 20_000)
    changed = [
        part
        for part in Part
        if [file.read_bytes() for file in before[part]] != [file.read_bytes() for file in after[part]]
    ]
    assert changed == [Part.LORA_VISION]


def test_parts_must_be_all_there(written_multimodal: Path, tmp_path: Path) -> None:
    model = load_hf(written_multimodal)
    files = part_folder(model, tmp_path / "parts")
    every = [file for of_part in files.values() for file in of_part]
    lacking = [file for file in every if file not in files[Part.VISION_ENCODER]]
    with pytest.raises(ValueError, match=r"tensors missing.*vision_encoder\.embeddings.* and \d+ more"):
        load_parts(model.config, lacking)
    with pytest.raises(ValueError, match="is stored twice"):
        load_parts(model.config, [*every, every[0]])
    with pytest.raises(ValueError, match="no place for: audio_encoder"):
        load_parts(replace(model.config, audio=None), every)


def test_a_text_model_has_no_other_parts(tmp_path: Path) -> None:
    files = part_folder(load_hf(hf.save_all("text", tmp_path / "text")), tmp_path / "parts")
    assert {part for part, of_part in files.items() if of_part} == {Part.LANGUAGE, Part.LORA_VISION, Part.LORA_SPEECH}
