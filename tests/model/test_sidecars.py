"""What lies beside the weights goes out as it came in: chat template, tokens by role, sampling; added to at most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from gristmill.model.hf import sidecars as hf_sidecars
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.tokenizer.bpe import train_tokenizer

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}\n"
TOKENIZER = train_tokenizer(["a tokenizer of some hundred entries"] * 4, 290)
GENERATION = """{"eos_token_id": [3, 0],
   "do_sample": true, "temperature": 0.7, "top_p": 0.9, "bos_token_id": 0, "pad_token_id": 0}"""


def small() -> ModelConfig:
    nano = PRESETS["nano"]
    return replace(nano, text=replace(nano.text, vocab_size=290, num_hidden_layers=1))


def saved(folder: Path, given: dict[str, str], config: ModelConfig | None = None) -> Path:
    save_hf(Multimodal.seeded(config or small(), 0), folder, tokenizer=TOKENIZER, sidecars=given)
    return folder


def beside(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8", newline="")
    return folder


def test_every_file_that_came_in_comes_out_as_it_was(tmp_path: Path) -> None:
    known = hf_sidecars.tokenizer_config(small(), TOKENIZER)
    files = {
        "generation_config.json": GENERATION,
        "tokenizer_config.json": json.dumps({**known, "eos_token": "<|end|>", "chat_template": TEMPLATE, "x": "für"}),
        "special_tokens_map.json": '{"eos_token":  "<|end|>"}',
        "added_tokens.json": "{}\r\n",
        "chat_template.jinja": TEMPLATE,
        "chat_template.json": json.dumps({"chat_template": TEMPLATE}),
        "additional_chat_templates/tool_use.jinja": "{{ tools }}",
        "preprocessor_config.json": '{"dynamic_hd": 16}',
        "processor_config.json": '{"processor_class": "Phi4MultimodalProcessor"}',
    }
    read = hf_sidecars.read(beside(tmp_path / "in", files))
    assert read == files
    out = saved(tmp_path / "out", read)
    assert {name: (out / name).read_bytes().decode() for name in files} == files
    assert hf_sidecars.read(out) == files


def test_transformers_samples_and_talks_as_the_files_said(tmp_path: Path) -> None:
    files = {"generation_config.json": GENERATION, "tokenizer_config.json": {"chat_template": TEMPLATE}}
    out = saved(tmp_path / "out", hf_sidecars.read(beside(tmp_path / "in", files)))
    how = GenerationConfig.from_pretrained(out)
    assert (how.do_sample, how.temperature, how.top_p, how.eos_token_id) == (True, 0.7, 0.9, [3, 0])
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert prompt == "<|user|>a<|end|>"  # Jinja leaves the last line end out
    assert (tokenizer.image_token_id, tokenizer.audio_token_id, tokenizer.pad_token_id) == (11, 12, 0)


def test_what_the_files_leave_out_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    files = {"generation_config.json": {"temperature": 0.3}, "tokenizer_config.json": {"eos_token": "<|end|>"}}
    out = saved(tmp_path / "out", hf_sidecars.read(beside(tmp_path / "in", files)))
    how = json.loads((out / "generation_config.json").read_text())
    assert how == {"temperature": 0.3, "bos_token_id": 0, "eos_token_id": [0, 3], "pad_token_id": 0}
    tokens = json.loads((out / "tokenizer_config.json").read_text())
    assert tokens["eos_token"] == "<|end|>" and tokens["pad_token"] == "<|endoftext|>"
    assert load_hf(out).config.text.eos_token_id == (0, 3)


def test_without_any_the_model_s_own_are_written(tmp_path: Path) -> None:
    out = saved(tmp_path / "out", {})
    assert set(hf_sidecars.read(out)) == {"generation_config.json", "tokenizer_config.json"}
    assert json.loads((out / "generation_config.json").read_text()) == hf_sidecars.generation_config(small())


def test_files_of_the_hub_s_own_classes_name_those_of_transformers(tmp_path: Path) -> None:
    remote = {"AutoProcessor": "processing_phi4mm.Phi4MMProcessor"}
    files = {
        "preprocessor_config.json": {
            "auto_map": {**remote, "AutoImageProcessor": "processing_phi4mm.Phi4MMImageProcessor"},
            "image_processor_type": "Phi4MMImageProcessor",
            "feature_extractor_type": "Phi4MMAudioFeatureExtractor",
            "processor_class": "Phi4MMProcessor",
            "audio_compression_rate": 8,
            "dynamic_hd": 36,
        },
        "processor_config.json": {"auto_map": remote, "processor_class": "Phi4MMProcessor"},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["x.Y", None]}, "chat_template": TEMPLATE},
    }
    out = saved(tmp_path / "out", hf_sidecars.read(beside(tmp_path / "in", files)))
    assert json.loads((out / "preprocessor_config.json").read_text()) == {
        "image_processor_type": "Phi4MultimodalImageProcessor",
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "processor_class": "Phi4MultimodalProcessor",
        "audio_compression_rate": 8,
        "dynamic_hd": 36,
    }
    assert json.loads((out / "processor_config.json").read_text()) == {"processor_class": "Phi4MultimodalProcessor"}
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE  # no code to fetch


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "no JSON"), (b"[1]", "holds list"), (b"[" * 100_000, "no JSON"), (b'{"a": "\xff"}', "no JSON")],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        hf_sidecars.read(tmp_path)


def test_a_template_that_is_no_text_or_too_large_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ \xff }}")
    with pytest.raises(ValueError, match=r"chat_template\.jinja: no UTF-8 text"):
        hf_sidecars.read(tmp_path)
    with (tmp_path / "chat_template.jinja").open("wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(ValueError, match=r"chat_template\.jinja: 4,294,967,296 bytes; allowed are 16,777,216"):
        hf_sidecars.read(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.json", "/tmp/x.json", "model.safetensors", "config.json", "additional_chat_templates/../../x.jinja", ""],
)
def test_other_names_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no file beside a model's weights"):
        saved(tmp_path / "deep" / "out", {name: "{}"})
    assert list((tmp_path / "deep").iterdir()) == []
