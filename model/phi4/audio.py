"""Speech to the language model: log-Mel frames -> `reduction` times fewer encoder frames -> vectors of its width.

A clip in a padded batch gives what it gives alone: whatever it would see as the zeros of its own padding (of each
strided convolution, of its last window) is zero here too, and nothing else of the batch is seen. The reference only
weighs padding down, by 1/e, so its batches differ from single clips; `hf_compat_mask` repeats that, for parity tests.
Source: arXiv 2503.01743, section 2.2; parity with transformers' phi4_multimodal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gristmill.model.phi4.blocks import Stack
from gristmill.model.phi4.config import AudioConfig, ModelConfig
from gristmill.model.phi4.conformer import (
    ConformerBlock,
    Normalise,
    RelativeBias,
    Subsampling,
    frames_after,
    init_weights,
)

PIECE = 4
"""Windows that are computed at a time: of a long clip, whose first convolution alone takes 100 times its memory."""
INPUTS = ("audio_input_features", "audio_embed_sizes", "audio_attention_mask", "audio_frames")


class AudioEncoder(nn.Module):
    """Front end and Conformer. Keys of the state dict are the release's, below `audio_embed.encoder.`.

    A clip of more than `window` encoder frames is cut in windows that do not see each other, a few of which are
    computed at a time; the last one is filled up with zeros, which it does see. A shorter clip sees its own frames
    only. Chunked attention is not implemented: the release does not use it. `hf_compat_mask`: padding as in the
    reference (see the top of this file).
    """

    def __init__(self, config: AudioConfig, hf_compat_mask: bool = False) -> None:
        super().__init__()
        self.config = config
        self.hf_compat_mask = hf_compat_mask
        self.encoder_embedding = Normalise(config)
        self.embed = Subsampling(config)
        self.relative_attention_bias_layer = RelativeBias(config)
        self.encoders = Stack(ConformerBlock(config) for _ in range(config.num_blocks))
        self.apply(init_weights)

    @property
    def piece(self) -> int:
        """Log-Mel frames that are computed at a time, PIECE windows."""
        return PIECE * self.config.window * self.config.time_reduction

    def forward(self, features_BTM: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Log-Mel frames [B, T, mels] -> hidden states [B, ceil(T/reduction), D].

        `mask_BT` (bool) is True at real frames, which come before padded ones; None: all are real. What stands in
        padded frames is not read. Of clip b, the first `frames_after(mask_BT[b].sum(), reduction)` hidden states
        count; those behind are finite and mean nothing. Raises ValueError for other shapes and for gaps in a mask.
        """
        self.check(features_BTM, mask_BT)
        length_B = None if mask_BT is None else mask_BT.sum(1)
        total, reduction = features_BTM.shape[1], self.config.time_reduction
        frames, step, is_long = frames_after(total, reduction), PIECE * self.config.window, self._is_long(total)
        pieces = []
        for start in range(0, frames, step):
            end, before = min(start + step, frames), min(start, 1)
            own_BTM = features_BTM[:, (start - before) * reduction : end * reduction]
            pieces.append(self._piece(own_BTM, length_B, start, end, is_long))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Hidden states of one clip, [n, D] at a time, of log-Mel frames that come in blocks [n, mels] of any length:
        those of `forward`, bit for bit, in memory that does not grow with the clip. Raises ValueError as `forward`."""
        reduction, step = self.config.time_reduction, self.piece  # of frames, as all that follows
        held_TM, start = torch.zeros(0, self.config.input_size), 0
        for block_TM in blocks:
            if len(block_TM):
                self.check(block_TM[None], None)
            held_TM = torch.cat([held_TM.to(block_TM), block_TM])
            while len(held_TM) >= (size := step + min(start, reduction)):
                yield self._streamed(held_TM[:size], start, is_long=True)
                held_TM, start = held_TM[size - reduction :], start + step
        if len(held_TM) > min(start, reduction) or not start:
            yield self._streamed(held_TM, start, is_long=bool(start) or self._is_long(len(held_TM)))

    def _streamed(self, own_TM: Tensor, start: int, is_long: bool) -> Tensor:
        """Of a piece that begins with frame `start`, and its features."""
        self.check(own_TM[None], None)
        reduction = self.config.time_reduction
        first, frames = start // reduction, len(own_TM) - min(start, reduction)
        return self._piece(own_TM[None], None, first, first + frames_after(frames, reduction), is_long)[0]

    def _is_long(self, frames: int) -> bool:
        """Whether a clip is cut in windows."""
        return frames > self.config.window * self.config.time_reduction

    def _piece(self, own_BTM: Tensor, length_B: Tensor | None, start: int, end: int, is_long: bool) -> Tensor:
        """Hidden states `start` to `end`, [B, end - start, D]: whole windows, or the end of the clip. `own_BTM`: its
        features, and those of a hidden state before them where there is one; `length_B`: features of each clip."""
        reduction = self.config.time_reduction
        before = min(start, 1)  # the convolutions reach back by less than a frame of theirs, and not ahead
        # normalised in the precision of the features, then cast: log-Mel values are large beside their deviations
        x_BTM = self.encoder_embedding(own_BTM).to(self.embed.out.weight.dtype)
        first = (start - before) * reduction
        length_here_B = None if length_B is None or self.hf_compat_mask else (length_B - first).clamp(min=0)
        x_BTD = self.embed(x_BTM, length_here_B)[:, before:]
        x_RWD = self._fold(x_BTD) if is_long else x_BTD
        bias_RHWW = self.relative_attention_bias_layer(x_RWD.shape[1])
        if length_B is not None:
            seen_RW = self._seen(frames_after(length_B, reduction), start, *x_RWD.shape[:2])
            bias_RHWW = self._with_mask(bias_RHWW, seen_RW)
        for number in range(len(self.encoders)):
            x_RWD = self.encoders.call(number, x_RWD, bias_RHWW)
        return x_RWD.reshape(len(own_BTM), -1, self.config.hidden_size)[:, : end - start]

    def _fold(self, x_BTD: Tensor) -> Tensor:
        """Rows of one window each, [R, W, D]: the windows of a clip follow each other; zeros fill the last."""
        window = self.config.window
        return F.pad(x_BTD, (0, 0, 0, -x_BTD.shape[1] % window)).reshape(-1, window, self.config.hidden_size)

    def _seen(self, length_B: Tensor, start: int, rows: int, width: int) -> Tensor:
        """Which keys each row sees, [R, W], of clips with `length_B` encoder frames; a clip's rows begin at `start`."""
        window = self.config.window
        if not self.hf_compat_mask:
            # A long clip alone sees the zeros that fill its last window, so it sees them in a batch too.
            filled_B = frames_after(length_B, window) * window
            length_B = torch.where(length_B > window, filled_B, length_B)
        at_T = start + torch.arange(rows * width // len(length_B), device=length_B.device)
        return (at_T < length_B[:, None]).reshape(rows, width)

    def _with_mask(self, bias_1HWW: Tensor, seen_RW: Tensor) -> Tensor:
        if self.hf_compat_mask:
            return bias_1HWW + seen_RW[:, None, None, :].to(bias_1HWW.dtype)
        # a row that is all padding sees itself, zeros, rather than nothing: a softmax over nothing is NaN
        seen_RW = seen_RW | ~seen_RW.any(1, keepdim=True)
        return bias_1HWW.masked_fill(~seen_RW[:, None, None, :], -math.inf)

    def check(self, features_BTM: Tensor, mask_BT: Tensor | None) -> None:
        """Raises ValueError as `forward`."""
        shape = tuple(features_BTM.shape)
        if len(shape) != 3 or 0 in shape or shape[2] != self.config.input_size:
            raise ValueError(
                f"features {list(shape)}: allowed are [clips, frames, mels={self.config.input_size}], none empty"
            )
        if mask_BT is None:
            return
        if mask_BT.dtype != torch.bool or tuple(mask_BT.shape) != shape[:2]:
            raise ValueError(f"mask {mask_BT.dtype} {list(mask_BT.shape)}: needed is torch.bool {list(shape[:2])}")
        if bool((mask_BT[:, 1:] & ~mask_BT[:, :-1]).any()):
            raise ValueError("mask: real frames behind padded ones; pad clips at their end")


class AudioProjector(nn.Module):
    """Encoder states [..., D] to vectors of the language model [..., out]: linear, GELU (erf), linear."""

    def __init__(self, config: AudioConfig, out: int) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, out)
        self.down = nn.Linear(out, out)
        self.apply(init_weights)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., out]."""
        return self.down(F.gelu(self.up(x_BTD.to(self.up.weight.dtype))))  # the encoder may be of another type


def parts(config: ModelConfig) -> dict[str, nn.Module]:
    """The modules of `model.phi4.modalities`."""
    assert config.audio is not None
    return {
        "audio_encoder": AudioEncoder(config.audio, config.hf_compat_mask),
        "audio_projector_speech": AudioProjector(config.audio, config.text.hidden_size),
        "audio_projector_vision": AudioProjector(config.audio, config.text.hidden_size),
    }


def encode(model: Any, inputs: Mapping[str, Tensor | None]) -> Tensor:
    """Encoder frames of all clips, end to end: [tokens, D], of features [clips, frames, mels] or, with `audio_frames`,
    [frames, mels]. Without sizes, as many of a clip as its mask says. Raises ValueError for sizes that do not fit."""
    features_BTM, sizes_B, mask_BT, frames_B = (inputs.get(name) for name in INPUTS)
    assert features_BTM is not None
    device = model.language.norm.weight.device
    if frames_B is not None:
        return _end_to_end(model.audio_encoder, features_BTM.to(device), frames_B.tolist())
    mask_BT = None if mask_BT is None else mask_BT.bool().to(device)
    clips = _encoded(model.audio_encoder, features_BTM.to(device), mask_BT)
    if sizes_B is None:
        real_BT = torch.ones(features_BTM.shape[:2]) if mask_BT is None else mask_BT
        sizes_B = frames_after(real_BT.long().sum(1), model.config.audio.time_reduction)
    sizes = sizes_B.tolist()
    if len(sizes) != len(clips) or not all(0 < size <= len(clip) for size, clip in zip(sizes, clips, strict=False)):
        raise ValueError(
            f"audio_embed_sizes {sizes}: the {len(clips)} clips have up to {[len(clip) for clip in clips]} tokens"
        )
    return torch.cat([clip[:size] for size, clip in zip(sizes, clips, strict=True)])


def _encoded(encoder: AudioEncoder, features_BTM: Tensor, mask_BT: Tensor | None) -> list[Tensor]:
    """Encoder states of each clip, [frames, D], of its own frames and perhaps some that mean nothing.

    Clips of like length go through the encoder together: a batch of seconds beside a half hour would be mostly padding.
    """
    encoder.check(features_BTM, mask_BT)
    if mask_BT is None or encoder.hf_compat_mask:  # in the reference padding counts
        return list(encoder(features_BTM, mask_BT))
    clips: dict[int, Tensor] = {}
    for numbers, frames in groups(mask_BT.sum(1).tolist()):
        rows = torch.tensor(numbers, device=mask_BT.device)
        hidden_BTD = encoder(features_BTM[rows, :frames], mask_BT[rows, :frames])
        clips |= zip(numbers, hidden_BTD, strict=True)
    return [clips[number] for number in range(len(clips))]


def _end_to_end(encoder: AudioEncoder, features_FM: Tensor, frames: Sequence[int]) -> Tensor:
    """Encoder states of clips of so many frames that follow each other, [tokens, D]. Raises ValueError where they are
    others."""
    if features_FM.ndim != 2 or sum(frames) != len(features_FM) or min(frames, default=0) < 1:
        raise ValueError(
            f"audio_frames {list(frames)}: the frames of each clip, of features [frames, mels], not"
            f" {list(features_FM.shape)}"
        )
    parts = features_FM.split(list(frames))
    reduction = encoder.config.time_reduction
    together = [(list(range(len(parts))), max(frames))] if encoder.hf_compat_mask else groups(frames, encoder.piece)
    clips: dict[int, Tensor] = {}
    for numbers, longest in together:
        length_B = torch.tensor([frames[number] for number in numbers], device=features_FM.device)
        mask_BT = torch.arange(longest, device=features_FM.device) < length_B[:, None]
        padded_BTM = pad_sequence([parts[number] for number in numbers], batch_first=True)
        for number, hidden_TD in zip(numbers, encoder(padded_BTM, mask_BT), strict=True):
            clips[number] = hidden_TD[: frames_after(frames[number], reduction)]
    return torch.cat([clips[number] for number in range(len(clips))])


def groups(lengths: Sequence[int], most: int | None = None) -> list[tuple[list[int], int]]:
    """Numbers of clips of like length, and the length of the longest in it: no clip is shorter than three quarters.
    `most`: frames of several clips together, padded; a longer one is alone."""
    grouped: list[tuple[list[int], int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        full = grouped and most is not None and (len(grouped[-1][0]) + 1) * grouped[-1][1] > most
        if not grouped or full or 4 * lengths[number] < 3 * grouped[-1][1]:
            grouped.append(([], lengths[number]))
        grouped[-1][0].append(number)
    return grouped


def project(model: Any, encoded_ND: Tensor, beside: Callable[[str], Tensor]) -> Tensor:
    """Audio of samples with an image goes through a projector of its own."""
    with_image_N = beside("vision")
    if not with_image_N.any():
        return model.audio_projector_speech(encoded_ND)
    if with_image_N.all():
        return model.audio_projector_vision(encoded_ND)
    alone = model.audio_projector_speech(encoded_ND[~with_image_N])
    mixed = alone.new_empty(len(encoded_ND), alone.shape[-1])
    mixed[~with_image_N] = alone
    mixed[with_image_N] = model.audio_projector_vision(encoded_ND[with_image_N]).to(mixed.dtype)
    return mixed
