"""Samples with pictures and clips for `nano`, and windows of them, as a mixture packs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from models import AUDIO, IMAGE, NANO
from train_windows import write_arrays

from gristmill.model.train.settings import Source

CROP, PATCH = 64, 8  # of nano


@dataclass(frozen=True)
class Sample:
    """Tokens, and in the order of their tokens pictures (real height and width, crops) and clips (frames)."""

    ids: list[int]
    learn: list[bool]
    pictures: list[tuple[tuple[int, int], np.ndarray]] = field(default_factory=list)
    clips: list[np.ndarray] = field(default_factory=list)


def sample(seed: int, pictures: Sequence[tuple[int, int]] = (), clips: Sequence[int] = ()) -> Sample:
    """Text around pictures of these real sizes, then clips of so many frames; text alone is learned."""
    rng = np.random.default_rng(seed)
    drawn = Sample([], [])

    def text(count: int) -> None:
        drawn.ids.extend(rng.integers(20, 300, count).tolist())
        drawn.learn.extend((rng.random(count) < 0.7).tolist())

    text(3)
    for height, width in pictures:
        rows, columns = -(-height // CROP), -(-width // CROP)
        canvas = np.full((rows * CROP, columns * CROP, 3), 255, np.uint8)
        canvas[:height, :width] = rng.integers(0, 256, (height, width, 3))
        crops = [
            canvas[r * CROP : (r + 1) * CROP, c * CROP : (c + 1) * CROP] for r in range(rows) for c in range(columns)
        ]
        drawn.pictures.append(((height, width), np.stack(crops)))
        _place(drawn, IMAGE, tokens_of_picture(height, width))
        text(2)
    for frames in clips:
        drawn.clips.append(rng.uniform(0, 20, (frames, 80)).astype(np.float32))
        _place(drawn, AUDIO, -(-frames // 8))
        text(2)
    text(5)
    return drawn


def tokens_of_picture(height: int, width: int) -> int:
    """By the closed form: the pooled patches that are real, a separator a row, one between, and the global view."""
    rows, columns = -(-height // (2 * PATCH)), -(-width // (2 * PATCH))
    side = CROP // PATCH // 2
    return rows * columns + rows + 1 + side * side + side


def _place(drawn: Sample, token: int, count: int) -> None:
    drawn.ids.extend([token] * count)
    drawn.learn.extend([False] * count)


def packed(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """A window of these samples."""
    pictures = [picture for each in samples for picture in each.pictures]
    clips = [clip for each in samples for clip in each.clips]
    arrays = {
        "input_ids": np.array([token for each in samples for token in each.ids], np.int32),
        "loss_mask": np.array([learned for each in samples for learned in each.learn], bool),
        "cu_seqlens": np.array([0, *accumulate(len(each.ids) for each in samples)], np.int32),
    }
    if pictures:
        arrays["tiles"] = np.concatenate([tiles for _, tiles in pictures])
        arrays["image_sizes"] = np.array([size for size, _ in pictures], np.int32)
    if clips:
        arrays["mel"] = np.concatenate(clips)
        arrays["cu_frames"] = np.array([0, *accumulate(len(clip) for clip in clips)], np.int32)
    return arrays


def samples_of_all_kinds() -> list[Sample]:
    """Texts, a padded picture, two pictures, a clip, two clips of which one is long, and a picture with a clip."""
    return [
        sample(1),
        sample(2, pictures=[(100, 64)]),
        sample(3, clips=[37]),
        sample(4, pictures=[(64, 64), (130, 190)]),
        sample(5),
        sample(6, clips=[9, 120]),
        sample(7, pictures=[(33, 120)], clips=[50]),
    ]


def write_media_windows(folder: Path, count: int = 12) -> Source:
    """A source of windows of which every third has pictures, the others none."""
    assert NANO.vision is not None and (NANO.vision.crop_size, NANO.vision.patch_size) == (CROP, PATCH)
    return write_arrays(
        folder,
        [
            packed([sample(10 * number + k, pictures=[(64, 64 + 8 * number)][: number % 3 == 0]) for k in range(2)])
            for number in range(count)
        ],
    )
