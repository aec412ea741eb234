"""Log-Mel against the feature extractor of transformers, bit for bit; streams, rates, counts, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hf
import numpy as np
import pytest
import torch
from clips import CHIRP, CHIRP_BANDS, CHIRP_FRAMES, CHIRP_SAMPLES, KINDS, released_at_8000, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import resample
from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import Phi4MultimodalFeatureExtractor

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.processing import audio, audio_rates
from gristmill.model.processing.audio import (
    TooShort,
    audio_tokens,
    frames_of,
    log_mel,
    log_mel_blocks,
    mel_weights,
)
from gristmill.model.processing.audio_rates import ratio_of

pytestmark = pytest.mark.usefixtures("one_thread")

REFERENCE = Phi4MultimodalFeatureExtractor()


def reference(waveform: np.ndarray) -> tuple[np.ndarray, int]:
    """Frames, and the number of tokens."""
    result = REFERENCE(waveform, sampling_rate=16_000, return_tensors="pt")
    return result["audio_input_features"][0].numpy(), int(result["audio_embed_sizes"][0])


def assert_the_same(mel: np.ndarray, expected: np.ndarray) -> None:
    """On a machine of another kind a sum may be taken in another order: an ulp in a few places."""
    assert mel.dtype == np.float32 and mel.shape == expected.shape
    error = np.abs(mel - expected)
    assert (error <= 2e-6).mean() >= 0.999 and error.max() <= 1e-5


# Values.


def test_bands_are_those_of_the_reference() -> None:
    assert np.array_equal(mel_weights(), REFERENCE.mel_filters.astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), samples=st.integers(400, 16_000 * 40), seed=st.integers(0, 99))
def test_frames_and_tokens_are_those_of_the_reference(kind: str, samples: int, seed: int) -> None:
    clip = sound(kind, samples, seed=seed)
    expected, tokens = reference(clip)
    mel = log_mel(clip, 16_000)
    assert_the_same(mel, expected)
    assert (frames_of(samples), audio_tokens(len(mel))) == (len(expected), tokens)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, *(511 * 160 + 400 + more for more in (-1, 0, 1, 159, 160))])
def test_every_sample_counts_at_the_edges_of_blocks(samples: int) -> None:
    clip = sound("noise", samples)
    assert_the_same(log_mel(clip, 16_000), reference(clip)[0])


def test_values_of_the_release_are_kept_here() -> None:
    mel = log_mel(sound("chirp", CHIRP_SAMPLES), 16_000)
    assert mel.shape == (CHIRP_FRAMES, 80)
    for frame, values in CHIRP.items():
        np.testing.assert_allclose(mel[frame, list(CHIRP_BANDS)], values, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_close_and_no_logit_moves(kind: str, tmp_path: Path) -> None:
    clip = sound(kind, 48_000)
    exact, fast = log_mel(clip, 16_000), log_mel(clip, 16_000, exact=False)
    error = np.abs(exact - fast)
    assert error.max() < 5e-3 and np.quantile(error, 0.99) < 2e-4
    hf.tiny_multimodal().save_pretrained(tmp_path)
    model = load_hf(tmp_path).eval()
    ids = torch.cat([torch.arange(5), torch.full((audio_tokens(len(exact)),), hf.AUDIO), torch.arange(9)])[None]
    with torch.no_grad():
        exact_logits, fast_logits = (
            model(ids, audio_input_features=torch.from_numpy(mel)[None]).logits for mel in (exact, fast)
        )
    assert exact_logits.std() > 1 and (exact_logits - fast_logits).abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [200, 8_000, 20_123])
def test_half_the_rate_has_silent_upper_bands_as_in_the_release(kind: str, samples: int) -> None:
    clip = sound(kind, samples, rate=8_000)
    mel = log_mel(clip, 8_000)
    assert_the_same(mel, released_at_8000(clip))
    assert len(mel) == frames_of(samples, 8_000) and (mel[:, 62:] == 0).all()


# Rates and channels.


@pytest.mark.parametrize("rate", [4_000, 11_025, 12_000, 22_050, 24_000, 44_100, 48_000, 96_000, 384_000])
def test_other_rates_go_through_torchaudio(rate: int) -> None:
    """Also a clip of several blocks, the last of which is short."""
    clip = sound("chirp", max(3 * rate, 2 * audio_rates.SAMPLES) + 12_017, rate)
    resampled = resample(torch.from_numpy(clip), rate, 16_000).numpy()
    mel = log_mel(clip, rate)
    assert len(mel) == frames_of(len(clip), rate)
    assert_the_same(mel, reference(resampled)[0])
    plain = log_mel(sound("chirp", 16_000), 16_000)  # the same sound, sampled otherwise, up to 1,000 Hz
    assert np.abs(mel[:25, :20] - plain[:25, :20]).max() < 0.5


@pytest.mark.parametrize("rate", [8_001, 15_999, 16_006, 44_101, 383_999])
def test_a_rate_without_a_common_divisor_costs_no_more(rate: int) -> None:
    up, down = ratio_of(rate)
    assert up * down <= audio_rates.KERNEL and abs(up / down * rate / 16_000 - 1) < 1 / 3_000
    clip = sound("noise", rate // 2, rate)
    assert len(log_mel(clip, rate)) == frames_of(len(clip), rate)


def test_channels_are_averaged() -> None:
    left, right = sound("noise", 16_000, seed=1), sound("tones", 16_000)
    both = np.stack([left, right], axis=1)
    assert np.array_equal(log_mel(both, 16_000), log_mel(both.mean(1), 16_000))
    assert np.array_equal(log_mel(left[:, None], 16_000), log_mel(left, 16_000))
    assert np.array_equal(log_mel(left.astype(np.float64), 16_000), log_mel(left, 16_000))


# Streams.


def cut(clip: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    pick = np.random.default_rng(seed)
    while len(clip):
        size = int(pick.choice([0, 1, 79, 400, 5_000, 90_000, 300_000]))
        yield clip[:size]
        clip = clip[size:]


@settings(max_examples=20, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 22_050, 48_000]),
    samples=st.integers(0, 700_000),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_how_a_stream_is_cut_changes_no_bit(rate: int, samples: int, exact: bool, seed: int) -> None:
    clip = sound("noise", samples, seed=seed)
    blocks = list(log_mel_blocks(cut(clip, seed), rate, exact=exact))
    assert all(0 < len(block) <= audio.FRAMES for block in blocks)
    if frames_of(samples, rate):
        assert np.array_equal(np.concatenate(blocks), log_mel(clip, rate, exact=exact))
    else:
        assert not blocks


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_stream_is_not_held_back(rate: int) -> None:
    read, longest, frames = 0, 0.0, 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(120):
            read += 1
            yield sound("noise", rate)

    for block in log_mel_blocks(blocks(), rate, exact=False):
        longest = max(longest, read - frames / 100)  # seconds that are neither given out nor forgotten
        frames += len(block)
    assert frames > 11_900 and longest < 25


# Counts.


@pytest.mark.parametrize(
    ("seconds", "frames", "tokens"),
    [(1, 98, 13), (10, 998, 125), (30, 2_998, 375), (60, 5_998, 750), (1_800, 179_998, 22_500)],
)
def test_tokens_are_those_of_the_paper(seconds: int, frames: int, tokens: int) -> None:
    for rate in (8_000, 16_000, 22_050, 44_100, 48_000):
        assert frames_of(seconds * rate, rate) == frames
    assert audio_tokens(frames) == tokens


@given(frames=st.integers(0, 1 << 40))
def test_tokens_are_counted_as_the_reference_and_the_encoder_count(frames: int) -> None:
    assert audio_tokens(frames) == REFERENCE._compute_audio_embed_size(torch.tensor(frames)) == frames_after(frames, 8)


# What is refused.


@pytest.mark.parametrize(("samples", "rate"), [(0, 16_000), (1, 16_000), (399, 16_000), (199, 8_000), (1_099, 44_100)])
def test_a_clip_without_a_frame_is_too_short(samples: int, rate: int) -> None:
    assert frames_of(samples, rate) == 0
    with pytest.raises(TooShort, match=f"a clip of {samples} samples at {rate} Hz: 25 ms are needed"):
        log_mel(np.zeros(samples, np.float32), rate)


@pytest.mark.parametrize("rate", [0, -16_000, 3_999, 384_001, 1_092_676, 16_000.5])
def test_an_absurd_rate_is_refused_before_any_work(rate: float) -> None:
    with pytest.raises(ValueError, match=r"a sample rate of .* Hz: allowed are whole numbers from 4,000 to 384,000"):
        log_mel(np.zeros(16_000, np.float32), rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -32_768.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_samples_that_are_no_sound_are_refused(value: float, rate: int) -> None:
    clip = sound("noise", 300_000)
    clip[-1] = value  # in no whole frame
    with pytest.raises(ValueError, match=r"samples reach .*: needed are numbers of which full scale is -1 to 1"):
        log_mel(clip, rate)


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros(16_000, np.int16),
        np.zeros(16_000, np.complex64),
        np.zeros((2, 16_000), np.float32),
        np.zeros((16_000, 0), np.float32),
        np.zeros((16_000, 2, 1), np.float32),
        np.float32(0),
    ],
)
def test_another_array_is_refused(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"needed are floats, full scale at -1 and 1, \[samples\] or"):
        log_mel(clip, 16_000)
