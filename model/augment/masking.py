"""Hides parts of clips while they are trained on: SpecAugment's masks over time and over mel bands.

A window's clips are masked before they become a batch, so neither its neighbours nor how windows are dealt to passes
and ranks decide anything: what is hidden of a clip follows from the seed of the stage, the key of its window, its
number there and the epoch. Hidden values are the encoder's mean of each band, zero once it has normalised them.
Source: arXiv 1904.08779, section 2; torchaudio's `mask_along_axis`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import mask_along_axis

from gristmill.model.augment.spec_augment import SpecAugment

TIME, BANDS = 2, 3
"""Axes of [1, 1, frames, bands], as torchaudio counts them."""


@dataclass(frozen=True)
class Masking:
    """What a stage hides of its clips: `how`, None: nothing; `mean`: of each band, the encoder's; `seed`: the
    stage's."""

    how: SpecAugment | None
    mean: Tensor
    seed: int

    @classmethod
    def of(cls, how: SpecAugment | None, model: nn.Module, seed: int) -> Masking:
        """With the mean of a model's encoder. Raises AttributeError for a model without one, if anything is hidden."""
        if how is None:
            return cls(None, torch.empty(0), seed)
        return cls(how, model.get_submodule("audio_encoder.encoder_embedding").get_buffer("global_mean"), seed)

    def masked(self, window: Mapping[str, np.ndarray], key: str, epoch: int) -> Mapping[str, np.ndarray]:
        """The arrays of a window, by its key, with parts of its clips hidden; of one without clips, the same."""
        if self.how is None or "mel" not in window:
            return window
        mel_FM, mean = np.array(window["mel"]), self.mean.cpu().numpy()
        with torch.random.fork_rng(devices=[]):
            for number, (start, end) in enumerate(pairwise(window["cu_frames"].tolist())):
                torch.manual_seed(_seed(self.seed, key, number, epoch))
                hidden_FM = _hidden(end - start, len(mean), self.how)
                mel_FM[start:end] = np.where(hidden_FM, mean, mel_FM[start:end])
        return {**window, "mel": mel_FM}


def _hidden(frames: int, bands: int, how: SpecAugment) -> np.ndarray:
    """What is hidden of a clip, bool [frames, bands], drawn from torch's generator."""
    seen_11FM = torch.ones(1, 1, frames, bands)
    masks = [(TIME, how.time_width, how.time_share)] * how.time_masks + [(BANDS, how.band_width, 1.0)] * how.band_masks
    for axis, width, share in masks:
        seen_11FM = mask_along_axis(seen_11FM, width, 0.0, axis, share)
    return seen_11FM[0, 0].numpy() == 0


def _seed(seed: int, key: str, number: int, epoch: int) -> int:
    """0 to 2^63 - 1."""
    digest = hashlib.blake2b(f"gristmill masks 1 {seed} {key} {number} {epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
