"""Prompts with images: from the parts of a sample and the media beside it to tokens, and to crops as windows hold them.

Two steps, so that a prompt that is too long is refused before a pixel of it is decoded: `tokens` reads headers alone,
`arrays` decodes. What comes out is what a mixture's windows hold of a record (`model.windows.media` makes the model's
inputs of it), so an engine is asked in the form that was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.processing.image import CropPlan, Crops, ExtremeRatio, crops, plan_crops
from gristmill.model.processing.image_file import MAX_PIXELS, ImageError, decode_image, image_header
from gristmill.model.processing.segments import Segment, placeholders
from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.model.windows.placeholders import BadMedium, Cut, Medium, encode


class Prompted(NamedTuple):
    """A prompt as `model.generate.requests.Request` takes it: its tokens, and the arrays of its media."""

    tokens: tuple[int, ...]
    media: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Prompts:
    """For a model of a `tokenizer` that takes images as `cut` says; None: it takes none. `max_pixels` of a file."""

    tokenizer: Tokenizer
    cut: Cut | None = None
    max_pixels: int = MAX_PIXELS

    def of(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Prompted:
        """Both steps. `parts` name media by number; one that they do not name is left out."""
        return Prompted(self.tokens(parts, media), self.arrays(parts, media))

    def tokens(self, parts: Sequence[Segment], media: Sequence[Medium]) -> tuple[int, ...]:
        """Those of the prompt. Raises as `encoded`."""
        return tuple(self.encoded(parts, media).ids.tolist())

    def encoded(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Encoded:
        """The prompt's tokens with their loss mask. Raises ValueError for a placeholder without its medium, media that
        the model does not take, and what is no text; BadMedium for bytes that are no image, and an image too thin to be
        cut."""
        used = self._used(parts, media)
        counts = [self._plan(number, medium).tokens for number, medium in used]
        names = {} if self.cut is None else {"image": self.cut.token}
        return encode(self.tokenizer, [parts], names, counts)

    def arrays(self, parts: Sequence[Segment], media: Sequence[Medium]) -> Mapping[str, np.ndarray]:
        """`tiles` and `image_sizes` of all images in the order of their placeholders; empty where there are none.
        Raises as `tokens`, for what only decoding shows too."""
        used = self._used(parts, media)
        if not used or self.cut is None:
            return {}
        cuts = [self._crops(number, medium) for number, medium in used]
        return {
            "tiles": np.concatenate([cropped.tiles for cropped in cuts]),
            "image_sizes": np.array([cropped.image_size for cropped in cuts], np.int32),
        }

    def _used(self, parts: Sequence[Segment], media: Sequence[Medium]) -> list[tuple[int, Medium]]:
        """Media with their numbers, in the order of their placeholders. Raises ValueError."""
        used = []
        for kind, number in placeholders(parts):
            if not 1 <= number <= len(media) or media[number - 1].kind != kind:
                raise ValueError(
                    f"<|{kind}_{number}|>: there are {len(media)} media beside the text, and no such {kind}"
                )
            if kind != "image" or self.cut is None:
                raise ValueError(f"<|{kind}_{number}|>: the model takes no {kind}")
            used.append((number, media[number - 1]))
        return used

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


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """What is wrong with an image as a BadMedium."""
    try:
        yield
    except ImageError as error:
        raise BadMedium(number, error.reason, error.message) from error
    except ExtremeRatio as error:
        raise BadMedium(number, "image.extreme_ratio", str(error)) from error


def cut_of(config: ModelConfig, tokenizer: Tokenizer, max_crops: int = Cut.max_crops) -> Cut | None:
    """How images are cut for a model; None for one without vision. Raises ValueError where the tokenizer has no special
    token of the id that the model puts images at."""
    vision = config.vision
    if vision is None:
        return None
    name = tokenizer.name(vision.image_token_id)
    if name is None or not tokenizer.is_special(vision.image_token_id):
        what = "nothing" if name is None else f"{name!r}, no special token"
        raise ValueError(
            f"the model puts images at token {vision.image_token_id}, which is {what} in tokenizer"
            f" {tokenizer.digest[:12]}: this is another model's tokenizer"
        )
    return Cut(max_crops, vision.crop_size, vision.patch_size, name)
