"""The audio encoder: the reference's numbers, and a clip that gives in any padded batch what it gives alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers.models.phi4_multimodal import modeling_phi4_multimodal
from transformers.models.phi4_multimodal.configuration_phi4_multimodal import Phi4MultimodalAudioConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioModel

from gristmill.model.phi4.audio import AudioEncoder, AudioProjector
from gristmill.model.phi4.config import AudioConfig
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.presets import PRESETS

TINY = AudioConfig(
    hidden_size=32,
    intermediate_size=48,
    num_blocks=2,
    num_attention_heads=4,
    nemo_conv_channels=16,
    bias_max_distance=20,
)
WINDOWED = replace(TINY, input_size=16, window=8)
WINDOW_FRAMES = 8 * 500
"""Log-Mel frames of the reference's window, which no config can change."""


pytestmark = pytest.mark.usefixtures("one_thread")


def randomised(model: nn.Module) -> nn.Module:
    """Weights large enough that every part of the model moves the output; statistics that are not 0 and 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in_std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
            parameter.normal_(std=1.0 if "bias_values" in name else fan_in_std)
            if "layer_norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        for name, buffer in model.named_buffers():
            buffer.uniform_(0.5, 1.5) if "invstd" in name else buffer.normal_()
    return model.eval()


def pair(config: AudioConfig, hf_compat_mask: bool = False) -> tuple[AudioEncoder, Phi4MultimodalAudioModel]:
    """Ours and the reference with the same random weights."""
    reference = Phi4MultimodalAudioModel(
        Phi4MultimodalAudioConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_blocks=config.num_blocks,
            num_attention_heads=config.num_attention_heads,
            input_size=config.input_size,
            time_reduction=config.time_reduction,
            kernel_size=config.kernel_size,
            nemo_conv_channels=config.nemo_conv_channels,
            ext_pw_out_channel=config.hidden_size,
            depthwise_separable_out_channel=config.hidden_size,
            bias_max_distance=config.bias_max_distance,
        )
    )
    encoder = AudioEncoder(config, hf_compat_mask).eval()
    encoder.load_state_dict(randomised(reference).state_dict(), strict=True)
    return encoder, reference


def mask_of(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def padded(clips: list[Tensor], value: float) -> Tensor:
    return nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=value)


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and bool(b.isfinite().all())
    return float((a - b).detach().abs().max())


# The reference


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 63, 250, 401])
@pytest.mark.parametrize("distance", [20, 500])
@torch.no_grad()
def test_one_clip_as_in_the_reference(frames: int, distance: int) -> None:
    encoder, reference = pair(replace(TINY, bias_max_distance=distance))
    features = torch.randn(1, frames, 80) * 3 + 2
    hidden = encoder(features)
    assert hidden.shape == (1, math.ceil(frames / 8), 32) and hidden.std() > 0.3
    assert difference(hidden, reference(features, None)) < 1e-5
    assert difference(encoder(features, mask_of([frames])), hidden) < 1e-5


@pytest.mark.parametrize("frames", [WINDOW_FRAMES, WINDOW_FRAMES + 1, WINDOW_FRAMES + 3001, 2 * WINDOW_FRAMES])
@torch.no_grad()
def test_one_long_clip_as_in_the_reference(frames: int) -> None:
    encoder, reference = pair(replace(TINY, bias_max_distance=500))
    features = torch.randn(1, frames, 80)
    expected = reference(features, None)
    assert difference(encoder(features), expected) < 1e-5
    assert difference(encoder(features, mask_of([frames])), expected) < 1e-5


@pytest.mark.parametrize("frames", [120, WINDOW_FRAMES])
@torch.no_grad()
def test_clips_of_one_length_as_in_the_reference(frames: int) -> None:
    encoder, reference = pair(TINY)
    features = torch.randn(2, frames, 80)
    expected = reference(features, None)
    assert difference(encoder(features), expected) < 1e-5
    assert difference(encoder(features, mask_of([frames] * 2)), expected) < 1e-5


@pytest.mark.parametrize(
    "change", [{"kernel_size": 5}, {"time_reduction": 2}, {"time_reduction": 4, "input_size": 27}], ids=str
)
@torch.no_grad()
def test_other_shapes_as_in_the_reference(change: dict[str, int]) -> None:
    config = replace(TINY, **change)
    encoder, reference = pair(config)
    features = torch.randn(2, 101, config.input_size)
    assert difference(encoder(features), reference(features, None)) < 1e-5


@pytest.mark.parametrize(
    "lengths", [[200, 200], [200, 77], [9, 130, 1], [WINDOW_FRAMES + 90, 500], [9000, 8500]], ids=str
)
@torch.no_grad()
def test_a_batch_as_in_the_reference_in_its_own_way(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    # the reference's fold fails for more than one long clip (`view` of a permuted tensor): this is what it means
    monkeypatch.setattr(modeling_phi4_multimodal, "unfold_tensor", lambda x, n: x.reshape(-1, n, x.shape[-1]))
    encoder, reference = pair(TINY, hf_compat_mask=True)
    features, mask = torch.randn(len(lengths), max(lengths), 80), mask_of(lengths)
    assert difference(encoder(features, mask), reference(features, mask)) < 1e-5
    if len(set(lengths)) > 1:  # that way is not the default
        strict = AudioEncoder(TINY).eval()
        strict.load_state_dict(encoder.state_dict())
        assert difference(strict(features, mask), encoder(features, mask)) > 0.1


# A padded batch is its clips

BATCHES = [[40, 17, 1, 8, 9], [64, 65, 3], [200, 60, 128, 70, 129], [300, 1], [65, 64, 63, 57, 56]]


@pytest.mark.parametrize("garbage", [0.0, 1e4, math.nan])
@pytest.mark.parametrize("lengths", BATCHES, ids=str)
@torch.no_grad()
def test_a_clip_in_a_batch_is_the_clip_alone(lengths: list[int], garbage: float) -> None:
    encoder = randomised(AudioEncoder(WINDOWED))
    clips = [torch.randn(length, 16) for length in lengths]
    batch = encoder(padded(clips, garbage), mask_of(lengths))
    assert bool(batch.isfinite().all())
    for row, clip in zip(batch, clips, strict=True):
        assert difference(row[: frames_after(len(clip), 8)], encoder(clip[None])[0]) < 1e-5


@torch.no_grad()
def test_padding_of_more_windows_than_any_clip_changes_nothing() -> None:
    encoder = randomised(AudioEncoder(WINDOWED))
    clips = [torch.randn(length, 16) for length in (70, 20)]
    features = padded([*clips, torch.zeros(500, 16)], 1e4)
    lengths = torch.tensor([70, 20, 0])  # the last is a row of padding only
    batch = encoder(features, torch.arange(500) < lengths[:, None])
    assert bool(batch.isfinite().all())
    for row, clip in zip(batch, clips, strict=False):
        assert difference(row[: frames_after(len(clip), 8)], encoder(clip[None])[0]) < 1e-5


@torch.no_grad()
def test_no_row_is_without_keys() -> None:
    """Not every attention kernel makes zeros of a softmax over nothing, as the one here does."""
    seen = torch.tensor([[True, False, False], [False, False, False]])
    bias = AudioEncoder(WINDOWED)._with_mask(torch.zeros(1, 4, 3, 3), seen)
    assert bias[:, 0, 0].isfinite().tolist() == [[True, False, False], [True, True, True]]


@torch.no_grad()
def test_released_windows_in_a_batch() -> None:
    encoder = randomised(AudioEncoder(replace(TINY, input_size=16, bias_max_distance=500)))
    lengths = [WINDOW_FRAMES + 700, WINDOW_FRAMES - 1, 333]
    clips = [torch.randn(length, 16) for length in lengths]
    batch = encoder(padded(clips, 1e4), mask_of(lengths))
    for row, clip in zip(batch, clips, strict=True):
        assert difference(row[: frames_after(len(clip), 8)], encoder(clip[None])[0]) < 1e-5


def test_windows_do_not_see_each_other_and_the_last_sees_its_padding() -> None:
    encoder = randomised(AudioEncoder(WINDOWED))
    features = torch.randn(1, 100, 16)
    changed = features.clone()
    changed[:, 80:] += 1.0
    with torch.no_grad():
        before, after = encoder(features), encoder(changed)
        assert torch.equal(before[:, :8], after[:, :8]) and difference(before[:, 8:], after[:, 8:]) > 0.1
        # alone, the last window's frames would not see zeros behind them
        x_BTD = encoder.embed(encoder.encoder_embedding(features), None)[:, 8:]
        for block in encoder.encoders:
            x_BTD = block(x_BTD, encoder.relative_attention_bias_layer(x_BTD.shape[1]))
        assert difference(before[:, 8:], x_BTD) > 0.01


def gradients(encoder: nn.Module, features: Tensor, lengths: list[int]) -> list[Tensor]:
    encoder.zero_grad()
    out = encoder(features, mask_of(lengths))
    real_BT = torch.arange(out.shape[1]) < frames_after(torch.tensor(lengths), 8)[:, None]
    out[real_BT].square().sum().backward()
    return [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]


def test_gradients_of_a_batch_are_the_sum_of_its_clips() -> None:
    encoder = randomised(AudioEncoder(WINDOWED))
    lengths = [90, 33, 64]
    clips = [torch.randn(length, 16) for length in lengths]
    of_batch = gradients(encoder, padded(clips, 1e4), lengths)
    alone = [gradients(encoder, clip[None], [len(clip)]) for clip in clips]
    assert len(of_batch) == len(list(encoder.parameters()))
    for gradient, *parts in zip(of_batch, *alone, strict=True):
        expected = torch.stack(parts).sum(0)
        assert difference(gradient, expected) < 1e-4 * max(1.0, float(expected.abs().max()))


# Shapes, counts, start values


def test_counts_of_the_release() -> None:
    config = PRESETS["multimodal"].audio
    assert config is not None
    with torch.device("meta"):
        encoder, projector = AudioEncoder(config), AudioProjector(config, 3072)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 441_238_144
    assert sum(parameter.numel() for parameter in projector.parameters()) == 12_589_056
    convolutions = {name.split(".")[2] for name in encoder.state_dict() if name.startswith("embed.conv.")}
    assert convolutions == {"0", "2", "3", "5", "6"}
    assert encoder.encoder_embedding.global_mean.shape == (80,)


def test_every_parameter_of_nano_gets_a_gradient() -> None:
    config = PRESETS["nano"].audio
    assert config is not None
    encoder, projector = randomised(AudioEncoder(config)), randomised(AudioProjector(config, 128))
    out = projector(encoder(torch.randn(2, 300, 80), mask_of([300, 150])))
    assert out.shape == (2, 38, 128)
    out.square().mean().backward()
    for name, parameter in [*encoder.named_parameters(), *projector.named_parameters()]:
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all() and parameter.grad.any()), name


def test_the_projector() -> None:
    projector = randomised(AudioProjector(TINY, 24))
    x = torch.randn(5, 32)
    inner = x @ projector.up.weight.T + projector.up.bias
    gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    assert difference(projector(x), gelu @ projector.down.weight.T + projector.down.bias) < 1e-5


@torch.no_grad()
def test_half_precision() -> None:
    encoder = randomised(AudioEncoder(TINY))
    features, mask = torch.randn(2, 200, 80), mask_of([200, 90])
    expected = encoder(features, mask)[mask_of([25, 12])]
    half = encoder.to(torch.bfloat16)(features, mask)[mask_of([25, 12])]
    assert half.dtype == torch.bfloat16 and difference(half.float(), expected) < 0.2


def test_what_is_refused() -> None:
    encoder = AudioEncoder(TINY)
    features = torch.zeros(2, 20, 80)
    with pytest.raises(ValueError, match=r"features \[2, 20, 79\].*mels=80"):
        encoder(features[..., 1:])
    with pytest.raises(ValueError, match=r"features \[2, 0, 80\]"):
        encoder(features[:, :0])
    with pytest.raises(ValueError, match=r"mask torch.int64 \[2, 20\]: needed is torch.bool \[2, 20\]"):
        encoder(features, torch.ones(2, 20, dtype=torch.long))
    with pytest.raises(ValueError, match=r"mask torch.bool \[2, 19\]"):
        encoder(features, torch.ones(2, 19, dtype=torch.bool))
    with pytest.raises(ValueError, match="at their end"):
        encoder(features, torch.arange(20) >= torch.tensor([[3], [0]]))
