"""Images and clips of packed windows as the model takes them: from uint8 crops and log-Mel frames, end to end.

What a window has of them lies as its tokens do: `tiles` uint8 [n, S, S, 3], the crops of all images of the window;
`image_sizes` int [images, 2], the real height and width in pixels of each; `mel` float [frames, bands], the frames of
all clips; `cu_frames` int [clips + 1], where clips begin and the last one ends. Tiles go to the device as bytes, and
become floats there, with the global views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.phi4.config import ModelConfig, VisionConfig
from gristmill.model.processing.image import Size, grid_of, image_inputs

Arrays = Mapping[str, np.ndarray]

IMAGES, CLIPS = ("tiles", "image_sizes"), ("mel", "cu_frames")


def media_inputs(
    windows: Sequence[Arrays], config: ModelConfig | None, device: torch.device | str
) -> dict[str, Tensor]:
    """The inputs of `Multimodal.embed` for windows end to end; none where they have neither images nor clips.

    Raises ValueError for arrays that are of another model, or do not fit each other.
    """
    with_images = [window for window in windows if has_media(window, IMAGES)]
    with_clips = [window for window in windows if has_media(window, CLIPS)]
    inputs: dict[str, Tensor] = {}
    if with_images:
        vision = None if config is None else config.vision
        if vision is None:
            raise ValueError("a window has tiles, and no config of a model with vision is given")
        inputs |= _image_inputs(with_images, vision, device)
    if with_clips:
        inputs |= _clip_inputs(with_clips, config, device)
    return inputs


def has_media(window: Arrays, names: tuple[str, str]) -> bool:
    """Whether a window has the arrays of a modality, and anything in them."""
    there = [name for name in names if name in window]
    if len(there) == 1:
        raise ValueError(f"a window has {there[0]} alone; {names[0]} and {names[1]} come together")
    return bool(there) and len(window[names[0]]) > 0


def _image_inputs(windows: Sequence[Arrays], config: VisionConfig, device: torch.device | str) -> dict[str, Tensor]:
    crop, sizes = config.crop_size, list[Size]()
    for window in windows:
        tiles, own = window["tiles"], [(int(height), int(width)) for height, width in window["image_sizes"]]
        if tiles.dtype != np.uint8 or tiles.shape[1:] != (crop, crop, 3):
            raise ValueError(
                f"tiles are {tiles.dtype} {list(tiles.shape)}: the model takes uint8 [n, {crop}, {crop}, 3]"
            )
        if (count := sum(rows * columns for rows, columns in (grid_of(size, crop) for size in own))) != len(tiles):
            raise ValueError(f"a window has {len(tiles)} tiles, its image_sizes {own} are of {count}")
        sizes += own
    tiles = windows[0]["tiles"] if len(windows) == 1 else np.concatenate([window["tiles"] for window in windows])
    tiles_NSSC = torch.from_numpy(tiles).to(device, non_blocking=True)
    return image_inputs(tiles_NSSC, sizes, config.patch_size)


def clip_lengths(window: Arrays, config: ModelConfig | None) -> list[int]:
    """Frames of each clip of a window. Raises ValueError for arrays that are of another model, or do not fit each
    other."""
    audio = None if config is None else config.audio
    if audio is None:
        raise ValueError("a window has mel, and no config of a model with audio is given")
    mel, ends = window["mel"], window["cu_frames"]
    if mel.ndim != 2 or mel.shape[1] != audio.input_size or mel.dtype.kind != "f":
        raise ValueError(f"mel is {mel.dtype} {list(mel.shape)}: the model takes floats [frames, {audio.input_size}]")
    lengths: list[int] = np.diff(ends).tolist()
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != len(mel) or min(lengths) < 1:
        raise ValueError(f"cu_frames {ends.tolist()}: needed is 0, rising to the {len(mel)} frames of mel")
    return lengths


def _clip_inputs(
    windows: Sequence[Arrays], config: ModelConfig | None, device: torch.device | str
) -> dict[str, Tensor]:
    lengths = [length for window in windows for length in clip_lengths(window, config)]
    mel_FM = torch.from_numpy(np.concatenate([window["mel"] for window in windows])).to(device, non_blocking=True)
    return {"audio_input_features": mel_FM.float(), "audio_frames": torch.tensor(lengths)}
