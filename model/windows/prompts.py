"""Prompts with images and clips: from the parts of a sample and the media beside it to tokens, and to crops and log-Mel
frames as windows hold them.

Two steps, so that a prompt that is too long is refused before a pixel or a sample of it is decoded: `tokens` reads
headers alone, `arrays` decodes. What comes out is what a mixture's windows hold of a record (`model.windows.media`
makes the model's inputs of it), so an engine is asked in the form that was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.processing.audio import audio_tokens, frames_of
from gristmill.model.processing.audio_file import audio_header, file_mel
from gristmill.model.processing.image import CropPlan, Crops, ExtremeRatio, crops, plan_crops
from gristmill.model.processing.image_file import MAX_PIXELS, decode_image, image_header
from gristmill.model.processing.medium_error import MediumError
from gristmill.model.processing.segments import Placeholder, Segment
from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.model.windows.placeholders import BadMedium, Cut, LogMel, Medium, encode, places_of


class Prompted(NamedTuple):
    """A prompt as `model.generate.requests.Request` takes it: its tokens, and the arrays of its media."""

    tokens: tuple[int, ...]
    media: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prompts:
    """For a model of a `tokenizer` that takes images as `cut` says and clips as `log_mel` does; None: it takes none.
    `max_pixels` of an image's file."""

    tokenizer: Tokenizer
    cut: Cut | None = None
    max_pixels: int = MAX_PIXELS
    log_mel: LogMel | None = None

    @property
    def names(self) -> dict[str, str]:
        """Of the token of each kind of media that the model takes."""
        forms = (("image", self.cut), ("audio", self.log_mel))
        return {kind: form.token for kind, form in forms if form is not None}

    def of(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Prompted:
        """Both steps. `parts` name media by kind and number; one that they do not name is left out. Raises as
        `arrays`."""
        decoded = self.decoded(parts, media)
        return Prompted(self.tokens(parts, decoded), self.arrays(parts, decoded))

    def tokens(self, parts: Sequence[Segment], media: Sequence[Medium]) -> tuple[int, ...]:
        """Those of the prompt. Raises as `encoded`."""
        return tuple(self.encoded(parts, media).ids.tolist())

    def encoded(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Encoded:
        """The prompt's tokens with their loss mask. Raises ValueError for a placeholder without its medium, media that
        the model does not take, and what is no text; BadMedium for bytes that are no image or clip, an image too thin
        to be cut, and a clip without a whole frame."""
        counts = [self._count(item, media[place]) for item, place in self._used(parts, media)]
        return encode(self.tokenizer, [parts], self.names, counts)

    def decoded(self, parts: Sequence[Segment], media: Sequence[Medium]) -> list[Medium]:
        """The media, those clips that `parts` name as log-Mel frames: how many tokens they are is then certain. Raises
        as `arrays`."""
        heard = list(media)
        for item, place in self._used(parts, media):
            if item.kind == "audio":
                heard[place] = replace(heard[place], data=self._mel(item.number, heard[place]))
        return heard

    def arrays(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Mapping[str, np.ndarray]:
        """`tiles` and `image_sizes` of all images in the order of their placeholders, `mel` and `cu_frames` of all
        clips; empty where there are none. Raises as `encoded`, for what only decoding shows too."""
        used = self._used(parts, media)
        arrays: dict[str, np.ndarray] = {}
        cuts = [self._crops(item.number, media[place]) for item, place in used if item.kind == "image"]
        if cuts:
            arrays["tiles"] = np.concatenate([cropped.tiles for cropped in cuts])
            arrays["image_sizes"] = np.array([cropped.image_size for cropped in cuts], np.int32)
        mels = [self._mel(item.number, media[place]) for item, place in used if item.kind == "audio"]
        if mels:
            arrays["mel"] = mels[0] if len(mels) == 1 else np.concatenate(mels)
            arrays["cu_frames"] = np.array([0, *accumulate(map(len, mels))], np.int32)
        return arrays

    def _used(self, parts: Sequence[Segment], media: Sequence[Medium]) -> list[tuple[Placeholder, int]]:
        """What is named, and its place among all media, in the order of placeholders. Raises ValueError."""
        used = places_of(parts, [medium.kind for medium in media])
        for item, _ in used:
            if item.kind not in self.names:
                raise ValueError(f"<|{item.kind}_{item.number}|>: the model takes no {item.kind}")
        return used

    def _count(self, item: Placeholder, medium: Medium) -> int:
        """Tokens of a medium."""
        if item.kind == "image":
            return self._plan(item.number, medium).tokens
        assert self.log_mel is not None
        return audio_tokens(self._frames(item.number, medium), self.log_mel.reduction)

    # Images.

    def _plan(self, number: int, medium: Medium) -> CropPlan:
        assert self.cut is not None
        with _naming(number):
            if isinstance(medium.data, bytes):
                header = image_header(medium.data, self.max_pixels)
                size = header.height, header.width
            else:
                size = medium.data.shape[0], medium.data.shape[1]
            return plan_crops(*size, self._most(medium), self.cut.crop, self.cut.patch)

    def _crops(self, number: int, medium: Medium) -> Crops:
        assert self.cut is not None
        plan = self._plan(number, medium)
        with _naming(number):
            pixels = decode_image(medium.data, self.max_pixels) if isinstance(medium.data, bytes) else medium.data
            cropped = crops(pixels, self._most(medium), self.cut.crop, self.cut.patch)
        if cropped.plan != plan:
            height, width, _ = pixels.shape
            raise BadMedium(
                number, "image.unreadable", f"its header is of another size than its {height}x{width} pixels"
            )
        return cropped

    def _most(self, medium: Medium) -> int:
        assert self.cut is not None
        return self.cut.max_crops if medium.max_crops is None else min(medium.max_crops, self.cut.max_crops)

    # Clips.

    def _frames(self, number: int, medium: Medium) -> int:
        """Frames of a clip, at least one: of its array, as was known before, or by its header."""
        assert self.log_mel is not None
        if isinstance(medium.data, bytes):
            with _naming(number):
                header = audio_header(medium.data, self.log_mel.max_seconds)
            frames = frames_of(header.samples, header.rate) if medium.frames is None else medium.frames
        else:
            frames = len(medium.data)
        if not frames:
            raise BadMedium(number, "audio.too_short", "it has no whole frame of 25 ms")
        return frames

    def _mel(self, number: int, medium: Medium) -> np.ndarray:
        """float32 [frames, bands], as a mixture makes it."""
        assert self.log_mel is not None
        if not isinstance(medium.data, bytes):
            return medium.data
        with _naming(number):
            mel_FM = file_mel(medium.data, self.log_mel.max_seconds, exact=self.log_mel.exact)
        if medium.frames not in (None, len(mel_FM)):
            raise BadMedium(number, "audio.unreadable", f"{len(mel_FM)} frames, and it is of {medium.frames}")
        if not len(mel_FM):
            raise BadMedium(number, "audio.too_short", "it has no whole frame of 25 ms")
        return mel_FM


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """What is wrong with a medium as a BadMedium."""
    try:
        yield
    except MediumError as error:
        raise BadMedium(number, error.reason, error.message) from error
    except ExtremeRatio as error:
        raise BadMedium(number, "image.extreme_ratio", str(error)) from error


def cut_of(config: ModelConfig, tokenizer: Tokenizer, max_crops: int = Cut.max_crops) -> Cut | None:
    """How images are cut for a model; None for one without vision. Raises ValueError where the tokenizer has no special
    token of the id that the model puts images at."""
    vision = config.vision
    if vision is None:
        return None
    token = _token_at(tokenizer, vision.image_token_id, "images")
    return Cut(max_crops, vision.crop_size, vision.patch_size, token)


def log_mel_of(config: ModelConfig, tokenizer: Tokenizer, settings: LogMel | None = None) -> LogMel | None:
    """How clips become frames and tokens of a model, else as `settings` say, or as by default; None for one without
    audio. Raises ValueError as `cut_of`."""
    audio = config.audio
    if audio is None:
        return None
    token = _token_at(tokenizer, audio.audio_token_id, "clips")
    return replace(settings or LogMel(), reduction=audio.time_reduction, token=token)


def _token_at(tokenizer: Tokenizer, token: int, media: str) -> str:
    """The name of a special token by its id. Raises ValueError."""
    name = tokenizer.name(token)
    if name is None or not tokenizer.is_special(token):
        what = "nothing" if name is None else f"{name!r}, no special token"
        raise ValueError(
            f"the model puts {media} at token {token}, which is {what} in tokenizer {tokenizer.digest[:12]}: this is"
            " another model's tokenizer"
        )
    return name
