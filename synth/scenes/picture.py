"""A scene as a picture. Notable choices:

- quadrants of 32 pixels, so that a crop of a model at `nano` is a quadrant;
- nothing repeats exactly: background, colour, size, place and face of digits vary from picture to picture;
- whole numbers alone, and PNG: the same draw gives the same bytes wherever Pillow and its zlib are the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import COLOURS, Figure, Scene
from gristmill.synth.scenes.outlines import FACES, Face, digit_mask, shape_mask

QUADRANT = 32
"""Pixels a side."""
_INK = (10, 10, 10)

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


def background(draw: Draw) -> Colour:
    """Gray, between black and white, with a cast: two empty pictures are seldom equal."""
    shade = draw.between(150, 214)
    return shade + draw.between(-6, 6), shade + draw.between(-6, 6), shade + draw.between(-6, 6)


def scene_pixels(scene: Scene, draw: Draw, shade: Colour, faces: Sequence[Face] = FACES) -> np.ndarray:
    """uint8 [64, 64, 3]. `shade`: of the background, as frames of one scene share it."""
    pixels = np.empty((2 * QUADRANT, 2 * QUADRANT, 3), np.uint8)
    pixels[:] = shade
    for figure in scene:
        row, col = divmod(figure.place, 2)
        top, left = row * QUADRANT, col * QUADRANT
        _paint(pixels[top : top + QUADRANT, left : left + QUADRANT], figure, draw, faces)
    return pixels


def quadrant_pixels(figure: Figure | None, draw: Draw, faces: Sequence[Face] = FACES) -> np.ndarray:
    """uint8 [32, 32, 3]: the figure alone, or nothing."""
    pixels = np.empty((QUADRANT, QUADRANT, 3), np.uint8)
    pixels[:] = background(draw)
    if figure is not None:
        _paint(pixels, figure, draw, faces)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    """The file of a picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def _paint(quadrant: np.ndarray, figure: Figure, draw: Draw, faces: Sequence[Face]) -> None:
    """Draws the figure about the middle of a quadrant."""
    if figure.digits:
        mask, colour, aside = _text_mask(figure.digits, draw.pick(faces)), _INK, 2
    else:
        mask, aside = shape_mask(figure.shape, draw.between(7, 10)), 3
        red, green, blue = (min(255, max(0, level + draw.between(-12, 12))) for level in COLOURS[figure.colour])
        colour = red, green, blue
    height, width = mask.shape
    top = _at((QUADRANT - height) // 2 + draw.between(-3, 3), height)
    left = _at((QUADRANT - width) // 2 + draw.between(-aside, aside), width)
    under = quadrant[top : top + height, left : left + width]
    share = mask[:, :, None].astype(np.int32)
    under[:] = (under * (255 - share) + np.array(colour, np.int32) * share + 127) // 255


def _at(wanted: int, size: int) -> int:
    """Where it begins, so that it stays within the quadrant."""
    return min(max(wanted, 0), QUADRANT - size)


def _text_mask(digits: str, face: Face) -> np.ndarray:
    """Both digits, two pixels between them."""
    first, second = (digit_mask(int(digit), face) for digit in digits)
    return np.hstack([first, np.zeros((len(first), 2), np.uint8), second])
