"""Kinds of media in windows: what an image and a clip cost before they are decoded, and what they become.

All else that mixtures do with media (placeholders, budgets, copies on disk, fates) is the same for both, and asks a
kind. A new one is a class here, its unit in `stages.mix.fitting.UNITS`, and its arrays in `model.windows.stretches`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from gristmill.model.processing.audio_file import MAX_SECONDS, file_mel
from gristmill.model.processing.audio_rates import BANDS
from gristmill.model.processing.image_file import MOST_PIXELS, decode_image
from gristmill.model.windows.placeholders import Cut, LogMel

# Torch is imported where it is needed: a mixture that is only looked up does without, and starts seconds earlier.


class Planned(NamedTuple):
    """What a medium costs a window: `tokens`, and `units` of what its encoder takes, crops or frames."""

    tokens: int
    units: int


class Refused(ValueError):
    """A medium that the settings of a mixture do not take. `reason`: the fate of its record."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, so that it can be pickled
        self.reason, self.message = reason, message


class Encoded(NamedTuple):
    """What a medium became: `rows` of its large array, its entry in the small one beside, and what it then costs."""

    rows: np.ndarray
    entry: Any
    cost: Planned


class Kind(Protocol):
    """`name`: of the media, and in placeholders; `listed`: in metadata of windows; `unit`: what its encoder takes;
    `measures`: what records say of such a medium."""

    name: ClassVar[str]
    listed: ClassVar[str]
    unit: ClassVar[str]
    measures: ClassVar[tuple[str, str]]

    @property
    def token(self) -> str:
        """What stands for it in a window."""

    def planned(self, medium: Mapping[str, Any]) -> Planned:
        """By its measures alone. Raises Refused."""

    def room(self, planned: Sequence[Planned]) -> np.ndarray:
        """For the rows of all media of a window."""

    def encoded(self, data: bytes) -> Encoded:
        """Of a file. Raises ValueError, MediumError among them, for one that cannot be taken."""

    def arrays(self, rows: np.ndarray, entries: Sequence[Any]) -> dict[str, np.ndarray]:
        """What a window holds."""


@dataclass(frozen=True)
class Images:
    """Images as uint8 crops: `tiles` [n, S, S, 3] and `image_sizes` int32 [images, 2]; global views are made later."""

    name: ClassVar[str] = "image"
    listed: ClassVar[str] = "images"
    unit: ClassVar[str] = "crops"
    measures: ClassVar[tuple[str, str]] = ("height", "width")

    cut: Cut

    @property
    def token(self) -> str:
        """As Kind."""
        return self.cut.token

    def planned(self, medium: Mapping[str, Any]) -> Planned:
        """As Kind."""
        from gristmill.model.processing.image import ExtremeRatio, plan_crops

        height, width = (int(medium[side]) for side in self.measures)
        try:
            plan = plan_crops(height, width, self.cut.max_crops, self.cut.crop, self.cut.patch)
        except ExtremeRatio as error:
            raise Refused("tokenize.extreme_ratio", str(error)) from error
        return Planned(plan.tokens, 1 + plan.rows * plan.cols)

    def room(self, planned: Sequence[Planned]) -> np.ndarray:
        """As Kind."""
        side = self.cut.crop
        return np.empty((sum(each.units - 1 for each in planned), side, side, 3), np.uint8)

    def encoded(self, data: bytes) -> Encoded:
        """As Kind."""
        from gristmill.model.processing.image import crops

        # The recipe that took the image in had a limit of its own, which was at most this one.
        pixels = decode_image(data, MOST_PIXELS)
        cropped = crops(pixels, self.cut.max_crops, self.cut.crop, self.cut.patch)
        return Encoded(cropped.tiles, cropped.image_size, Planned(cropped.tokens, 1 + len(cropped.tiles)))

    def arrays(self, rows: np.ndarray, entries: Sequence[Any]) -> dict[str, np.ndarray]:
        """As Kind."""
        return {"tiles": rows, "image_sizes": np.array(entries, np.int32).reshape(-1, 2)}


@dataclass(frozen=True)
class Clips:
    """Clips as log-Mel: `mel` float32 [frames, 80] and `cu_frames` int32 [clips + 1], where each begins and the last
    one ends."""

    name: ClassVar[str] = "audio"
    listed: ClassVar[str] = "clips"
    unit: ClassVar[str] = "frames"
    measures: ClassVar[tuple[str, str]] = ("samples", "rate")

    log_mel: LogMel

    @property
    def token(self) -> str:
        """As Kind."""
        return self.log_mel.token

    def planned(self, medium: Mapping[str, Any]) -> Planned:
        """As Kind."""
        from gristmill.model.processing.audio import audio_tokens, frames_of

        samples, rate = (int(medium[name]) for name in self.measures)
        if samples > self.log_mel.max_seconds * rate:
            raise Refused(
                "tokenize.clip_too_long", f"{samples / rate:.3f} seconds, allowed are {self.log_mel.max_seconds:g}"
            )
        frames = frames_of(samples, rate)
        if not frames:
            raise Refused("tokenize.clip_too_short", f"{samples} samples at {rate} Hz: 25 ms are needed for a frame")
        return Planned(audio_tokens(frames, self.log_mel.reduction), frames)

    def room(self, planned: Sequence[Planned]) -> np.ndarray:
        """As Kind."""
        return np.empty((sum(each.units for each in planned), BANDS), np.float32)

    def encoded(self, data: bytes) -> Encoded:
        """As Kind."""
        from gristmill.model.processing.audio import audio_tokens

        mel = file_mel(data, MAX_SECONDS, exact=self.log_mel.exact)  # [frames, 80]
        return Encoded(mel, len(mel), Planned(audio_tokens(len(mel), self.log_mel.reduction), len(mel)))

    def arrays(self, rows: np.ndarray, entries: Sequence[Any]) -> dict[str, np.ndarray]:
        """As Kind."""
        return {"mel": rows, "cu_frames": np.cumsum([0, *entries]).astype(np.int32)}


def kinds_of(cut: Cut | None, log_mel: LogMel | None) -> dict[str, Kind]:
    """By their names, those that a mixture has settings for."""
    kinds: list[Kind] = []
    if cut is not None:
        kinds.append(Images(cut))
    if log_mel is not None:
        kinds.append(Clips(log_mel))
    return {kind.name: kind for kind in kinds}
