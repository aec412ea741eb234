"""Videos as frames: a record that names a video has some of its frames as images, evenly spaced over its length.

A video is a source, frames are what is learned from: each is stored as PNG, which loses nothing of what was decoded,
and the digest of the video stands beside them, so that a takedown of the file, or a question for it, finds the records
that have frames of it. In a text the video's placeholder becomes one for each frame, in order. Which FFmpeg decodes is
part of what a frame is: another release may differ in a level of a pixel.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from gristmill.filters.image.look import look
from gristmill.model.processing.chat.conversation import BadSample
from gristmill.model.processing.video_file import (
    INSTALL,
    MAX_DECODED,
    MAX_SECONDS,
    VideoError,
    VideoLimits,
    can_decode,
    video_frames,
)
from gristmill.stages.containers import Record
from gristmill.stages.containers.media import Media
from gristmill.stages.media.turns import FRAMES, Modality
from gristmill.stages.text.samples import BadMedium
from gristmill.stages.vision.form import SCHEMA as IMAGES
from gristmill.stages.vision.form import Formed, FormImages, Taken

ORIGINS = pa.list_(
    pa.struct(
        [
            ("sha256", pa.string()),
            ("url", pa.string()),
            ("first", pa.int32()),  # number of its first frame among the images of the record, from 1
            ("seconds", pa.list_(pa.float64())),  # when each of its frames is shown, from its first picture on
        ]
    )
)
"""Of each video that images of a record are frames of."""
SCHEMA = IMAGES.append(pa.field("origins", ORIGINS))


@dataclass(frozen=True)
class Video:
    """`frames`: of a video, one from the middle of each of so many equal parts of its length; a shorter one gives all
    that it has. `fields`: of rows, that name videos. Bounds: `max_seconds` of a video, `max_decoded` frames that have
    to be decoded for those wanted (from the keyframe before each), `max_bytes` of all images of a record."""

    frames: int = 8
    fields: tuple[str, ...] = ("video", "videos")
    max_seconds: float = 3600.0
    max_decoded: int = MAX_DECODED
    max_bytes: int = 32_000_000

    def __post_init__(self) -> None:
        for name in ("frames", "max_decoded", "max_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1")
        if not 0 < self.max_seconds <= MAX_SECONDS:
            raise ValueError(f"max_seconds={self.max_seconds}: more than 0, at most {MAX_SECONDS:g}")

    def check(self) -> None:
        """Raises ValueError where videos cannot be decoded."""
        if not can_decode():
            raise ValueError(
                f"frames={self.frames}: videos are decoded by the package av, which is not installed here. Install the"
                f" extra, {INSTALL}, or leave the key out"
            )


@dataclass(frozen=True)
class FormFrames(FormImages):
    """As FormImages, and videos become images; see `Video`."""

    releases: ClassVar[tuple[str, ...]] = ("av", "pillow")
    schema: ClassVar[pa.Schema] = SCHEMA
    modality: ClassVar[Modality] = FRAMES

    video: Video = field(default_factory=Video)

    @classmethod
    def of(cls, image: FormImages, video: Video) -> Self:
        """With the settings of `image`."""
        return cls(**{setting.name: getattr(image, setting.name) for setting in fields(image)}, video=video)

    @property
    def naming(self) -> tuple[str, ...]:
        """Fields that name media."""
        return (*self.images, *self.video.fields)

    def _taken(self, media: Sequence[Media]) -> list[Taken]:
        taken, number_of_images, size = list[Taken](), 0, 0
        for number, item in enumerate(media, 1):
            if item.kind == "video":
                medium = self._frames(number, item, number_of_images, self.video.max_bytes - size)
            else:
                medium = self._image(number, item)
            number_of_images += len(medium.images)
            size += sum(len(image["data"]) for image in medium.images)
            self._check(number_of_images, self.video.max_bytes - size)
            taken.append(medium)
        return taken

    def _check(self, images: int, bytes_left: int) -> None:
        if images > self.max_images:
            raise BadSample("too_many_images", f"{images} with frames of videos, allowed are {self.max_images}")
        if bytes_left < 0:
            raise BadSample("too_many_bytes", f"of {images} images or more, allowed are {self.video.max_bytes}")

    def _frames(self, number: int, item: Media, before: int, bytes_left: int) -> Taken:
        """Frames of video `number`, with so many images before them."""
        images, looks, seconds = list[dict[str, Any]](), list[int](), list[float]()
        limits = VideoLimits(self.video.max_seconds, self.max_pixels, self.video.max_decoded)
        try:
            for frame in video_frames(item.data, self.video.frames, limits):
                images.append(_row(item, frame.pixels))
                looks.append(look(frame.pixels))
                seconds.append(frame.seconds)
                bytes_left -= len(images[-1]["data"])
                self._check(before + len(images), bytes_left)
        except VideoError as error:
            raise BadMedium(number, error) from None
        origin = {"sha256": item.sha256, "url": item.url, "first": before + 1, "seconds": seconds}
        return Taken(tuple(images), tuple(looks), origin)

    def columns(self, item: Record, sample: Formed) -> dict[str, Any]:
        """Of a sample: those of SCHEMA that are not of RECORD."""
        return super().columns(item, sample) | {"origins": list(sample.origins)}


def _row(item: Media, pixels: np.ndarray) -> dict[str, Any]:
    """A frame, uint8 [height, width, 3], as a row of MEDIA: its PNG, with the name of the video."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    data = stream.getvalue()
    frame = Media("image", hashlib.sha256(data).hexdigest(), item.url, data)
    height, width = pixels.shape[:2]
    return frame.as_row() | {"height": height, "width": width}
