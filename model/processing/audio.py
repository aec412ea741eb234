"""Clips as the encoder takes them: from samples to log-Mel frames, 80 bands every 10 ms, and to a number of tokens.

A clip of 16,000 Hz gives what the reference gives. One of 8,000 Hz is not resampled: bands above its spectrum are
silent, as in the model's training. Others go to 16,000 Hz first. All of it is done block by block, from an array or
from a stream, and a block is always of the same frames: how a stream is cut changes no bit, and memory does not grow.
Bits are the reference's, whose Fourier transform is in float64, or less exact, sooner: in float32 (`exact=False`).
Source: arXiv 2503.01743, section 2.2; transformers 5.23, the feature extractor of `phi4_multimodal`; for 8,000 Hz the
processor that was released with the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from gristmill.model.processing.audio_rates import BANDS, HALF_RATE, LOUDEST, MOST_CHANNELS, RATE, SAMPLES, ratio_of

REDUCTION = 8
"""Frames of a token."""
PREEMPHASIS, FULL_SCALE, HIGHEST = 0.97, 32_768.0, 7_690.0
FRAMES = 512
"""Of a block: enough that calls cost little, few enough that a block stays in the cache."""
GROUP = 16
"""Bands that are summed in one product: few, since bands far apart have no bin in common."""


class TooShort(ValueError):
    """A clip that has no whole frame."""


# Counts.


def frames_of(samples: int, sample_rate: int = RATE) -> int:
    """Frames of so many samples a channel; a part of one at the end is left out. 0: fewer than the 25 ms of a frame.
    Raises ValueError for a rate that is not read."""
    up, down = ratio_of(sample_rate)
    front = _front(sample_rate)
    return max(0, (-(-samples * up // down) - front.window) // front.hop + 1)


def audio_tokens(frames: int, reduction: int = REDUCTION) -> int:
    """Tokens of a clip of so many frames: of 30 seconds 375, of half an hour 22,500."""
    return -(-frames // reduction)


# Log-Mel.


def log_mel(waveform: np.ndarray, sample_rate: int, *, exact: bool = True) -> np.ndarray:
    """Log-Mel frames of a clip, float32 [frames, 80], natural logarithms of power, none below 0. `waveform`: floats,
    full scale at -1 and 1, [samples] or [samples, channels], whose mean is taken; `sample_rate`: Hz, a channel.

    Raises TooShort for a clip of less than 25 ms, ValueError for samples that are no numbers or another array.
    """
    waveform = np.asarray(waveform)
    frames = frames_of(check_shape(waveform), sample_rate)
    if not frames:
        raise TooShort(f"a clip of {len(waveform)} samples at {sample_rate} Hz: 25 ms are needed for a frame")
    mel_FM, at = np.empty((frames, BANDS), np.float32), 0
    blocks = (waveform[start : start + SAMPLES] for start in range(0, len(waveform), SAMPLES))
    for block in log_mel_blocks(blocks, sample_rate, exact=exact):
        mel_FM[at : at + len(block)] = block
        at += len(block)
    return mel_FM


def log_mel_blocks(blocks: Iterable[np.ndarray], sample_rate: int, *, exact: bool = True) -> Iterator[np.ndarray]:
    """The frames of `log_mel`, bit for bit, of a clip that comes in blocks of any length, as blocks of 512 frames at
    most; of a clip without a whole frame, none. Raises ValueError as `log_mel`."""
    front, ratio = _front(sample_rate), ratio_of(sample_rate)
    transform = _Transform(front, exact)
    span = (FRAMES - 1) * front.hop + front.window
    held = torch.empty(0)
    for signal in _resampled(map(_mono, blocks), *ratio):
        held, start = torch.cat([held, signal]), 0
        while len(held) - start >= span:
            yield transform(held[start : start + span])
            start += FRAMES * front.hop
        held = held[start:]
    if len(held) >= front.window:
        yield transform(held)


def check_shape(waveform: np.ndarray) -> int:
    """Samples of a clip, a channel. Raises ValueError for an array that is none."""
    channels = waveform.shape[1] if waveform.ndim == 2 else 1
    if waveform.dtype.kind != "f" or waveform.ndim not in (1, 2) or not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(
            f"a waveform of {waveform.dtype} {list(waveform.shape)}: needed are floats, full scale at -1 and 1, "
            f"[samples] or [samples, channels] of 1 to {MOST_CHANNELS} channels"
        )
    return len(waveform)


def _mono(block: np.ndarray) -> Tensor:
    """float32 [samples], checked."""
    check_shape(block)
    mono = block if block.ndim == 1 else block.mean(1)
    signal = torch.from_numpy(np.require(mono, np.float32, ["C", "W"]))
    if len(signal) and not (peak := float(signal.abs().max())) <= LOUDEST:  # of NaN the maximum is NaN
        raise ValueError(
            f"samples reach {peak}: needed are numbers of which full scale is -1 to 1, none beyond {LOUDEST:g}"
        )
    return signal


# Resampling.


def _resampled(signals: Iterable[Tensor], up: int, down: int) -> Iterator[Tensor]:
    """Signals in blocks at `up / down` of their rate: what torchaudio makes of all of them at once.

    `up` samples come of `down`, and of so many neighbours as the filter reaches. So blocks are cut at multiples of
    `down`, with neighbours on both sides, whose own samples are then left out. A block is given out when another one is
    there behind it: none is short but that of a short clip, since the library sums those in another order.
    """
    if up == down:
        yield from signals
        return
    resample = _resampler(up, down)
    reach = -(-resample.width // down)
    block = max(SAMPLES // down, reach)
    held, before = torch.empty(0), 0  # `before`: of `held`, multiples of `down` that were given out
    for signal in signals:
        held = torch.cat([held, signal])
        while len(held) >= (before + 2 * block + reach) * down:
            yield resample(held[: (before + block + reach) * down])[before * up : (before + block) * up]
            gone = before + block - reach
            held, before = held[gone * down :], reach
    rest = held[before * down :]
    if len(rest):
        yield resample(held)[before * up :]


@lru_cache(maxsize=8)
def _resampler(up: int, down: int) -> Resample:
    """Its filter is computed in float32, as `torchaudio.functional.resample` has it: their bits are the same."""
    return Resample(down, up, dtype=torch.float32)


# The transform.


@dataclass(frozen=True, eq=False)
class _Front:
    """What a rate needs: samples of a window and of a hop, points of the transform; `hamming`, float64 [window];
    `weights` of bands, float32 [bins, 80]."""

    window: int
    hop: int
    points: int
    hamming: Tensor
    weights: Tensor

    @cached_property
    def groups(self) -> list[tuple[slice, slice, Tensor]]:
        """Neighbouring bands, the real numbers of the spectrum that they are made of, and weights, each of them twice:
        for a bin's real and its imaginary part."""
        groups = []
        for first in range(0, BANDS, GROUP):
            bands = slice(first, first + GROUP)
            bins = self.weights[:, bands].any(1).nonzero().flatten().tolist()
            if bins:
                own = self.weights[bins[0] : bins[-1] + 1, bands].repeat_interleave(2, dim=0)
                groups.append((bands, slice(2 * bins[0], 2 * bins[-1] + 2), own))
        return groups


@lru_cache
def _front(sample_rate: int) -> _Front:
    rate = HALF_RATE if sample_rate == HALF_RATE else RATE
    window, hop, points = rate // 40, rate // 100, 512 * rate // RATE
    # At 8,000 Hz the released processor drops the last bin, and adds silent ones, which are left out here.
    weights = mel_weights()[: points // 2 + (rate == RATE)]
    hamming = torch.hamming_window(window, periodic=False, dtype=torch.float64)
    return _Front(window, hop, points, hamming, torch.from_numpy(weights))


def mel_weights() -> np.ndarray:
    """How much of each bin of 16,000 / 512 Hz a band takes, float32 [257, 80]: triangles on Kaldi's mel scale, evenly
    spaced up to 7,690 Hz, their sides straight in mel, of height 1."""
    bin_mels = _mel(np.arange(257) * (RATE / 512))[:, None]
    corners = np.linspace(0.0, _mel(np.array(HIGHEST)), BANDS + 2)
    width = np.diff(corners)
    rising, falling = (bin_mels - corners[:-2]) / width[:-1], (corners[2:] - bin_mels) / width[1:]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def band_of(hertz: float) -> float:
    """The band, from 0, in whose middle a frequency is; it is between whole numbers for one between two middles."""
    return float(_mel(np.array(hertz)) / _mel(np.array(HIGHEST))) * (BANDS + 1) - 1


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + hertz / 700.0)


class _Transform:
    """Signals of at most FRAMES frames to log-Mel, in memory that is written anew for each."""

    def __init__(self, front: _Front, exact: bool) -> None:
        self._front, self._exact = front, exact
        self._type = torch.float64 if exact else torch.float32
        self._hamming = front.hamming.to(self._type)
        self._framed_FP = torch.zeros(FRAMES, front.points, dtype=self._type)  # zeros behind the window stay

    def __call__(self, signal: Tensor) -> np.ndarray:
        """float32 [frames, 80] of a signal, float32 [samples]."""
        framed_FP = self._framed(signal)
        spectrum_FB = torch.fft.rfft(framed_FP)
        power_FM = self._as_reference(spectrum_FB) if self._exact else self._in_groups(spectrum_FB)
        return power_FM.clamp_(min=1.0).log_().numpy()

    def _framed(self, signal: Tensor) -> Tensor:
        """Frames with their high frequencies raised, through the window: [frames, points]."""
        window, hop = self._front.window, self._front.hop
        # One product, one difference, one product in float32: so the reference rounds.
        emphasised = torch.empty_like(signal)
        torch.mul(signal[:-1], -PREEMPHASIS, out=emphasised[1:])
        emphasised[1:].add_(signal[1:]).mul_(FULL_SCALE)
        frames_FW = emphasised.to(self._type).unfold(0, window, hop)
        framed_FP = self._framed_FP[: len(frames_FW)]
        torch.mul(frames_FW, self._hamming, out=framed_FP[:, :window])
        # Before a frame's first sample the reference puts that sample itself.
        first_F = signal[: len(frames_FW) * hop : hop]
        framed_FP[:, 0] = (first_F - PREEMPHASIS * first_F).mul_(FULL_SCALE).to(self._type) * self._hamming[0]
        return framed_FP

    def _as_reference(self, spectrum_FB: Tensor) -> Tensor:
        """Power of each band, every step as the reference has it."""
        bins = len(self._front.weights)
        return spectrum_FB[:, :bins].to(torch.complex64).abs().square_() @ self._front.weights

    def _in_groups(self, spectrum_FB: Tensor) -> Tensor:
        """The same in another order, which is soon done: squares of real and imaginary parts meet in their band."""
        power_FP = torch.view_as_real(spectrum_FB).flatten(1).square_()
        power_FM = power_FP.new_zeros(len(power_FP), BANDS)
        for bands, parts, weights in self._front.groups:
            torch.mm(power_FP[:, parts], weights, out=power_FM[:, bands])
        return power_FM
