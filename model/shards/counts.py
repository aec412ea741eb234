"""What a window holds, in the numbers that decide what it costs: kept in the index, so that nobody opens a window to
know its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """`tokens`; `pairs`: the squares of its samples' lengths, together; `targets`: tokens to learn; `crops`: inputs of
    the image encoder, those of `tiles` and a global view of each image; `frames`: of log-Mel."""

    tokens: int = 0
    pairs: int = 0
    targets: int = 0
    crops: int = 0
    frames: int = 0

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Counts:
        """Of a window's arrays; of what a sample does not have, 0."""
        lengths = np.diff(arrays.get("cu_seqlens", ())).astype(np.int64)
        return cls(
            tokens=len(arrays.get("input_ids", ())),
            pairs=int(np.square(lengths).sum()),
            targets=int(np.sum(arrays.get("loss_mask", ()), dtype=np.int64)),
            crops=len(arrays.get("tiles", ())) + len(arrays.get("image_sizes", ())),
            frames=len(arrays.get("mel", ())),
        )
