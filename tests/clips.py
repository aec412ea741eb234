"""Sounds of any length and kind, what the release makes of some of them, and its processor for 8,000 Hz by hand."""

from __future__ import annotations

import numpy as np

from gristmill.model.processing.audio import mel_weights

KINDS = ("silence", "noise", "quiet", "tones", "clipped", "chirp")

CHIRP_SAMPLES, CHIRP_FRAMES = 24_000, 148
CHIRP_BANDS = (0, 5, 20, 40, 60, 79)
CHIRP = {
    0: (13.6948, 22.6365, 10.5957, 9.78343, 11.1251, 10.1597),
    1: (12.3959, 22.5576, 11.7391, 9.55335, 10.804, 8.53761),
    50: (13.4315, 13.7211, 14.9156, 22.177, 14.9656, 14.4523),
    100: (13.8285, 14.1617, 14.7045, 16.2466, 18.0285, 15.765),
    147: (14.4039, 15.1141, 13.726, 15.5971, 18.7987, 15.886),
}
"""Frame: log-Mel of some bands of the chirp, from transformers 5.23."""


def sound(kind: str, samples: int, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """float32 [samples]."""
    pick, time = np.random.default_rng(seed), np.arange(samples) / rate
    if kind == "silence":
        return np.zeros(samples, np.float32)
    if kind in ("noise", "quiet"):
        return ((0.1 if kind == "noise" else 1e-4) * pick.standard_normal(samples)).astype(np.float32)
    if kind == "tones":
        sines = [0.2 * np.sin(2 * np.pi * hertz * time) for hertz in (110, 440, 1234, 3990)]
        return (sum(sines) + 1e-4 * pick.standard_normal(samples)).astype(np.float32)
    if kind == "clipped":
        return np.clip(3 * np.sin(2 * np.pi * 200 * time) + 0.1 * pick.standard_normal(samples), -1, 1).astype(
            np.float32
        )
    swept = 0.5 * np.sin(2 * np.pi * (100 + 1500 * time) * time) + 0.01 * np.sin(2 * np.pi * 3100 * time)
    return swept.astype(np.float32)


def released_at_8000(waveform: np.ndarray) -> np.ndarray:
    """Log-Mel of a clip of 8,000 Hz, frame by frame, as the processor does it that came with the weights: windows of
    200, half as many points, and zeros for 4,000 Hz and above."""
    frames = []
    for start in range(0, len(waveform) - 199, 80):
        frame = waveform[start : start + 200].astype(np.float32)
        before = np.concatenate([frame[:1], frame[:-1]])
        emphasised = (frame - np.float32(0.97) * before) * np.float32(32_768)
        spectrum = np.fft.rfft(emphasised * np.hamming(200), 256).astype(np.complex64)
        power = np.abs(np.concatenate([spectrum[:-1], np.zeros(129, np.complex64)])) ** 2
        frames.append(np.log(np.maximum(power @ mel_weights(), 1.0)))
    return np.array(frames, np.float32)
