"""What windows cost, against operations that torch counts in the model itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from media_windows import packed, sample
from models import NANO, enlivened, text_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gristmill.model.phi4 import audio, vision
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, trainable
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.shards.counts import Counts
from gristmill.model.train.objective import Objective, collate
from gristmill.model.windows.cost import Cost

pytestmark = pytest.mark.usefixtures("one_thread")


def test_counts_are_those_of_a_windows_arrays() -> None:
    window = packed([sample(1), sample(2, pictures=[(100, 64), (64, 64)]), sample(3, clips=[37, 20])])
    lengths = np.diff(window["cu_seqlens"])
    counts = Counts.of(window)
    assert counts == (sum(lengths), sum(n * n for n in lengths.tolist()), window["loss_mask"].sum(), 3 + 2, 57)
    assert Counts.of({}) == Counts()
    huge = {"cu_seqlens": np.array([0, 131_072], np.int32)}
    assert Counts.of(huge).pairs == 131_072**2


def test_a_window_costs_what_it_holds() -> None:
    assert Cost(3.0, 2.0, 100.0, 1000.0, 10.0).window(Counts(7, 29, 4, 5, 6)) == 21 + 58 + 400 + 5000 + 60


def test_the_released_decoder_costs_two_operations_a_weight() -> None:
    with torch.device("meta"):
        decoder = Multimodal(PRESETS["mini"]).language
    layers = sum(parameter.numel() for name, parameter in decoder.layers.named_parameters() if "norm" not in name)
    cost = Cost.of(PRESETS["mini"], {Part.LANGUAGE})
    assert (cost.token, cost.target) == (3 * 2.0 * layers, 3 * 2.0 * 3072 * 200_064)
    assert Cost.of(PRESETS["mini"], {Part.LORA_VISION}).token == 2 * 2.0 * layers


def counted(run: Callable[[], object]) -> int:
    """Operations that torch counts, attention as plain products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def backward(output: Tensor) -> None:
    """As a loss would."""
    output.sum().backward()


def test_text_costs_what_torch_counts() -> None:
    model = text_model(adapters=()).train()
    ids = np.random.default_rng(0).integers(20, 300, 240).astype(np.int32)
    window = {"input_ids": ids, "loss_mask": ids % 2 > 0, "cu_seqlens": np.arange(0, 241, 40, dtype=np.int32)}
    batch, counts = collate([window]), Counts.of(window)
    trainable(model, {Part.LANGUAGE})
    count = counted(lambda: Objective(model)(batch)[0].backward())
    cost = Cost.of(model.config, {Part.LANGUAGE})
    # Plain products know no causal half; the head's logits are computed once more for the backward pass.
    expected = replace(cost, pair=2 * cost.pair, target=4 / 3 * cost.target)
    assert count == pytest.approx(expected.window(counts._replace(targets=len(batch.targets))), rel=0.002)


@pytest.mark.parametrize("trained", [set(), {Part.VISION_PROJECTOR}, {Part.VISION_ENCODER}])
def test_crops_cost_what_torch_counts(trained: set[Part]) -> None:
    model = enlivened(NANO, 1)
    if trained:
        trainable(model, trained)
    window = packed([sample(n, pictures=[(64, 64)]) for n in range(4)])
    inputs = collate([window], NANO).inputs

    def step() -> None:
        tokens = vision.encode(model, inputs)
        if trained:
            backward(tokens)

    expected = Cost.of(NANO, trained).crop * Counts.of(window).crops
    assert counted(step) == pytest.approx(expected, rel=0.05)  # pixels get no gradient, separators are a few tokens


# Not with the encoder trained: torch counts the backward pass of a depthwise convolution as that of a full one.
@pytest.mark.parametrize("trained", [set(), {Part.AUDIO_PROJECTOR_SPEECH}])
def test_frames_cost_what_torch_counts(trained: set[Part]) -> None:
    model = enlivened(NANO, 1)
    if trained:
        trainable(model, trained)
    window = packed([sample(0, clips=[4000, 4000])])  # a whole window of frames each
    inputs = collate([window], NANO).inputs

    def step() -> None:
        tokens = audio.project(model, audio.encode(model, inputs), lambda _: torch.zeros(1, dtype=torch.bool))
        if trained:
            backward(tokens)

    expected = Cost.of(NANO, trained).frame * Counts.of(window).frames
    assert counted(step) == pytest.approx(expected, rel=0.03)
