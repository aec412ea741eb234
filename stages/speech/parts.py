"""Parts of one audio file, one after the other: each is what the whole file has there, to the last bit.

Where every sample stands for itself (WAV, FLAC) a reader goes there. A lossy stream is decoded from its beginning: its
frames lean on those before them, so that after a jump the first samples come out otherwise, and differ with where the
decoder was. Parts in order cost one pass over the file; what lies in the last minute before is held for parts that
overlap, and one further back begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from gristmill.model.processing.audio_file import AudioError, audio_blocks, audio_header, decode_audio

HELD_SECONDS = 60


class AudioParts:
    """`open_file`: gives a stream of the file's bytes; `header`: of the file. Raises AudioError for what it shows."""

    def __init__(self, open_file: Callable[[], BinaryIO], max_seconds: float) -> None:
        self.header = audio_header(open_file(), max_seconds)
        self._open, self._max_seconds = open_file, max_seconds
        self._blocks: Iterator[np.ndarray] | None = None
        self._held, self._from = np.empty(0, np.float32), 0

    def part(self, first: int, samples: int) -> np.ndarray:
        """So many samples from `first` on, the mean of all channels, float32 [samples]. Raises AudioError; ValueError
        for a part that begins outside of the file."""
        if self.header.depth:
            return decode_audio(self._open(), first, samples, self._max_seconds)[0]
        if not 0 <= first < self.header.samples or samples < 1:
            raise ValueError(f"{samples} samples from {first} on: the file has {self.header.samples}")
        if self._blocks is None or first < self._from:
            self._blocks = audio_blocks(self._open(), max_seconds=self._max_seconds)
            self._held, self._from = np.empty(0, np.float32), 0
        try:
            return self._decoded(self._blocks, first, first + samples)
        except AudioError:
            self._blocks = None
            raise

    def _decoded(self, blocks: Iterator[np.ndarray], first: int, end: int) -> np.ndarray:
        keep = HELD_SECONDS * self.header.rate
        parts, upto = [self._held], self._from + len(self._held)
        while upto < end and (block := next(blocks, None)) is not None:
            parts.append(block.mean(axis=1))
            upto += len(block)
            while len(parts) > 1 and self._from + len(parts[0]) <= min(first, upto - keep):
                self._from += len(parts.pop(0))
        self._held = np.concatenate(parts)
        stale = min(first, upto - keep) - self._from
        if stale > 0:
            self._held, self._from = self._held[stale:].copy(), self._from + stale
        if upto <= first:  # its header promised more
            raise AudioError("truncated", f"{upto} samples, a part begins at {first} ({self.header.format})")
        return self._held[first - self._from : end - self._from].copy()
