"""What a scene shows, and the words for it. Notable choices:

- two of four quadrants hold a figure each, half of the figures are shapes in a colour, half are two digits;
- some colour-shape pairs and pairs of digits are withheld: training never shows one, so that what is asked of them
  tells whether a model puts together what it knows apart;
- which of the other scenes are held out is decided by a hash of the caption, hence the same for every seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from gristmill.synth.draw import Draw

PLACES = ("top left", "top right", "bottom left", "bottom right")
COLOURS = {
    "red": (220, 30, 30),
    "blue": (40, 60, 220),
    "green": (30, 160, 50),
    "yellow": (235, 215, 40),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "pink": (245, 130, 180),
    "brown": (120, 75, 40),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
WITHHELD_PAIRS = frozenset(
    {("red", "star"), ("blue", "cross"), ("green", "circle"), ("pink", "square"), ("brown", "triangle")}
)
WITHHELD_DIGITS = frozenset({"07", "13", "29", "38", "46", "55", "64", "72", "81", "90"})
NOTHING = "nothing"
_HELD_OUT = 1 / 8  # of scenes without a withheld figure, and of sentences

Part = Literal["train", "held_out", "withheld"]
"""Scenes to train on; held out, of the same figures; of withheld figures alone."""


@dataclass(frozen=True)
class Figure:
    """A shape in a colour, or two `digits`, in one of PLACES."""

    place: int
    colour: str = ""
    shape: str = ""
    digits: str = ""

    def __str__(self) -> str:
        """`red circle`, `text 3 8`."""
        return f"text {' '.join(self.digits)}" if self.digits else f"{self.colour} {self.shape}"

    @property
    def is_withheld(self) -> bool:
        """Whether training never shows it."""
        return self.digits in WITHHELD_DIGITS or (self.colour, self.shape) in WITHHELD_PAIRS


Scene = tuple[Figure, ...]
"""In the order of their places, of which no two are the same."""


def caption(scene: Scene) -> str:
    """All that it shows, place by place."""
    return " ".join(f"{PLACES[figure.place]} {figure}" for figure in scene)


def shown_at(scene: Scene, place: int) -> str:
    """The words for what is there."""
    return next((str(figure) for figure in scene if figure.place == place), NOTHING)


def part_of(scene: Scene) -> Part | None:
    """None: of a withheld figure and of another, which is in no part."""
    withheld = [figure.is_withheld for figure in scene]
    if any(withheld):
        return "withheld" if all(withheld) else None
    return "held_out" if is_held_out(caption(scene)) else "train"


def is_held_out(text: str) -> bool:
    """Whether a text is one of the eighth that nothing is trained on, by its hash alone."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return number < _HELD_OUT * 2**64


def drawn_figure(draw: Draw, place: int, *, withheld: bool = False) -> Figure:
    """Of those that are withheld, or of the others."""
    if draw.chance(0.5):
        if withheld:
            return Figure(place, digits=draw.pick(sorted(WITHHELD_DIGITS)))
        digits = f"{draw.below(100):02}"
        while digits in WITHHELD_DIGITS:
            digits = f"{draw.below(100):02}"
        return Figure(place, digits=digits)
    return Figure(place, *drawn_pair(draw, withheld=withheld))


def drawn_pair(draw: Draw, *, withheld: bool) -> tuple[str, str]:
    """A colour and a shape, which are withheld together, or are not."""
    if withheld:
        return draw.pick(sorted(WITHHELD_PAIRS))
    pair = draw.pick(tuple(COLOURS)), draw.pick(SHAPES)
    while pair in WITHHELD_PAIRS:
        pair = draw.pick(tuple(COLOURS)), draw.pick(SHAPES)
    return pair


def drawn_scene(draw: Draw, part: Part) -> Scene:
    """Two figures in two places."""
    while True:
        places = sorted(draw.shuffled(range(len(PLACES)))[:2])
        scene = tuple(drawn_figure(draw, place, withheld=part == "withheld") for place in places)
        if part_of(scene) == part:
            return scene
