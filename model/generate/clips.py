"""Clips of a prompt as embeddings, made when the prompt comes to them: a piece of the encoder's windows at a time.

So a clip of hours takes no more memory than one of minutes, and whoever generates waits for a piece, not for a clip.
Each clip goes through the encoder alone: what becomes of it depends on no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.requests import Clip, Request
from gristmill.model.phi4.audio import AudioEncoder, project
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.windows.media import CLIPS, clip_lengths, has_media

_BLOCK = 4096
"""Frames of an array that are taken at a time."""


def clips_of(request: Request, model: Multimodal) -> tuple[Clip, ...]:
    """The clips of a request, those of its media as they are read from an array. Raises ValueError for arrays that are
    of another model, or do not fit each other."""
    if request.clips:
        if model.config.audio is None:
            raise ValueError("a request has clips, and the model has no audio part")
        return request.clips
    if not request.media or not has_media(request.media, CLIPS):
        return ()
    lengths = clip_lengths(request.media, model.config)
    mel_FM, ends = request.media["mel"], accumulate(lengths)
    return tuple(
        Clip(length, partial(_blocks, mel_FM, end - length, end)) for length, end in zip(lengths, ends, strict=True)
    )


def _blocks(mel_FM: np.ndarray, first: int, end: int) -> Iterator[np.ndarray]:
    for start in range(first, end, _BLOCK):
        yield mel_FM[start : min(start + _BLOCK, end)]


def tokens_of(clips: tuple[Clip, ...], model: Multimodal) -> int:
    """Tokens that clips are."""
    assert model.config.audio is not None
    return sum(frames_after(clip.frames, model.config.audio.time_reduction) for clip in clips)


class ClipEmbeddings:
    """Of all clips of a prompt, in order. `beside_image`: whether the prompt has an image too."""

    def __init__(self, model: Multimodal, clips: tuple[Clip, ...], beside_image: bool) -> None:
        self._model, self._clips, self._beside_image = model, clips, beside_image
        self._pieces = self._embedded()
        self._held_ND: Tensor | None = None

    def take(self, count: int) -> Tensor:
        """The next embeddings, [count, hidden]. Raises ValueError for a clip of more or fewer frames than it should."""
        parts = []
        while count:
            if self._held_ND is None or not len(self._held_ND):
                self._held_ND = next(self._pieces)
            part_ND, self._held_ND = self._held_ND[:count], self._held_ND[count:]
            parts.append(part_ND)
            count -= len(part_ND)
        return torch.cat(parts)

    def _embedded(self) -> Iterator[Tensor]:
        device = self._model.language.norm.weight.device
        encoder = self._model.audio_encoder
        assert isinstance(encoder, AudioEncoder)
        for clip in self._clips:
            for hidden_ND in encoder.stream(_counted(clip, device)):
                beside_N = torch.full((len(hidden_ND),), self._beside_image, device=device)
                yield project(self._model, hidden_ND, partial(_beside, beside_N))


def _beside(beside_N: Tensor, modality: str) -> Tensor:
    """Whether each embedding stands beside the other modality, as `project` asks."""
    return beside_N


def _counted(clip: Clip, device: torch.device) -> Iterator[Tensor]:
    """The frames of a clip. Raises ValueError if they are not as many as was said."""
    frames = 0
    for block_FM in clip.blocks():
        frames += len(block_FM)
        if frames <= clip.frames:
            yield torch.from_numpy(np.asarray(block_FM, np.float32)).to(device)
    if frames != clip.frames:
        raise ValueError(f"a clip of {frames} frames, which was said to have {clip.frames}")
