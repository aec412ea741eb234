"""Sizes of images with the plans that the release has for them, and pictures of any size."""

from __future__ import annotations

import numpy as np

from gristmill.model.processing.image import CropPlan, ExtremeRatio, plan_crops

CAPS = (16, 36)
"""Crops at most, in the release's pretraining and fine-tuning."""

TABLE = [
    (28, 28, 36, (1, 1), (448, 448), (16, 16), 545),
    (100, 60, 36, (1, 1), (448, 268), (16, 10), 449),
    (448, 448, 36, (1, 1), (448, 448), (16, 16), 545),
    (336, 500, 36, (1, 2), (448, 666), (16, 24), 673),
    (449, 448, 36, (2, 1), (449, 448), (17, 16), 562),
    (600, 800, 36, (2, 2), (672, 896), (24, 32), 1065),
    (1344, 1344, 36, (3, 3), (1344, 1344), (48, 48), 2625),
    (1080, 1920, 16, (3, 5), (1260, 2240), (45, 80), 3918),
    (1080, 1920, 36, (3, 5), (1260, 2240), (45, 80), 3918),
    (2000, 3000, 36, (5, 7), (2090, 3136), (75, 112), 8748),
    (2000, 3000, 16, (2, 3), (896, 1344), (32, 48), 1841),
    (4000, 3000, 16, (4, 3), (1792, 1344), (64, 48), 3409),
    (4032, 3024, 36, (4, 3), (1792, 1344), (64, 48), 3409),
    (2160, 3840, 36, (4, 7), (1764, 3136), (63, 112), 7392),
    (2688, 2689, 36, (6, 6), (2687, 2688), (96, 96), 9585),
    (13, 500, 36, (1, 2), (23, 896), (1, 32), 306),
    (6000, 60, 36, (14, 1), (6272, 62), (224, 3), 1169),
]
"""Height, width, cap; rows and columns, resized size, pooled patches that are real, tokens."""


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise upon them, so that neither a shift nor a filter goes unseen."""
    pick = np.random.default_rng(height * 31 + width)
    down, right = np.linspace(0, 200, height)[:, None, None], np.linspace(0, 55, width)[None, :, None]
    return (down * [1.0, 0.5, 0.2] + right * [0.2, 1.0, 0.7] + pick.integers(0, 30, (height, width, 3))).astype(
        np.uint8
    )


def plan_or_none(height: int, width: int, cap: int) -> CropPlan | None:
    """None: the image is refused."""
    try:
        return plan_crops(height, width, cap)
    except ExtremeRatio:
        return None
