"""The scale of clips: mean and deviation of each mel band over all frames of a mixture, which an encoder begins with.

The encoder normalises what it is given by two vectors of its checkpoint (`conformer.Normalise`). They are
statistics of what it is first trained on, so they are summed up over the windows of that stage, in float64, shard by
shard, and not learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 1.0
"""Deviation of a band, in nats of power, below which it is taken to be this: one that is silent in all of the data (of
8,000 Hz, half of them) would be blown up as soon as a clip has it. Speech has 2 to 4."""


@dataclass(frozen=True)
class BandSums:
    """Of some frames: how many they are, and of each band the sum of its values and of their squares."""

    frames: int
    sums: tuple[float, ...]
    squares: tuple[float, ...]

    @classmethod
    def of(cls, windows: Iterable[Mapping[str, np.ndarray]]) -> BandSums:
        """Of all clips of these windows, in their order."""
        frames, sums, squares = 0, np.zeros(0), np.zeros(0)
        for window in windows:
            mel_FM = window.get("mel")
            if mel_FM is None or not len(mel_FM):
                continue
            mel_FM = mel_FM.astype(np.float64)
            if not frames:
                sums, squares = np.zeros(mel_FM.shape[1]), np.zeros(mel_FM.shape[1])
            frames += len(mel_FM)
            sums += mel_FM.sum(0)
            squares += np.square(mel_FM).sum(0)
        return cls(frames, tuple(sums.tolist()), tuple(squares.tolist()))


@dataclass(frozen=True)
class BandScale:
    """Of each band the mean, and one over the deviation."""

    mean: tuple[float, ...]
    invstd: tuple[float, ...]

    @classmethod
    def of(cls, shards: Iterable[BandSums]) -> BandScale:
        """Of shards in their order. Raises ValueError where no window has a clip."""
        given = [shard for shard in shards if shard.frames]
        if not given:
            raise ValueError("no window has a clip: there is nothing that an encoder of sound could be scaled to")
        frames = sum(shard.frames for shard in given)
        mean = np.sum([shard.sums for shard in given], axis=0) / frames
        variance = np.sum([shard.squares for shard in given], axis=0) / frames - np.square(mean)
        deviation = np.sqrt(np.maximum(variance, LEAST**2))
        return cls(tuple(mean.tolist()), tuple((1 / deviation).tolist()))

    @property
    def digest(self) -> str:
        """Of the values."""
        return hashlib.sha256(f"{self.mean} {self.invstd}".encode()).hexdigest()
