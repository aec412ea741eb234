"""Adapters beside a checkpoint: adapted wherever peft puts them, of any type and on any linears, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from models import words
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.lora import LoRA

IDS = torch.arange(20)[None]

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(model: Any, **given: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS, **given).logits


# Where they lie.


@pytest.mark.parametrize(
    "place", ["vision-lora", "vision", "vision-lora/vision", "vision-lora/default", "vision/vision"]
)
def test_an_adapter_is_found_where_peft_puts_it(written_text: Path, text_folder: Path, place: str) -> None:
    shutil.move(text_folder / "vision-lora", text_folder / "aside")
    (text_folder / place).parent.mkdir(exist_ok=True)
    shutil.move(text_folder / "aside", text_folder / place)
    model = load_hf(text_folder)
    assert model.config == load_hf(written_text).config
    hf.assert_same_tensors(model.state_dict(), load_hf(written_text).state_dict())


def test_what_peft_saves_of_two_named_adapters_is_read(written_text: Path, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(written_text)
    settings = {"target_modules": hf.TARGETS, "task_type": "CAUSAL_LM"}
    reference = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, **settings), adapter_name="vision")
    reference.add_adapter("speech", LoraConfig(r=6, lora_alpha=9, **settings))
    with torch.no_grad():
        for name, tensor in reference.named_parameters():
            if ".lora_B" in name:
                tensor.normal_(std=0.02)
    reference.save_pretrained(tmp_path / "out")
    for file in ("config.json", hf.WEIGHTS):
        shutil.copy(written_text / file, tmp_path / "out" / file)
    model = load_hf(tmp_path / "out")
    assert [(adapter.name, adapter.r, adapter.lora_alpha) for adapter in model.config.adapters] == [
        ("vision", 4, 8.0),
        ("speech", 6, 9.0),
    ]
    for name in ("vision", "speech"):
        reference.set_adapter(name)
        torch.testing.assert_close(logits(model, adapter=name), logits(reference.eval()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("file", [hf.ADAPTER_CONFIG, hf.ADAPTER, "adapter_model.bin"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            ".",
            r"adapter_config\.json: an adapter in the model's own folder has no name here: move .*vision-lora, speech",
        ),
        ("style", r"style: not a known adapter; allowed are vision-lora, speech-lora: rename it, or move it away"),
        ("smell-lora", "smell-lora: not a known adapter"),
        ("checkpoint-500", "checkpoint-500: not a known adapter"),
        ("adapters/vision", "adapters: not a known adapter"),
        ("vision-lora/style", "vision-lora/style: not the adapter vision"),
        ("speech-lora/vision", "speech-lora/vision: not the adapter speech"),
        ("vision", "the adapter vision is there twice, in .*vision and in .*vision-lora"),
        ("vision-lora/vision", "the adapter vision is there twice"),
    ],
)
def test_no_adapter_is_left_out_in_silence(text_folder: Path, place: str, file: str, message: str) -> None:
    (text_folder / place).mkdir(parents=True, exist_ok=True)
    (text_folder / place / file).write_bytes(
        (text_folder / "vision-lora" / (file if file == hf.ADAPTER_CONFIG else hf.ADAPTER)).read_bytes()
    )
    hf.assert_refused(text_folder, message)


def test_other_folders_are_no_adapters(written_text: Path, text_folder: Path) -> None:
    (text_folder / "runs" / "events").mkdir(parents=True)
    (text_folder / ".cache" / "vision-lora").mkdir(parents=True)
    (text_folder / ".cache" / hf.ADAPTER_CONFIG).write_text("{}")
    (text_folder / "figures").mkdir()
    hf.assert_same_tensors(load_hf(text_folder).state_dict(), load_hf(written_text).state_dict())


# Of which kind.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "all"),
        ("use_dora", True),
        ("use_rslora", True),
        ("rank_pattern", {"o_proj": 8}),
        ("alpha_pattern", {"o_proj": 8}),
        ("modules_to_save", ["lm_head"]),
        ("fan_in_fan_out", True),
        ("lora_bias", True),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [5]),
        ("r", 0),
        ("r", "4"),
        ("lora_alpha", None),
        ("lora_dropout", 1.0),
    ],
    ids=str,
)
def test_an_adapter_of_another_kind_is_refused(text_folder: Path, field: str, value: Any) -> None:
    hf.edit(text_folder / "vision-lora" / "adapter_config.json", lambda values: values.update({field: value}))
    hf.assert_refused(text_folder, rf"vision-lora: .*{field}=")


def test_an_adapter_s_matrices_come_in_pairs_of_its_rank_on_linears_of_the_decoder(text_folder: Path) -> None:
    file = text_folder / "vision-lora" / hf.ADAPTER
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    hf.edit(file, lambda tensors: tensors.pop(key))
    hf.assert_refused(text_folder, rf"tensors missing.*layers\.1\.mlp\.down_proj\.adapters\.vision\.A \({key}\)")
    hf.edit(file, lambda tensors: tensors.update({key: torch.ones(5, 80)}))
    hf.assert_refused(text_folder, rf"{key} is \[5, 80\]; by the config \[4, 80\]")
    head = "base_model.model.lm_head.lora_A.weight"
    hf.edit(file, lambda tensors: tensors.update({key: torch.ones(4, 80), head: torch.ones(4, 48)}))
    hf.assert_refused(text_folder, f"no place for: {head} in .*vision-lora")
    (text_folder / "vision-lora").rename(text_folder / "smell-lora")
    hf.assert_refused(text_folder, "smell-lora: not a known adapter; allowed are vision-lora, speech-lora")


def test_many_names_are_told_in_few_words_and_with_what_to_do(text_folder: Path) -> None:
    file, prefix = (
        text_folder / "vision-lora" / hf.ADAPTER,
        "base_model.model.model.embed_tokens_extend.audio_embed.encoder.encoders",
    )

    def add(tensors: dict[str, Tensor]) -> None:
        for layer in range(24):
            for linear in ("self_attn.o_proj", "feed_forward_in.gate_up_proj"):
                tensors[f"{prefix}.{layer}.{linear}.lora_A.weight"] = torch.ones(4, 8)
                tensors[f"{prefix}.{layer}.{linear}.lora_B.weight"] = torch.ones(8, 4)

    hf.edit(file, add)
    with pytest.raises(ValueError, match="no place for: ") as error:
        load_hf(text_folder)
    assert str(error.value).count("and 23 alike") == 4 and len(str(error.value)) < 1500
    assert r"train with target_modules='model\\.layers" in str(error.value)


# Of another type than the base.


def test_a_float32_adapter_on_a_bfloat16_base_is_kept_and_used(
    written_text: Path, text_folder: Path, tmp_path: Path
) -> None:
    hf.edit(
        text_folder / hf.WEIGHTS,
        lambda tensors: tensors.update({key: tensor.bfloat16() for key, tensor in tensors.items()}),
    )
    model, single = load_hf(text_folder), load_hf(written_text)
    assert model.language.layers[0].mlp.down_proj.weight.dtype == torch.bfloat16
    adapters = {name: tensor for name, tensor in single.state_dict().items() if ".adapters." in name}
    hf.assert_same_tensors(
        {name: tensor for name, tensor in model.state_dict().items() if ".adapters." in name}, adapters
    )
    save_hf(model, tmp_path / "out")
    hf.assert_same_tensors(load_hf(tmp_path / "out").state_dict(), model.state_dict())
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).eval()
    reference.load_adapter(str(tmp_path / "out" / "vision-lora"), adapter_name="vision")
    adapted, plain = logits(model, adapter="vision"), logits(model, adapter=None)
    assert adapted.dtype == torch.bfloat16
    apart = (adapted - logits(reference)).float().abs().mean()
    assert apart < 0.2 * (adapted - plain).float().abs().mean()  # all that sets them apart is bfloat16's rounding
    request = Request("a", words(9), Sampling(max_tokens=4, ignore_eos=True), n=2, adapter="vision")
    assert all(
        len(sample.tokens) == 4 for sample in Engine(model, Options(max_num_seqs=4, max_model_len=128)).run([request])
    )


# Of some linears only.


@pytest.mark.parametrize(
    "targets",
    [["qkv_proj"], ["o_proj", "down_proj"], r".*layers\.[02]\.mlp\.(gate_up|down)_proj", ["layers.1.self_attn.o_proj"]],
    ids=str,
)
def test_linears_that_an_adapter_leaves_alone_stay_alone(
    written_text: Path, text_folder: Path, tmp_path: Path, targets: Any
) -> None:
    shutil.rmtree(text_folder / "vision-lora")
    base = AutoModelForCausalLM.from_pretrained(written_text)
    hf.save_adapter(base, text_folder / "vision-lora", 4, 8, seed=3, target_modules=targets)
    reference = AutoModelForCausalLM.from_pretrained(written_text).eval()
    reference.load_adapter(str(text_folder / "vision-lora"), adapter_name="vision")
    model = load_hf(text_folder)
    expected = logits(reference)
    torch.testing.assert_close(logits(model, adapter="vision"), expected, atol=1e-4, rtol=0)
    assert (expected - logits(model, adapter=None)).abs().max() > 1e-3

    save_hf(model, tmp_path / "out")  # and come out as they came in
    hf.assert_same_tensors(
        load_file(tmp_path / "out" / "vision-lora" / hf.ADAPTER),
        load_file(text_folder / "vision-lora" / hf.ADAPTER),
    )
    again = AutoModelForCausalLM.from_pretrained(written_text).eval()
    again.load_adapter(str(tmp_path / "out" / "vision-lora"), adapter_name="vision")
    assert torch.equal(logits(again), expected)
    hf.assert_same_tensors(load_hf(tmp_path / "out").state_dict(), model.state_dict())


def test_training_leaves_a_linear_alone_that_the_adapter_left_alone(text_folder: Path) -> None:
    hf.edit(
        text_folder / "vision-lora" / hf.ADAPTER,
        lambda tensors: [tensors.pop(key) for key in list(tensors) if "qkv_proj" not in key],
    )
    model = load_hf(text_folder).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(IDS, adapter="vision").logits.square().mean().backward()
        optimiser.step()
    low = {
        name: tensor for name, tensor in model.named_modules() if isinstance(tensor, LoRA) and name.endswith("vision")
    }
    assert {name.split(".")[-3] for name, tensor in low.items() if tensor.B.any()} == {"qkv_proj"}


def test_an_adapter_without_any_matrix_is_missing(text_folder: Path) -> None:
    hf.edit(text_folder / "vision-lora" / hf.ADAPTER, lambda tensors: tensors.clear())
    hf.assert_refused(text_folder, r"tensors missing, of \d+: .*adapters\.vision\.A.* and 2 alike")


def test_an_adapter_that_nothing_has_trained_comes_back_whole(written_text: Path, tmp_path: Path) -> None:
    model = load_hf(written_text)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if ".adapters.speech." in name or name.endswith("vision.B"):
                tensor.zero_()
    save_hf(model, tmp_path / "out")
    hf.assert_same_tensors(load_hf(tmp_path / "out").state_dict(), model.state_dict())
    written = json.loads((tmp_path / "out" / "vision-lora" / hf.ADAPTER_CONFIG).read_text())
    assert written["target_modules"] == hf.TARGETS
