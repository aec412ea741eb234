"""What a reviewer broke: end tokens in another file, inputs of a wrong shape, runs that nobody listens to, hostile
numbers in a config. Each costs the one who asked for it, and nobody else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hf
import models
import pytest
import torch

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.hf.config import from_hf
from gristmill.orchestration.serve.engine import HostedEngine
from gristmill.pipelines.model import Checkpoint

OPTIONS = Options(max_num_seqs=4, max_model_len=256, max_num_partial_prefills=4, prefill_chunk_size=16, block_size=64)
SHORT = Sampling(max_tokens=4, temperature=0.0, ignore_eos=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hf.tiny_text().save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder: Path, name: str, **fields: Any) -> None:
    hf.edit(folder / name, lambda values: values.update(fields))


def test_the_end_tokens_of_generation_config_count_and_are_written_again(folder: Path, tmp_path: Path) -> None:
    edit(folder, "config.json", eos_token_id=280)
    edit(folder, "generation_config.json", eos_token_id=[281, 280])
    model = load_hf(folder)
    assert model.config.text.eos_token_id == (281, 280)
    save_hf(model, tmp_path / "out")
    assert load_hf(tmp_path / "out").config.text.eos_token_id == (281, 280)
    assert "generation_config.json" in Checkpoint(str(folder)).digests


def test_a_config_without_first_and_padding_token_takes_the_end_token(folder: Path) -> None:
    edit(folder, "config.json", bos_token_id=None, pad_token_id=None)
    text = load_hf(folder).config.text
    assert (text.bos_token_id, text.pad_token_id) == (280, 280)


@pytest.mark.parametrize("start", ["pissa", "olora", "loftq"])
def test_adapters_that_change_the_base_as_they_load_are_refused(folder: Path, start: str) -> None:
    hf.save_adapter(hf.tiny_text(), folder / "vision-lora", 4, 8, seed=1)
    assert load_hf(folder).config.adapters[0].r == 4
    edit(folder / "vision-lora", "adapter_config.json", init_lora_weights=start)
    with pytest.raises(ValueError, match="init_lora_weights"):
        load_hf(folder)


@pytest.mark.parametrize(
    "field",
    [
        {"num_hidden_layers": 10**19},
        {"num_hidden_layers": 1000},
        {"intermediate_size": -4},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": -1.0},
        {"original_max_position_embeddings": 0},
        {"rope_parameters": [1]},
        {"rope_parameters": {**hf.LONGROPE, "rope_theta": float("inf")}},
    ],
)
def test_numbers_that_make_no_model_are_refused_by_name(folder: Path, field: dict[str, Any]) -> None:
    edit(folder, "config.json", **field)
    with pytest.raises(ValueError, match=r"config|rope|sizes"):
        load_hf(folder)


@pytest.mark.parametrize("field", [{"patch_size": 0}, {"hidden_size": 10**30}, {"layer_norm_eps": float("inf")}])
def test_numbers_that_make_no_encoder_are_refused(field: dict[str, Any]) -> None:
    values = hf.multimodal_config().to_dict()
    from_hf(values)
    values["vision_config"] |= field
    with pytest.raises(ValueError, match=r"vision|crop|multiple"):
        from_hf(values)


def wrong_inputs() -> dict[str, dict[str, torch.Tensor]]:
    good = {"image_pixel_values": torch.randn(1, 2, 3, 64, 64), "image_sizes": torch.tensor([[64, 64]])}
    return {
        "mask": good | {"image_attention_mask": torch.ones(1, 2, 4, 4)},
        "pixels": good | {"image_pixel_values": torch.randn(1, 2, 3, 32, 32)},
        "unknown": {"image_colours": torch.zeros(1)},
        "sizes alone": {"image_sizes": torch.tensor([[64, 64]])},
    }


@pytest.mark.parametrize("kind", wrong_inputs())
def test_inputs_of_a_wrong_shape_harm_nobody_else(kind: str) -> None:
    engine = Engine(models.nano(), OPTIONS)

    async def ask(host: HostedEngine, request: Request) -> int:
        with await host.submit(request) as stream:
            return sum([len(items) async for items in stream])

    async def both(host: HostedEngine) -> int:
        good = asyncio.create_task(ask(host, Request("good", (5, 6, 7), SHORT)))
        with pytest.raises(ValueError, match=r"inputs|without|tokens"):
            await ask(host, Request("bad", (5, 11, 11), SHORT, inputs=wrong_inputs()[kind]))
        return await good

    with HostedEngine(engine) as host:
        assert asyncio.run(both(host)) == 4
        assert host.failure is None


def test_prompts_that_are_cancelled_are_computed_no_further() -> None:
    engine = Engine(models.nano(), OPTIONS)
    asked = [engine.submit(Request(str(n), (7,) * 200, SHORT)) for n in range(6)]
    engine.step()
    assert engine._prefill.pending
    for samples in asked:
        engine.cancel(samples)
    assert engine.idle and engine.step() == []
    (completion,) = engine.run([Request("after", (5, 6), SHORT)])
    assert len(completion.tokens) == 4


def test_a_run_that_nobody_listens_to_any_more_leaves_nothing_behind() -> None:
    engine = Engine(models.nano(), OPTIONS)
    running = engine.run([Request(str(n), (5, n + 1), SHORT) for n in range(12)])
    assert next(running).finish_reason == "length"
    running.close()
    assert engine.idle
    assert [completion.request.key for completion in engine.run([Request("new", (5, 6), SHORT)])] == ["new"]
    with pytest.raises(ValueError, match="max_model_len is"):
        list(engine.run([Request("good", (5, 6), SHORT), Request("long", (5,) * 300, SHORT)]))
    assert engine.idle


def test_a_number_of_tokens_is_a_whole_one() -> None:
    with pytest.raises(ValueError, match=r"max_tokens=2\.5"):
        Sampling(max_tokens=2.5)  # type: ignore[arg-type]
