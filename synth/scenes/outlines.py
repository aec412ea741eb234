"""Digits and shapes as masks: how much of each pixel they cover. Notable choices:

- no font is needed: digits are strokes along lines and curves, in designs that differ as faces of print do;
- an edge is soft: a pixel is asked at 16 points;
- only sums, products and square roots, which every machine rounds alike, so that masks are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

_POINTS = 4  # of a pixel, along each side
_CURVE_STEPS = 8
_Point = tuple[float, float]


class Face(NamedTuple):
    """How digits look: `design` 0 or 1, height and width of a digit in pixels, width of a stroke, slant (pixels to the
    right for one up)."""

    design: int
    height: int
    width: int
    stroke: float
    slant: float


FACES = tuple(
    Face(design, height, round(height * aspect), stroke, slant)
    for design, height, aspect, stroke, slant in product((0, 1), (11, 12, 13), (0.5, 0.6), (1.6, 2.4), (0.0, 0.12))
)
"""Of training, and of held-out scenes like it."""
NEW_FACES = tuple(
    Face(design, height, round(height * aspect), stroke, slant)
    for design, height, aspect, stroke, slant in product((0, 1), (12, 13), (0.55,), (2.0, 2.8), (-0.08, 0.2))
)
"""That training does not have."""

# In a box of 4 x 6, y downwards: runs of points divided by `|`. A point behind `~` bends the line to the next one.
_DIGITS: tuple[tuple[str, str], ...] = (
    ("2,0 ~4,0 4,3 ~4,6 2,6 ~0,6 0,3 ~0,0 2,0", "1.4,0 2.6,0 4,1.4 4,4.6 2.6,6 1.4,6 0,4.6 0,1.4 1.4,0"),
    ("0.7,1.3 2.2,0 2.2,6", "0.7,1.3 2.2,0 2.2,6 | 0.6,6 3.8,6"),
    ("0,1.6 ~0.1,0 2,0 ~3.9,0 3.9,1.6 ~3.9,2.8 2.2,4.2 0,6 4,6", "0,1.2 1.2,0 2.8,0 4,1.2 4,2 0,6 4,6"),
    ("0.2,1 ~0.8,0 2,0 ~3.8,0 3.8,1.5 ~3.8,2.9 1.5,2.9 ~4,2.9 4,4.4 ~4,6 2,6 ~0.6,6 0,5",
     "0.2,0 3.8,0 1.8,2.4 ~4,2.4 4,4.2 ~4,6 2,6 ~0.6,6 0,5"),
    ("3,6 3,0 0,4.2 4,4.2", "1,0 0,3.8 4,3.8 | 3,2 3,6"),
    ("3.7,0 0.5,0 0.3,2.8 ~1,2.2 2,2.2 ~4,2.2 4,4.1 ~4,6 2,6 ~0.7,6 0,5.2",
     "3.8,0 0.2,0 0.2,2.6 2.8,2.6 4,3.6 4,4.8 2.8,6 0,6"),
    ("3.5,0.6 ~2.9,0 2.2,0 ~0,0 0,3.6 ~0,6 2,6 ~4,6 4,4.2 ~4,2.5 2,2.5 ~0.4,2.5 0,3.8",
     "3,0 ~0,2.2 0,4.1 ~0,6 2,6 ~4,6 4,4.2 ~4,2.5 2,2.5 ~0.3,2.5 0,4"),
    ("0,0 4,0 1.4,6", "0,0 4,0 1.6,6 | 0.9,3.1 3.6,3.1"),
    ("2,2.8 ~0.3,2.8 0.3,1.4 ~0.3,0 2,0 ~3.7,0 3.7,1.4 ~3.7,2.8 2,2.8 ~0,2.8 0,4.4 ~0,6 2,6 ~4,6 4,4.4 ~4,2.8 2,2.8",
     "0.4,0.9 1.3,0 2.7,0 3.6,0.9 3.6,2 0,4.2 0,5 1,6 3,6 4,5 4,4.2 0.4,2 0.4,0.9"),
    ("0.5,5.4 ~1.1,6 1.8,6 ~4,6 4,2.4 ~4,0 2,0 ~0,0 0,1.8 ~0,3.5 2,3.5 ~3.6,3.5 4,2.2",
     "1,6 ~4,3.8 4,1.9 ~4,0 2,0 ~0,0 0,1.8 ~0,3.5 2,3.5 ~3.7,3.5 4,2"),
)  # fmt: skip
_STAR = (
    (0.0, -1.0), (0.2469, -0.3398), (0.9511, -0.3090), (0.3994, 0.1298), (0.5878, 0.8090),
    (0.0, 0.42), (-0.5878, 0.8090), (-0.3994, 0.1298), (-0.9511, -0.3090), (-0.2469, -0.3398),
)  # fmt: skip


@lru_cache(maxsize=4096)
def digit_mask(digit: int, face: Face) -> np.ndarray:
    """uint8 [height, width] of 255 where it is covered; with room for the stroke, as slim as it is."""
    room = face.stroke / 2 + 0.5
    rows, cols = int(face.height + 2 * room), int(face.width + abs(face.slant) * face.height + 2 * room)
    y, x = _grid(rows, cols)
    # Slanted about the middle of the box, so that a digit stays where it stands.
    x = x + face.slant * (y - rows / 2) - (cols - face.width) / 2
    y = y - (rows - face.height) / 2
    inside = np.zeros(x.shape, bool)
    for line in _DIGITS[digit][face.design].split("|"):
        points = [(px * face.width / 4, py * face.height / 6) for px, py in _points(line)]
        for start, end in pairwise(points):
            inside |= _squared_distance(x, y, start, end) <= (face.stroke / 2) ** 2
    mask = _covered(inside)
    used = np.flatnonzero(mask.any(0))
    return mask[:, used[0] : used[-1] + 1]


@lru_cache(maxsize=256)
def shape_mask(shape: str, radius: int) -> np.ndarray:
    """uint8 [2 * radius + 2, 2 * radius + 2] of 255 where it is covered. Raises ValueError for another shape."""
    side = 2 * radius + 2
    y, x = _grid(side, side)
    x, y = (x - side / 2) / radius, (y - side / 2) / radius
    squared = x * x + y * y
    if shape == "circle":
        inside = squared <= 1
    elif shape == "square":
        inside = (abs(x) <= 0.9) & (abs(y) <= 0.9)
    elif shape == "triangle":
        inside = _inside(x, y, ((0, -1), (1, 1), (-1, 1)))
    elif shape == "star":
        inside = _inside(x, y, _STAR)
    elif shape == "cross":
        inside = ((abs(x) <= 0.4) | (abs(y) <= 0.4)) & (abs(x) <= 1) & (abs(y) <= 1)
    elif shape == "ring":
        inside = (squared <= 1) & (squared >= 0.3)
    else:
        raise ValueError(f"shape={shape!r}: one of circle, square, triangle, star, cross, ring")
    return _covered(inside)


def _grid(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """y and x of the points of all pixels, float64 [rows * _POINTS, cols * _POINTS]."""
    y = (np.arange(rows * _POINTS) + 0.5) / _POINTS
    x = (np.arange(cols * _POINTS) + 0.5) / _POINTS
    return np.broadcast_to(y[:, None], (len(y), len(x))), np.broadcast_to(x[None, :], (len(y), len(x)))


def _covered(inside: np.ndarray) -> np.ndarray:
    """How much of each pixel, of 255."""
    rows, cols = inside.shape[0] // _POINTS, inside.shape[1] // _POINTS
    counts = inside.reshape(rows, _POINTS, cols, _POINTS).sum((1, 3))
    mask = (counts * 255 // _POINTS**2).astype(np.uint8)
    mask.setflags(write=False)
    return mask


def _points(line: str) -> list[_Point]:
    """Of a line of _DIGITS, its curves as many short pieces."""
    points: list[_Point] = []
    bend: _Point | None = None
    for text in line.split():
        px, py = map(float, text.removeprefix("~").split(","))
        if text.startswith("~"):
            bend = px, py
            continue
        if bend is not None:
            start = points[-1]
            points += [_on_curve(start, bend, (px, py), step / _CURVE_STEPS) for step in range(1, _CURVE_STEPS)]
            bend = None
        points.append((px, py))
    return points


def _on_curve(start: _Point, bend: _Point, end: _Point, t: float) -> _Point:
    """At `t`, from 0 to 1, of a quadratic Bezier curve."""
    s = 1 - t
    weights = s * s, 2 * s * t, t * t
    px = weights[0] * start[0] + weights[1] * bend[0] + weights[2] * end[0]
    py = weights[0] * start[1] + weights[1] * bend[1] + weights[2] * end[1]
    return px, py


def _squared_distance(x: np.ndarray, y: np.ndarray, start: _Point, end: _Point) -> np.ndarray:
    """From each point to the stretch between two others."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = np.clip(along, 0, 1)
    off_x, off_y = x - (start[0] + along * dx), y - (start[1] + along * dy)
    return np.asarray(off_x * off_x + off_y * off_y)


def _inside(x: np.ndarray, y: np.ndarray, corners: Sequence[_Point]) -> np.ndarray:
    """Whether points lie in a polygon: rays to the right cross its border an odd number of times."""
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if ay == by:
            continue
        crosses = ((y < ay) != (y < by)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
        inside ^= crosses
    return inside
