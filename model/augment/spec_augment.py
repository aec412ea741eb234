"""SpecAugment, as data that a recipe holds: how much of a clip is hidden while it is trained on. Read without torch.

`model.augment.masking` carries it out. What is hidden of a clip follows from the seed of the stage, the clip and the
epoch, so a run that goes on hides the same, on however many ranks; and each epoch hides something else.
Source: arXiv 1904.08779, section 2, without time warping, which it found to gain little; p as in its equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecAugment:
    """`time_masks` stretches of a clip are hidden, each up to `time_width` frames of 10 ms and the share `time_share`
    of the clip; `band_masks` stretches of its mel bands, each up to `band_width`. What is hidden has the mean of the
    training data. Raises ValueError that names the field."""

    time_masks: int = 2
    time_width: int = 40
    time_share: float = 0.2
    band_masks: int = 2
    band_width: int = 15

    def __post_init__(self) -> None:
        for name in ("time_masks", "time_width", "band_masks", "band_width"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"spec_augment.{name}={value}: allowed is 0 or more")
        if not 0 < self.time_share <= 1:
            raise ValueError(f"spec_augment.time_share={self.time_share}: allowed is above 0 and up to 1")
