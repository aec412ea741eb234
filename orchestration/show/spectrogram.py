"""Spectrograms: clips as pictures of what an encoder is given, log-Mel frames, time to the right and low bands below.

Brightness is that of one clip: its loudest values are light, what is 60 decibels softer, or silent, is dark. A pixel is
10 ms, or more where the clip would be wider than its room; of a lecture the first minute is drawn, so that a sheet
costs as much as one of words.
"""

from __future__ import annotations

import numpy as np

from gristmill.model.processing.audio_file import audio_header, decode_audio

MOST_SECONDS = 60.0
"""Of a clip that are drawn."""
RANGE = 13.8
"""Of natural logarithms of power: 60 dB."""
_COLOURS = np.array(((8, 6, 36), (80, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)), np.float32)
"""From dark to light; no two are equally bright, so that it reads without colours too."""


def clip_picture(data: bytes, width: int) -> np.ndarray:
    """Of an audio file its first MOST_SECONDS, as `spectrogram` draws them. Raises AudioError."""
    # It imports torch, which takes seconds.
    from gristmill.model.processing.audio import BANDS, TooShort, log_mel

    header = audio_header(data)
    most = max(1, round(MOST_SECONDS * header.rate))
    waveform, rate = decode_audio(data, 0, most if header.samples > most else None)
    try:
        return spectrogram(log_mel(waveform, rate, exact=False), width)
    except TooShort:
        return spectrogram(np.zeros((1, BANDS), np.float32), width)


def spectrogram(mel: np.ndarray, width: int) -> np.ndarray:
    """float32 [frames, bands], natural logarithms, at least one frame, as uint8 [2 x bands, frames, 3]; means of
    frames, where there are more of them than `width`."""
    if len(mel) > width:
        ends = np.linspace(0, len(mel), width + 1).round().astype(np.int64)
        mel = np.add.reduceat(mel, ends[:-1]) / np.diff(ends)[:, None]
    top = max(float(mel.max()), RANGE)
    level = np.clip((mel.T[::-1] - (top - RANGE)) / RANGE, 0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8).repeat(2, axis=0)
