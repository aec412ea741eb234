"""What a prompt takes by arithmetic, against what torch counts and what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from models import NANO, nano

from gristmill.model.generate.cache import Cache
from gristmill.model.generate.requests import Options
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.plan.operations import Watch
from gristmill.model.plan.prompt import estimate_prompt

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(4, 4096, 4, prefill_chunk_size=64, block_size=64)


def counted(work: Callable[[], object]) -> float:
    watch = Watch()
    with watch, torch.no_grad():
        watch.begin()
        work()
    return watch.phase().flops


@pytest.mark.parametrize("frames", [100, 4000, 12_000])
def test_operations_of_a_clip_are_those_that_torch_counts(frames: int) -> None:
    model = nano()
    clip = torch.randn(1, frames, 80)
    expected = counted(lambda: model.audio_projector_speech(model.audio_encoder(clip)[0]))
    assert estimate_prompt(NANO, 2000, frames, OPTIONS, torch.float32).encoder_flops == pytest.approx(
        expected, rel=0.02
    )


def test_operations_of_the_decoder_are_those_that_torch_counts() -> None:
    """A chunk of a prompt, beside what it sees before it."""
    model = Multimodal.seeded(NANO, 0).eval()
    text = NANO.text
    tokens = 256
    expected = 0.0
    cache = Cache(text, 1, 256, 64, torch.float32, torch.device("cpu"))
    pages: list[int] = []
    for start in range(0, tokens, 64):
        cache.grow(pages, start + 64)
        places = torch.arange(start, start + 64)[None]
        x = torch.randn(1, 64, text.hidden_size)
        angles = torch.ones(1, 1, 64, 24), torch.zeros(1, 1, 64, 24)
        access = cache.at([pages], places)
        expected += counted(
            lambda x=x, angles=angles, access=access: model.language(x, angles, access, {"speech": None})
        )
    estimate = estimate_prompt(NANO, tokens, 0, OPTIONS, torch.float32)
    # A page that nobody has is computed with the others: one more than each chunk sees.
    spare = 2 * 2 * 64 * text.num_attention_heads * text.head_dim * text.num_hidden_layers * tokens
    ranks = {lora.name: lora.r for lora in NANO.adapters}
    assert max(ranks.values()) == ranks["speech"]
    assert estimate.linear_flops + estimate.attention_flops + spare == pytest.approx(expected, rel=0.01)


def test_bytes_are_those_of_weights_and_caches() -> None:
    estimate = estimate_prompt(NANO, 1000, 7000, OPTIONS, torch.bfloat16)
    assert estimate.weights == 2 * sum(parameter.numel() for parameter in nano().parameters())
    assert estimate.cache == Cache.size(NANO.text, 1, 1024, 64, torch.bfloat16)
    assert estimate.angles == 2 * 2 * 4096 * 24 * 2


def test_what_grows_with_a_prompt_is_its_context_alone() -> None:
    short, long = (
        estimate_prompt(
            PRESETS["multimodal"], tokens, 8 * tokens, replace(OPTIONS, max_model_len=131_072), torch.bfloat16
        )
        for tokens in (15_000, 126_000)
    )
    assert long.scores == short.scores and long.encoder == short.encoder and long.weights == short.weights
    assert long.cache / short.cache == pytest.approx(126 / 15, rel=0.01)
    # Scores of the first pages are computed once, of all others twice.
    assert 1 <= long.attention_flops / short.attention_flops / (126 / 15) ** 2 < 1.5
    assert long.encoder_flops / short.encoder_flops == pytest.approx(126 / 15, rel=0.01)
